package guard

import (
	"context"
	"sync/atomic"
	"time"
)

// run is one execution of the caller's function.
type run struct {
	device  *device
	outer   *run                    // the run that the caller's context stands in, perhaps of another guard
	ctx     context.Context         //nolint:containedctx // the one it hands to the function
	cancel  context.CancelCauseFunc // calls nobody's code
	release context.CancelFunc      // calls the caller's context
	stop    atomic.Pointer[stop]    // why it has to stop; nil: it may go on. Written once, under device.mu
	over    atomic.Bool             // Run has let go of it

	allowed *permission   // what it started on; written before the function is called
	started time.Duration // likewise

	// Guarded by device.mu.
	list       *runs
	prev, next *run
	overran    bool // reported
}

// stop is why and when runs were told to stop; those stopped together share one.
type stop struct {
	err stopError
	at  time.Duration
}

// runs is a list of runs in flight: joining and leaving it cost no allocation, and telling all
// to stop is one walk. A tree of contexts under one parent would do the same four times slower
// and hold the parent's lock meanwhile.
type runs struct {
	first *run
	n     int
}

func (l *runs) add(r *run) {
	r.list, r.prev, r.next = l, nil, l.first
	if l.first != nil {
		l.first.prev = r
	}
	l.first = r
	l.n++
}

func (l *runs) remove(r *run) {
	if r.prev == nil {
		l.first = r.next
	} else {
		r.prev.next = r.next
	}
	if r.next != nil {
		r.next.prev = r.prev
	}
	r.list, r.prev, r.next = nil, nil, nil
	l.n--
}

// take moves every run of other to l.
func (l *runs) take(other *runs) {
	for r := other.first; r != nil; {
		next := r.next
		other.remove(r)
		l.add(r)
		r = next
	}
}

// check is nil while the run's permission is live. A no is final: a run whose line is found to
// be over is stopped here and now.
func (r *run) check() error {
	if s := r.stop.Load(); s != nil {
		return s.err
	}
	if r.over.Load() {
		return errOver
	}
	d := r.device
	wide := d.guard.orgDenial.Load()
	if d.guard.clock.now() < time.Duration(d.line.Load()) && (wide == nil || wide.seq < r.allowed.seq) {
		return nil
	}
	d.unlock(d.lock())
	if s := r.stop.Load(); s != nil {
		return s.err
	}
	if r.over.Load() {
		return errOver
	}
	return nil // a newer ALLOW has come first
}

// begin makes r a run in flight on the permission that is there.
func (d *device) begin(r *run, now time.Duration) {
	r.allowed, r.started = d.perm, now
	if d.live.n == 0 {
		d.planWatch(now)
	}
	d.live.add(r)
}

// end lets go of r and returns why it had been told to stop, nil where it had not. It looks at
// both clocks: work that comes back after its line is denied even if no timer has fired (S6).
func (r *run) end() (s *stop, now time.Duration) {
	d := r.device
	now = d.lock()
	r.list.remove(r)
	r.over.Store(true)
	d.unlock(now)
	r.letGo()
	return r.stop.Load(), now
}

// reportOverruns names every run that still goes on a timeout after it was told to stop.
func (d *device) reportOverruns(now time.Duration) {
	d.overrun = 0
	for r := d.stopped.first; r != nil; r = r.next {
		if r.overran {
			continue
		}
		s := r.stop.Load()
		if at := s.at + d.guard.timeout; now < at {
			if d.overrun == 0 || at < d.overrun {
				d.overrun = at
			}
			continue
		}
		r.overran = true
		d.guard.events.enqueue(Event{
			Kind: EventOverran, DeviceID: d.id, Decision: stopDecision(s.err), Err: s.err,
			Took: now - r.started, After: now - s.at,
		})
	}
}

// stopDecision is the decision behind a stop; a closed guard has none.
func stopDecision(err error) Decision {
	if denied, ok := err.(*DeniedError); ok { //nolint:errorlint // stops are never wrapped
		return denied.Decision
	}
	return Decision{}
}
