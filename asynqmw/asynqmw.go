package asynqmw

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/guard"
)

// New makes the middleware that lets a task be handled only while the authority allows its device,
// for ServeMux.Use or around any handler. It waits for the authority before the task begins (tasks of
// one device that come at once share a question; guard.WithReuse saves it, and says what it gives up).
// A task that is refused, or stopped while it is handled, goes back to its queue, or is held where it
// could not: the package comment has the whole of it. The server's Config must have passed Configure.
//
// The middleware needs one method of r. From a method Interval() time.Duration it takes how long a
// refused task stays away; a Runner without one counts as one of ten seconds. New panics if r, device
// or an Option is nil.
func New(r guard.Runner, device DeviceFunc, opts ...Option) asynq.MiddlewareFunc {
	g := newGate(r, device, opts)
	return func(next asynq.Handler) asynq.Handler {
		return &guarded{gate: g, next: next} // for every task anew, if it is a ServeMux that asks
	}
}

// gate is what all tasks of one New share.
type gate struct {
	config
	interval time.Duration
	keep     runFunc // Guard.Keep; nil: the Runner is no Guard
	held     atomic.Int64
	returns  *returns  // nil: there is no Inspector
	spare    sync.Pool // of attempts that are over

	unmarked     sync.Once // the server has been found not to be Configured
	unidentified sync.Once // a task has been found to name no device
}

// runFunc is the shape of Run and Keep.
type runFunc func(ctx context.Context, deviceID string, fn func(ctx context.Context) error) error

// guarded is a handler behind the gate.
type guarded struct {
	*gate
	next asynq.Handler
}

// ProcessTask is called by asynq, on a goroutine of the task's own.
func (h *guarded) ProcessTask(ctx context.Context, t *asynq.Task) error {
	h.returns.begin(ctx)
	a := h.begin(h.next, t)
	err, why := a.try(ctx, h.runner.Run)
	if why != nil {
		err = h.refused(ctx, a, why)
	}
	a.end()
	return err
}

// refused is what asynq gets for a task that the guard has refused or stopped: at once, or when it could
// not go back, after it has been held.
func (g *gate) refused(ctx context.Context, a *attempt, why error) error {
	r := g.refuse(why)
	if g.mayGoBack(ctx) && !closed(why) {
		return r
	}
	return g.hold(ctx, a, r)
}

// closed tells whether the guard was closed, and this process would fetch the task again and again. Deeper inside
// there may be what the handler has returned, of another guard.
func closed(why error) bool {
	_, denied := why.(*guard.DeniedError) //nolint:errorlint // just the outermost
	return !denied && errors.Is(why, guard.ErrClosed)
}

// mayGoBack tells whether a refused task can be returned to asynq at no cost: not on its last attempt, on which
// asynq archives it whatever the error, and not to a server whose Config does not know a refusal.
func (g *gate) mayGoBack(ctx context.Context) bool {
	if !configured(ctx) {
		g.unmarked.Do(func() {
			loggerOf(ctx).Warn("asynqmw: the server's Config has not passed Configure: " +
				"every refused task is held, lest it spend a retry; at its deadline it spends one even so")
		})
		return false
	}
	return !exhausted(ctx)
}

// exhausted tells whether asynq has no retry left for the task.
func exhausted(ctx context.Context) bool {
	retried, known := asynq.GetRetryCount(ctx)
	most, bounded := asynq.GetMaxRetry(ctx)
	return !known || !bounded || retried >= most
}

var (
	errAgain  = errors.New("asynqmw: the Runner called the function again; an attempt can be handled only once")
	errNotRun = errors.New("asynqmw: the Runner returned without an outcome of the task")
)
