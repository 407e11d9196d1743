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
// Keep returns what fn returned without having been denied, the cause of ctx when ctx ends while
// it waits, ErrClosed, or at once a *DeniedError with CodeInvalidDeviceID.
func (g *Guard) Keep(ctx context.Context, deviceID string, fn func(ctx context.Context) error) error {
	a, err := g.enter(ctx, deviceID, fn)
	if err != nil {
		return err
	}
	defer a.device.release()
	for {
		stopped, err := a.once()
		denied := (*DeniedError)(nil)
		if stopped == nil || !errors.As(stopped, &denied) || denied.Decision.Code == CodeInvalidDeviceID {
			return err
		}
		a.patient = true
		a.retryAfter = denied.Decision.RetryAfter
	}
}

// joinPatiently joins a question that is asked at the device's next turn, not at once.
func (d *device) joinPatiently(now, retryAfter time.Duration) *question {
	d.plan(now, now, now+d.guard.interval)
	floor := now + retryAfter
	q := d.join(max(d.due, floor))
	q.floor = max(q.floor, floor)
	return q
}
