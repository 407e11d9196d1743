package grpcmw

import (
	"context"
	"errors"
	"reflect"

	"github.com/execguard/execguard/guard"
)

// errAgain is for a Runner that calls its function a second time, as one that is made of Guard.Keep would.
var errAgain = errors.New("grpcmw: the Runner called the function again; a call can be handled only once")

// call is what becomes of one call under the guard.
type call struct {
	called bool
	work   error // what the handler or the invoker returned
}

// begin is called when the Runner calls its function.
func (c *call) begin() error {
	if c.called {
		return errAgain
	}
	c.called = true
	return nil
}

// outcome makes of what Run returned what the interceptor returns: the work's own error, the very
// same, or the status of why the guard did not let it begin or go on.
func (c *call) outcome(ctx context.Context, err error) error {
	switch {
	case !c.called:
		return refused(ctx, err)
	case same(err, c.work):
		return err
	default:
		return lost(err)
	}
}

// same is ==, for errors that cannot be compared too.
func same(a, b error) bool {
	if a == nil || b == nil || reflect.TypeOf(a) != reflect.TypeOf(b) {
		return a == nil && b == nil
	}
	return !reflect.ValueOf(a).Comparable() || a == b //nolint:errorlint // the very same is meant
}

func isHalt(err error) bool {
	return errors.Is(err, guard.ErrDenied) || errors.Is(err, guard.ErrClosed)
}
