package asynqmw

import (
	"context"
	"errors"
	"sync"
	"time"
)

var errTimeUp = errors.New("asynqmw: the task's deadline is near")

// wait is the time for which a task can be held. It ends with asynq's attempt, or before the task's
// deadline. While the handler runs it does not end: a handler has all the time there is.
type wait struct {
	attempt context.Context //nolint:containedctx // asynq's, of the one attempt that this wait belongs to
	ctx     context.Context //nolint:containedctx // the wait's own
	cancel  context.CancelCauseFunc
	timer   *time.Timer // nil: there is no deadline

	mu      sync.Mutex
	running bool // the handler runs
	up      bool // the deadline is near
}

// newWait makes a wait that ends so long before the deadline, if there is one.
func newWait(attempt context.Context, before func(left time.Duration) time.Duration) *wait {
	w := &wait{attempt: attempt}
	w.ctx, w.cancel = context.WithCancelCause(attempt)
	if deadline, ok := attempt.Deadline(); ok {
		left := time.Until(deadline)
		w.timer = time.AfterFunc(left-before(left), w.expire)
	}
	return w
}

// little is time enough for asynq to hear of it.
func little(left time.Duration) time.Duration { return min(time.Second, left/10) }

func (w *wait) end() {
	if w.timer != nil {
		w.timer.Stop()
	}
	w.cancel(nil)
}

func (w *wait) expire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.up = true
	if !w.running {
		w.cancel(errTimeUp)
	}
}

// during makes of Run or Keep one for this wait: what it is given runs only if the wait is not over.
func (w *wait) during(run runFunc) runFunc {
	return func(ctx context.Context, deviceID string, fn func(ctx context.Context) error) error {
		return run(ctx, deviceID, func(ctx context.Context) error {
			if !w.begin() {
				return errTimeUp
			}
			defer w.pause()
			return fn(ctx)
		})
	}
}

func (w *wait) begin() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running = !w.up
	return w.running
}

func (w *wait) pause() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running = false
	if w.up {
		w.cancel(errTimeUp)
	}
}

// sleep waits for d, and tells whether the wait was not over by then.
func (w *wait) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-w.ctx.Done():
		return false
	}
}
