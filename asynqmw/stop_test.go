package asynqmw_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/asynqmw"
	"github.com/execguard/execguard/guard"
)

// A task that is denied while it is handled goes back, or is held, when its handler has returned, and nothing is spent.
func TestStopped(t *testing.T) {
	t.Parallel()
	tests := map[string]func(t *testing.T){
		"with the denial as the cause": stoppedWithCause,
		"in time":                      stoppedInTime,
		"waits for a slow handler":     stoppedSlowly,
		"by Close":                     stoppedByClose,
		"by Close on the last attempt": stoppedByCloseOnLastAttempt,
		"and a server that ends":       stoppedThenShutdown,
		"again and again":              stoppedAgainAndAgain,
		"by a Runner that is no Guard": stoppedByRunner,
		"then by Close while it waits": stoppedThenClosed,
	}
	for name, what := range outcomes {
		tests["before "+name+" with retries left"] = func(t *testing.T) { outcomeAfterStop(t, what, 3) }
		tests["before "+name+" on the last attempt"] = func(t *testing.T) { outcomeAfterStop(t, what, 0) }
		tests["after "+name] = func(t *testing.T) { outcomeBeforeStop(t, name, what) }
	}
	sideBySide(t, tests)
}

var errOwn = errors.New("on my own account")

// outcomes are what a handler can make of a task.
var outcomes = map[string]func(ctx context.Context) error{
	"nil":           func(context.Context) error { return nil },
	"an error":      func(context.Context) error { return errOwn },
	"another's no":  func(context.Context) error { return fmt.Errorf("asking for a colleague: %w", guard.ErrDenied) },
	"another's end": func(context.Context) error { return guard.ErrClosed },
	"its end":       func(ctx context.Context) error { return ctx.Err() },
	"its cause":     context.Cause,
	"SkipRetry":     func(context.Context) error { return fmt.Errorf("enough: %w", asynq.SkipRetry) },
	"RevokeTask":    func(context.Context) error { return fmt.Errorf("away: %w", asynq.RevokeTask) },
	"both":          func(context.Context) error { return errors.Join(asynq.SkipRetry, asynq.RevokeTask) },
	"a panic":       func(context.Context) error { panic("on my own account") },
	"a nil error":   func(ctx context.Context) error { return ctx.Value(contextKey{}).(error) }, // a panic of the runtime's
	"an error one":  func(context.Context) error { panic(asynq.RevokeTask) },
}

// outcomeAfterStop has a handler end so after it was told to stop.
func outcomeAfterStop(t *testing.T, what func(ctx context.Context) error, retries int) {
	s := newSite(t)
	var again atomic.Bool
	w := working(func(ctx context.Context, _ *asynq.Task) error {
		if again.Swap(true) {
			return nil
		}
		<-ctx.Done()
		return what(ctx)
	})
	s.start(t, s.around(w))
	id := s.enqueue(t, asynq.MaxRetry(retries), asynq.Retention(time.Hour))
	w.await(t, id, 1)
	s.revoke(guard.CodeDeviceRevoked)
	back := asynq.TaskStateRetry
	if retries == 0 {
		back = asynq.TaskStateActive
	}
	s.asked(t, 2)
	s.unspent(t, id, back, 0)
	w.want(t, id, 1)
	s.Allow(device)
	s.unspent(t, id, asynq.TaskStateCompleted, 0)
	w.want(t, id, 2)
	if all := s.reported.get(); len(all) > 0 {
		t.Errorf("the ErrorHandler was given %v", all)
	}
}

// outcomeBeforeStop has a handler end so before, which counts as ever.
func outcomeBeforeStop(t *testing.T, name string, what func(ctx context.Context) error) {
	s := newSite(t)
	s.config.RetryDelayFunc = func(int, error, *asynq.Task) time.Duration { return time.Hour }
	w := working(func(ctx context.Context, _ *asynq.Task) error { return what(ctx) })
	s.start(t, s.around(w))
	id := s.enqueue(t, asynq.MaxRetry(3), asynq.Retention(time.Hour))
	switch name {
	case "nil", "its end", "its cause": // nothing has ended
		s.unspent(t, id, asynq.TaskStateCompleted, 0)
		return
	case "RevokeTask", "both":
		eventually(t, "the task is gone", func() bool { return s.info(t, id) == nil })
	case "SkipRetry":
		s.unspent(t, id, asynq.TaskStateArchived, 0)
	default:
		s.unspent(t, id, asynq.TaskStateRetry, 1)
	}
	s.revoke(guard.CodeDeviceRevoked)
	w.want(t, id, 1)
	all := s.reported.get()
	if len(all) != 1 {
		t.Fatalf("the ErrorHandler was given %v", all)
	}
	panics := name == "a panic" || name == "a nil error" || name == "an error one"
	if asynq.IsPanicError(all[0]) != panics || name == "an error" && all[0] != errOwn {
		t.Errorf("the ErrorHandler was given %v", all[0])
	}
}

