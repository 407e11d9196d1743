package asynqmw_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/asynqmw"
	"github.com/execguard/execguard/guard"
)

// No second copy beside one that goes on, and no server shut down under it: asynq would cancel its
// context and requeue its task.
func TestServeWaitsForHandlers(t *testing.T) {
	t.Parallel()
	stopped, release := make(chan struct{}, 2), make(chan struct{})
	s := newServing(t, func(ctx context.Context, _ *asynq.Task) error {
		select {
		case <-release: // the second time
		case <-ctx.Done():
			stopped <- struct{}{}
			<-release
		}
		return nil
	})
	s.start().enqueue([]string{"slow"}, asynq.MaxRetry(0))
	s.work.atWork(t, 1)
	s.revoke()
	serveReceive(t, stopped, "the handler is not told")
	s.restore() // no reason to begin a second one
	if d, err := s.guard.Validate(t.Context(), servedDevice); err != nil || !d.Allowed {
		t.Fatalf("%+v, %v", d, err)
	}
	<-time.After(2 * s.config.ShutdownTimeout) // after which it would have been requeued
	if got, servers := s.counts(), s.servers.Load(); got != (count{active: 1}) || servers != 1 || s.log.said("shutdown") != 0 {
		t.Errorf("the queue has %+v, %d servers were made, and logged was %q", got, servers, s.log.lines)
	}
	close(release)
	s.handled(1)
	s.work.noCopies(t)
	if begun := s.work.all(); len(begun) != 2 || s.servers.Load() != 2 {
		t.Errorf("begun were %v, by %d servers: nil after the denial is no success", begun, s.servers.Load())
	}
}

// Denied when a task has been fetched, and its handler has not been called yet.
func TestServeBeginsNothingAfterTheDenial(t *testing.T) {
	t.Parallel()
	stopped := make(chan struct{}, 2)
	s := newServing(t, func(ctx context.Context, _ *asynq.Task) error {
		<-ctx.Done()
		stopped <- struct{}{}
		return nil
	})
	var fetched atomic.Int32
	s.config.BaseContext = func() context.Context { // what asynq calls in between
		if fetched.Add(1) == 2 {
			s.revoke()
			serveReceive(t, stopped, "the handler is not told")
		}
		return context.Background()
	}
	s.start().enqueue([]string{"first"}, asynq.MaxRetry(0))
	s.work.atWork(t, 1)
	s.enqueue([]string{"second"}, asynq.MaxRetry(0))
	s.become(count{pending: 2})
	s.nothingSpent("first", "second")
	if begun := s.work.all(); !slices.Equal(begun, []string{"first"}) {
		t.Errorf("begun were %v", begun)
	}
}

