package asynqmw_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/asynqmw"
	"github.com/execguard/execguard/guard"
)

var errServeOver = errors.New("the process ends")

// As asynq's own Run: who ends in ShutdownTimeout has ended, under the guard; the others are requeued.
func TestServeEndsWithItsContext(t *testing.T) {
	t.Parallel()
	release, results := make(chan struct{}), make(chan error, 3)
	s := newServing(t, func(ctx context.Context, task *asynq.Task) error {
		if string(task.Payload()) == "slow" {
			return untilStopped(ctx, task)
		}
		<-release
		results <- errors.Join(ctx.Err(), guard.Checkpoint(ctx))
		return nil
	})
	s.config.ShutdownTimeout = 600 * time.Millisecond
	s.start().enqueue([]string{"slow", "one", "two", "three"}, asynq.MaxRetry(0))
	s.work.atWork(t, 4)
	s.end(errServeOver)
	s.log.hears(t, "Starting graceful shutdown")
	close(release)
	for range 3 {
		if err := serveReceive(t, results, "a handler was not let finish"); err != nil {
			t.Errorf("a handler that may finish finds %v", err)
		}
	}
	if err := s.result(); err != errServeOver {
		t.Errorf("Serve returned %v", err)
	}
	if got := s.counts(); got != (count{pending: 1}) {
		t.Errorf("the queue has %+v", got)
	}
	s.nothingSpent("slow")
	if err := s.noServer(); err != nil {
		t.Error(err)
	}
}

func TestServeContextEndsWhileItWaits(t *testing.T) {
	t.Parallel()
	s := newServing(t, atOnce)
	s.validator.Deny(servedDevice, guard.CodeDeviceNotFound)
	s.enqueue([]string{"waits"})
	s.start().asked(2)
	s.end(errServeOver)
	if err := s.result(); err != errServeOver || s.servers.Load() != 0 {
		t.Errorf("Serve returned %v, and %d servers were made", err, s.servers.Load())
	}
	s.nothingSpent("waits")
}

func TestServeContextThatHasEnded(t *testing.T) {
	t.Parallel()
	s := newServing(t, atOnce)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errServeOver)
	if err := s.startWithin(ctx).result(); err != errServeOver || s.servers.Load() != 0 || len(s.validator.Calls()) != 0 {
		t.Errorf("Serve returned %v after %d questions, and %d servers were made", err, len(s.validator.Calls()), s.servers.Load())
	}
}

// Nobody waits for ever for a handler that does not obey.
func TestServeContextEndsWhileAStoppedHandlerGoesOn(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s := newServing(t, func(context.Context, *asynq.Task) error {
		<-release
		return nil
	})
	s.start().enqueue([]string{"deaf"}, asynq.MaxRetry(0))
	s.work.atWork(t, 1)
	s.revoke()
	serveAwait(t, s.isDenied)
	s.end(errServeOver)
	if err := s.result(); err != errServeOver {
		t.Errorf("Serve returned %v", err)
	}
	s.nothingSpent("deaf")
	s.work.atWork(t, 1)
	close(release)
	s.work.atWork(t, 0)
	if got := s.counts(); got != (count{pending: 1}) {
		t.Errorf("the queue has %+v", got)
	}
}

// The guard goes on asking while handlers may finish.
func TestServeIsDeniedWhileItShutsDown(t *testing.T) {
	for name, stop := range map[string]func(s *serving){
		"denied": (*serving).revoke,
		"closed": func(s *serving) { s.guard.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			causes := make(chan error, 1)
			var o overruns
			s := newServing(t, func(ctx context.Context, _ *asynq.Task) error {
				<-ctx.Done()
				causes <- context.Cause(ctx)
				return nil
			}, guard.WithTimeout(500*time.Millisecond), guard.WithObserver(o.observe))
			s.config.ShutdownTimeout = 2 * time.Second
			s.start().enqueue([]string{"cut"}, asynq.MaxRetry(0))
			s.work.atWork(t, 1)
			s.end(errServeOver)
			s.log.hears(t, "Waiting for all workers")
			stop(s)
			if cause := serveReceive(t, causes, "the handler is not told"); !errors.Is(cause, guard.ErrDenied) && !errors.Is(cause, guard.ErrClosed) ||
				!errors.Is(cause, context.Canceled) {
				t.Errorf("the handler ended because of %v", cause)
			}
			if err := s.result(); err != errServeOver && !errors.Is(err, guard.ErrClosed) || name == "denied" && err != errServeOver {
				t.Errorf("Serve returned %v", err)
			}
			s.nothingSpent("cut")
			o.none(t, 1)
		})
	}
}

