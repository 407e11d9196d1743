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

// LookAt has one look at a task that may be parked, and tells whether there is to be another.
func LookAt(i *asynq.Inspector, queue, id string) (again bool, err error) {
	p := &parking{returns: newReturns(i, time.Hour), parkedTask: parkedTask{queue, id}}
	return p.unarchive()
}

// Left is how many parked tasks there are in the archive of a queue.
func Left(i *asynq.Inspector, queue string) (int, error) {
	ids, err := newReturns(i, time.Hour).left(queue)
	return len(ids), err
}
