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
	device *device
	ctx    context.Context //nolint:containedctx // the caller's, for the length of his call
	fn     func(ctx context.Context) error

	holding bool   // the device, until release
	lasting bool   // hold it while the function runs, too, and come back (Keep)
	patient bool   // wait for the device's turn to ask (Keep)
	after   uint64 // a Keep that did not wait for an ALLOW starts on one only if it was sent after this
}

// reuse makes r a run in flight on a permission that is there already, if there is one. With
// reuse, that is the way of nearly every Run: it looks at the clocks, and then once at the device.
func (g *Guard) reuse(r *run, deviceID string) bool {
	if g.maxAge == 0 || r.Context.Err() != nil {
		return false
	}
	now := g.clock.now()
	d := g.registry.lock(deviceID)
	if d == nil {
		return false
	}
	d.update(now)
	if !d.reusable(now) {
		d.unlock(now)
		return false
	}
	steady := d.steady(now)
	d.begin(r, now)
	d.demanded(now)
	d.unlockRun(now, steady && d.wakeAt <= d.due)
	return true
}

// enter refuses what needs no question, and holds the device.
func (a *attempt) enter(deviceID string) error {
	if a.fn == nil {
		return errNoFunction
	}
	if err := a.guard.refusal(deviceID); err != nil {
		a.guard.refused(a.ctx, deviceID, err, 0)
		return err
	}
	if a.ctx.Err() != nil {
		return startCause(a.ctx)
	}
	a.hold(deviceID)
	return nil
}

// refusal is why nothing can start, whatever the authority says.
func (g *Guard) refusal(deviceID string) error {
	if g.closed.Load() {
		return ErrClosed
	}
	if strings.TrimSpace(deviceID) == "" {
		return &DeniedError{DeviceID: deviceID, Decision: Decision{
			Code: CodeInvalidDeviceID, Reason: "the device id is empty or blank",
		}}
	}
	return nil
}

// hold finds the device or makes it, and keeps it from being forgotten until release.
func (a *attempt) hold(deviceID string) {
	s := a.guard.registry.stripe(deviceID)
	s.mu.Lock()
	defer s.mu.Unlock()
	a.device, a.holding = s.get(a.guard, deviceID), true
	a.device.held++
}

func (a *attempt) release() {
	if !a.holding {
		return
	}
	now := a.device.lock()
	a.letGo()
	a.device.unlock(now)
}

// letGo is release for who has the lock.
func (a *attempt) letGo() {
	a.holding = false
	a.device.held--
}

// once waits for a permission and calls the function under it. It returns why the guard refused
// the function or stopped it, nil where it did neither, and what Run returns.
func (a *attempt) once(r *run) (stopped, err error) {
	began := a.guard.clock.now()
	refused, err := a.admit(r)
	switch {
	case err == nil:
		stopped, err = r.execute(a.fn, began)
		a.after = a.guard.seq.Load()
		return stopped, err
	case refused:
		a.guard.refused(a.ctx, a.device.id, err, a.guard.clock.now()-began)
		return err, err
	default:
		return nil, err
	}
}

// admit makes r a run in flight, or says why not, and whether it was the guard that refused it
// and not the caller's own context that ended.
func (a *attempt) admit(r *run) (refused bool, err error) {
	if a.ctx.Err() != nil {
		return false, startCause(a.ctx)
	}
	w, begun, err := a.join(r)
	if err != nil || begun {
		return err != nil, err
	}
	v, seq, err := a.await(w)
	switch {
	case a.guard.closed.Load():
		return true, ErrClosed
	case err != nil:
		return false, err
	case a.ctx.Err() != nil:
		return false, startCause(a.ctx)
	case !v.Allowed:
		return true, v.deniedError(a.device.id)
	}
	if err := a.start(r, seq); err != nil {
		a.device.awaitTold()
		return true, err
	}
	return false, nil
}

// join makes r a run in flight on a permission that is there, if it may start on that, and else
// joins the question that is sent next. r is nil where there is nothing to run.
func (a *attempt) join(r *run) (w *waiter, begun bool, err error) {
	d := a.device
	now := d.lock()
	defer d.unlock(now)
	switch {
	case a.guard.closed.Load():
		return nil, false, ErrClosed
	case r != nil && d.reusable(now):
		a.begin(r, now)
		d.demanded(now)
		return nil, true, nil
	case a.patient && d.permitted(now, a.after+1):
		// The device was allowed on somebody's question that was sent after this Keep was refused.
		a.begin(r, now)
		return nil, true, nil
	case a.patient:
		return d.joinPatiently(now).add(now, true), false, nil
	default:
		return d.join().add(now, false), false, nil
	}
}

// start makes r a run in flight on the ALLOW that was sent as seq, or on a newer one.
func (a *attempt) start(r *run, seq uint64) error {
	d := a.device
	now := d.lock()
	defer d.unlock(now)
	switch {
	case d.guard.closed.Load():
		return ErrClosed
	case !d.permitted(now, seq):
		return d.revoked(seq)
	}
	a.begin(r, now)
	return nil
}

// begin makes r a run in flight. That holds the device, too.
func (a *attempt) begin(r *run, now time.Duration) {
	a.device.begin(r, now)
	if !a.lasting {
		a.letGo()
	}
}

// revoked is why an ALLOW that was sent as seq no longer stands.
func (d *device) revoked(seq uint64) *DeniedError {
	if err := d.overtaking(seq); err != nil {
		return err
	}
	return unavailable(Decision{}, nil, "the ALLOW ran out before the start").deniedError(d.id)
}

// stands is v, unless it is an ALLOW that was overtaken by a denial before its caller saw it.
func (d *device) stands(v *verdict, seq uint64) *verdict {
	now := d.lock()
	defer d.unlock(now)
	if err := d.overtaking(seq); v.Allowed && err != nil {
		return err.verdict()
	}
	return v
}

// await waits for the answer. That calls the caller's context, which is his code: no lock is
// held, and whatever becomes of it, the question loses its caller.
func (a *attempt) await(w *waiter) (v *verdict, seq uint64, err error) {
	answered := false
	defer func() {
		if !answered {
			now := a.device.lock()
			w.leave()
			a.device.unlock(now)
		}
	}()
	if err := a.guard.wait(a.ctx, w); err != nil {
		return nil, 0, err
	}
	answered = true
	if !w.Allowed {
		a.device.awaitTold()
	}
	a.after = w.asOf
	return w.verdict, w.seq, nil
}
