package asynqmw_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/asynqmw"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

// startPlain starts a server of somebody else's on the same queue, without a guard.
func (s *serving) startPlain(h asynq.HandlerFunc) *asynq.Server {
	s.t.Helper()
	other := asynq.NewServer(s.redis, s.config)
	if err := other.Start(h); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(other.Shutdown)
	return other
}

func TestServeFetchesNothingWhileDenied(t *testing.T) {
	t.Parallel()
	s := newServing(t, atOnce)
	s.validator.Deny(servedDevice, guard.CodeDeviceRevoked)
	s.enqueue(serveIDs("early", 5), asynq.MaxRetry(0))
	s.start().asked(4)
	if got := s.counts(); got != (count{pending: 5}) || s.servers.Load() != 0 {
		t.Errorf("the queue has %+v, and %d servers were made", got, s.servers.Load())
	}
	// PauseQueue would have stopped this one too.
	var others atomic.Int32
	other := s.startPlain(func(context.Context, *asynq.Task) error {
		others.Add(1)
		return nil
	})
	s.handled(5)
	other.Shutdown()
	if others.Load() != 5 || len(s.work.all()) != 0 {
		t.Errorf("another server has handled %d, and this one %v", others.Load(), s.work.all())
	}
	s.enqueue([]string{"late"}, asynq.MaxRetry(0))
	s.restore()
	s.handled(6)
	if begun := s.work.all(); !slices.Equal(begun, []string{"late"}) || s.servers.Load() != 1 {
		t.Errorf("begun were %v, by %d servers", begun, s.servers.Load())
	}
}

// While a handler takes its time to stop, its server still runs, and must not take what others could handle.
func TestServeFetchesNothingWhileAHandlerTakesItsTime(t *testing.T) {
	t.Parallel()
	stopped, release := make(chan struct{}), make(chan struct{})
	s := newServing(t, func(ctx context.Context, _ *asynq.Task) error {
		<-ctx.Done()
		close(stopped)
		<-release
		return nil
	})
	s.start().enqueue([]string{"slow"}, asynq.MaxRetry(0))
	s.work.atWork(t, 1)
	s.revoke()
	serveReceive(t, stopped, "the handler is not told")
	s.enqueue(serveIDs("others", 40), asynq.MaxRetry(0))
	<-time.After(10 * s.config.TaskCheckInterval)
	if got := s.counts(); got != (count{active: 1, pending: 40}) {
		t.Errorf("while a handler takes its time, the queue has %+v", got)
	}
	s.startPlain(atOnce)
	s.become(count{active: 1})
	if begun := s.work.all(); len(begun) != 1 {
		t.Errorf("begun were %v", begun)
	}
	close(release)
	s.handled(41)
}

// isDenied is nil when the guard's runs have been stopped.
func (s *serving) isDenied() error {
	if d, err := s.guard.Validate(s.t.Context(), servedDevice); err != nil || d.Allowed {
		return fmt.Errorf("%+v, %w", d, err)
	}
	return nil
}

func TestServeMakesOneServerAStretchAndNeverTwoAtATime(t *testing.T) {
	t.Parallel()
	s := newServing(t, atOnce)
	made := s.newOne
	s.newOne = func() *asynq.Server {
		if others, err := s.inspector.Servers(); err != nil || len(others) != 0 {
			t.Errorf("a server was made beside %v, %v", others, err)
		}
		return made()
	}
	s.start()
	for stretch := range 4 {
		s.enqueue([]string{fmt.Sprint("task ", stretch)})
		s.handled(stretch + 1)
		if made := s.servers.Load(); made != int32(stretch+1) {
			t.Fatalf("%d servers were made in %d stretches", made, stretch+1)
		}
		s.revoke()
		serveAwait(t, s.noServer)
		s.asked(1)
		s.restore()
	}
}

// noServer is nil when none is registered with Redis, which a server does last of all.
func (s *serving) noServer() error {
	if all, err := s.inspector.Servers(); err != nil || len(all) > 0 {
		return fmt.Errorf("servers are still there: %d, %w", len(all), err)
	}
	return nil
}

// What a handler has found out about its context.
type serveSeen struct {
	id                    string
	retried, most         int
	known                 bool
	before, after         error // of guard.Checkpoint
	allowed               guard.Decision
	err, cause, nextCause error
	at                    time.Time
}