func TestServeOfAGuardThatIsClosed(t *testing.T) {
	shutdown := func(s *serving) {
		ctx, cancel := context.WithTimeout(s.t.Context(), 50*time.Millisecond)
		defer cancel()
		_ = s.guard.Shutdown(ctx)
	}
	for _, tc := range []struct {
		name  string
		close func(s *serving)
	}{
		{"Close", func(s *serving) { s.guard.Close() }},
		{"Shutdown", shutdown},
	} {
		t.Run(tc.name+" while it serves", func(t *testing.T) {
			t.Parallel()
			causes := make(chan error, 1)
			s := newServing(t, func(ctx context.Context, _ *asynq.Task) error {
				<-ctx.Done()
				causes <- context.Cause(ctx)
				return nil
			})
			s.start().enqueue([]string{"cut"}, asynq.MaxRetry(0))
			s.work.atWork(t, 1)
			tc.close(s)
			if cause := serveReceive(t, causes, "the handler is not told"); !errors.Is(cause, guard.ErrClosed) || !errors.Is(cause, context.Canceled) {
				t.Errorf("the handler ended because of %v", cause)
			}
			if err := s.result(); !errors.Is(err, guard.ErrClosed) || errors.Is(err, guard.ErrDenied) {
				t.Errorf("Serve returned %v", err)
			}
			s.nothingSpent("cut")
		})
		t.Run(tc.name+" while it waits", func(t *testing.T) {
			t.Parallel()
			s := newServing(t, atOnce)
			s.validator.Deny(servedDevice, guard.CodeDeviceRevoked)
			s.start().asked(2)
			tc.close(s)
			if err := s.result(); !errors.Is(err, guard.ErrClosed) || s.servers.Load() != 0 {
				t.Errorf("Serve returned %v, and %d servers were made", err, s.servers.Load())
			}
		})
		t.Run(tc.name+" before", func(t *testing.T) {
			t.Parallel()
			s := newServing(t, atOnce)
			tc.close(s)
			if err := s.start().result(); !errors.Is(err, guard.ErrClosed) || s.servers.Load() != 0 {
				t.Errorf("Serve returned %v, and %d servers were made", err, s.servers.Load())
			}
		})
	}
}

// Serve may itself be something that another guard runs.
func TestServeWithinARunThatIsDenied(t *testing.T) {
	t.Parallel()
	causes := make(chan error, 1)
	s := newServing(t, func(ctx context.Context, _ *asynq.Task) error {
		<-ctx.Done()
		causes <- context.Cause(ctx)
		return nil
	})
	outer := s.validator
	g := newServeGuard(t, outer)
	outer.Allow("outer")
	s.enqueue([]string{"cut"}, asynq.MaxRetry(0))
	var served error
	ended := make(chan error, 1)
	go func() {
		ended <- g.Run(t.Context(), "outer", func(ctx context.Context) error {
			served = s.startWithin(ctx).result()
			return nil
		})
	}()
	s.work.atWork(t, 1)
	outer.Deny("outer", guard.CodeDeviceRevoked)
	g.Hint("outer")
	denied := (*guard.DeniedError)(nil)
	if cause := serveReceive(t, causes, "the handler is not told"); !errors.As(cause, &denied) || denied.DeviceID != "outer" {
		t.Errorf("the handler ended because of %v", cause)
	}
	if err := serveReceive(t, ended, "the outer run does not end"); !errors.Is(err, guard.ErrDenied) {
		t.Errorf("the outer run ended with %v", err)
	}
	if !errors.As(served, &denied) || denied.DeviceID != "outer" {
		t.Errorf("Serve returned %v, and not the cause of its context", served)
	}
	s.nothingSpent("cut")
}

func TestServeOfNoDevice(t *testing.T) {
	t.Parallel()
	s := newServing(t, atOnce)
	for _, id := range []string{"", " \t"} {
		denied := (*guard.DeniedError)(nil)
		err := asynqmw.Serve(t.Context(), s.guard, id, s.newServer, s.handler)
		if !errors.As(err, &denied) || denied.Decision.Code != guard.CodeInvalidDeviceID || s.servers.Load() != 0 {
			t.Errorf("Serve(%q) = %v, and %d servers were made", id, err, s.servers.Load())
		}
	}
}

