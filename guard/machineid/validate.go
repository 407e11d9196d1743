package machineid

import (
	"context"
	"net/http"

	"github.com/execguard/execguard/guard"
)

// Validate asks whether the device may execute, now. The package comment says which answers
// make which decision; only an allowed one with a nil error is a yes.
//
// A denial that the service has decided on comes with a nil error, and so does
// INVALID_DEVICE_ID, for which nobody is asked. «Could not decide» comes as SYSTEM_UNAVAILABLE
// and an *Error, in which errors.Is finds guard.ErrUnavailable and what is beneath, such as
// context.DeadlineExceeded. DeviceID is set where the service names the device, then spelled as
// deviceID is.
func (c *Client) Validate(ctx context.Context, deviceID string) (guard.Decision, error) {
	id, err := c.deviceID(deviceID)
	if err != nil {
		return guard.Decision{Code: guard.CodeInvalidDeviceID, Reason: err.Error()}, nil //nolint:nilerr // a denial is a value
	}
	answer, fail := c.call(ctx, opValidate, textBody("deviceId", id))
	if fail == nil {
		decision, doubt := judge(answer, id)
		if doubt == "" {
			if decision.DeviceID != "" {
				decision.DeviceID = deviceID
			}
			return decision, nil
		}
		fail = answer.undecided(opValidate, doubt)
	}
	return guard.Decision{
		Code:       guard.CodeSystemUnavailable,
		RequestID:  fail.RequestID,
		Reason:     fail.what(),
		RetryAfter: fail.RetryAfter,
	}, fail
}

// judge makes a decision of an answer with a status of 2xx or 4xx, or says why it is none. The
// doubts come first: what is left at the end is the one shape of a yes and that of a no.
func judge(r *reply, id string) (guard.Decision, string) {
	d := guard.Decision{
		Code:       r.code(),
		RequestID:  r.word("request_id"),
		Reason:     r.word("reason", "error", "status"),
		RetryAfter: r.retryAfter,
	}
	if r.badKey() {
		d.Code = guard.CodeInvalidOrgKey
		return d, ""
	}
	allowed, decided := r.object.Bool("allowed")
	names, other := r.about(id, allowed)
	switch {
	case !decided:
		return d, "allowed is missing or not a boolean"
	case d.Code == "":
		return d, "the code is missing or not a word"
	case allowed != (d.Code == guard.CodeAllow):
		return d, "allowed and code contradict each other"
	case !r.decides(allowed):
		return d, "such a decision does not come with this status"
	case other:
		return d, "the answer is about another device"
	}
	if names {
		d.DeviceID = id
	}
	if d.Reason == string(d.Code) {
		d.Reason = ""
	}
	d.Allowed = allowed
	return d, ""
}

// decides tells whether the status can carry the decision. Whether a denial comes with 200 or
// with 4xx the service does not say; a yes comes with 200.
func (r *reply) decides(allowed bool) bool {
	return r.status == http.StatusOK || r.status >= http.StatusBadRequest && !allowed
}

// badKey tells whether the answer is the API's error for a key that it does not know: what it
// sends in place of a decision, not beside one.
func (r *reply) badKey() bool {
	return r.status == http.StatusUnauthorized && r.word("error") == "invalid_org_key" &&
		r.object.Raw("allowed") == nil && r.object.Raw("code") == nil
}

// about tells whether the answer names the device, and whether it names another one. A denial
// of a device that is not known may name it null; a yes for null is a yes for nobody.
func (r *reply) about(id string, allowed bool) (names, other bool) {
	raw := r.object.Raw("deviceId")
	if raw == nil {
		return false, false
	}
	if string(raw) == "null" {
		return false, allowed
	}
	text, ok := r.object.Text("deviceId")
	names = ok && string(text) == id
	return names, !names
}
