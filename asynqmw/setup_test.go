package asynqmw_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/asynqmw"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

const (
	device = "worker:test:01" // who most tests speak of
	other  = "worker:test:02" // another device of the same organisation
	kind   = "test:work"      // of a task

	patience = 30 * time.Second       // bounds what a test waits for; nothing that works takes so long
	interval = 250 * time.Millisecond // of most guards here
	slack    = 3 * time.Second        // what a busy machine may add to a bound
)

// sideBySide runs tests that mostly wait all at once: t.Parallel goes by the number of cores.
func sideBySide(t *testing.T, tests map[string]func(t *testing.T)) {
	t.Helper()
	var running sync.WaitGroup
	for name, test := range tests {
		running.Go(func() { t.Run(name, test) })
	}
	running.Wait()
}

// eventually waits until the condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	if !comes(holds) {
		t.Fatalf("%s: not within %v", what, patience)
	}
}

// comes tells whether the condition comes to hold.
func comes(holds func() bool) bool {
	limit, again := time.NewTimer(patience), time.NewTicker(10*time.Millisecond)
	defer limit.Stop()
	defer again.Stop()
	for !holds() {
		select {
		case <-again.C:
		case <-limit.C:
			return false
		}
	}
	return true
}

// throughout wants the condition to hold for a while.
func throughout(t testing.TB, d time.Duration, what string, holds func() bool) {
	t.Helper()
	over, again := time.NewTimer(d), time.NewTicker(10*time.Millisecond)
	defer over.Stop()
	defer again.Stop()
	for {
		if !holds() {
			t.Fatalf("%s: no more", what)
		}
		select {
		case <-again.C:
		case <-over.C:
			return
		}
	}
}

// receive waits until c is closed or has something.
func receive[T any](t testing.TB, what string, c <-chan T) (v T) {
	t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case v = <-c:
	case <-limit.C:
		t.Fatalf("%s: not within %v", what, patience)
	}
	return v
}

