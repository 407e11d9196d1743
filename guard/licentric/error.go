package licentric

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/internal/httpapi"
)

// The codes that this client uses for itself, of calls that were not sent. The service's own are
// in capitals.
const (
	wordInvalid = "invalid_request"
	wordNoKey   = "no_api_key"
)

// Error is what went wrong with one call; Status tells a bad request (400), a bad key (401), a key
// without the scope (403), what is not there (404), what is there already (409), the limit of
// machines (422) and the limit of requests (429) apart. errors.Is finds guard.ErrUnavailable in it
// where the service could not be asked or its answer is none: no connection, a redirect, 429,
// 5xx, a body that cannot be trusted. A refusal that the service has decided on, and a call that
// was refused unasked, do not match it. The cause, such as context.DeadlineExceeded or an x509
// error, is found by errors.Is and errors.As.
//
// No key is in any of its fields, nor in its cause. An Error is never changed after it was handed
// out.
type Error struct {
	Op         string          // the call: "validate", "activate", "heartbeat" ...
	Status     int             // the HTTP status; 0 when no answer came
	Code       string          // the service's word, such as "VALIDATION_ERROR"; "invalid_request" and "no_api_key" are our own, unasked
	Message    string          // what went wrong, in the service's words or ours
	Details    json.RawMessage // what the service adds, as it came but for keys; nil when it added nothing
	RequestID  string          // the service's own; "" when it gave none
	RetryAfter time.Duration   // how long the service wants to be left alone, at most a day; 0 when it did not say

	undecided bool
	taken     bool   // a heartbeat was answered with 2xx and one JSON object, in words that are not known
	cause     *cause // or nil
}

// cause keeps an error behind a pointer, past which %#v does not look: a transport that is not
// ours may have put anything into it.
type cause struct{ err error }

// Error names the call, the status, the service's code, what went wrong and the request id.
func (e *Error) Error() string {
	message := "licentric: " + e.Op + ": " + e.what()
	if e.RequestID != "" {
		message += " (request " + e.RequestID + ")"
	}
	return message
}

// what is the message without the call and the request id, which decisions have elsewhere.
func (e *Error) what() string {
	var parts []string
	if e.Status != 0 {
		parts = append(parts, "HTTP "+strconv.Itoa(e.Status))
	}
	for _, part := range []string{e.Code, e.Message} {
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

// orNil is e as an error: nil where e is.
func (e *Error) orNil() error {
	if e == nil {
		return nil
	}
	return e
}

// lost is the error of a call whose answer did not come, or not to its end.
func (r *reply) lost(ctx context.Context, q request, err error) *Error {
	err = q.secrets.Lost(ctx, err)
	return &Error{
		Op:         string(r.op),
		Status:     r.status,
		Message:    httpapi.Tidy(err.Error()),
		RetryAfter: r.retryAfter,
		undecided:  true,
		cause:      &cause{err},
	}
}

// unasked is the error of a call that was not sent.
func unasked(o op, code, message string) *Error {
	return &Error{Op: string(o), Code: code, Message: message}
}

// refused is the error of an answer that was understood and is a no.
func (r *reply) refused() *Error {
	e := &Error{
		Op:         string(r.op),
		Status:     r.status,
		Code:       r.word("code"),
		Message:    r.word("error"),
		RequestID:  r.word("requestId"),
		RetryAfter: r.retryAfter,
	}
	if details := r.object.Raw("details"); !absent(details) {
		e.Details = details
	}
	return e
}

// undecided is the error of an answer that is no answer.
func (r *reply) undecided(message string) *Error {
	e := r.refused()
	e.Message, e.undecided = message, true
	return e
}
