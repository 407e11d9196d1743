package clerk

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/internal/strictjson"
)

// ValidatorOption changes what a Validator asks for.
type ValidatorOption interface {
	applyValidator(v *validator)
}

type validatorOption func(v *validator)

func (o validatorOption) applyValidator(v *validator) { o(v) }

// WithScope allows a machine only while the machine to stands in its scopes. Given more than once,
// each must stand there. With an id that is none, guard.New, guard.Fallback and guard.All refuse the
// Validator, and without them it allows nothing.
// Default: no scope is asked for.
func WithScope(to string) ValidatorOption {
	return validatorOption(func(v *validator) {
		if err := checkID(to, machinePrefix); err != nil {
			v.flaw = "WithScope: " + err.Error()
			return
		}
		v.scopes = append(v.scopes, to)
	})
}

// Validator returns a guard.Validator that allows the machines that are there. The device id is the
// machine's id, mch_…, and no white space around it is taken away. Each Validate sends one request;
// the package comment says which answers make which decision.
//
// A denial that the service has decided on comes with a nil error, and so does INVALID_DEVICE_ID, for
// which nobody is asked. «Could not decide» comes as SYSTEM_UNAVAILABLE and an *Error or *BodyError,
// in which errors.Is finds guard.ErrUnavailable and what is beneath, such as context.DeadlineExceeded.
func (c *Client) Validator(opts ...ValidatorOption) guard.Validator {
	v := &validator{client: c}
	for i, o := range opts {
		if o == nil {
			v.flaw = fmt.Sprintf("option %d of Validator is nil", i+1)
			continue
		}
		o.applyValidator(v)
	}
	return v
}

type validator struct {
	client *Client
	scopes []string // machines that must all stand in scoped_machines
	flaw   string   // why nothing can be allowed; "" as a rule
}

// Validate asks whether the machine is there, now, and has the scopes.
func (v *validator) Validate(ctx context.Context, deviceID string) (guard.Decision, error) {
	if err := v.check(deviceID); err != nil {
		return guard.Decision{Code: guard.CodeInvalidDeviceID, Reason: err.Error()}, nil //nolint:nilerr // a denial is a value
	}
	if v.flaw != "" {
		return refusal(mistake(opGet, v.flaw))
	}
	_, x, err := v.client.get(ctx, deviceID, reading{})
	if err != nil {
		return refusal(err)
	}
	d := guard.Decision{RequestID: x.trace(), DeviceID: deviceID, Code: guard.CodeDeviceRevoked}
	for _, to := range v.scopes {
		if !inScopes(x.object, to) {
			d.Reason = "the machine " + to + " is not in its scopes"
			return d, nil
		}
	}
	d.Allowed, d.Code = true, guard.CodeAllow
	return d, nil
}

// check says why nobody is asked about the id.
func (v *validator) check(deviceID string) error {
	if v.client.key.secrets.In([]byte(deviceID)) {
		return errors.New("the id contains the secret key")
	}
	return checkID(deviceID, machinePrefix)
}

// inScopes tells whether the machine to stands in scoped_machines. It reads the document and not the
// SDK's struct; wrongMachine has seen that there is nothing but machines in it. A list that is null or
// missing has nobody in it.
func inScopes(o strictjson.Object, to string) bool {
	others, _ := o.Objects("scoped_machines", members()...)
	for _, other := range others {
		if says(other, "id", to) {
			return true
		}
	}
	return false
}

// refusal is the decision of an answer that does not allow: the service's own where the status is
// one that decides, «could not ask» and the error in every other case.
func refusal(err error) (guard.Decision, error) {
	if strange := (*BodyError)(nil); errors.As(err, &strange) {
		return guard.Decision{
			Code: guard.CodeSystemUnavailable, RequestID: strange.TraceID, Reason: strange.what(), RetryAfter: strange.RetryAfter,
		}, err
	}
	failed := (*Error)(nil)
	if !errors.As(err, &failed) { // cannot be: every call returns one of the two
		return guard.Decision{Code: guard.CodeSystemUnavailable, Reason: "the service could not be asked"}, err
	}
	d := guard.Decision{
		Code: codeOf(failed), RequestID: failed.TraceID, Reason: failed.what(), RetryAfter: failed.RetryAfter,
	}
	if d.Code != guard.CodeSystemUnavailable {
		d.Reason = failed.word() // a status other than this code's own cannot be
		return d, nil
	}
	return d, failed.couldNotAsk()
}

// codeOf is what a refusal says about the machine.
func codeOf(e *Error) guard.Code {
	switch {
	case e.undecided:
		return guard.CodeSystemUnavailable
	case e.Status == http.StatusNotFound:
		return guard.CodeDeviceNotFound
	case e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden:
		return guard.CodeInvalidOrgKey
	}
	return guard.CodeSystemUnavailable
}

// Flaw is what guard.New asks for.
func (v *validator) Flaw() error {
	if v.flaw == "" {
		return nil
	}
	return errors.New("clerk: " + v.flaw)
}

// String names the client and the scopes, so that a validator may be logged.
func (v *validator) String() string {
	return fmt.Sprintf("clerk.Validator(%s, scopes %q)", v.client, v.scopes)
}

// GoString is String, for %#v.
func (v *validator) GoString() string { return v.String() }