// newGuard makes a guard and the scripted authority that it asks, which allows both devices.
func newGuard(t testing.TB, opts ...guard.Option) (*guard.Guard, *guardtest.Validator) {
	t.Helper()
	v := guardtest.NewValidator(device, other)
	g, err := guard.New(v, append([]guard.Option{guard.WithInterval(interval), guard.WithTimeout(time.Second)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	return g, v
}

// site is a Redis database with a guard, and the servers that a test starts on it.
type site struct {
	*guardtest.Validator

	redis     asynq.RedisClientOpt
	guard     *guard.Guard
	client    *asynq.Client
	inspector *asynq.Inspector
	config    asynq.Config // of the servers, before Configure
	log       *journal     // of the servers
	reported  *list[error] // what the ErrorHandler was given
}

func newSite(t testing.TB, opts ...guard.Option) *site {
	t.Helper()
	s := &site{redis: newRedis(t), log: &journal{}, reported: &list[error]{}}
	s.guard, s.Validator = newGuard(t, opts...)
	s.client, s.inspector = newClient(t, s.redis), newInspector(t, s.redis)
	s.config = asynq.Config{
		Concurrency: 10, Logger: s.log, LogLevel: asynq.WarnLevel,
		TaskCheckInterval: 40 * time.Millisecond, DelayedTaskCheckInterval: 100 * time.Millisecond, ShutdownTimeout: 300 * time.Millisecond,
		RetryDelayFunc: func(int, error, *asynq.Task) time.Duration { return 0 },
		ErrorHandler:   asynq.ErrorHandlerFunc(func(_ context.Context, _ *asynq.Task, err error) { s.reported.add(err) }),
	}
	return s
}

// start starts a server whose Config has passed Configure, and returns what shuts it down. The end of the test does too.
func (s *site) start(t testing.TB, h asynq.Handler) (shutdown func()) {
	t.Helper()
	return s.startBare(t, asynqmw.Configure(s.config), h)
}

// startBare starts a server as its Config is.
func (s *site) startBare(t testing.TB, cfg asynq.Config, h asynq.Handler) (shutdown func()) {
	t.Helper()
	srv := asynq.NewServer(s.redis, cfg)
	if err := srv.Start(h); err != nil {
		t.Fatal(err)
	}
	shutdown = sync.OnceFunc(srv.Shutdown)
	t.Cleanup(shutdown)
	return shutdown
}

// around is New for the device around a handler.
func (s *site) around(h asynq.Handler, opts ...asynqmw.Option) asynq.Handler {
	return asynqmw.New(s.guard, asynqmw.Fixed(device), opts...)(h)
}

// learn has the guard learn what the authority says of the device now.
func (s *site) learn() { _, _ = s.guard.Validate(context.Background(), device) }

// revoke denies the device and has the guard learn of it.
func (s *site) revoke(code guard.Code) {
	s.Deny(device, code)
	s.learn()
}

// enqueue enqueues a task, and returns its id.
func (s *site) enqueue(t testing.TB, opts ...asynq.Option) string {
	t.Helper()
	return s.enqueueTask(t, asynq.NewTask(kind, nil), opts...)
}

// enqueueFor enqueues a task that names its device in a header.
func (s *site) enqueueFor(t testing.TB, id string, opts ...asynq.Option) string {
	t.Helper()
	return s.enqueueTask(t, asynq.NewTaskWithHeaders(kind, nil, map[string]string{"device": id}), opts...)
}

func (s *site) enqueueTask(t testing.TB, task *asynq.Task, opts ...asynq.Option) string {
	t.Helper()
	info, err := s.client.EnqueueContext(t.Context(), task, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return info.ID
}

// info looks at a task; nil: it is done, or has been deleted.
func (s *site) info(t testing.TB, id string) *asynq.TaskInfo {
	t.Helper()
	info, err := s.inspector.GetTaskInfo("default", id)
	if errors.Is(err, asynq.ErrTaskNotFound) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// is tells whether a task is in a state.
func (s *site) is(t testing.TB, id string, state asynq.TaskState) bool {
	t.Helper()
	info := s.info(t, id)
	return info != nil && info.State == state
}

// await waits until a task is in a state, and returns it.
func (s *site) await(t testing.TB, id string, state asynq.TaskState) (info *asynq.TaskInfo) {
	t.Helper()
	if !comes(func() bool {
		info = s.info(t, id)
		return info != nil && info.State == state
	}) {
		t.Fatalf("the task is not %v within %v: %+v", state, patience, info)
	}
	return info
}

// unspent wants a task in a state, with so many retries spent.
func (s *site) unspent(t testing.TB, id string, state asynq.TaskState, retried int) {
	t.Helper()
	if info := s.await(t, id, state); info.Retried != retried {
		t.Errorf("%d retries spent, want %d: %s", info.Retried, retried, info.LastErr)
	}
}

// asked waits until the authority has been asked n times more.
func (s *site) asked(t testing.TB, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := s.Wait(ctx, len(s.Calls())+n); err != nil {
		t.Fatalf("the authority is not asked: %v", err)
	}
}

// list is something that several goroutines add to.
type list[T any] struct {
	mu  sync.Mutex
	all []T
}

func (l *list[T]) add(v T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, v)
}

func (l *list[T]) get() []T {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.all)
}

// journal is an asynq.Logger that keeps warnings and errors.
type journal struct{ lines list[string] }

func (j *journal) Debug(...any)      {}
func (j *journal) Info(...any)       {}
func (j *journal) Warn(args ...any)  { j.lines.add("WARN " + fmt.Sprint(args...)) }
func (j *journal) Error(args ...any) { j.lines.add("ERROR " + fmt.Sprint(args...)) }
func (j *journal) Fatal(args ...any) { j.lines.add("FATAL " + fmt.Sprint(args...)) }

// ours is the middleware's own lines that hold a text.
func (j *journal) ours(text string) []string {
	return slices.DeleteFunc(j.lines.get(), func(line string) bool {
		return !strings.Contains(line, "asynqmw: ") || !strings.Contains(line, text)
	})
}

// marked is the context that a server whose Config has passed Configure gives its tasks, without asynq's part:
// a task in it is on its last attempt.
func marked(log asynq.Logger) context.Context {
	return asynqmw.Configure(asynq.Config{Logger: log}).BaseContext()
}