func stoppedWithCause(t *testing.T) {
	s := newSite(t)
	causes := make(chan error, 1)
	w := working(func(ctx context.Context, _ *asynq.Task) error {
		if err := guard.Checkpoint(ctx); err != nil {
			t.Errorf("at the start: %v", err)
		}
		<-ctx.Done()
		causes <- context.Cause(ctx)
		return ctx.Err()
	})
	s.start(t, s.around(w))
	id := s.enqueue(t, asynq.MaxRetry(3))
	w.await(t, id, 1)
	s.revoke(guard.CodePlanFrozen)
	cause := receive(t, "the cause", causes)
	denied := (*guard.DeniedError)(nil)
	if !errors.As(cause, &denied) || denied.Decision.Code != guard.CodePlanFrozen || denied.DeviceID != device || !errors.Is(cause, context.Canceled) {
		t.Errorf("the cause is %v", cause)
	}
	text := s.await(t, id, asynq.TaskStateRetry).LastErr
	if want := `asynqmw: guard: device "` + device + `" stopped: PLAN_FROZEN (request `; !strings.HasPrefix(text, want) {
		t.Errorf("LastErr = %q, want %q...", text, want)
	}
}

// B1: nobody tells the guard, it asks.
func stoppedInTime(t *testing.T) {
	s := newSite(t)
	ends := make(chan time.Time, 1)
	w := working(func(ctx context.Context, _ *asynq.Task) error {
		<-ctx.Done()
		ends <- time.Now()
		return nil
	})
	s.start(t, s.around(w))
	w.await(t, s.enqueue(t, asynq.MaxRetry(3)), 1)
	revoked := time.Now()
	s.Deny(device, guard.CodeDeviceRevoked)
	if took, bound := receive(t, "the end", ends).Sub(revoked), interval+time.Second; took > bound+slack {
		t.Errorf("it took %v, the bound is %v", took, bound)
	}
}

// While a handler that was stopped goes on, its task stays where it is, also when the device is allowed again.
func stoppedSlowly(t *testing.T) {
	s := newSite(t)
	release := make(chan struct{})
	w := working(func(ctx context.Context, _ *asynq.Task) error {
		<-release
		return nil
	})
	s.start(t, s.around(w))
	ids := []string{s.enqueue(t, asynq.MaxRetry(3), asynq.Retention(time.Hour)), s.enqueue(t, asynq.MaxRetry(0), asynq.Retention(time.Hour))}
	for _, id := range ids {
		v := w.await(t, id, 1)
		s.revoke(guard.CodeDeviceRevoked)
		receive(t, "the stop", v.ctx.Done())
		s.Allow(device)
	}
	throughout(t, 2*time.Second, "both tasks are active", func() bool { return counts(t, s.inspector, "default") == count{active: 2} })
	for _, id := range ids {
		w.want(t, id, 1)
	}
	close(release)
	for _, id := range ids {
		s.unspent(t, id, asynq.TaskStateCompleted, 0)
		w.want(t, id, 2)
	}
}

func stoppedByClose(t *testing.T) {
	s := newSite(t)
	causes := make(chan error, 1)
	w := working(func(ctx context.Context, _ *asynq.Task) error {
		<-ctx.Done()
		causes <- context.Cause(ctx)
		return nil
	})
	shutdown := s.start(t, s.around(w))
	id := s.enqueue(t, asynq.MaxRetry(3))
	w.await(t, id, 1)
	_ = s.guard.Close()
	if cause := receive(t, "the end", causes); !errors.Is(cause, guard.ErrClosed) {
		t.Errorf("the cause is %v", cause)
	}
	throughout(t, time.Second, "nothing is lost", func() bool { return s.info(t, id) != nil && s.info(t, id).Retried == 0 })
	shutdown()
	if info := s.info(t, id); info == nil || info.Retried != 0 || info.State != asynq.TaskStatePending {
		t.Errorf("after Shutdown: %+v", info)
	}
	w.want(t, id, 1)
}

