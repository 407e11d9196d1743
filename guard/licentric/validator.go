package licentric

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/internal/httpapi"
)

// Validator returns a guard.Validator that asks whether the licence whose key is licenseKey is in
// order for a device. The device id is the machine's fingerprint, unless WithFingerprint says
// otherwise. The package comment says which answers make which decision, and when heartbeats are
// sent. Make one for each licence and keep it: it knows when the last heartbeats were sent.
//
// There is no error here: with an option that is refused, a key that no header can carry or an API
// key in the place of the licence's, guard.New, guard.Fallback and guard.All refuse the validator,
// and without them it denies every device INVALID_ORG_KEY, with the Reason.
func (c *Client) Validator(licenseKey string, opts ...ValidatorOption) guard.Validator {
	v := &validator{client: c}
	v.flaw = v.configure(licenseKey, opts)
	return v
}

// validator is what Client.Validator returns. The key is in closures, where fmt cannot see it.
type validator struct {
	client *Client
	cfg    validatorConfig
	flaw   error // why nothing is asked; nil: it is

	beat    request // a heartbeat, but for the machine's id
	secrets httpapi.Secrets
	ask     func(ctx context.Context, params ValidateParams) (Validation, *Error)
	pulse   *pulse
}

func (v *validator) configure(licenseKey string, opts []ValidatorOption) error {
	for i, o := range opts {
		if o == nil {
			return fmt.Errorf("licentric: Validator: option %d is nil", i+1)
		}
		if err := o.applyOnline(&v.cfg); err != nil {
			return err
		}
	}
	if strings.HasPrefix(licenseKey, "lk_live_") || strings.HasPrefix(licenseKey, "lk_test_") {
		return errors.New("licentric: Validator: that is an API key, which New takes; a licence key is wanted")
	}
	beat, fail := v.client.licensed(opHeartbeat, licenseKey)
	if fail != nil {
		return errors.New("licentric: Validator: " + fail.Message)
	}
	v.beat, v.secrets = beat, beat.secrets
	v.ask = func(ctx context.Context, params ValidateParams) (Validation, *Error) {
		return v.client.validate(ctx, v.secrets, licenseKey, params)
	}
	v.pulse = newPulse(v.cfg.onlineConfig)
	return nil
}

// Flaw is what guard.New asks for.
func (v *validator) Flaw() error { return v.flaw }

// String names the client and nothing else, so that a validator may be logged.
func (v *validator) String() string { return "licentric.Validator(" + v.client.String() + ")" }

// GoString is String, for %#v.
func (v *validator) GoString() string { return v.String() }

// Validate asks whether the device may execute, now. A denial that the service has decided on
// comes with a nil error, and so does INVALID_DEVICE_ID, for which nobody is asked. «Could not
// decide» comes as SYSTEM_UNAVAILABLE and an *Error that matches guard.ErrUnavailable.
func (v *validator) Validate(ctx context.Context, deviceID string) (guard.Decision, error) {
	if strings.TrimSpace(deviceID) == "" {
		return guard.Decision{Code: guard.CodeInvalidDeviceID, Reason: "the device id is blank"}, nil
	}
	if v.flaw != nil {
		return guard.Decision{Code: guard.CodeInvalidOrgKey, Reason: v.flaw.Error()}, nil //nolint:nilerr // a denial is a value
	}
	fingerprint := v.cfg.fingerprintOf(deviceID)
	if err := checkFingerprint(fingerprint, v.secrets); err != nil {
		return guard.Decision{Code: guard.CodeInvalidDeviceID, Reason: err.Error()}, nil //nolint:nilerr // a denial is a value
	}
	asked := v.pulse.tick()
	d, answer, fail := v.question(ctx, deviceID, fingerprint)
	switch {
	case fail != nil:
		return d, fail
	case answer.Code == CodeHeartbeatRequired:
		return v.revive(ctx, deviceID, fingerprint, d, answer, asked), nil
	case d.Allowed:
		d.Reason += failed(v.keepAlive(ctx, fingerprint, answer))
		if ctx.Err() != nil { // the heartbeat took the caller's time: nothing may be allowed any more
			d, fail = unavailable((&reply{op: opValidate}).lost(ctx, v.beat, context.Cause(ctx)))
			return d, fail
		}
	}
	return d, nil
}

// question asks once. The error is nil where the service has decided.
func (v *validator) question(ctx context.Context, deviceID, fingerprint string) (guard.Decision, Validation, *Error) {
	params := ValidateParams{Fingerprint: fingerprint, Entitlements: v.cfg.entitlements}
	answer, fail := v.ask(ctx, params)
	if fail == nil {
		return v.judge(answer, deviceID, fingerprint), answer, nil
	}
	if code := refusedBy(fail); code != "" {
		return guard.Decision{Code: code, RequestID: fail.RequestID, Reason: fail.Code}, Validation{Code: Code(fail.Code)}, nil
	}
	d, fail := unavailable(fail)
	return d, Validation{}, fail
}

// refusedBy is what an error of the API's says where the service might as well have said it in an answer;
// "" where it did not decide. It was asked and has refused: nobody may run by a file because of that.
func refusedBy(fail *Error) guard.Code {
	code := Code(fail.Code)
	switch {
	case fail.undecided || code == "" || code == CodeValid || code == Code(guard.CodeAllow):
		return ""
	case code.denies():
		return code.Guard()
	}
	switch fail.Status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound:
		return CodeNotFound.Guard()
	case http.StatusUnprocessableEntity:
		return CodeMachineLimitExceeded.Guard()
	}
	return ""
}

// judge makes a decision of an answer that was understood.
func (v *validator) judge(answer Validation, deviceID, fingerprint string) guard.Decision {
	d := guard.Decision{Code: answer.Code.Guard(), RequestID: answer.RequestID}
	if answer.Code.denies() || answer.Valid {
		d.Reason = string(answer.Code) // else Code says it
	}
	if answer.Machine.Fingerprint == fingerprint {
		d.DeviceID = deviceID
	}
	if !answer.Valid || answer.Code == CodeExpired && !v.cfg.expired {
		return d
	}
	if code, lacking := v.cfg.lacks(answer.Entitlements); lacking {
		d.Code = guard.CodeEntitlementExpired
		d.Reason += ", but the entitlement " + strconv.Quote(code) + " does not stand in the answer"
		return d
	}
	d.Allowed, d.Code = true, guard.CodeAllow
	// The licence's end is the service's word too. Where it is past and the service says VALID
	// nevertheless, one of two clocks is wrong, or the policy looks at more than the end. Who lets an
	// expired licence go on must not be stopped at that very moment.
	if end := answer.License.ExpiresAt; answer.Code == CodeValid && !v.cfg.expired && end.After(time.Now()) {
		d.ExpiresAt = end
	}
	return d
}

// unavailable is the decision of a question that got no decision. A refusal that is none of the
// device, such as a bad request, is one too.
func unavailable(fail *Error) (guard.Decision, *Error) {
	undecided := *fail
	undecided.undecided = true
	return guard.Decision{
		Code:       guard.CodeSystemUnavailable,
		RequestID:  fail.RequestID,
		Reason:     fail.what(),
		RetryAfter: fail.RetryAfter,
	}, &undecided
}
