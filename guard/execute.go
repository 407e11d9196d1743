package guard

import (
	"context"
	"errors"
	"time"
)

// errUnwound is what the observers are told of a function that did not return.
var errUnwound = errors.New("guard: the function panicked or ended its goroutine")

// execute calls the function on the caller's goroutine and lets go of the run, however the
// function ends. It never recovers: a panic and runtime.Goexit go on with their own value. It
// returns why the guard stopped the function, nil where it did not, and what Run returns.
func (r *run) execute(fn func(ctx context.Context) error, began time.Duration) (stopped, err error) {
	called, returned := false, false
	defer func() {
		s := r.end()
		work := err
		if !returned {
			work = errUnwound
		}
		r.tellEnded(s, work)
		if returned {
			stopped, err = r.outcome(s, work, called)
		}
	}()
	if r.tellStarted(began) {
		called = true
		err = fn(r)
	}
	returned = true
	return nil, err
}

// tellStarted tells the observers, and whether the function may still be called when they have
// taken their time over it.
func (r *run) tellStarted(began time.Duration) bool {
	d := r.batch.device
	if d.guard.events == nil {
		return true
	}
	d.guard.events.tell(r.Context, Event{
		Kind: EventStarted, DeviceID: d.id, Decision: *r.allowed.decision, AllowedBy: r.allowed.decision.RequestID,
		Took: r.started - began,
	})
	return r.check() == nil && r.Context.Err() == nil
}

// outcome is what Run returns of a run that has ended.
func (r *run) outcome(s *stop, work error, called bool) (stopped, err error) {
	switch {
	case s == nil && !called:
		return nil, startCause(r.Context)
	case s == nil:
		return nil, work
	}
	if denied, ok := s.err.(*DeniedError); ok && !called {
		before := *denied
		before.InFlight = false
		return &before, &before
	}
	return s.err, s.err.ended(work)
}

// refused tells the observers of a run that did not start.
func (g *Guard) refused(ctx context.Context, deviceID string, err error, took time.Duration) {
	g.events.tell(ctx, Event{Kind: EventRefused, DeviceID: deviceID, Decision: stopDecision(err), Err: err, Took: took})
}

// tellEnded tells the observers of a run that is over.
func (r *run) tellEnded(s *stop, work error) {
	d := r.batch.device
	if d.guard.events == nil {
		return
	}
	now := d.guard.clock.now()
	ev := Event{
		Kind: EventFinished, DeviceID: d.id, Decision: *r.allowed.decision, AllowedBy: r.allowed.decision.RequestID,
		Err: work, Took: now - r.started,
	}
	if s != nil {
		ev.Kind, ev.Decision, ev.Err, ev.After = EventStopped, stopDecision(s.err), s.err.ended(work), now-s.at
	}
	d.guard.events.tell(r.Context, ev)
}
