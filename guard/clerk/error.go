package clerk

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/execguard/execguard/guard"
)

// Error is what went wrong with one call: the service refused it, with a status of 400 to 499 and
// Errors that say why; or it could not be asked or did not decide (no connection, a redirect, 429,
// 5xx), which errors.Is finds as guard.ErrUnavailable; or it was not sent, for what was given to it
// cannot be right: then Status is 0 and guard.ErrUnavailable is not found. Branch on the status; codes
// are for logs. The cause, such as context.DeadlineExceeded or an x509 error, is found by errors.Is and
// errors.As.
//
// No secret is in its fields or its cause: not the keys and tokens that the call knows, and nothing
// that looks like one. An Error is never changed after it was handed out.
type Error struct {
	Op         string        // the call: "get machine"
	Status     int           // the HTTP status; 0 when no answer came
	TraceID    string        // the service's own id of the request; "" when it gave none
	Errors     []Problem     // what the service says; none when it said nothing in its own form
	RetryAfter time.Duration // how long the service wants to be left alone, at most a day; 0 when it did not say
	Reason     string        // what went wrong in this client's words; "" where Errors says it

	undecided bool
	cause     *cause // or nil
}

// Problem is one of the service's errors.
type Problem struct {
	Code        string          // "resource_not_found"
	Message     string          // in a few words
	LongMessage string          // in a sentence
	Meta        json.RawMessage // more about it, an object; nil when there is none
}

// cause keeps an error behind a pointer, past which %#v does not look: a transport that is not
// ours may have put anything into it.
type cause struct{ err error }

// Error names the call, the status, what went wrong and the trace id.
func (e *Error) Error() string {
	return message(e.Op, e.TraceID, e.what())
}

// what is the message without the call and the trace id, which decisions have elsewhere.
func (e *Error) what() string {
	return join(httpStatus(e.Status), e.Reason, e.word())
}

// word is the first of what the service says.
func (e *Error) word() string {
	if len(e.Errors) == 0 {
		return ""
	}
	return join(e.Errors[0].Code, e.Errors[0].Message)
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

// couldNotAsk is the same error, of a call to which a refusal is no answer.
func (e *Error) couldNotAsk() *Error {
	undecided := *e
	undecided.undecided = true
	return &undecided
}

// mistake is the error of a call that was not sent.
func mistake(o op, why string) *Error { return &Error{Op: string(o), Reason: why} }

// BodyError is an answer that is not one of the service's: its body is no JSON, such as a proxy's
// page, or no object, or says what cannot be, such as names twice or another machine than was asked
// about. errors.Is finds guard.ErrUnavailable in it, whatever the status: nobody was asked who knows.
// It holds nothing of the body.
type BodyError struct {
	Op          string        // the call: "get machine"
	Status      int           // the HTTP status, which the body does not bear out
	TraceID     string        // of the header Clerk-Trace-Id, or of a body that could be read; or ""
	ContentType string        // as the answer says; "" when it does not
	RetryAfter  time.Duration // how long the service wants to be left alone, at most a day; 0 when it did not say
	Reason      string        // what is wrong with the body
}

// Error names the call, the status, what is wrong and the trace id.
func (e *BodyError) Error() string { return message(e.Op, e.TraceID, e.what()) }

func (e *BodyError) what() string {
	return join(httpStatus(e.Status), "the answer is not the service's", e.Reason)
}

// Is matches guard.ErrUnavailable.
func (e *BodyError) Is(target error) bool { return target == guard.ErrUnavailable }

// TokenError is a token that is not taken: the service knows it, or it was not even sent, and it
// shows nobody's identity now. It does not match guard.ErrUnavailable.
type TokenError struct {
	TraceID string // the service's own id of the request; "" when it gave none or was not asked
	Reason  string // why, in words: "revoked", "expired"
}

// Error says why the token is not taken.
func (e *TokenError) Error() string {
	return message(string(opVerifyToken), e.TraceID, "the token is not taken: "+e.Reason)
}

func message(op, trace, what string) string {
	text := "clerk: " + op + ": " + what
	if trace != "" {
		text += " (trace " + trace + ")"
	}
	return text
}

func httpStatus(status int) string {
	if status == 0 {
		return ""
	}
	return "HTTP " + strconv.Itoa(status)
}

// join puts the parts that are not empty behind one another.
func join(parts ...string) string {
	var kept []string
	for _, part := range parts {
		if part != "" {
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, ": ")
}
