package authority

import (
	"context"
	"fmt"

	"github.com/execguard/execguard/guard"
)

// Organisation is one tenant of an Authority, which makes it; the zero value is of no use. Its
// methods are the calls of the API, in process; they wait for nothing but the Store and are safe
// for concurrent use.
type Organisation struct {
	authority *Authority
	id        *string // behind a pointer, so that no fmt verb shows even a part of the key's digest
}

var _ guard.Validator = (*Organisation)(nil)

// Validate decides whether a device may execute now. It implements guard.Validator. Every
// decision has a request id of its own. The error is non-nil only where the Store failed, and
// stands beside a SYSTEM_UNAVAILABLE decision.
func (o *Organisation) Validate(ctx context.Context, deviceID string) (guard.Decision, error) {
	d := guard.Decision{RequestID: newRequestID()}
	r, err := o.authority.store.Load(ctx, *o.id)
	if _, ok := canonical(deviceID); ok {
		d.DeviceID = deviceID // as it was asked about: an answer about another spelling is refused
	}
	if err == nil {
		d.Code = decide(&r, deviceID)
		d.Allowed = d.Code == guard.CodeAllow
		return d, nil
	}
	err = storeError(err)
	if d.Code = decisionCode(err); d.Code != guard.CodeSystemUnavailable {
		return d, nil
	}
	d.Reason = "the authority's store failed"
	return d, err
}

// decide is the table of the package comment, from the second line on.
func decide(r *Record, deviceID string) guard.Code {
	if r.Removed {
		return guard.CodeOrgNotFound
	}
	if code := r.State.code(); code != guard.CodeAllow {
		return code
	}
	if r.Plan.Limit() == 0 {
		return guard.CodePlanNotActive
	}
	id, ok := canonical(deviceID)
	if !ok {
		return guard.CodeInvalidDeviceID
	}
	d, registered := r.Devices[id]
	switch {
	case !registered:
		return guard.CodeDeviceNotFound
	case d.Status != statusActive:
		return guard.CodeDeviceRevoked
	}
	return guard.CodeAllow
}

// SetState switches the whole organisation; the next Validate answers by it.
func (o *Organisation) SetState(ctx context.Context, s State) error {
	if !s.known() {
		return fmt.Errorf("authority: SetState: unknown state %q", s)
	}
	return o.update(ctx, func(r *Record) []string {
		if r.State == s {
			return nil
		}
		r.State = s
		return []string{everyDevice}
	})
}

// SetPlan changes how many devices may be active. Under a plan smaller than what is in use,
// the registered devices keep validating and Usage reports OverLimit.
func (o *Organisation) SetPlan(ctx context.Context, p Plan) error {
	if p.Limit() == 0 {
		return fmt.Errorf("authority: SetPlan: unknown plan %q", p)
	}
	return o.update(ctx, func(r *Record) []string {
		r.Plan = p
		return nil // no decision has changed by it
	})
}

// Subscribe calls hint after every change that may alter a decision: with the device's id, or
// with "" when it concerns every device or more than can be remembered. It fits Guard.Hint.
// Nothing is told when nothing changed, or of a change made by another process.
//
// hint runs on a goroutine of its own that lives while there is something to tell. Hints come
// after the change took effect, in no order, and those for one device that wait are told as
// one. A hint that blocks delays its own successors only; one that panics is dropped and the
// subscription goes on. After cancel no new call begins, but one may still be running.
// A nil hint is never called, and its cancel does nothing.
func (o *Organisation) Subscribe(hint func(deviceID string)) (cancel func()) {
	if hint == nil {
		return func() {}
	}
	return o.authority.hints.subscribe(*o.id, hint)
}

// load reads the organisation for a call that changes nothing.
func (o *Organisation) load(ctx context.Context) (Record, error) {
	r, err := o.authority.store.Load(ctx, *o.id)
	if err != nil {
		return Record{}, storeError(err)
	}
	if r.Removed {
		return Record{}, refuse(codeOrgNotFound)
	}
	return r, nil
}

// refuse is the error for a call that cannot be carried out as it was made, unless something is
// wrong with the organisation, which is said first.
func (o *Organisation) refuse(ctx context.Context, code string) error {
	if _, err := o.load(ctx); err != nil {
		return err
	}
	return refuse(code)
}

// update changes the organisation as one step and then tells the listeners which devices the
// change concerns. change may be called more than once and must set its results anew each time.
func (o *Organisation) update(ctx context.Context, change func(r *Record) (concerned []string)) error {
	var concerned []string
	err := o.authority.store.Update(ctx, *o.id, func(r *Record) error {
		if r.Removed {
			return refuse(codeOrgNotFound)
		}
		if r.Devices == nil { // what a store makes of an empty map is its own affair
			r.Devices = make(map[string]Device)
		}
		concerned = change(r)
		return nil
	})
	if err != nil {
		return storeError(err)
	}
	o.authority.hints.tell(*o.id, concerned)
	return nil
}
