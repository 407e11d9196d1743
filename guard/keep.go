package guard

import (
	"context"
	"errors"
	"time"
)

// Keep is Run for daemons: where a denial refuses fn or stops it, Keep waits until the device is
// allowed again and calls fn again. While it waits it asks once an interval, from a random point
// on, never before the authority's RetryAfter, and at once on a hint; Keeps that wait for one
// device share the question.
//
// Every denial is waited out, a wrong key and an unregistered device too: WithLogger or
// WithObserver tell of it. Keep returns what fn returned without having been denied, the cause of
// ctx when ctx ends while it waits, ErrClosed, or at once a *DeniedError with CodeInvalidDeviceID.
func (g *Guard) Keep(ctx context.Context, deviceID string, fn func(ctx context.Context) error) error {
	a := attempt{guard: g, ctx: ctx, fn: fn, lasting: true}
	if err := a.enter(deviceID); err != nil {
		return err
	}
	defer a.release()
	for {
		stopped, err := a.once(&run{Context: ctx})
		denied := (*DeniedError)(nil)
		if stopped == nil || !errors.As(stopped, &denied) || denied.Decision.Code == CodeInvalidDeviceID {
			return err
		}
		a.patient = true
	}
}

// joinPatiently joins a question that is asked at the device's next turn after the authority's
// RetryAfter: its turn, lest all devices come at the very second that it named.
func (d *device) joinPatiently(now time.Duration) *question {
	floor := max(now, d.floor)
	if d.running() || d.demand { // the device's turn is the watch's, and no Keep's to move
		turn, interval := d.due, d.guard.interval
		if turn <= now { // a clock has leapt over it: the watch is about to ask, and who is refused has had his
			turn = now + interval - (now-turn)%interval
		}
		return d.joinAt(max(floor, turn))
	}
	d.plan(floor, floor, floor+d.guard.interval)
	return d.joinAt(d.due)
}