func TestServeHandlersAreToldWithinB1(t *testing.T) {
	t.Parallel()
	seen := make(chan serveSeen, 1)
	s := newServing(t, func(ctx context.Context, _ *asynq.Task) error {
		var o serveSeen
		o.id, o.known = asynq.GetTaskID(ctx)
		o.retried, _ = asynq.GetRetryCount(ctx)
		o.most, _ = asynq.GetMaxRetry(ctx)
		o.allowed, _ = guard.DecisionFrom(ctx)
		o.before = guard.Checkpoint(ctx)
		child, cancel := context.WithCancel(ctx)
		defer cancel()
		<-child.Done()
		o.at, o.after, o.err, o.cause, o.nextCause = time.Now(), guard.Checkpoint(ctx), ctx.Err(), context.Cause(ctx), context.Cause(child)
		seen <- o
		return ctx.Err()
	}, guard.WithInterval(500*time.Millisecond), guard.WithTimeout(time.Second))
	s.start().enqueue([]string{"told"}, asynq.MaxRetry(3))
	s.work.atWork(t, 1)
	revoked := time.Now()
	s.validator.Deny(servedDevice, guard.CodeDeviceRevoked) // without a hint
	o := serveReceive(t, seen, "the handler is not told")
	if took := o.at.Sub(revoked); took > 1500*time.Millisecond {
		t.Errorf("the handler was told after %v, and B1 is 1.5s", took)
	}
	if o.id != "told" || !o.known || o.retried != 0 || o.most != 3 {
		t.Errorf("of its task the handler knows %q, %t, %d of %d", o.id, o.known, o.retried, o.most)
	}
	if o.before != nil || !errors.Is(o.after, guard.ErrDenied) || o.allowed.Code != guard.CodeAllow || o.allowed.RequestID == "" {
		t.Errorf("Checkpoint was %v, then %v; allowed by %+v", o.before, o.after, o.allowed)
	}
	for _, cause := range []error{o.cause, o.nextCause} {
		denied := (*guard.DeniedError)(nil)
		if !errors.As(cause, &denied) || denied.Decision.Code != guard.CodeDeviceRevoked || denied.Decision.RequestID == "" || !denied.InFlight ||
			!errors.Is(cause, guard.ErrDenied) || !errors.Is(cause, context.Canceled) || o.err != context.Canceled {
			t.Errorf("the context ended with %v, because of %v", o.err, cause)
		}
	}
}

type serveKey struct{ name string }

// A handler finds asynq's values, those of the server's BaseContext and those of Serve's context, and
// guard.Checkpoint all runs that it stands in.
func TestServeHandlersContext(t *testing.T) {
	t.Parallel()
	outer := guardtest.NewValidator("base")
	g := newServeGuard(t, outer)
	base, session, err := guard.Begin(context.WithValue(t.Context(), serveKey{"base"}, 1), g, "base")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan string, 1)
	checks := make(chan error, 1)
	s := newServing(t, func(ctx context.Context, _ *asynq.Task) error {
		decision, _ := guard.DecisionFrom(ctx)
		queue, _ := asynq.GetQueueName(ctx)
		seen <- fmt.Sprint(queue, ctx.Value(serveKey{"base"}), ctx.Value(serveKey{"serve"}), ctx.Value(serveKey{"none"}), decision.DeviceID)
		<-ctx.Done()
		checks <- guard.Checkpoint(ctx)
		return nil
	})
	s.config.BaseContext = func() context.Context { return base }
	s.startWithin(context.WithValue(t.Context(), serveKey{"serve"}, 2)).enqueue([]string{"task"})
	if got := serveReceive(t, seen, "nothing is handled"); got != "default1 2 <nil>"+servedDevice {
		t.Errorf("the handler's context has %q", got)
	}
	s.revoke()
	if err := serveReceive(t, checks, "the handler is not told"); !errors.Is(err, guard.ErrDenied) {
		t.Errorf("Checkpoint says %v in a run that was denied", err)
	}
	s.become(count{pending: 1})
	session.End(nil)
	if err := session.Wait(); err != nil {
		t.Error(err)
	}
}

// Denied while the next server is being made: nothing begins on it.
func TestServeIsDeniedWhileAServerIsMade(t *testing.T) {
	t.Parallel()
	s := newServing(t, atOnce)
	made := s.newOne
	s.newOne = func() *asynq.Server {
		if s.servers.Load() <= 8 {
			s.revoke()
			serveAwait(t, s.isDenied)
			s.validator.Allow(servedDevice)
			defer func() {
				if begun := s.work.all(); len(begun) > 0 {
					t.Errorf("begun were %v", begun)
				}
			}()
		}
		return made()
	}
	s.config.ShutdownTimeout = 50 * time.Millisecond
	s.enqueue(serveIDs("task", 100), asynq.MaxRetry(0))
	s.start().handled(100)
	if n := s.servers.Load(); n != 9 {
		t.Errorf("%d servers were made", n)
	}
}

// Without hints nothing would happen here for an hour (B3).
func TestServeHearsHints(t *testing.T) {
	t.Run("of a revocation", func(t *testing.T) {
		t.Parallel()
		s := newServing(t, untilStopped, guard.WithInterval(time.Hour))
		s.start().enqueue([]string{"hinted"}, asynq.MaxRetry(0))
		s.work.atWork(t, 1)
		s.revoke()
		s.become(count{pending: 1})
		s.nothingSpent("hinted")
	})
	t.Run("of a restoration", func(t *testing.T) {
		t.Parallel()
		s := newServing(t, atOnce, guard.WithInterval(time.Minute))
		s.validator.Deny(servedDevice, guard.CodeDeviceRevoked)
		s.start().enqueue([]string{"hinted"}, asynq.MaxRetry(0))
		serveAwait(t, func() error {
			if len(s.validator.Calls()) == 0 {
				return errors.New("the authority is not asked")
			}
			return nil
		})
		serveAwait(t, func() error {
			s.restore() // again: a hint that comes before Serve waits is lost
			if s.servers.Load() == 0 {
				return errors.New("no hint was heard")
			}
			return nil
		})
		s.handled(1)
	})
}

