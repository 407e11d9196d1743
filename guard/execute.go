package guard

import (
	"context"
	"errors"
	"time"
)

// errUnwound is what the observers are told of a function that did not return.
var errUnwound = errors.New("guard: the function panicked or ended its goroutine")

// execute calls the function on the caller's goroutine and lets go of the run, however the
// function ends. It never recovers: a panic and runtime.Goexit go on with their own value.
func (a *attempt) execute(r *run, began time.Duration) (stopped, err error) {
	var work error
	called, returned := false, false
	defer func() {
		s, now := r.end()
		a.after = a.guard.seq.Load()
		if !returned {
			work = errUnwound
		}
		a.ended(r, s, work, now)
		if returned {
			stopped, err = a.outcome(s, work, called)
		}
	}()
	if a.tellStarted(r, began) {
		called = true
		work = a.fn(r)
	}
	returned = true
	return nil, nil
}

// tellStarted tells the observers, and whether the function may still be called when they have
// taken their time over it.
func (a *attempt) tellStarted(r *run, began time.Duration) bool {
	if a.guard.events == nil {
		return true
	}
	a.guard.events.tell(a.ctx, Event{
		Kind: EventStarted, DeviceID: a.device.id, Decision: r.allowed.decision, Took: r.started - began,
	})
	return r.check() == nil && a.ctx.Err() == nil
}

// outcome is what Run returns of a run that has ended.
func (a *attempt) outcome(s *stop, work error, called bool) (stopped, err error) {
	switch {
	case s == nil && !called:
		return nil, startCause(a.ctx)
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

// ended tells the observers of a run that is over.
func (a *attempt) ended(r *run, s *stop, work error, now time.Duration) {
	if a.guard.events == nil {
		return
	}
	ev := Event{
		Kind: EventFinished, DeviceID: a.device.id, Decision: r.allowed.decision, Err: work, Took: now - r.started,
	}
	if s != nil {
		ev.Kind, ev.Decision, ev.Err, ev.After = EventStopped, stopDecision(s.err), s.err.ended(work), now-s.at
	}
	a.guard.events.tell(a.ctx, ev)
}
