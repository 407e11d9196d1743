package guard

import (
	"context"
	"fmt"
	"reflect"
	"strconv"
	"time"
)

// Validator asks an authority whether a device may execute. It is the one seam between the
// guard and the services: machineid.Client, the embedded authority and a Guard are validators.
//
// Validate is called from several goroutines at once. It should return when ctx ends, with a
// decision that allows nothing and the context's error, also when ctx has ended before; a call
// that does not is given up at the guard's timeout, and its answer can no longer allow
// anything. An id that is blank or that it cannot read it denies. guardtest.TestValidator holds
// an implementation to all of that.
//
// A decision and an error may come together: an error beside an allowed decision is a denial, a
// deny code beside an error still stands. Errors must hold no secret, for the guard hands them on.
type Validator interface {
	Validate(ctx context.Context, deviceID string) (Decision, error)
}

// ValidatorFunc makes a Validator of a function.
type ValidatorFunc func(ctx context.Context, deviceID string) (Decision, error)

// Validate calls f.
func (f ValidatorFunc) Validate(ctx context.Context, deviceID string) (Decision, error) {
	return f(ctx, deviceID)
}

// Decision is one answer of an authority. Only Allowed together with CodeAllow lets work run.
type Decision struct {
	Allowed    bool
	Code       Code
	RequestID  string        // the authority's own, never made up; "" when it gave none
	DeviceID   string        // the device it decided about; "" when the authority does not say
	Reason     string        // the authority's own word, where it differs from Code
	RetryAfter time.Duration // how long the authority wants to be left alone, at most a day; 0 when it did not say
	ExpiresAt  time.Time     // the permission ends then at the latest; zero: the authority names no end
}

// verdict is what the guard makes of an answer (S2): a decision that is either a well-formed
// ALLOW or has Allowed == false, and what stood in the way of asking, if anything did.
type verdict struct {
	Decision
	reason error
}

// judge applies S2 to what a validator returned. Whatever is not a well-formed ALLOW or a deny
// code that came with Allowed == false is «could not ask», with a Reason.
func judge(deviceID string, d Decision, err error) *verdict {
	d.RetryAfter = min(max(d.RetryAfter, 0), longest)
	if v := reflect.ValueOf(err); v.Kind() == reflect.Pointer && v.IsNil() {
		// It is not nil, and whoever looks into it will panic.
		err = fmt.Errorf("the error is a nil %T", err)
	}
	if why := nonsense(deviceID, d, err); why != "" {
		d.DeviceID = ""
		return unavailable(d, err, why)
	}
	if d.Code == CodeSystemUnavailable && d.Reason == "" {
		d.Reason = "the authority could not decide"
		if err != nil {
			d.Reason = textOf(err)
		}
	}
	return &verdict{Decision: d, reason: err}
}

// nonsense says what about an answer makes no sense, "" where it does make sense.
func nonsense(deviceID string, d Decision, err error) string {
	switch {
	case d.DeviceID != "" && d.DeviceID != deviceID:
		return "the answer is about another device"
	case d.Allowed && err != nil:
		return "an allowed decision came with an error: " + textOf(err)
	case d.Allowed && d.Code == "":
		return "an allowed decision came without a code"
	case d.Allowed && d.Code != CodeAllow:
		return "an allowed decision came with the code " + strconv.Quote(string(d.Code))
	case !d.Allowed && d.Code == CodeAllow:
		return "a refused decision came with the code ALLOW"
	case d.Code == "" && err != nil:
		return textOf(err)
	case d.Code == "":
		return "the decision has no code"
	}
	return ""
}

// textOf is the error's text, or its type where it has none.
func textOf(err error) string {
	if text := err.Error(); text != "" {
		return text
	}
	return fmt.Sprintf("the validator returned a %T", err)
}

// unavailable is the verdict «could not ask», keeping what the answer said beside it.
func unavailable(d Decision, err error, reason string) *verdict {
	d.Allowed, d.Code, d.Reason, d.ExpiresAt = false, CodeSystemUnavailable, reason, time.Time{}
	return &verdict{Decision: d, reason: err}
}

// verdict is the denial as the answer to another question.
func (e *DeniedError) verdict() *verdict {
	v := &verdict{Decision: e.Decision}
	if e.reason != nil {
		v.reason = e.reason.err
	}
	return v
}

// deniedError makes the error of a verdict that does not allow.
func (v *verdict) deniedError(deviceID string) *DeniedError {
	return &DeniedError{DeviceID: deviceID, Decision: v.Decision, reason: hide(v.reason)}
}
