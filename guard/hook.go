package guard

import (
	"context"
	"errors"
	"sync/atomic"
)

// hook is what is called when a run is told to stop.
type hook struct {
	f      func()
	called atomic.Bool
	next   *hook // the one before it
}

// AfterStop has f called, once and on a goroutine of its own, when the guard stops the run in which
// ctx stands: after the run's context has ended, or also later where that had ended before, with the caller's.
// f is not called where the function returns without having been stopped. It is what
// context.AfterFunc is for contexts, at a fraction of the cost. Where runs are nested, or ctx stands
// in none, the end of ctx with a guard's stop as its cause counts too, but not a stop of an outer run
// after ctx has ended otherwise. Where the run has been stopped before,
// f is called at once.
//
// It is for what a context does not reach, such as a read that blocks. f may still be running, or
// about to, when the function returns. It is kept as long as the run lasts.
func AfterStop(ctx context.Context, f func()) {
	h := &hook{f: f}
	r, ok := runKey.From(ctx)
	if ok {
		r.afterStop(h)
	}
	if ok && r.around() == r {
		return
	}
	context.AfterFunc(ctx, func() {
		if err := context.Cause(ctx); errors.Is(err, ErrDenied) || errors.Is(err, ErrClosed) {
			h.call()
		}
	})
}

// Stopped returns why the guard has stopped the run in which ctx stands, or one around it, and nil where it
// has not, where ctx has not ended, and where ctx stands in no run or in one that is over. It differs from
// context.Cause in both directions: a context that has ended otherwise, with the caller's, still stands in a run, which
// may be denied afterwards; and a context may be cancelled with a denial that somebody else was given. It looks at what
// this process knows, as Checkpoint does.
func Stopped(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	if why := context.Cause(ctx); endedByGuard(ctx, why) {
		return why
	}
	err, denied := Checkpoint(ctx), (*DeniedError)(nil)
	if errors.As(err, &denied) || errors.Is(err, ErrClosed) {
		return err
	}
	return nil
}

// endedByGuard tells whether why is the stop of a run in which ctx stands, and not of another.
func endedByGuard(ctx context.Context, why error) bool {
	r, ok := runKey.From(ctx)
	for ok {
		if s := r.batch.stop.Load(); s != nil && why == error(s.why) { //nolint:errorlint // just that
			return true
		}
		outer := r.around()
		ok, r = outer != r, outer
	}
	return false
}

func (r *run) afterStop(h *hook) {
	for hung := false; !hung; {
		before, c := r.derived.Load(), &derived{hook: h}
		if before != nil {
			c.ctx, c.end, h.next = before.ctx, before.end, before.hook //nolint:fatcontext // it is handed on, not nested
		}
		hung = r.derived.CompareAndSwap(before, c)
	}
	// Either who tells the run has found h there, or the stop is found here.
	if _, why := r.cause(); why != nil {
		r.cancel(why) // first, also where who tells has not come so far
		h.call()
	}
}

// callHooks has the hooks called of a run that was told to stop.
func (r *run) callHooks() {
	c := r.derived.Load()
	if c == nil {
		return
	}
	for h := c.hook; h != nil; h = h.next {
		h.call()
	}
}

// call has the hook called once. It is somebody's code, and so not for the goroutine that tells.
func (h *hook) call() {
	if !h.called.Swap(true) {
		go h.f()
	}
}