func TestServeServerThatCannotStart(t *testing.T) {
	t.Run("nil", func(t *testing.T) {
		t.Parallel()
		s := newServing(t, atOnce)
		s.newOne = func() *asynq.Server { return nil }
		if err := s.start().result(); err == nil || errors.Is(err, guard.ErrDenied) {
			t.Errorf("Serve returned %v", err)
		}
		s.letGo()
	})
	t.Run("one that runs already", func(t *testing.T) {
		t.Parallel()
		s := newServing(t, atOnce)
		running := s.startPlain(atOnce)
		serveAwait(t, func() error {
			if s.noServer() == nil {
				return errors.New("no server is registered")
			}
			return nil
		})
		s.newOne = func() *asynq.Server { return running }
		if err := s.start().result(); err == nil || errors.Is(err, guard.ErrDenied) {
			t.Errorf("Serve returned %v", err)
		}
		s.letGo()
		if err := running.Ping(); err != nil || s.noServer() == nil { // a server that was shut down is not registered
			t.Errorf("Serve has shut down what it had not started: %v", err)
		}
	})
	t.Run("the same one twice", func(t *testing.T) {
		t.Parallel()
		s := newServing(t, untilStopped)
		only := s.newOne()
		s.newOne = func() *asynq.Server { return only }
		s.start().enqueue([]string{"cut"}, asynq.MaxRetry(0))
		s.work.atWork(t, 1)
		s.revoke()
		s.become(count{pending: 1})
		s.restore()
		if err := s.result(); !errors.Is(err, asynq.ErrServerClosed) || s.servers.Load() != 2 {
			t.Errorf("Serve returned %v", err)
		}
		s.letGo()
		s.nothingSpent("cut")
	})
}

// letGo fails the test unless the guard has no run in flight any more.
func (s *serving) letGo() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), serveLimit)
	defer cancel()
	if err := s.guard.Shutdown(ctx); err != nil {
		s.t.Errorf("the run goes on: %v", err)
	}
}

// It is the caller's own function, and its panic the caller's.
func TestServeNewServerThatPanics(t *testing.T) {
	for name, times := range map[string]int32{"at once": 1, "in the second stretch": 2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServing(t, untilStopped)
			make1 := s.newOne
			s.newOne = func() *asynq.Server {
				if s.servers.Load() == times {
					panic("no server today")
				}
				return make1()
			}
			s.enqueue([]string{"cut"}, asynq.MaxRetry(0))
			panicked := make(chan any, 1)
			go func() {
				defer func() { panicked <- recover() }()
				_ = asynqmw.Serve(t.Context(), s.guard, servedDevice, s.newServer, s.handler)
			}()
			if times > 1 {
				s.work.atWork(t, 1)
				s.revoke()
				s.become(count{pending: 1})
				s.restore()
			}
			if v := serveReceive(t, panicked, "Serve does not return"); v != "no server today" {
				t.Errorf("Serve panicked with %v", v)
			}
			s.letGo()
			s.nothingSpent("cut")
		})
	}
}

func TestServeWithoutWhatItNeeds(t *testing.T) {
	g := newServeGuard(t, guard.ValidatorFunc(func(context.Context, string) (guard.Decision, error) {
		t.Error("the authority was asked")
		return guard.Decision{}, nil
	}))
	ctx, cancel := context.WithTimeout(t.Context(), serveLimit)
	defer cancel()
	newServer := func() *asynq.Server {
		t.Error("a server was made")
		return nil
	}
	for name, serve := range map[string]func() error{
		"no guard": func() error {
			return asynqmw.Serve(ctx, nil, servedDevice, newServer, asynq.HandlerFunc(atOnce))
		},
		"no newServer":  func() error { return asynqmw.Serve(ctx, g, servedDevice, nil, asynq.HandlerFunc(atOnce)) },
		"no handler":    func() error { return asynqmw.Serve(ctx, g, servedDevice, newServer, nil) },
		"a nil func":    func() error { return asynqmw.Serve(ctx, g, servedDevice, newServer, asynq.HandlerFunc(nil)) },
		"a nil pointer": func() error { return asynqmw.Serve(ctx, g, servedDevice, newServer, (*asynq.ServeMux)(nil)) },
	} {
		if err := serve(); err == nil || errors.Is(err, guard.ErrDenied) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
