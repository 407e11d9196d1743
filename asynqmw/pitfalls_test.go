package asynqmw_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/execguard/execguard/asynqmw"
	"github.com/execguard/execguard/guard"
)

// What asynq does to those who do not know it, one by one. What is not here is in the tests of refused, held,
// stopped and parked tasks, and of Configure.
func TestPitfalls(t *testing.T) {
	t.Parallel()
	sideBySide(t, map[string]func(t *testing.T){
		"asynq archives on the last attempt, failure or not":  pitfallLastAttempt,
		"a Timeout of less than a second is half an hour":     pitfallShortTimeout,
		"a denied task is not run in a hot loop":              pitfallHotLoop,
		"a queue that is paused stops all servers":            pitfallPause,
		"a lease that ends has the task handed out again":     pitfallLease,
		"a handler has until ShutdownTimeout on Shutdown":     pitfallShutdown,
		"a mass denial archives nothing":                      pitfallMass,
		"a task id in the archive blocks later tasks":         pitfallTaskID,
		"a unique task has its lock while it is away":         pitfallUnique,
		"an aggregated task is a new one":                     pitfallGroup,
		"a ServeMux calls middleware in order, for each task": pitfallMux,
		"a ServeMux makes the chain for each task":            pitfallMuxState,
		"one handler, two kinds of device":                    pitfallOthersGoOn,
	})
}

// This is why tasks are held: when asynq changes it, they need not be any more.
func pitfallLastAttempt(t *testing.T) {
	s := newSite(t)
	cfg := s.config
	cfg.IsFailure = func(error) bool { return false }
	s.startBare(t, cfg, asynq.HandlerFunc(func(context.Context, *asynq.Task) error { return errOwn }))
	s.unspent(t, s.enqueue(t, asynq.MaxRetry(0)), asynq.TaskStateArchived, 0)
}

// asynq rounds the Timeout to whole seconds, and none is its default: the task is not let go of for that.
func pitfallShortTimeout(t *testing.T) {
	s := newSite(t)
	s.Deny(device, guard.CodeDeviceRevoked)
	s.start(t, s.around(done(), asynqmw.WithInspector(s.inspector)))
	id := s.enqueue(t, asynq.MaxRetry(0), asynq.Timeout(500*time.Millisecond), asynq.Retention(time.Hour))
	s.await(t, id, asynq.TaskStateActive)
	throughout(t, 1500*time.Millisecond, "it is held", func() bool { return s.is(t, id, asynq.TaskStateActive) })
	s.Allow(device)
	s.unspent(t, id, asynq.TaskStateCompleted, 0)
}

// Neither an interval of a millisecond nor delays of nothing make one.
func pitfallHotLoop(t *testing.T) {
	s := newSite(t, guard.WithInterval(time.Millisecond))
	s.config.DelayedTaskCheckInterval = 10 * time.Millisecond
	s.config.TaskCheckInterval = 10 * time.Millisecond
	s.Deny(device, guard.CodeDeviceRevoked)
	s.start(t, s.around(done()))
	id := s.enqueue(t, asynq.MaxRetry(1))
	s.asked(t, 1)
	receive(t, "a while", time.After(3*time.Second))
	if n := len(s.Calls()); n > 6 {
		t.Errorf("the authority was asked %d times in 3 s", n)
	}
	s.unspent(t, id, asynq.TaskStateRetry, 0)
}

// Another server on the same queue goes on while this one's device is denied.
func pitfallPause(t *testing.T) {
	s, denied, allowed := newSite(t), done(), done()
	s.config.Concurrency = 2
	s.Deny(device, guard.CodeDeviceRevoked)
	s.start(t, s.around(denied))
	s.enqueue(t, asynq.MaxRetry(0))
	s.asked(t, 3)
	s.start(t, asynqmw.New(s.guard, asynqmw.Fixed(other))(allowed))
	for range 40 {
		s.enqueue(t, asynq.MaxRetry(3))
	}
	// Half of them may be with the denied one first.
	eventually(t, "the other server has all that are left", func() bool { return len(allowed.visits("")) == 40 })
	if info, err := s.inspector.GetQueueInfo("default"); err != nil || info.Paused || info.Active > 2 {
		t.Errorf("%+v, %v", info, err)
	}
	denied.want(t, "", 0)
}

