package guard

import (
	"context"
	"errors"
	"strings"
)

var errNoFunction = errors.New("guard: the function is nil")

// attempt is one call of Run, or of Keep, on its way to the function.
type attempt struct {
	guard  *Guard
	device *device         // held until release
	ctx    context.Context //nolint:containedctx // the caller's, for the length of his call
	fn     func(ctx context.Context) error

	patient bool   // wait for the device's turn to ask (Keep)
	after   uint64 // a Keep that did not wait for an ALLOW starts on one only if it was sent after this
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
	return &attempt{guard: g, device: g.hold(deviceID), ctx: ctx, fn: fn}, nil
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

// hold keeps the device from being forgotten until release.
func (g *Guard) hold(deviceID string) *device {
	for {
		d := g.registry.get(g, deviceID)
		now := d.lock()
		found := !d.gone
		if found {
			d.held++
		}
		d.unlock(now)
		if found {
			return d
		}
	}
}

func (d *device) release() {
	now := d.lock()
	d.held--
	d.unlock(now)
}

// once waits for a permission and calls the function under it. It returns why the guard refused
// the function or stopped it, nil where it did neither, and what Run returns.
func (a *attempt) once() (stopped, err error) {
	began := a.guard.clock.now()
	r := a.newRun()
	refused, err := a.admit(r)
	switch {
	case err == nil:
		return a.execute(r, began)
	case refused:
		r.letGo()
		a.guard.refused(a.ctx, a.device.id, err, a.guard.clock.now()-began)
		return err, err
	default:
		r.letGo()
		return nil, err
	}
}

// admit makes r a run in flight, or says why not, and whether it was the guard that refused it
// and not the caller's own context that ended.
func (a *attempt) admit(r *run) (refused bool, err error) {
	if a.ctx.Err() != nil {
		return false, startCause(a.ctx)
	}
	if a.reuse(r) {
		return false, nil
	}
	v, seq, err := a.ask()
	switch {
	case a.guard.closed():
		return true, ErrClosed
	case err != nil:
		return false, err
	case a.ctx.Err() != nil:
		return false, startCause(a.ctx)
	case !v.Allowed:
		return true, v.deniedError(a.device.id)
	}
	err = a.device.start(r, seq)
	return err != nil, err
}

// reuse makes r a run in flight on a permission that is there already.
func (a *attempt) reuse(r *run) bool {
	d := a.device
	now := d.lock()
	defer d.unlock(now)
	switch {
	case d.reusable(now):
		d.begin(r, now)
		d.demanded(now)
		return true
	case a.patient && !a.guard.closed() && d.permitted(now, a.after+1):
		// The device was allowed on somebody's question that was sent after this Keep was refused.
		d.begin(r, now)
		return true
	}
	return false
}

// start makes r a run in flight on the ALLOW that was sent as seq, or on a newer one.
func (d *device) start(r *run, seq uint64) error {
	now := d.lock()
	defer d.unlock(now)
	switch {
	case d.guard.closed():
		return ErrClosed
	case !d.permitted(now, seq):
		return d.revoked(seq)
	}
	d.begin(r, now)
	return nil
}

// revoked is why an ALLOW that was sent as seq no longer stands.
func (d *device) revoked(seq uint64) *DeniedError {
	if err := d.overtaking(seq); err != nil {
		return err
	}
	return unavailable(Decision{}, nil, "the ALLOW ran out before the start").deniedError(d.id)
}

// stands is v, unless it is an ALLOW that was overtaken by a denial before its caller saw it.
func (d *device) stands(v verdict, seq uint64) verdict {
	now := d.lock()
	defer d.unlock(now)
	if err := d.overtaking(seq); v.Allowed && err != nil {
		return err.verdict()
	}
	return v
}

// ask joins a question and waits for the answer. Waiting calls the caller's context, which is
// his code: no lock is held, and whatever becomes of it, the question loses its caller.
func (a *attempt) ask() (v verdict, seq uint64, err error) {
	w, err := a.join()
	if err != nil {
		return verdict{}, 0, err
	}
	answered := false
	defer func() {
		if !answered {
			now := a.device.lock()
			w.leave()
			a.device.unlock(now)
		}
	}()
	if err := a.guard.wait(a.ctx, w); err != nil {
		return verdict{}, 0, err
	}
	answered = true
	a.after = w.asOf
	return w.verdict, w.seq, nil
}

// join joins the question that is sent next.
func (a *attempt) join() (*waiter, error) {
	d := a.device
	now := d.lock()
	defer d.unlock(now)
	switch {
	case a.guard.closed():
		return nil, ErrClosed
	case a.patient:
		return d.joinPatiently(now).add(now, true), nil
	default:
		return d.join().add(now, false), nil
	}
}
