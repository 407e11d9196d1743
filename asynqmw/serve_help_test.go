package asynqmw_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/asynqmw"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

const (
	servedDevice = "worker:serve:01"
	servedQueue  = "default"

	// serveLimit is how long a test waits for what has to come.
	serveLimit = 20 * time.Second
)

// serving is one Serve at work, on a Redis of its own. Its guard asks every 200 ms, and hints
// are what makes the tests quick.
type serving struct {
	t         testing.TB
	redis     asynq.RedisClientOpt
	client    *asynq.Client
	inspector *asynq.Inspector
	validator *guardtest.Validator
	guard     *guard.Guard
	config    asynq.Config
	handler   asynq.Handler
	log       serveLog // what the servers log
	work      workLog

	mu     sync.Mutex // guards newOne
	newOne func() *asynq.Server

	servers  atomic.Int32 // that were made
	end      context.CancelCauseFunc
	returned chan error // what Serve returned
}

// newServing prepares a Serve with four workers whose device is allowed.
func newServing(t testing.TB, h asynq.HandlerFunc, opts ...guard.Option) *serving {
	t.Helper()
	return newServingOn(t, newRedis(t), h, opts...)
}

func newServingOn(t testing.TB, redis asynq.RedisClientOpt, h asynq.HandlerFunc, opts ...guard.Option) *serving {
	t.Helper()
	s := &serving{t: t, redis: redis, client: newClient(t, redis), inspector: newInspector(t, redis), validator: guardtest.NewValidator(servedDevice)}
	s.guard = newServeGuard(t, s.validator, opts...)
	s.handler = s.work.around(h)
	s.config = asynq.Config{
		Concurrency: 4, TaskCheckInterval: 50 * time.Millisecond, DelayedTaskCheckInterval: 100 * time.Millisecond,
		ShutdownTimeout: 300 * time.Millisecond, Logger: &s.log,
	}
	s.newOne = func() *asynq.Server { return asynq.NewServer(redis, s.config) }
	return s
}

func newServeGuard(t testing.TB, v guard.Validator, opts ...guard.Option) *guard.Guard {
	t.Helper()
	g, err := guard.New(v, append([]guard.Option{guard.WithInterval(200 * time.Millisecond), guard.WithTimeout(time.Second)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return g
}

// newServer is what Serve calls.
func (s *serving) newServer() *asynq.Server {
	s.servers.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newOne()
}

// start has Serve serve until end is called, or the test is over.
func (s *serving) start() *serving { return s.startWithin(s.t.Context()) }

func (s *serving) startWithin(ctx context.Context) *serving {
	ctx, s.end = context.WithCancelCause(ctx)
	s.returned = make(chan error, 1)
	over := make(chan struct{})
	go func() {
		defer close(over)
		s.returned <- asynqmw.Serve(ctx, s.guard, servedDevice, s.newServer, s.handler)
	}()
	s.t.Cleanup(func() {
		s.end(nil)
		<-over
	})
	return s
}

// enqueue adds tasks by these ids, with the options of each.
func (s *serving) enqueue(ids []string, opts ...asynq.Option) {
	s.t.Helper()
	for _, id := range ids {
		if _, err := s.client.Enqueue(asynq.NewTask("serve", []byte(id)), append(opts, asynq.TaskID(id))...); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *serving) revoke() {
	s.validator.Deny(servedDevice, guard.CodeDeviceRevoked)
	s.guard.Hint(servedDevice)
}

func (s *serving) restore() {
	s.validator.Allow(servedDevice)
	s.guard.Hint(servedDevice)
}

// asked waits for so many questions more.
func (s *serving) asked(more int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), serveLimit)
	defer cancel()
	if _, err := s.validator.Wait(ctx, len(s.validator.Calls())+more); err != nil {
		s.t.Fatalf("the authority is not asked: %v", err)
	}
}

func (s *serving) counts() count { return counts(s.t, s.inspector, servedQueue) }

// become waits until the queue is as wanted, and what ought to be 0 is.
func (s *serving) become(want count) {
	s.t.Helper()
	serveAwait(s.t, func() error {
		if got := s.counts(); got != want {
			return fmt.Errorf("the queue has %+v, and should have %+v", got, want)
		}
		return nil
	})
}

// nothingSpent fails the test unless the tasks are as new: no retry spent, no error kept.
func (s *serving) nothingSpent(ids ...string) {
	s.t.Helper()
	for _, id := range ids {
		info, err := s.inspector.GetTaskInfo(servedQueue, id)
		if err != nil {
			s.t.Errorf("task %s is lost: %v", id, err)
			continue
		}
		if info.State != asynq.TaskStatePending || info.Retried != 0 || info.LastErr != "" {
			s.t.Errorf("task %s is %v, has spent %d retries, and the error %q", id, info.State, info.Retried, info.LastErr)
		}
	}
}

// handled waits until asynq has counted n tasks as done and has none left, and fails the test if it has
// counted a failure.
func (s *serving) handled(n int) {
	s.t.Helper()
	s.become(count{})
	info, err := s.inspector.GetQueueInfo(servedQueue)
	if err != nil || info.ProcessedTotal != n || info.FailedTotal != 0 {
		s.t.Errorf("asynq counts %+v, %v; there were %d tasks and no failure", info, err, n)
	}
}

// result waits until Serve returns.
func (s *serving) result() error {
	s.t.Helper()
	return serveReceive(s.t, s.returned, "Serve does not return")
}

// serveAwait waits until check finds nothing wrong any more.
func serveAwait(t testing.TB, check func() error) {
	t.Helper()
	limit := time.NewTimer(serveLimit)
	defer limit.Stop()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-again.C:
		case <-limit.C:
			t.Fatal(err)
		}
	}
}

