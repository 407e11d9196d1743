package chaos_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/asynqmw"
)

// queue is the lane of asynqmw: an asynq server whose tasks are guarded, and the account of the
// tasks, of which none may be lost.
type queue struct {
	client    *asynq.Client
	inspector *asynq.Inspector

	mu      sync.Mutex
	pending map[string]bool // tasks that nobody has done yet
	count   int
	full    bool // no more are enqueued
}

// asynqLane has tasks enqueued and handled until drain.
func (w *world) asynqLane(lane string) {
	redis := miniredis.NewMiniRedis()
	must(w.t, redis.Start())
	conn := asynq.RedisClientOpt{Addr: redis.Addr()}
	q := &queue{client: asynq.NewClient(conn), inspector: asynq.NewInspector(conn), pending: map[string]bool{}}
	guarded := asynqmw.New(w.runner(lane, pace, false, false), asynqmw.Fixed(lane), asynqmw.WithInspector(q.inspector))(
		asynq.HandlerFunc(func(ctx context.Context, _ *asynq.Task) error { return w.toil(ctx, 250*ms) }))
	srv := asynq.NewServer(conn, asynqmw.Configure(asynq.Config{
		Concurrency: 4, LogLevel: asynq.FatalLevel, TaskCheckInterval: 40 * ms, DelayedTaskCheckInterval: 100 * ms, ShutdownTimeout: 500 * ms,
	}))
	must(w.t, srv.Start(q.account(guarded)))
	w.closers = append(w.closers, func() {
		srv.Shutdown()
		_ = q.client.Close()
		_ = q.inspector.Close()
		redis.Close()
	})
	w.queue = q
	w.again(1, func(ctx context.Context) {
		if err := q.enqueue(ctx); err != nil && ctx.Err() == nil {
			w.t.Error(err)
		}
	})
}

// account strikes a task off when the middleware itself says that it is done.
func (q *queue) account(guarded asynq.Handler) asynq.Handler {
	return asynq.HandlerFunc(func(ctx context.Context, t *asynq.Task) error {
		err := guarded.ProcessTask(ctx, t)
		if err == nil {
			q.mu.Lock()
			defer q.mu.Unlock()
			delete(q.pending, string(t.Payload()))
		}
		return err
	})
}

// enqueue enqueues one more task, with few retries or none, while there is not too much to do.
func (q *queue) enqueue(ctx context.Context) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.full || len(q.pending) > 30 {
		return nil
	}
	id := fmt.Sprint("task-", q.count)
	_, err := q.client.EnqueueContext(ctx, asynq.NewTask("chaos", []byte(id)), asynq.MaxRetry(rand.N(3)))
	if err == nil {
		q.count++
		q.pending[id] = true
	}
	return err
}

// drain enqueues no more and waits until all is done, when all is well again. It returns how many
// tasks there were.
func (w *world) drain() (tasks int) {
	q := w.queue
	q.mu.Lock()
	q.full = true
	q.mu.Unlock()
	if eventually(func() bool { return q.left() == "" }) {
		return q.count
	}
	w.t.Logf("the queue: %v after all is well again: %s\n%s", patience, q.left(), stacks("asynq"))
	began := time.Now()
	for q.left() != "" && time.Since(began) < recovery {
		_ = pause(context.Background(), 100*ms)
	}
	if left := q.left(); left != "" {
		w.t.Errorf("the queue: %v after all is well again: %s", patience+recovery, left)
	} else {
		w.t.Logf("the queue: all was done %v later", time.Since(began))
	}
	return q.count
}

// recovery is how long asynq takes to find a task again of which its worker has lost track: a lease of half
// a minute, a look once a minute, and the time to do it.
const recovery = 2 * time.Minute

// stacks are those of the goroutines that have a word in them.
func stacks(word string) string {
	buf := make([]byte, 8<<20)
	all := strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")
	return strings.Join(slices.DeleteFunc(all, func(one string) bool { return !strings.Contains(one, word) }), "\n\n")
}

// left says what there is to be done.
func (q *queue) left() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	info, err := q.inspector.GetQueueInfo("default")
	switch {
	case len(q.pending) > 0:
		return fmt.Sprintf("%d tasks are not done: %v (%+v, %v)", len(q.pending), q.pending, info, err)
	case err != nil && q.count > 0:
		return err.Error()
	case err == nil && info.Size+info.Archived > 0:
		return fmt.Sprintf("%d tasks are left though all were done", info.Size)
	}
	return ""
}

// toil is hold for work that must be done in the end.
func (w *world) toil(ctx context.Context, most time.Duration) error {
	err := pause(ctx, rand.N(most))
	w.recorder.Saw(ctx)
	return err
}