// One Redis, one queue, two devices: what becomes of one is nothing to the other.
func TestServeOfAnotherDeviceGoesOn(t *testing.T) {
	t.Parallel()
	s := newServing(t, untilStopped)
	s.start().enqueue(serveIDs("cut", 4), asynq.MaxRetry(0))
	s.work.atWork(t, 4)
	other := newServingOn(t, s.redis, atOnce)
	other.validator.Deny("worker:serve:02", guard.CodeDeviceRevoked)
	other.start()
	s.enqueue(serveIDs("free", 50), asynq.MaxRetry(0))
	s.become(count{active: 4})
	s.revoke()
	other.handled(54) // those that were cut as well
	if n := other.servers.Load(); n != 1 || s.servers.Load() != 1 {
		t.Errorf("%d servers were made for the device that was never denied, %d for the other", n, s.servers.Load())
	}
}

// New inside of Serve, so that a task may belong to another device than the process: the inner guard's
// stop and its held tasks must not keep Serve from ending its stretch, or have anything spent.
func TestServeAroundNew(t *testing.T) {
	t.Parallel()
	s := newServing(t, untilStopped)
	inner := guardtest.NewValidator(servedDevice)
	inner.Deny("owner:denied", guard.CodeDeviceNotFound)
	device := func(_ context.Context, task *asynq.Task) (string, error) { return task.Headers()["device"], nil }
	s.handler = asynqmw.New(newServeGuard(t, inner), device)(s.handler)
	s.config = asynqmw.Configure(s.config)
	s.start()
	for id, owner := range map[string]string{"held": "owner:denied", "runs": servedDevice} {
		task := asynq.NewTaskWithHeaders("serve", []byte(id), map[string]string{"device": owner})
		if _, err := s.client.Enqueue(task, asynq.TaskID(id), asynq.MaxRetry(0)); err != nil {
			t.Fatal(err)
		}
	}
	s.work.atWork(t, 1)
	s.become(count{active: 2})
	s.revoke()
	s.become(count{pending: 2})
	s.nothingSpent("held", "runs")
}

func TestServeFiveEpochs(t *testing.T) {
	t.Parallel()
	const epochs, tasks, workers = 5, 60, 6
	go1 := make(chan struct{}) // one for each task that may be finished
	var finished atomic.Int32
	s := newServing(t, func(ctx context.Context, _ *asynq.Task) error {
		select {
		case <-go1:
			finished.Add(1)
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	s.config.Concurrency = workers
	s.enqueue(serveIDs("task", tasks), asynq.MaxRetry(0))
	s.start()
	for epoch := 1; epoch <= epochs; epoch++ {
		for range tasks / epochs {
			select {
			case go1 <- struct{}{}:
			case <-time.After(serveLimit):
				t.Fatalf("epoch %d: nobody is at work", epoch)
			}
		}
		left := tasks - epoch*tasks/epochs
		s.become(count{active: min(left, workers), pending: max(left-workers, 0)})
		s.revoke()
		s.become(count{pending: left}) // none active, none archived
		if n := s.servers.Load(); n != int32(epoch) {
			t.Errorf("epoch %d: %d servers were made", epoch, n)
		}
		s.restore()
	}
	s.handled(tasks)
	s.work.noCopies(t)
	if finished.Load() != tasks {
		t.Errorf("%d of %d tasks were handled", finished.Load(), tasks)
	}
}

// At random times, with handlers that obey at once, after a while, or finish all the same.
func TestServeUnderRandomRevocations(t *testing.T) {
	t.Parallel()
	const tasks = 400
	s := newServing(t, func(ctx context.Context, _ *asynq.Task) error {
		done, linger := time.After(rand.N(60*time.Millisecond)), rand.N(20*time.Millisecond)
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			if guard.Checkpoint(ctx) == nil {
				t.Error("a handler was stopped in a run that goes on")
			}
			<-time.After(linger)
			return []error{nil, ctx.Err(), asynq.SkipRetry, asynq.RevokeTask}[rand.IntN(4)]
		}
	})
	s.config.Concurrency, s.config.ShutdownTimeout = 16, 50*time.Millisecond
	last, more := serveIDs("last", tasks/2), serveIDs("more", tasks/2)
	s.enqueue(last, asynq.MaxRetry(0))
	s.enqueue(more)
	s.start()
	for range 12 {
		<-time.After(rand.N(80 * time.Millisecond))
		s.revoke()
		<-time.After(rand.N(80 * time.Millisecond))
		s.restore()
	}
	s.handled(tasks)
	s.work.noCopies(t)
	begun := s.work.all()
	for _, id := range slices.Concat(last, more) {
		if !slices.Contains(begun, id) {
			t.Errorf("%s was never handled", id)
		}
	}
	if n := s.servers.Load(); n < 2 {
		t.Errorf("%d servers were made: nothing was cut", n)
	}
}
