package asynqmw_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/asynqmw"
	"github.com/execguard/execguard/guard"
)

// Who puts a parked task back, and what is said where nobody can.
func TestPutBack(t *testing.T) {
	t.Parallel()
	sideBySide(t, map[string]func(t *testing.T){
		"by New, without a task":                       backWithoutTraffic,
		"by a later process, where it was cancelled":   backAfterCancel,
		"by nobody, from another Redis":                backFromElsewhere,
		"by somebody else, and at work":                backAndAtWork,
		"by nobody, from a Redis that is not there":    backFromNowhere,
		"with half of its Timeout left":                backWithTimeToWork,
		"with little of it left, without an Inspector": heldToTheLast,
	})
}

// No server is started, and no task comes: New itself looks.
func backWithoutTraffic(t *testing.T) {
	s := newSite(t)
	shutdown := s.startBare(t, s.config, asynq.HandlerFunc(func(context.Context, *asynq.Task) error {
		return errors.New(parkedTextUntil(time.Now()))
	}))
	id := s.enqueue(t, asynq.MaxRetry(0))
	s.await(t, id, asynq.TaskStateArchived)
	shutdown()
	s.around(done(), asynqmw.WithInspector(s.inspector))
	s.unspent(t, id, asynq.TaskStatePending, 0)
}

// A middleware outside of New's ends the attempt of a held task, so that it has to go where it cannot be put back by
// this process. What the archive keeps with it tells a later one that it may.
func backAfterCancel(t *testing.T) {
	s, w := newSite(t), done()
	s.Deny(device, guard.CodeDeviceRevoked)
	held, leave := context.WithCancelCause(t.Context())
	inside := s.around(w, asynqmw.WithInspector(s.inspector))
	shutdown := s.start(t, asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error {
		ctx, cancel := context.WithCancelCause(ctx)
		defer context.AfterFunc(held, func() { cancel(context.Cause(held)) })()
		return inside.ProcessTask(ctx, task)
	}))
	id := s.enqueue(t, asynq.MaxRetry(0), asynq.Retention(time.Hour))
	s.asked(t, 2)
	s.unspent(t, id, asynq.TaskStateActive, 0)
	leave(errors.New("the program ends"))
	text := s.await(t, id, asynq.TaskStateArchived).LastErr
	if due, parked := asynqmw.ParkedUntil(text); !parked || !strings.Contains(text, "DEVICE_REVOKED") || time.Until(due) > interval*3/2 {
		t.Errorf("LastErr = %q", text)
	}
	shutdown()
	s.Allow(device)
	w.want(t, id, 0)
	s.start(t, s.around(w, asynqmw.WithInspector(s.inspector)))
	s.unspent(t, id, asynq.TaskStateCompleted, 0)
	w.want(t, id, 1)
}

// An Inspector that belongs to another database knows nothing of the queue.
func backFromElsewhere(t *testing.T) {
	s, w := newSite(t), done()
	s.Deny(device, guard.CodeDeviceRevoked)
	s.start(t, s.around(w, asynqmw.WithInspector(newInspector(t, newRedis(t))), asynqmw.WithMaxHeld(0)))
	id := s.enqueue(t, asynq.MaxRetry(0))
	s.await(t, id, asynq.TaskStateArchived)
	told := func() bool {
		return len(s.log.ours("ERROR asynqmw: task id="+id+" of queue \"default\" could not be put back")) == 1
	}
	eventually(t, "an error with its id", told)
	throughout(t, time.Second, "one line", func() bool { return told() && len(s.log.ours("")) == 1 })
	w.want(t, "", 0)
}

// Somebody else has put the task back, and its handler takes longer than anybody looks: that is no error.
func backAndAtWork(t *testing.T) {
	s, release := newSite(t), make(chan struct{})
	s.start(t, asynq.HandlerFunc(func(context.Context, *asynq.Task) error {
		<-release
		return nil
	}))
	defer close(release)
	id := s.enqueue(t, asynq.MaxRetry(0))
	s.await(t, id, asynq.TaskStateActive)
	asynqmw.PutBackAtLast(s.inspector, "default", id, s.log)
	if lines := s.log.ours(""); len(lines) > 0 || !s.is(t, id, asynq.TaskStateActive) {
		t.Errorf("logged: %q", lines)
	}
}

// So is nobody who can be asked.
func backFromNowhere(t *testing.T) {
	s := newSite(t)
	asynqmw.PutBackAtLast(nowhere(t), "default", "lost", s.log)
	if lines := s.log.ours("ERROR asynqmw: task id=lost of queue \"default\" could not be put back"); len(lines) != 1 || len(s.log.ours("")) != 1 {
		t.Errorf("logged: %q", s.log.ours(""))
	}
}

const backTimeout = 3 * time.Second

// letGo has a task denied until it is held no longer, and returns how much of its Timeout was left then.
func (s *site) letGo(t *testing.T, h asynq.Handler) (id string, left time.Duration) {
	t.Helper()
	s.Deny(device, guard.CodeDeviceRevoked)
	outside := working(h.ProcessTask)
	s.start(t, outside)
	id = s.enqueue(t, asynq.MaxRetry(0), asynq.Timeout(backTimeout), asynq.Retention(time.Hour))
	deadline, _ := outside.await(t, id, 1).ctx.Deadline()
	s.await(t, id, asynq.TaskStateArchived)
	return id, time.Until(deadline)
}

// A task that is put back begins with all of its Timeout, so one that is held leaves its handler half: what may take that
// long does not fail because it was denied for a while.
func backWithTimeToWork(t *testing.T) {
	s := newSite(t)
	given := make(chan time.Duration, 1)
	w := working(func(ctx context.Context, _ *asynq.Task) error {
		deadline, _ := ctx.Deadline()
		given <- time.Until(deadline)
		return nil
	})
	id, left := s.letGo(t, s.around(w, asynqmw.WithInspector(s.inspector)))
	if left < backTimeout/4 || left > backTimeout/2 {
		t.Errorf("let go with %v of %v left, want half", left, backTimeout)
	}
	s.Allow(device)
	s.unspent(t, id, asynq.TaskStateCompleted, 0)
	if has := receive(t, "the handler", given); has < backTimeout/4 {
		t.Errorf("the handler was given %v of %v", has, backTimeout)
	}
	w.want(t, id, 1)
}

// Where nobody puts it back, its last chance is to be held as long as can be.
func heldToTheLast(t *testing.T) {
	s, w := newSite(t), done()
	if _, left := s.letGo(t, s.around(w)); left > backTimeout/5 {
		t.Errorf("let go with %v of %v left", left, backTimeout)
	}
	w.want(t, "", 0)
}
