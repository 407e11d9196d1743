package machineid

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/internal/httpapi"
)

// The words that this client uses for itself where the service would use its own.
const (
	wordInvalidDeviceID = "invalid_device_id"
	wordNotReported     = "not_reported"
)

// Error is what went wrong with one call. errors.Is finds guard.ErrUnavailable in it where the
// service could not be asked or its answer is none: no connection, a redirect, 429, 5xx, a body
// that cannot be trusted. A refusal that the service has decided on (a bad key, a plan's limit)
// does not match it. The cause, such as context.DeadlineExceeded or an x509 error, is found by
// errors.Is and errors.As.
//
// The organisation key is in none of its fields, and not in its cause either. An Error is never
// changed after it was handed out.
type Error struct {
	Op         string        // the call, as its path below /api/v1/: "devices/register"
	Status     int           // the HTTP status; 0 when no answer came
	Code       string        // the service's word, such as "device_limit_reached"; "" when it gave none
	RequestID  string        // the service's own; "" when it gave none
	RetryAfter time.Duration // how long the service wants to be left alone, at most a day; 0 when it did not say
	Reason     string        // what went wrong, in words

	undecided bool
	cause     *cause // or nil
}

// cause keeps an error behind a pointer, past which %#v does not look: a transport that is not
// ours may have put anything into it.
type cause struct{ err error }

// Error names the call, the status, the service's code, what went wrong and the request id.
func (e *Error) Error() string {
	text := "machineid: " + e.Op + ": " + e.what()
	if e.RequestID != "" {
		text += " (request " + e.RequestID + ")"
	}
	return text
}

// what is the message without the call and the request id, which decisions have elsewhere.
func (e *Error) what() string {
	var parts []string
	if e.Status != 0 {
		parts = append(parts, "HTTP "+strconv.Itoa(e.Status))
	}
	for _, part := range []string{e.Code, e.Reason} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, ": ")
}

// Is matches guard.ErrUnavailable where the service could not be asked or did not decide.
func (e *Error) Is(target error) bool { return target == guard.ErrUnavailable && e.undecided }

// Unwrap gives the cause, or nil.
func (e *Error) Unwrap() error {
	if e.cause == nil {
		return nil
	}
	return e.cause.err
}

// lost is the error of a call whose answer did not come, or not to its end.
func (c *Client) lost(ctx context.Context, o op, status int, err error) *Error {
	err = c.secret.Lost(ctx, err)
	return &Error{Op: string(o), Status: status, Reason: httpapi.Tidy(err.Error()), undecided: true, cause: &cause{err}}
}

// badDeviceID is the error of a call that was not sent.
func badDeviceID(o op, err error) *Error {
	return &Error{Op: string(o), Code: wordInvalidDeviceID, Reason: err.Error()}
}

// refused is the error of an answer that was understood and is a no.
func (r *reply) refused(o op, reason string) *Error {
	return &Error{
		Op:         string(o),
		Status:     r.status,
		Code:       r.word("error", "code", "status"),
		RequestID:  r.word("request_id"),
		RetryAfter: r.retryAfter,
		Reason:     reason,
	}
}

// undecided is the error of an answer that is no answer.
func (r *reply) undecided(o op, reason string) *Error {
	e := r.refused(o, reason)
	e.undecided = true
	return e
}
