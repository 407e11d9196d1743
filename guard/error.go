package guard

import (
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
)

var (
	// ErrDenied is matched by every denial, whatever its code.
	ErrDenied = errors.New("guard: denied")
	// ErrUnavailable is matched by the denials in which the authority could not decide. They
	// stop work like any other: «no» and «could not ask» differ for the person on call only.
	ErrUnavailable = errors.New("guard: authority unavailable")
	// ErrClosed is matched by what Run, Keep, Validate and Checkpoint return once Close or
	// Shutdown has begun. It is not a denial.
	ErrClosed = errors.New("guard: closed")
)

// DeniedError is the one type of every denial. errors.Is finds ErrDenied in it, ErrUnavailable
// where Decision.Code is CodeSystemUnavailable, and whatever made the authority unavailable, all of
// it but io.EOF, which readers take for a good end; where InFlight is true also the function's own
// error, all of it but context.Canceled, so that who treats Canceled as harmless does not swallow a
// denial. It holds no secret of the guard's and may be logged. Runs that were stopped together
// share it: do not change it.
type DeniedError struct {
	DeviceID string
	Decision Decision
	InFlight bool // the function had been called when the denial was learnt

	reason *hidden // why the authority could not be asked, or nil
	work   *hidden // what the function returned, or nil
}

// hidden keeps somebody else's error behind a pointer, past which %v, %+v and %#v do not look: what
// it prints by itself is for its author to say, what is in its fields is nobody's business (S8).
type hidden struct{ err error }

func hide(err error) *hidden {
	if err == nil {
		return nil
	}
	return &hidden{err}
}

// Error names the device, the code, the authority's reason and its request id.
func (e *DeniedError) Error() string {
	var b strings.Builder
	b.WriteString("guard: ")
	if e.DeviceID != "" || e.Decision.Code == CodeInvalidDeviceID { // it is not known of a denial from afar
		b.WriteString("device " + strconv.Quote(e.DeviceID) + " ")
	}
	if e.InFlight {
		b.WriteString("stopped: ")
	} else {
		b.WriteString("refused: ")
	}
	b.WriteString(string(e.Decision.Code))
	if e.Decision.Reason != "" {
		b.WriteString(": " + e.Decision.Reason)
	}
	if e.Decision.RequestID != "" {
		b.WriteString(" (request " + e.Decision.RequestID + ")")
	}
	return e.work.after(b.String())
}

// Is matches ErrDenied, and ErrUnavailable where the authority could not decide.
func (e *DeniedError) Is(target error) bool {
	return target == ErrDenied || target == ErrUnavailable && e.Decision.Code == CodeSystemUnavailable
}

// Unwrap gives what made the authority unavailable and what the function returned; neither
// matches context.Canceled, nor the former io.EOF.
func (e *DeniedError) Unwrap() []error {
	if e.reason == nil {
		return withoutCanceled(e.work)
	}
	return append([]error{endless{uncanceled{e.reason}}}, withoutCanceled(e.work)...)
}

// inFlight is the denial as the runs get it that it stops.
func (e *DeniedError) inFlight() *DeniedError {
	stopped := *e
	stopped.InFlight = true
	return &stopped
}

// ended is the denial of a run whose function has returned work.
func (e *DeniedError) ended(work error) error {
	if work == nil || work == context.Canceled { //nolint:errorlint // just that, of which nothing would be found
		return e
	}
	with := *e
	with.work = hide(work)
	return &with
}

// closedError is what a run returns that was cut short by Close: ErrClosed and the function's
// own error.
type closedError struct{ work *hidden }

func (e *closedError) Error() string { return e.work.after(ErrClosed.Error()) }

func (e *closedError) Is(target error) bool { return target == ErrClosed }

func (e *closedError) Unwrap() []error { return withoutCanceled(e.work) }

func (e *closedError) ended(work error) error { return &closedError{work: hide(work)} }

// after adds to the message of a stop what the function returned, where that says anything new:
// most functions return their context's error, or what Checkpoint told them.
func (h *hidden) after(message string) string {
	if h == nil || errors.Is(h.err, context.Canceled) || h.err.Error() == message {
		return message
	}
	return message + "; the function returned: " + h.err.Error()
}

// stopError is why a run was told to stop: a *DeniedError or a *closedError.
type stopError interface {
	error
	// ended is what Run returns when the function has returned work.
	ended(work error) error
}

// cause is what context.Cause finds in the context of a stopped run: the stop, and
// context.Canceled, because net/http hands causes on and callers everywhere test for Canceled.
type cause struct{ stop stopError }

func (c *cause) Error() string { return c.stop.Error() }

func (c *cause) Unwrap() []error { return []error{c.stop, context.Canceled} }

// withoutCanceled keeps the errors that are there, each behind a door that context.Canceled does
// not pass.
func withoutCanceled(inside ...*hidden) []error {
	var kept []error
	for _, h := range inside {
		if h != nil {
			kept = append(kept, uncanceled{h})
		}
	}
	return kept
}

// uncanceled answers errors.Is and errors.As for the error inside. It has no Unwrap, which
// would let errors.Is walk past it to context.Canceled.
type uncanceled struct{ *hidden }

func (u uncanceled) Error() string { return u.err.Error() }

func (u uncanceled) Is(target error) bool {
	return target != context.Canceled && errors.Is(u.err, target)
}

func (u uncanceled) As(target any) bool { return errors.As(u.err, target) }

// endless is uncanceled and not the good end of a stream either: a connection to the authority that breaks is
// often an io.EOF, and who copies a stream that is stopped because of that must not take it for complete.
type endless struct{ uncanceled }

func (e endless) Is(target error) bool { return target != io.EOF && e.uncanceled.Is(target) }

// startCause is what a caller gets whose context had ended before the start: its cause, and
// where that is the stop of an outer run, that stop alone.
func startCause(ctx context.Context) error {
	err := context.Cause(ctx)
	if err == nil {
		return context.Canceled // a context of somebody's own that is done without an error
	}
	if outer := (*cause)(nil); errors.As(err, &outer) {
		return outer.stop
	}
	return err
}
