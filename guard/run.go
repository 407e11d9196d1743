package guard

import (
	"context"
	"sync/atomic"
	"time"
)

// run is one execution of the caller's function, and the context that the function gets
// (context.go).
type run struct {
	context.Context //nolint:containedctx // the caller's; a run is a context

	batch   *batch        // those of its device that it shares its fate with
	allowed *permission   // what it started on
	started time.Duration // on the guard's clock

	index   int32                   // in the batch, guarded by the device's lock
	state   atomic.Int32            // finished or left, when Run has let go of it
	derived atomic.Pointer[derived] // the standard context behind it, if there has to be one
	outer   atomic.Pointer[run]     // the run that it is nested in, or itself where it is in none; once looked up
}

const (
	finished int32 = 1 + iota // the function returned before anybody told it to stop
	reported                  // it goes on a timeout after that, and the observers were told
	left                      // or it returned after that
)

// begin makes r a run in flight on the permission that is there.
func (d *device) begin(r *run, now time.Duration) {
	r.batch, r.allowed, r.started = d.live, d.perm, now
	if len(d.live.runs) == 0 {
		d.planWatch(now)
	}
	d.live.add(r)
}

// end lets go of r and returns why it had been told to stop, nil where it had not. Where it had not,
// both clocks are looked at: work that comes back after its line is denied even if no timer has
// fired (S6).
func (r *run) end() *stop {
	if r.batch.stop.Load() == nil && r.batch.device.finish(r) {
		r.cancel(nil)
		return nil
	}
	return r.leave()
}

// finish takes r out of those in flight, and tells whether it could: not where it has been told
// to stop.
func (d *device) finish(r *run) bool {
	now := d.guard.clock.now()
	d.lockAt(now)
	if r.batch.stop.Load() != nil {
		d.unlock(now)
		return false
	}
	r.batch.remove(r)
	r.state.Store(finished)
	d.unlockRun(now, d.steady(now))
	return true
}

// leave lets go of a run that was told to stop. It takes no lock, so that all can leave at once,
// unless somebody wants to hear who lingers; the last one brings the device to rest.
func (r *run) leave() *stop {
	d, s := r.batch.device, r.batch.stop.Load()
	if d.guard.events != nil {
		now := d.lock()
		d.late.returned(r)
		r.state.Store(left)
		d.unlock(now)
	}
	r.state.Store(left)
	r.cancel(s.why)
	if d.leaving.Add(-1) == 0 {
		d.unlock(d.lock())
	}
	return s
}

// check is nil while the run's permission is live. A no is final: a run whose line is found to
// be over is stopped here and now.
func (r *run) check() error {
	d := r.batch.device
	wide := d.guard.orgDenial.Load()
	// In this order: the line of a run that is found not to have been told to stop afterwards was its own.
	live := d.guard.clock.now() < time.Duration(d.line.Load()) && (wide == nil || wide.seq < r.allowed.seq)
	if ended, err := r.verdict(); ended || live {
		return err
	}
	d.unlock(d.lock())
	_, err := r.verdict() // nil: a newer ALLOW has come first
	return err
}

// verdict tells whether r has ended, and with what.
func (r *run) verdict() (ended bool, err error) {
	if r.state.Load() == finished {
		return true, errOver
	}
	if s := r.batch.stop.Load(); s != nil {
		return true, s.err
	}
	return false, nil
}

// lingering is who was told to stop and has not returned, for the observers: those that go on a
// timeout later are reported. Each knows its index.
type lingering struct {
	runs []*run
	look time.Duration // when the next of them is to be reported; 0: none is
}

func (d *device) linger(runs []*run, now time.Duration) {
	if d.late == nil {
		d.late = &lingering{}
	}
	for _, r := range runs {
		r.index = int32(len(d.late.runs)) //nolint:gosec // so many goroutines do not fit into any memory
		d.late.runs = append(d.late.runs, r)
	}
	if d.late.look == 0 {
		d.late.look = now + d.guard.timeout
	}
}

// returned takes r from those that linger; nobody who keeps a context of theirs keeps the others.
func (l *lingering) returned(r *run) { l.runs = without(l.runs, r) }

// reportOverruns names every run that still goes on a timeout after it was told to stop.
func (d *device) reportOverruns(now time.Duration) {
	if d.late == nil || d.late.look == 0 || now < d.late.look {
		return
	}
	d.late.look = 0
	for _, r := range d.late.runs {
		s := r.batch.stop.Load()
		switch at := s.at + d.guard.timeout; {
		case r.state.Load() == reported:
		case now >= at:
			r.state.Store(reported)
			d.guard.events.enqueue(r.overran(s, now))
		case d.late.look == 0 || at < d.late.look:
			d.late.look = at
		}
	}
}

func (r *run) overran(s *stop, now time.Duration) Event {
	return Event{
		Kind: EventOverran, DeviceID: r.batch.device.id, Decision: stopDecision(s.err), AllowedBy: r.allowed.decision.RequestID,
		Err: s.err, Took: now - r.started, After: now - s.at,
	}
}

// stopDecision is the decision behind a stop; a closed guard has none.
func stopDecision(err error) Decision {
	if denied, ok := err.(*DeniedError); ok { //nolint:errorlint // stops are never wrapped
		return denied.Decision
	}
	return Decision{}
}
