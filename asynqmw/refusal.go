package asynqmw

import (
	"errors"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/guard"
)

// refusal is what asynq gets for a task that the guard has refused or stopped. Configure knows it by
// its type, so that it is no failure of the task.
type refusal struct {
	why    error         // the guard's error; a stop has the handler's error in it
	delay  time.Duration // how long the task stays away
	after  time.Duration // the part of it that the authority has asked for; 0: none
	parked time.Time     // asynq archives it, and it is put back then; zero: neither
	lost   bool          // asynq archives it, and nobody puts it back
}

// The text of a refusal of a task that is to be put back begins with parkedMark and the time. asynq keeps
// it with the archived task, where a later process finds it.
const (
	parkedMark = "asynqmw: parked until "
	parkedTime = "2006-01-02T15:04:05Z" // always as long
)

func (r *refusal) Error() string {
	if !r.parked.IsZero() {
		return parkedMark + r.parked.UTC().Format(parkedTime) + ": " + r.why.Error()
	}
	return "asynqmw: " + r.why.Error()
}

// Is and As stand in the place of an Unwrap, past which a handler's SkipRetry or RevokeTask would have
// asynq archive or delete a task whose handler was told to stop.
func (r *refusal) Is(target error) bool {
	return target != asynq.SkipRetry && target != asynq.RevokeTask && errors.Is(r.why, target)
}

// As is for errors.As.
func (r *refusal) As(target any) bool { return errors.As(r.why, target) }

// asRefusal finds the refusal in what a handler returned to asynq; nil where there is none.
func asRefusal(err error) *refusal {
	r := (*refusal)(nil)
	errors.As(err, &r)
	return r
}

// parkedUntil finds out by the text that asynq has kept whether a task was archived to be put back, and when.
func parkedUntil(lastErr string) (due time.Time, parked bool) {
	_, text, parked := strings.Cut(lastErr, parkedMark) // somebody outside may have wrapped it
	if !parked || len(text) < len(parkedTime) {
		return time.Time{}, false
	}
	due, err := time.Parse(parkedTime, text[:len(parkedTime)])
	return due, err == nil
}

// refuse makes the refusal of a task that is not to come again before the authority's Retry-After or
// the interval, and not together with all the others.
func (g *gate) refuse(why error) *refusal {
	r := &refusal{why: why, delay: g.pause()}
	if denied := (*guard.DeniedError)(nil); errors.As(why, &denied) && denied.Decision.RetryAfter > 0 {
		r.after = denied.Decision.RetryAfter + g.pause() - g.interval
		r.delay = max(r.delay, r.after)
	}
	return r
}

// pause is an interval, and up to half of one more.
func (g *gate) pause() time.Duration { return g.interval + rand.N(g.interval/2+1) }
