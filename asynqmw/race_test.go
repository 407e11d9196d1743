package asynqmw_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/asynqmw"
	"github.com/execguard/execguard/guard"
)

// Five hundred tasks of two devices that are revoked and restored at random times: each is done, none has spent a retry,
// none is at work twice at a time, and none begins while nothing is allowed.
func TestRevocationsAtRandom(t *testing.T) {
	t.Parallel()
	const tasks = 500
	s := newSite(t, guard.WithInterval(50*time.Millisecond))
	s.config.Concurrency = 16
	w := working(func(ctx context.Context, _ *asynq.Task) error {
		if err := guard.Checkpoint(ctx); err != nil && ctx.Err() == nil {
			t.Errorf("begins without a permission: %v", err)
		}
		select {
		case <-time.After(rand.N(20 * time.Millisecond)):
		case <-ctx.Done():
		}
		return ctx.Err()
	})
	s.start(t, asynqmw.New(s.guard, asynqmw.FromHeader("device"), asynqmw.WithMaxHeld(10), asynqmw.WithInspector(s.inspector))(w))
	devices := []string{device, other}
	for i := range tasks {
		s.enqueueFor(t, devices[i%2], asynq.MaxRetry(i%3), asynq.Retention(time.Hour))
	}
	for range 30 {
		id := devices[rand.IntN(2)]
		s.Deny(id, guard.CodeDeviceRevoked)
		if rand.IntN(2) == 0 {
			s.guard.Hint(id)
		}
		receive(t, "a while", time.After(rand.N(100*time.Millisecond)))
		s.Allow(id)
		receive(t, "a while", time.After(rand.N(100*time.Millisecond)))
	}
	eventually(t, "all are done", func() bool { return counts(t, s.inspector, "default") == count{completed: tasks} })
	for page := 1; ; page++ {
		infos, err := s.inspector.ListCompletedTasks("default", asynq.PageSize(100), asynq.Page(page))
		if err != nil {
			t.Fatal(err)
		}
		for _, info := range infos {
			if info.Retried != 0 {
				t.Errorf("task %s has spent %d retries: %s", info.ID, info.Retried, info.LastErr)
			}
		}
		if len(infos) < 100 {
			break
		}
	}
	if all := s.reported.get(); len(all) > 0 {
		t.Errorf("the ErrorHandler was given %v", all)
	}
	if w.twice {
		t.Error("two copies of one task were at work")
	}
	if n := len(w.visits("")); n <= tasks {
		t.Errorf("%d calls for %d tasks: nothing was stopped", n, tasks)
	}
}