func serveReceive[T any](t testing.TB, from <-chan T, missing string) T {
	t.Helper()
	limit := time.NewTimer(serveLimit)
	defer limit.Stop()
	select {
	case v := <-from:
		return v
	case <-limit.C:
		t.Fatal(missing)
		return *new(T)
	}
}

// workLog is what the handlers have done.
type workLog struct {
	mu     sync.Mutex
	begun  []string       // tasks, each time that one began
	live   map[string]int // handlers at work, by task
	copies []string       // tasks that began beside a handler that had not returned
}

func (l *workLog) around(h asynq.HandlerFunc) asynq.HandlerFunc {
	return func(ctx context.Context, t *asynq.Task) error {
		id := string(t.Payload())
		l.begin(id)
		defer l.leave(id)
		return h(ctx, t)
	}
}

func (l *workLog) begin(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.live == nil {
		l.live = make(map[string]int)
	}
	l.begun = append(l.begun, id)
	if l.live[id]++; l.live[id] > 1 {
		l.copies = append(l.copies, id)
	}
}

func (l *workLog) leave(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.live[id]--; l.live[id] == 0 {
		delete(l.live, id)
	}
}

// all returns what has begun so far, in order.
func (l *workLog) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.begun)
}

// atWork waits until so many handlers are at work.
func (l *workLog) atWork(t testing.TB, want int) {
	t.Helper()
	serveAwait(t, func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.live) != want {
			return fmt.Errorf("at work are %v, and should be %d", l.live, want)
		}
		return nil
	})
}

// noCopies fails the test if there were two handlers of one task at a time.
func (l *workLog) noCopies(t testing.TB) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.copies) > 0 {
		t.Errorf("a second copy was begun of %v", l.copies)
	}
}

// serveLog keeps what asynq and the middleware log.
type serveLog struct {
	mu    sync.Mutex
	lines []string
}

func (l *serveLog) add(args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprint(args...))
}

func (l *serveLog) Debug(args ...any) { l.add(args...) }
func (l *serveLog) Info(args ...any)  { l.add(args...) }
func (l *serveLog) Warn(args ...any)  { l.add(args...) }
func (l *serveLog) Error(args ...any) { l.add(args...) }
func (l *serveLog) Fatal(args ...any) { l.add(args...) }

// said counts the lines that contain text.
func (l *serveLog) said(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, line := range l.lines {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// hears waits until a line contains text.
func (l *serveLog) hears(t testing.TB, text string) {
	t.Helper()
	serveAwait(t, func() error {
		if l.said(text) == 0 {
			return errors.New("nothing was logged of: " + text)
		}
		return nil
	})
}

// untilStopped is a handler that does nothing but obey.
func untilStopped(ctx context.Context, _ *asynq.Task) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// atOnce is a handler that has nothing to do.
func atOnce(context.Context, *asynq.Task) error { return nil }

// ids makes n names of tasks.
func serveIDs(prefix string, n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("%s-%03d", prefix, i)
	}
	return ids
}