func stoppedByCloseOnLastAttempt(t *testing.T) {
	s := newSite(t)
	w := working(func(ctx context.Context, _ *asynq.Task) error {
		<-ctx.Done()
		return asynq.SkipRetry
	})
	shutdown := s.start(t, s.around(w))
	id := s.enqueue(t, asynq.MaxRetry(0))
	w.await(t, id, 1)
	_ = s.guard.Close()
	throughout(t, 4*interval, "it is held", func() bool { return s.is(t, id, asynq.TaskStateActive) })
	shutdown()
	s.unspent(t, id, asynq.TaskStatePending, 0)
	w.want(t, id, 1)
}

// A server that shuts down while a stopped handler goes on requeues its task, as asynq's own does.
func stoppedThenShutdown(t *testing.T) {
	s := newSite(t)
	release := make(chan struct{})
	w := working(func(ctx context.Context, _ *asynq.Task) error {
		<-release
		return errOwn
	})
	shutdown := s.start(t, s.around(w, asynqmw.WithInspector(s.inspector)))
	ids := []string{s.enqueue(t, asynq.MaxRetry(3)), s.enqueue(t, asynq.MaxRetry(0))}
	for _, id := range ids {
		w.await(t, id, 1)
	}
	s.revoke(guard.CodeDeviceRevoked)
	shutdown()
	close(release)
	for _, id := range ids {
		s.unspent(t, id, asynq.TaskStatePending, 0)
	}
}

func stoppedAgainAndAgain(t *testing.T) {
	s := newSite(t)
	const often = 4
	w := working(nil)
	w.act = func(ctx context.Context, _ *asynq.Task) error {
		if id, _ := asynq.GetTaskID(ctx); len(w.visits(id)) > often {
			return nil
		}
		<-ctx.Done()
		return errOwn
	}
	s.start(t, s.around(w))
	id := s.enqueue(t, asynq.MaxRetry(0), asynq.Retention(time.Hour))
	for n := range often {
		w.await(t, id, n+1)
		s.revoke(guard.CodeDeviceRevoked)
		s.Allow(device)
	}
	s.unspent(t, id, asynq.TaskStateCompleted, 0)
	w.want(t, id, often+1)
}

// A Runner that is no Guard is called again, on the same attempt.
func stoppedByRunner(t *testing.T) {
	s := newSite(t)
	outside := working(nil)
	w := working(nil)
	w.act = func(ctx context.Context, _ *asynq.Task) error {
		if len(w.visits("")) > 1 {
			return nil
		}
		<-ctx.Done()
		return asynq.SkipRetry
	}
	outside.act = asynqmw.New(&ownRunner{Guard: s.guard}, asynqmw.Fixed(device))(w).ProcessTask
	s.start(t, outside)
	id := s.enqueue(t, asynq.MaxRetry(0), asynq.Retention(time.Hour))
	w.await(t, id, 1)
	s.revoke(guard.CodeDeviceRevoked)
	s.Allow(device)
	s.unspent(t, id, asynq.TaskStateCompleted, 0)
	w.want(t, id, 2)
	outside.want(t, id, 1)
}

// What a handler made of its first stop is no outcome of what comes afterwards, though it looks like that: the guard
// is closed while the task is held, and it stays held.
func stoppedThenClosed(t *testing.T) {
	s := newSite(t)
	w := working(func(ctx context.Context, _ *asynq.Task) error {
		<-ctx.Done()
		return guard.ErrClosed // of another guard
	})
	s.Deny(device, guard.CodeDeviceRevoked)
	shutdown := s.start(t, s.around(w, asynqmw.WithInspector(s.inspector)))
	id := s.enqueue(t, asynq.MaxRetry(0))
	s.asked(t, 2)
	s.Allow(device)
	w.await(t, id, 1)
	s.revoke(guard.CodeDeviceRevoked)
	s.asked(t, 2) // the handler has returned, and the task waits
	_ = s.guard.Close()
	throughout(t, 4*interval, "it is held", func() bool { return s.is(t, id, asynq.TaskStateActive) })
	shutdown()
	s.unspent(t, id, asynq.TaskStatePending, 0)
	w.want(t, id, 1)
}