// The lease of a held task is renewed, as any other's.
func pitfallLease(t *testing.T) {
	s := newSite(t)
	s.Deny(device, guard.CodeDeviceRevoked)
	s.start(t, s.around(done()))
	id := s.enqueue(t, asynq.MaxRetry(0))
	s.await(t, id, asynq.TaskStateActive)
	c := redis.NewClient(&redis.Options{Addr: s.redis.Addr, DB: s.redis.DB})
	t.Cleanup(func() { _ = c.Close() })
	lease := func() float64 { return c.ZScore(t.Context(), "asynq:{default}:lease", id).Val() }
	before := lease()
	if before == 0 {
		t.Fatal("it has no lease")
	}
	eventually(t, "a longer lease", func() bool { return lease() >= before+4 })
}

// A task that is allowed when the server shuts down has its time to end, and is done.
func pitfallShutdown(t *testing.T) {
	s := newSite(t)
	s.config.ShutdownTimeout = 10 * time.Second
	w := working(func(ctx context.Context, _ *asynq.Task) error {
		select {
		case <-time.After(time.Second):
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	shutdown := s.start(t, s.around(w))
	id := s.enqueue(t, asynq.MaxRetry(0), asynq.Retention(time.Hour))
	w.await(t, id, 1)
	shutdown()
	s.unspent(t, id, asynq.TaskStateCompleted, 0)
}

func pitfallMass(t *testing.T) {
	const n = 300
	s := newSite(t)
	s.config.Concurrency = 50
	s.Deny(device, guard.CodeDeviceRevoked)
	w := done()
	shutdown := s.start(t, s.around(w))
	for i := range n {
		s.enqueue(t, asynq.MaxRetry(i%3)) // every third cannot go back
	}
	throughout(t, 3*time.Second, "all are there", func() bool {
		c := counts(t, s.inspector, "default")
		return c.archived == 0 && c.completed == 0
	})
	shutdown()
	if c := counts(t, s.inspector, "default"); c.pending+c.retry != n || c.active+c.archived != 0 {
		t.Errorf("%+v of %d", c, n)
	}
	w.want(t, "", 0)
}

func pitfallTaskID(t *testing.T) {
	s, w := newSite(t), done()
	s.Deny(device, guard.CodeDeviceRevoked)
	s.start(t, s.around(w))
	s.enqueue(t, asynq.MaxRetry(0), asynq.TaskID("nightly"))
	s.asked(t, 2)
	s.Allow(device)
	eventually(t, "its end", func() bool { return s.info(t, "nightly") == nil })
	s.enqueue(t, asynq.MaxRetry(0), asynq.TaskID("nightly"))
	w.await(t, "nightly", 2)
}

func pitfallUnique(t *testing.T) {
	s, w := newSite(t), done()
	s.Deny(device, guard.CodeDeviceRevoked)
	s.start(t, s.around(w))
	id := s.enqueue(t, asynq.MaxRetry(1), asynq.Unique(time.Hour))
	enqueue := func() error {
		_, err := s.client.EnqueueContext(t.Context(), asynq.NewTask(kind, nil), asynq.Unique(time.Hour))
		return err
	}
	for range 2 {
		s.asked(t, 1)
		s.unspent(t, id, asynq.TaskStateRetry, 0)
		if err := enqueue(); !errors.Is(err, asynq.ErrDuplicateTask) {
			t.Errorf("while it is away: %v", err)
		}
	}
	s.Allow(device)
	eventually(t, "its end", func() bool { return s.info(t, id) == nil })
	if err := enqueue(); err != nil {
		t.Errorf("when it is done: %v", err)
	}
}

// The aggregated task is guarded in the handler. It has the device that the aggregator gives it: groups are by device.
func pitfallGroup(t *testing.T) {
	s := newSite(t)
	s.config.GroupGracePeriod = time.Second
	s.config.GroupMaxSize = 3
	s.config.GroupAggregator = asynq.GroupAggregatorFunc(func(group string, tasks []*asynq.Task) *asynq.Task {
		return asynq.NewTaskWithHeaders(kind, fmt.Append(nil, len(tasks)), map[string]string{"device": group},
			asynq.MaxRetry(0), asynq.Retention(time.Hour))
	})
	var sizes list[string]
	w := working(func(_ context.Context, task *asynq.Task) error {
		sizes.add(task.Headers()["device"] + " " + string(task.Payload()))
		return nil
	})
	s.Deny(device, guard.CodeDeviceRevoked)
	s.start(t, asynqmw.New(s.guard, asynqmw.FromHeader("device"))(w))
	for range 3 {
		for _, id := range []string{device, other} {
			s.enqueueFor(t, id, asynq.Group(id))
		}
	}
	eventually(t, "the allowed group is done, the denied one is held", func() bool {
		return counts(t, s.inspector, "default") == count{active: 1, completed: 1}
	})
	s.asked(t, 2)
	s.Allow(device)
	eventually(t, "both are done", func() bool { return counts(t, s.inspector, "default") == count{completed: 2} })
	if got, want := sizes.get(), []string{other + " 3", device + " 3"}; !slices.Equal(got, want) {
		t.Errorf("handled %q, want %q", got, want)
	}
}

// What stands outside of New sees the refusal, what stands inside does not see the task.
func pitfallMux(t *testing.T) {
	s := newSite(t)
	var order list[string]
	note := func(name string) asynq.MiddlewareFunc {
		return func(next asynq.Handler) asynq.Handler {
			return asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error {
				order.add(name)
				return next.ProcessTask(ctx, task)
			})
		}
	}
	mux := asynq.NewServeMux()
	mux.Use(note("outside"), asynqmw.New(s.guard, asynqmw.Fixed(device)), note("inside"))
	mux.Handle(kind, working(func(context.Context, *asynq.Task) error { order.add("handler"); return nil }))
	s.Deny(device, guard.CodeDeviceRevoked)
	s.start(t, mux)
	id := s.enqueue(t, asynq.MaxRetry(1), asynq.Retention(time.Hour))
	s.unspent(t, id, asynq.TaskStateRetry, 0)
	s.Allow(device)
	s.unspent(t, id, asynq.TaskStateCompleted, 0)
	if got, want := slices.Compact(order.get()), []string{"outside", "inside", "handler"}; !slices.Equal(got, want) {
		t.Errorf("called %q, want %q, the first as often as asked", got, want)
	}
}

// The bound on held tasks is all tasks', though a ServeMux makes the chain anew for each.
func pitfallMuxState(t *testing.T) {
	s, w := newSite(t, guard.WithInterval(time.Second)), done()
	mux := asynq.NewServeMux()
	mux.Use(asynqmw.New(s.guard, asynqmw.Fixed(device), asynqmw.WithMaxHeld(1), asynqmw.WithInspector(s.inspector)))
	mux.Handle(kind, w)
	s.Deny(device, guard.CodeDeviceRevoked)
	s.start(t, mux)
	for range 4 {
		s.enqueue(t, asynq.MaxRetry(0), asynq.Retention(time.Hour))
	}
	eventually(t, "one is held", func() bool { return counts(t, s.inspector, "default") == count{active: 1, archived: 3} })
	s.Allow(device)
	eventually(t, "all are done", func() bool { return counts(t, s.inspector, "default") == count{completed: 4} })
	w.want(t, "", 4)
}

// A denial is one device's: another's task on the same server goes on, and is not told to stop.
func pitfallOthersGoOn(t *testing.T) {
	s := newSite(t)
	release := make(chan struct{})
	w := working(func(ctx context.Context, _ *asynq.Task) error {
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	letGo := sync.OnceFunc(func() { close(release) })
	t.Cleanup(letGo)
	s.start(t, asynqmw.New(s.guard, asynqmw.FromHeader("device"))(w))
	stopped := s.enqueueFor(t, device, asynq.MaxRetry(3))
	goesOn := s.enqueueFor(t, other, asynq.MaxRetry(3), asynq.Retention(time.Hour))
	v := w.await(t, goesOn, 1)
	w.await(t, stopped, 1)
	s.revoke(guard.CodeDeviceRevoked)
	s.unspent(t, stopped, asynq.TaskStateRetry, 0)
	if err := v.ctx.Err(); err != nil {
		t.Errorf("the other device's task has ended: %v", err)
	}
	letGo()
	s.unspent(t, goesOn, asynq.TaskStateCompleted, 0)
}
