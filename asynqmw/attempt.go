package asynqmw

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime/debug"

	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/guard"
)

// attempt is one of asynq's attempts at a task. It stays on asynq's goroutine, which recovers panics.
type attempt struct {
	*gate
	run    func(ctx context.Context) error // its method handle
	next   asynq.Handler
	task   *asynq.Task
	again  bool // the handler may be called again, after a stop
	called bool
	work   error           // what the handler returned last
	inside context.Context //nolint:containedctx // what it was called with last, to be asked whether it was stopped
}

func (g *gate) begin(next asynq.Handler, t *asynq.Task) *attempt {
	a, _ := g.spare.Get().(*attempt)
	if a == nil {
		a = &attempt{gate: g}
		a.run = a.handle
	}
	a.next, a.task = next, t
	return a
}

// end keeps the attempt for another task, if the Runner is a Guard: one of somebody's own might call the
// function once more.
func (a *attempt) end() {
	if a.keep != nil {
		*a = attempt{gate: a.gate, run: a.run}
		a.spare.Put(a)
	}
}

// try has the task handled under run. Either why is nil, and err is what asynq is to have; or the
// guard has refused or stopped the task, and why says so.
func (a *attempt) try(ctx context.Context, run runFunc) (err, why error) {
	id, err := a.device(ctx, a.task)
	if err != nil {
		return a.stranger(ctx, err)
	}
	return a.outcome(ctx, run(ctx, id, a.run))
}

// handle is what the guard runs.
func (a *attempt) handle(ctx context.Context) (err error) {
	if a.called && !a.again {
		return errAgain
	}
	a.called, a.inside = true, ctx
	returned := false
	defer func() {
		if !returned && guard.Stopped(ctx) != nil {
			err = a.swallow(ctx, recover())
		}
	}()
	a.work = a.next.ProcessTask(ctx, a.task)
	returned = true
	return a.work
}

// swallow keeps a panic after the denial from asynq, to which it would be a failure: what a handler
// makes of being stopped does not count. A panic before passes, unrecovered.
func (a *attempt) swallow(ctx context.Context, value any) error {
	if value == nil {
		return nil // runtime.Goexit, which goes on
	}
	a.work = fmt.Errorf("panic: %v", value)
	logPanic(ctx, value)
	return a.work
}

func logPanic(ctx context.Context, value any) {
	loggerOf(ctx).Error(fmt.Sprintf("asynqmw: a handler panicked after it had been stopped: %v\n%s", value, debug.Stack()))
}

// outcome makes of what Run returned what becomes of the attempt.
func (a *attempt) outcome(ctx context.Context, err error) (own, why error) {
	switch {
	case a.finished(err):
		return err, nil
	case isHalt(err) && (ctx.Err() == nil || a.stopped()):
		return nil, err
	case a.called && err == nil:
		return a.work, nil // a Runner that swallows the error is not to lose the task
	case a.called && !a.again:
		return err, nil // a Runner that has changed the handler's error
	case ctx.Err() != nil && err != nil:
		return err, nil // it is asynq that has ended the attempt
	case err == nil:
		err = errNotRun
	}
	return nil, err
}

// finished tells whether err is the handler's own: not where that was stopped, and Keep has come to the same since.
func (a *attempt) finished(err error) bool {
	return a.called && same(err, a.work) && (!a.again || guard.Stopped(a.inside) == nil)
}

// stopped tells whether it was the guard that has ended the handler's context, and not asynq, before it came to that.
func (a *attempt) stopped() bool { return a.called && isHalt(context.Cause(a.inside)) }

// stranger is the outcome of an attempt whose device is not known.
func (a *attempt) stranger(ctx context.Context, err error) (own, why error) {
	if ctx.Err() != nil {
		return err, nil
	}
	if !errors.Is(err, ErrNoIdentity) {
		err = &identityError{why: "the DeviceFunc refused the task", err: err}
	}
	a.unidentified.Do(func() {
		id, _ := asynq.GetTaskID(ctx)
		loggerOf(ctx).Warn(fmt.Sprintf("asynqmw: task id=%s type=%q is refused, as all that name no device: %v", id, a.task.Type(), err))
	})
	return nil, err
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
