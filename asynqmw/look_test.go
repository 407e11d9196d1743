package asynqmw_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/asynqmw"
)

// Who is to put a task back looks again while it is at work still: asynq has not archived it yet. What has failed by
// itself, is done or is not there is nobody's to put back.
func TestLookAtATask(t *testing.T) {
	t.Parallel()
	s, release := newSite(t), make(chan struct{})
	s.startBare(t, s.config, asynq.HandlerFunc(func(_ context.Context, task *asynq.Task) error {
		if string(task.Payload()) == "fails" {
			return errors.New("own")
		}
		<-release
		return nil
	}))
	active := s.enqueue(t, asynq.Retention(time.Hour))
	failed := s.enqueueTask(t, asynq.NewTask(kind, []byte("fails")), asynq.MaxRetry(0))
	s.await(t, active, asynq.TaskStateActive)
	s.await(t, failed, asynq.TaskStateArchived)
	look := func(queue, id string, want bool, wantErr error) {
		t.Helper()
		if again, err := asynqmw.LookAt(s.inspector, queue, id); again != want || !errors.Is(err, wantErr) {
			t.Errorf("again: %t, %v; want %t, %v", again, err, want, wantErr)
		}
	}
	look("default", active, true, nil)
	look("default", failed, false, nil)
	look("default", "nobody", false, nil)
	look("nowhere", "nobody", false, asynq.ErrQueueNotFound)
	close(release)
	s.await(t, active, asynq.TaskStateCompleted)
	look("default", active, false, nil)
	s.await(t, failed, asynq.TaskStateArchived)
}

// A queue that is not there, because somebody has deleted it meanwhile, has nothing left in it; and a Redis that cannot be
// asked does not say so.
func TestLeftInAQueue(t *testing.T) {
	t.Parallel()
	if n, err := asynqmw.Left(newInspector(t, newRedis(t)), "nowhere"); n != 0 || err != nil {
		t.Errorf("%d tasks, %v", n, err)
	}
	if n, err := asynqmw.Left(newInspector(t, asynq.RedisClientOpt{Addr: "127.0.0.1:1"}), "nowhere"); err == nil {
		t.Errorf("%d tasks in a Redis that is not there", n)
	}
}