// Who asks guard.Checkpoint knows of a denial as soon as the guard does, and may be back before his context
// has ended: the error that he returns then is the denial's, and no failure of the task.
func TestServeResultOfACheckpointDoesNotCount(t *testing.T) {
	t.Parallel()
	const workers = 2
	var denied atomic.Bool
	s := newServing(t, func(ctx context.Context, _ *asynq.Task) error {
		for !denied.Load() {
			if err := guard.Checkpoint(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	s.config.Concurrency, s.config.ShutdownTimeout = workers, 50*time.Millisecond
	s.start()
	for round := range 30 {
		ids := serveIDs(fmt.Sprint("round ", round), workers)
		s.enqueue(ids, asynq.MaxRetry(0))
		s.work.atWork(t, workers)
		s.revoke()
		s.become(count{pending: workers})
		s.nothingSpent(ids...)
		denied.Store(true)
		s.restore()
		s.handled((round + 1) * workers)
		denied.Store(false)
	}
}

// afterDenial is what handlers make of being stopped.
func afterDenial() map[string]func(ctx context.Context) error {
	return map[string]func(ctx context.Context) error{
		"nil":          func(context.Context) error { return nil },
		"an error":     func(context.Context) error { return errors.New("broken off") },
		"Canceled":     func(ctx context.Context) error { return ctx.Err() },
		"the cause":    context.Cause,
		"a checkpoint": guard.Checkpoint,
		"SkipRetry":    func(context.Context) error { return asynq.SkipRetry },
		"RevokeTask":   func(context.Context) error { return asynq.RevokeTask },
		"both":         func(context.Context) error { return fmt.Errorf("%w: %w", asynq.SkipRetry, asynq.RevokeTask) },
		"a panic":      func(context.Context) error { panic("a panic after the denial") },
		"panic(nil)":   func(context.Context) error { panic(nil) }, //nolint:govet // what if
		"Goexit":       func(context.Context) error { runtime.Goexit(); return nil },
	}
}

func TestServeResultAfterADenialDoesNotCount(t *testing.T) {
	for _, configured := range []bool{false, true} {
		t.Run(fmt.Sprintf("configured %t", configured), func(t *testing.T) {
			t.Parallel()
			s := newServing(t, func(ctx context.Context, task *asynq.Task) error {
				if guard.Checkpoint(ctx) == nil && string(task.Payload()) == "behind" {
					return nil
				}
				<-ctx.Done()
				name, _, _ := strings.Cut(string(task.Payload()), "/")
				return afterDenial()[name](ctx)
			})
			var last, more []string
			for name := range afterDenial() {
				last, more = append(last, name+"/last"), append(more, name+"/more")
			}
			s.config.Concurrency = len(last) + len(more)
			if configured {
				s.config = asynqmw.Configure(s.config)
			}
			s.start()
			s.enqueue(last, asynq.MaxRetry(0))
			s.enqueue(more, asynq.MaxRetry(3), asynq.Retention(time.Hour), asynq.Unique(time.Hour))
			s.work.atWork(t, len(last)+len(more))
			s.enqueue([]string{"behind"}, asynq.MaxRetry(0))
			s.revoke()
			s.become(count{pending: s.config.Concurrency + 1})
			s.nothingSpent(slices.Concat(last, more)...)
			waiting, err := s.inspector.ListPendingTasks(servedQueue, asynq.PageSize(100))
			if err != nil || waiting[len(waiting)-1].ID != "behind" {
				t.Errorf("a task went behind one that came later: %v, %v", waiting[len(waiting)-1].ID, err)
			}
			if configured != (s.log.said("a panic after the denial") == 2) {
				t.Errorf("of the panics the server's own logger was told %d", s.log.said("a panic after the denial"))
			}
		})
	}
}

// What is done before the denial is done, and what failed before it has failed.
func TestServeResultBeforeTheDenialCounts(t *testing.T) {
	t.Parallel()
	s := newServing(t, func(ctx context.Context, task *asynq.Task) error {
		switch string(task.Payload()) {
		case "fails":
			return errors.New("of its own")
		case "fails at last":
			panic("of its own")
		case "skips":
			return asynq.SkipRetry
		case "revokes":
			return asynq.RevokeTask
		case "is cut":
			<-ctx.Done()
		}
		return nil
	})
	s.start()
	s.enqueue(serveIDs("done", 5), asynq.MaxRetry(0))
	s.enqueue([]string{"kept"}, asynq.Retention(time.Hour))
	s.enqueue([]string{"fails", "skips", "revokes"}, asynq.MaxRetry(3))
	s.enqueue([]string{"fails at last", "is cut"}, asynq.MaxRetry(0))
	s.become(count{active: 1, retry: 1, archived: 2, completed: 1})
	s.revoke()
	s.become(count{pending: 1, retry: 1, archived: 2, completed: 1})
	s.nothingSpent("is cut")
	for id, want := range map[string]string{"fails": "of its own", "fails at last": "of its own", "skips": asynq.SkipRetry.Error()} {
		info, err := s.inspector.GetTaskInfo(servedQueue, id)
		if err != nil || !strings.Contains(info.LastErr, want) || id == "fails" && info.Retried != 1 {
			t.Errorf("%s: %+v, %v", id, info, err)
		}
	}
}

// Every no ends the stretch: that of the organisation, and «could not ask» (S2, S3).
func TestServeStopsOnEveryDenial(t *testing.T) {
	for name, deny := range map[string]func(s *serving){
		"of the organisation": func(s *serving) { s.validator.Deny("", guard.CodeOrgDisabled) },
		"could not ask":       func(s *serving) { s.validator.Deny("", guard.CodeSystemUnavailable) },
		"an unknown code":     func(s *serving) { s.validator.Deny("", "NO_SUCH_CODE") },
		"learnt by another":   func(s *serving) { s.validator.Deny(servedDevice, guard.CodeDeviceRevoked); _ = s.isDenied() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServing(t, untilStopped)
			s.start().enqueue([]string{"cut"}, asynq.MaxRetry(0))
			s.work.atWork(t, 1)
			deny(s)
			s.become(count{pending: 1})
			s.nothingSpent("cut")
			s.validator.Always("", nil)
			s.validator.Allow(servedDevice)
			s.work.atWork(t, 1)
		})
	}
}

// overruns collects what a guard tells of functions that do not return in time.
type overruns struct {
	mu     sync.Mutex
	events []guard.Event
	stops  int
}

func (o *overruns) observe(_ context.Context, e guard.Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch e.Kind {
	case guard.EventOverran:
		o.events = append(o.events, e)
	case guard.EventStopped:
		o.stops++
	}
}

func (o *overruns) none(t testing.TB, stops int) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.events) != 0 || o.stops != stops {
		t.Errorf("where handlers obey, %d of %d stops overran: %v", len(o.events), o.stops, o.events)
	}
}

// The shutdown takes longer than the guard's timeout, and is none of the run's.
func TestServeDoesNotOverrunWhereHandlersObey(t *testing.T) {
	t.Parallel()
	var o overruns
	s := newServing(t, untilStopped, guard.WithTimeout(200*time.Millisecond), guard.WithObserver(o.observe))
	s.config.ShutdownTimeout = time.Second
	s.start().enqueue(serveIDs("cut", 3), asynq.MaxRetry(0))
	s.work.atWork(t, 3)
	s.revoke()
	s.become(count{pending: 3})
	serveAwait(t, s.noServer)
	o.none(t, 1)
}

// Allowed and denied again before the server of the stretch before has shut down: there is nothing
// that would have to stop, and so nothing may be reported as going on.
func TestServeDoesNotOverrunWhileItShutsDown(t *testing.T) {
	t.Parallel()
	var o overruns
	s := newServing(t, untilStopped, guard.WithTimeout(200*time.Millisecond), guard.WithObserver(o.observe))
	s.config.ShutdownTimeout = 1500 * time.Millisecond
	s.start().enqueue([]string{"cut"}, asynq.MaxRetry(0))
	s.work.atWork(t, 1)
	s.revoke()
	s.work.atWork(t, 0)
	s.restore()
	s.asked(2)
	s.revoke()
	s.become(count{pending: 1})
	serveAwait(t, s.noServer)
	o.none(t, 2)
	if n := s.servers.Load(); n != 1 {
		t.Errorf("%d servers were made", n)
	}
	s.restore()
	s.work.atWork(t, 1)
}

// A task whose own Timeout is over before the server has shut down: there is no way to requeue it, and
// asynq treats it as it treats every refusal, which is why the package comment asks for another
// ShutdownTimeout.
func TestServeWithAShutdownTimeoutLongerThanATasks(t *testing.T) {
	for _, tc := range []struct {
		name       string
		configured bool
		retries    int
		want       count
		retried    int
	}{
		{"a retry is spent", false, 3, count{retry: 1}, 1},
		{"configured: none is", true, 3, count{retry: 1}, 0},
		{"the last attempt", false, 0, count{archived: 1}, 0},
		{"the last attempt, configured", true, 0, count{archived: 1}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newServing(t, untilStopped)
			s.config.ShutdownTimeout = time.Minute
			s.config.DelayedTaskCheckInterval = time.Minute
			if tc.configured {
				s.config = asynqmw.Configure(s.config)
			}
			s.start().enqueue([]string{"short"}, asynq.MaxRetry(tc.retries), asynq.Timeout(time.Second))
			s.work.atWork(t, 1)
			s.revoke()
			s.become(tc.want)
			info, err := s.inspector.GetTaskInfo(servedQueue, "short")
			if err != nil || info.Retried != tc.retried || !strings.Contains(info.LastErr, "DEVICE_REVOKED") {
				t.Errorf("%+v, %v", info, err)
			}
			if lost := s.log.said("task id=short of queue \"default\" stays in the archive"); tc.configured && lost != tc.want.archived {
				t.Errorf("%d lines of log name the task that stays in the archive", lost)
			}
			serveAwait(t, s.noServer) // as soon as no task is active, and not after a minute
		})
	}
}
