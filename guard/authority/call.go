package authority

import (
	"context"
	"strings"
)

// The calls of the API, each from what came in a body to the method that carries it out. They
// decide nothing: what holds over HTTP holds in process, because it is the same method.

// callValidate takes a missing id for an empty one. The request could be read, so it gets a
// decision, and its status is that of a denial.
func callValidate(ctx context.Context, o *Organisation, in request) (any, error) {
	id := ""
	if in.deviceID != nil {
		id = *in.deviceID
	}
	d, _ := o.Validate(ctx, id) // the store's error is not for the client; the code is enough
	return verdict{
		Allowed: d.Allowed, Code: d.Code, RequestID: d.RequestID, DeviceID: d.DeviceID, Reason: d.Reason,
	}, nil
}

// onDevice makes a call of a method that takes one device. A missing or blank id has a word of
// its own on the wire; in process there is no telling a missing one.
func onDevice(
	do func(*Organisation, context.Context, string) (Result, error),
) func(context.Context, *Organisation, request) (any, error) {
	return func(ctx context.Context, o *Organisation, in request) (any, error) {
		if in.deviceID == nil || strings.TrimSpace(*in.deviceID) == "" {
			return nil, refuse(codeMissingParams)
		}
		return do(o, ctx, *in.deviceID)
	}
}

func callList(ctx context.Context, o *Organisation, _ request) (any, error) { return o.List(ctx) }

func callUsage(ctx context.Context, o *Organisation, _ request) (any, error) { return o.Usage(ctx) }

// callRevokeBatch and its twin go by scope or by list.
func callRevokeBatch(ctx context.Context, o *Organisation, in request) (any, error) {
	scoped, err := in.scoped(scopeAllActive)
	if err != nil {
		return nil, err
	}
	if scoped {
		return o.RevokeAllActive(ctx)
	}
	return o.RevokeBatch(ctx, in.deviceIDs)
}

// callUnrevokeBatch reads in parallel with callRevokeBatch.
func callUnrevokeBatch(ctx context.Context, o *Organisation, in request) (any, error) {
	scoped, err := in.scoped(scopeAllRevoked)
	if err != nil {
		return nil, err
	}
	if scoped {
		return o.UnrevokeAllRevoked(ctx)
	}
	return o.UnrevokeBatch(ctx, in.deviceIDs)
}

// callCheckout leaves it to Checkout which plans there are.
func callCheckout(ctx context.Context, o *Organisation, in request) (any, error) {
	if in.plan == nil {
		return nil, refuse(codeMissingParams)
	}
	return o.Checkout(ctx, Plan(*in.plan))
}

// scoped tells whether the batch is for a scope and not for a list. Both at once are refused:
// one of them was not meant, and guessing could revoke a whole organisation.
func (in request) scoped(scope string) (bool, error) {
	switch {
	case in.scope == nil:
		return false, nil
	case in.deviceIDs != nil:
		return false, refuse(codeInvalidParams)
	case *in.scope != scope:
		return false, refuse(codeInvalidScope)
	}
	return true, nil
}
