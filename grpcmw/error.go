package grpcmw

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/execguard/execguard/guard"
)

// statusError is what the interceptors return of their own. To grpc it is a status, and its text is
// that of the status alone, because an interceptor that wraps it has grpc send that text. In
// process errors.Is and errors.As find what is inside, all of it but context.Canceled: who treats
// Canceled as harmless must not swallow a denial.
type statusError struct {
	status *status.Status
	inside error
}

func (e *statusError) Error() string { return e.status.String() }

// GoString is Error, so that %#v does not look inside.
func (e *statusError) GoString() string { return e.Error() }

// GRPCStatus is how grpc finds the status.
func (e *statusError) GRPCStatus() *status.Status { return e.status }

// Is and As stand in the place of an Unwrap, which would let errors.Is walk past them to context.Canceled.
func (e *statusError) Is(target error) bool {
	return target != context.Canceled && errors.Is(e.inside, target)
}

// As is for errors.As.
func (e *statusError) As(target any) bool { return errors.As(e.inside, target) }

// unidentified is the error of a call whose DeviceFunc returned err.
func unidentified(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return refused(ctx, context.Cause(ctx))
	case errors.Is(err, guard.ErrUnavailable):
		d := guard.Decision{Code: guard.CodeSystemUnavailable}
		return newStatus(codes.Unavailable, d, phaseStart, err)
	case !errors.Is(err, ErrNoIdentity):
		err = &identityError{why: "the DeviceFunc refused the call", err: err}
	}
	return newStatus(codes.Unauthenticated, guard.Decision{Code: codeNoIdentity}, phaseStart, err)
}

// refused is the error of a call that was not let begin. A stop that was on its way already is that
// of an outer run: the call has not begun, but what it is a part of has.
func refused(ctx context.Context, err error) error {
	switch outer := guard.Stopped(ctx); {
	case outer != nil:
		return lost(outer)
	case ctx.Err() != nil && !isHalt(err):
		return status.FromContextError(ctx.Err()).Err()
	}
	return stopped(err, phaseStart)
}

// lost is the error of a call that the guard did not let go on.
func lost(err error) error { return stopped(err, phaseRun) }

// stopped is the error of a call that was refused or lost. Whatever the Runner may have meant, what
// is neither a denial nor a closed guard is «could not ask».
func stopped(err error, p phase) error {
	if denied := (*guard.DeniedError)(nil); errors.As(err, &denied) {
		if denied.InFlight {
			p = phaseRun
		}
		return newStatus(codeOf(denied.Decision.Code, p), denied.Decision, p, err)
	}
	if errors.Is(err, guard.ErrClosed) {
		return newStatus(undecided(p), guard.Decision{Code: codeGuardClosed}, p, err)
	}
	return newStatus(undecided(p), guard.Decision{Code: guard.CodeSystemUnavailable}, p, unasked(err))
}

// unasked is why it is not known whether a call may begin or go on, where the Runner does not say so.
func unasked(err error) error {
	if err == nil {
		err = errNotRun
	}
	return &unaskedError{err}
}

var errNotRun = errors.New("grpcmw: the Runner returned without an outcome of the call")

// unaskedError matches guard.ErrUnavailable, and guard.ErrDenied as every denial does.
type unaskedError struct{ err error }

func (e *unaskedError) Error() string { return e.err.Error() }

func (e *unaskedError) Is(target error) bool {
	return target == guard.ErrUnavailable || target == guard.ErrDenied
}

func (e *unaskedError) Unwrap() error { return e.err }

// uncanceled is err, except where that is the Canceled that grpc makes of whatever ends a context, and
// it was an outer run's denial that has ended this one: then it is that denial.
func uncanceled(ctx context.Context, err error) error {
	if outer := guard.Stopped(ctx); outer != nil && status.Code(err) == codes.Canceled {
		return lost(outer)
	}
	return err
}
