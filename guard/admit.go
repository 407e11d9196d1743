package guard

import (
	"context"
	"errors"
	"strings"
	"time"
)

var errNoFunction = errors.New("guard: the function is nil")

// attempt is one call of Run, or of Keep, on its way to the function.
type attempt struct {
	guard  *Guard
	device *device         // held until release
	ctx    context.Context //nolint:containedctx // the caller's, for the length of his call
	fn     func(ctx context.Context) error

	patient    bool          // wait for the device's turn to ask (Keep)
	retryAfter time.Duration // and not before this
}

// enter refuses what needs no question, and holds the device.
func (g *Guard) enter(ctx context.Context, deviceID string, fn func(ctx context.Context) error) (*attempt, error) {
	if fn == nil {
		return nil, errNoFunction
	}
	if err := g.refusal(deviceID); err != nil {
		g.refused(ctx, deviceID, err, 0)
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, startCause(ctx)
	}
	d := g.hold(deviceID)
	d.mu.Unlock()
	return &attempt{guard: g, device: d, ctx: ctx, fn: fn}, nil
}

// refusal is why nothing can start, whatever the authority says.
func (g *Guard) refusal(deviceID string) error {
	if g.closed() {
		return ErrClosed
	}
	if strings.TrimSpace(deviceID) == "" {
		return &DeniedError{DeviceID: deviceID, Decision: Decision{
			Code: CodeInvalidDeviceID, Reason: "the device id is empty or blank",
		}}
	}
	return nil
}

// hold returns the device, locked, and keeps it from being forgotten until release.
func (g *Guard) hold(deviceID string) *device {
	for {
		d := g.registry.get(g, deviceID)
		d.mu.Lock()
		if !d.gone {
			d.held++
			return d
		}
		d.mu.Unlock()
	}
}

func (d *device) release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held--
	d.settle(d.guard.clock.now())
}

// once waits for a permission and calls the function under it. It returns why the guard refused
// the function or stopped it, nil where it did neither, and what Run returns.
func (a *attempt) once() (stopped, err error) {
	g, began := a.guard, a.guard.clock.now()
	r := a.newRun()
	if refused, err := a.admit(r); err != nil {
		r.cancel(nil)
		if refused {
			g.refused(a.ctx, a.device.id, err, g.clock.now()-began)
			return err, err
		}
		return nil, err
	}
	return a.execute(r, began)
}

func (a *attempt) newRun() *run {
	r := &run{device: a.device}
	r.outer, _ = runKey.From(a.ctx)
	ctx, cancel := context.WithCancelCause(a.ctx)
	r.ctx, r.cancel = runKey.With(ctx, r), cancel
	return r
}

// admit makes r a run in flight, or says why not, and whether it was the guard that refused it
// and not the caller's own context that ended.
func (a *attempt) admit(r *run) (refused bool, err error) {
	g, d := a.guard, a.device
	d.mu.Lock()
	defer d.mu.Unlock()
	now := g.clock.now()
	if a.ctx.Err() == nil && !g.closed() && d.reusable(now) && d.begin(r, now, 0) {
		d.reuse(now)
		d.settle(now)
		return false, nil
	}
	v, seq, err := a.ask(now)
	now = g.clock.now()
	d.update(now)
	defer d.settle(now)
	switch {
	case g.closed():
		return true, ErrClosed
	case err != nil:
		return false, err
	case a.ctx.Err() != nil:
		return false, startCause(a.ctx)
	case !v.Allowed:
		return true, v.deniedError(d.id)
	case !d.begin(r, now, seq):
		return true, d.revoked(seq)
	}
	return false, nil
}

// revoked is why an ALLOW that was sent as seq no longer stands.
func (d *device) revoked(seq uint64) *DeniedError {
	if err := d.overtaking(seq); err != nil {
		return err
	}
	return unavailable(Decision{}, nil, "the ALLOW ran out before the start").deniedError(d.id)
}

// ask joins a question and waits for the answer. It is called with the device locked and
// returns with it locked; in between it is not.
func (a *attempt) ask(now time.Duration) (verdict, uint64, error) {
	d := a.device
	if a.guard.closed() {
		return verdict{}, 0, ErrClosed
	}
	var q *question
	if a.patient {
		q = d.joinPatiently(now, a.retryAfter)
	} else {
		q = d.join(now)
	}
	q.callers++
	d.settle(now)
	d.mu.Unlock()
	err := a.guard.wait(a.ctx, q)
	d.mu.Lock()
	if err != nil {
		q.leave()
		return verdict{}, 0, err
	}
	for q.into != nil {
		q = q.into
	}
	return q.verdict, q.seq, nil
}

// execute calls the function on the caller's goroutine and lets go of the run, however the
// function ends. It never recovers: a panic and runtime.Goexit go on with their own value.
func (a *attempt) execute(r *run, began time.Duration) (stopped, err error) {
	var work error
	called, returned := false, false
	defer func() {
		s, now := r.end()
		a.ended(r, s, work, now)
		if returned {
			stopped, err = outcome(s, work, called)
		}
	}()
	if a.tellStarted(r, began) {
		called = true
		work = a.fn(r.ctx)
	}
	returned = true
	return nil, nil
}

// tellStarted tells the observers, and whether the permission is still live when they have taken
// their time over it.
func (a *attempt) tellStarted(r *run, began time.Duration) bool {
	if a.guard.events == nil {
		return true
	}
	a.guard.events.tell(a.ctx, Event{
		Kind: EventStarted, DeviceID: a.device.id, Decision: r.allowed.decision, Took: r.started - began,
	})
	return r.check() == nil
}

// outcome is what Run returns of a run that has ended.
func outcome(s *stop, work error, called bool) (stopped, err error) {
	if s == nil {
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
	if g.events != nil {
		g.events.tell(ctx, Event{Kind: EventRefused, DeviceID: deviceID, Decision: stopDecision(err), Err: err, Took: took})
	}
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
