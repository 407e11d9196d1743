package asynqmw

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/contextx"
	"github.com/execguard/execguard/guard"
)

// Serve works on tasks only while the device is allowed, and fetches none otherwise: it is Guard.Keep around
// an asynq server, of which newServer makes a fresh one for each stretch of time in which the device
// is allowed. It is for a process that is one device: tasks wait in Redis, for others too, and those with MaxRetry(0) are
// as safe as all others, without Configure and without an Inspector: if no task's own end comes before the slowest handler has obeyed and
// the ShutdownTimeout is over. Otherwise asynq archives one, which is logged, or spends a retry, unless the Config has passed Configure.
//
// On a denial the contexts of the handlers at work are cancelled, with the denial as their cause. When
// all of them have returned, the server shuts down and asynq requeues their tasks, with nothing spent: that
// takes its ShutdownTimeout. What a handler returns after the denial does not count. Serve then
// waits until the device is allowed again. A handler that never returns keeps it from that, as Run waits for a function; the
// guard's event «overran» tells of it. guard.Checkpoint works in the handlers.
//
// When ctx ends, the server shuts down as asynq's own Run does it: handlers have ShutdownTimeout to end, under the
// guard, what they have begun; the others' tasks are requeued. Serve returns then, with the cause of ctx; with
// guard.ErrClosed, after the same as on a denial, when the guard was closed; with a *guard.DeniedError where the device's id is none; and
// with the error of a server that could not start, because it was not a fresh one. A Redis that cannot be reached is asynq's to wait for.
// Guard.Shutdown waits for Serve: end ctx first. What is refused, Guard's WithLogger and WithObserver tell.
func Serve(ctx context.Context, g *guard.Guard, deviceID string, newServer func() *asynq.Server, h asynq.Handler) error {
	switch {
	case g == nil:
		return errors.New("asynqmw: Serve: the Guard is nil")
	case newServer == nil:
		return errors.New("asynqmw: Serve: the function that makes servers is nil")
	case isNil(h):
		return errors.New("asynqmw: Serve: the Handler is nil")
	}
	s := service{newServer: newServer, handler: h, down: during(func() {})}
	defer func() { <-s.down }()
	return g.Keep(ctx, deviceID, func(run context.Context) error { return s.stretch(ctx, run) })
}

// service is one server after the other.
type service struct {
	newServer func() *asynq.Server
	handler   asynq.Handler
	down      <-chan struct{} // closed when the last server has shut down, which takes it its ShutdownTimeout
}

// stretch serves until the run has ended.
func (s *service) stretch(ctx, run context.Context) error {
	select {
	case <-s.down:
	case <-run.Done():
		return context.Cause(ctx)
	}
	srv := s.newServer()
	if srv == nil {
		return errors.New("asynqmw: Serve: there is no new server")
	}
	c := newCrew(run, s.handler)
	if err := srv.Start(c); err != nil {
		return fmt.Errorf("asynqmw: Serve: %w", err)
	}
	guard.AfterStop(run, func() { c.stop() })
	<-run.Done()
	if !c.stop() {
		s.down = during(srv.Shutdown)
		select {
		case <-s.down:
		case <-c.idle: // the guard has stopped it all the same
		}
		return context.Cause(ctx)
	}
	stopped := during(srv.Stop) // nothing is fetched any longer, while the handlers take their time
	select {
	case <-c.idle:
	case <-ctx.Done():
		if guard.Stopped(ctx) != nil { // by an outer run, on whose stop to wait for handlers is due
			<-c.idle
		} // otherwise nobody waits any longer for one that does not return
	}
	s.down = during(func() { // not in the run, which has ended in time
		<-stopped
		srv.Shutdown()
	})
	return context.Cause(ctx)
}

// during closes the channel when f has returned, which is called on a goroutine of its own.
func during(f func()) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	return done
}

// crew is the handlers at work in one stretch.
type crew struct {
	handler asynq.Handler
	run     context.Context //nolint:containedctx // the stretch, whose values and end every handler gets
	over    context.Context //nolint:containedctx // ends when the guard stops the run; run ends with the caller's context too
	cancel  context.CancelCauseFunc

	mu    sync.Mutex
	size  int
	empty bool          // nobody is at work, and nobody begins any more
	idle  chan struct{} // closed then
}

func newCrew(run context.Context, h asynq.Handler) *crew {
	c := &crew{handler: h, run: run, idle: make(chan struct{})}
	c.over, c.cancel = context.WithCancelCause(context.Background())
	return c
}

// stop tells the handlers, if the guard has stopped the run, and whether it has.
func (c *crew) stop() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.live()
}

// join tells whether a handler may begin.
func (c *crew) join() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.live() {
		return false
	}
	c.size++
	return true
}

// leave tells whether what the handler has returned counts.
func (c *crew) leave() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.size--
	return c.live()
}

// live looks at the guard itself, for a handler that asks Checkpoint may know of a denial before stop is
// called. Once it is false it stays so. The caller holds mu.
func (c *crew) live() bool {
	if c.over.Err() == nil {
		err := guard.Checkpoint(c.run)
		if err == nil {
			return true
		}
		c.cancel(&stoppedError{err})
	}
	if c.size == 0 && !c.empty {
		c.empty = true
		close(c.idle)
	}
	return false
}

// ProcessTask is called by asynq, on a goroutine of the task's own.
func (c *crew) ProcessTask(ctx context.Context, t *asynq.Task) error {
	if c.join() {
		if counts, err := c.handle(ctx, t); counts {
			return err
		}
	}
	return c.withhold(ctx)
}

// handle tells whether what the handler has returned counts.
func (c *crew) handle(ctx context.Context, t *asynq.Task) (counts bool, err error) {
	returned := false
	defer func() {
		if counts = c.leave(); returned || counts {
			return
		}
		if v := recover(); v != nil {
			logPanic(ctx, v)
		}
	}()
	both, cancel := contextx.Merge(within{ctx, c.run}, c.over)
	defer cancel()
	err, returned = c.handler.ProcessTask(both, t), true
	return true, err
}

// withhold keeps the task from asynq until it has requeued it, because there is nothing that a handler
// could return for that.
func (c *crew) withhold(ctx context.Context) error {
	w := newWait(ctx, little)
	defer w.end()
	<-w.ctx.Done()
	r := &refusal{why: context.Cause(c.over), delay: time.Second}
	switch {
	case ctx.Err() != nil: // asynq has
	case exhausted(ctx):
		return lose(ctx, r)
	case !configured(ctx):
		id, _ := asynq.GetTaskID(ctx)
		loggerOf(ctx).Warn(fmt.Sprintf("asynqmw: task id=%s spends a retry on a denial: its deadline comes before the server has shut down", id))
	}
	return r
}

// within is asynq's context of a task, in the guard's run: that one, and no other that BaseContext may stand in.
type within struct {
	context.Context //nolint:containedctx // it is a context
	run             context.Context
}

func (w within) Value(key any) any {
	if v := w.run.Value(key); v == any(w.run) {
		return v // what the guard finds a run by
	}
	if v := w.Context.Value(key); v != nil {
		return v
	}
	return w.run.Value(key)
}

// stoppedError is the cause that a handler finds: the stop, and context.Canceled as in every run.
type stoppedError struct{ stop error }

func (c *stoppedError) Error() string { return c.stop.Error() }

func (c *stoppedError) Unwrap() []error { return []error{c.stop, context.Canceled} }
