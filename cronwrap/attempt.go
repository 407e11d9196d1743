package cronwrap

import (
	"context"
	"errors"
	"reflect"

	"github.com/execguard/execguard/contextx"
	"github.com/execguard/execguard/guard"
)

// attempt is what becomes of one tick, or of one run by hand.
type attempt struct {
	tick

	job *job
	fn  func(ctx context.Context) error // call
	ctx context.Context                 //nolint:containedctx // what every run of the attempt begins with

	called bool  // the function was, since the Runner was asked last
	work   error // what it returned
	waited bool  // it was refused before, and has waited
	over   bool  // there is an outcome
}

// run asks until there is an outcome: once, unless what is refused is to be caught up.
func (a *attempt) run(ctx context.Context) {
	if !a.at.IsZero() {
		ctx = scheduled.With(ctx, a.at)
	}
	a.ctx = ctx
	err := a.ask()
	for !a.finished(err) {
		d, again := a.lose(err)
		if !again || !a.hold() {
			break
		}
		a.waited = true
		err = a.askLater(d)
	}
	a.over = true
}

// finished tells whether what the Runner has returned is the job's own outcome, and hands that on.
func (a *attempt) finished(err error) bool {
	if !a.called || !same(err, a.work) && !wraps(err, a.work) {
		return false
	}
	if a.work != nil {
		a.failed(a.work)
	}
	return true
}

// wraps tells whether a Runner has only dressed up the job's own error, as a layer for traces would.
func wraps(err, work error) bool {
	return work != nil && errors.Is(err, work) && !errors.Is(err, guard.ErrDenied) && !errors.Is(err, guard.ErrClosed)
}

// ask asks once, and runs the job if that is allowed.
func (a *attempt) ask() error {
	if a.ctx.Err() != nil {
		return context.Cause(a.ctx) // whatever a Runner would make of it
	}
	return a.job.runner.Run(a.ctx, a.job.device, a.fn)
}

// call is the function that the Runner calls.
func (a *attempt) call(ctx context.Context) (err error) {
	if a.called || a.over {
		return errAgain
	}
	a.called = true
	if a.job.plain == nil {
		defer a.catch(&err)
	}
	err = a.job.fn(ctx)
	a.work = err
	return err
}

// end lets go of the attempt, however it ends. The job's panics were caught where they came up: what comes here
// is the Runner's, or a panic of a plain job, which goes on.
func (a *attempt) end() {
	if a.over {
		a.job.leave(a)
		return
	}
	defer a.job.leave(a)
	if a.job.plain != nil {
		return
	}
	if v := recover(); v != nil {
		a.reportPanic(newPanicError(v))
	}
}

// errAgain is for a Runner that calls its function a second time, as one that is made of Guard.Keep would, or
// when it has returned.
var errAgain = errors.New("cronwrap: the Runner called the function again; a tick is run once")

// same is ==, for errors that cannot be compared too.
func same(a, b error) bool {
	if a == nil || b == nil || reflect.TypeOf(a) != reflect.TypeOf(b) {
		return a == nil && b == nil
	}
	return !reflect.ValueOf(a).Comparable() || a == b //nolint:errorlint // the very same is meant
}

// nest is the context of a run inside of another: it ends with either, and has the values of both.
func (j *job) nest(outer, epoch context.Context) (context.Context, context.CancelFunc) {
	merged, cancel := contextx.Merge(outer, epoch)
	return nested{merged, epoch}, cancel
}

type nested struct {
	context.Context //nolint:containedctx // it is a context

	epoch context.Context //nolint:containedctx // as above
}

func (n nested) Value(key any) any {
	if v := n.Context.Value(key); v != nil {
		return v
	}
	return n.epoch.Value(key)
}
