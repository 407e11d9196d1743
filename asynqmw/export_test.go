package asynqmw

import (
	"time"

	"github.com/hibiken/asynq"
)

// ParkedUntil is parkedUntil, for the tests.
var ParkedUntil = parkedUntil

// PutBackAtLast has the last look at a parked task: the time is over after which it is given up.
func PutBackAtLast(i *asynq.Inspector, queue, id string, log asynq.Logger) {
	r, t := newReturns(i, time.Hour), parkedTask{queue, id}
	r.parked[t]++
	p := &parking{returns: r, parkedTask: t, giveUp: time.Now(), place: noPlace, log: log}
	p.putBack()
}
