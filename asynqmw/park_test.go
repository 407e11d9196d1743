package asynqmw_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"go.uber.org/goleak"

	"github.com/execguard/execguard/asynqmw"
	"github.com/execguard/execguard/guard"
)

// parkedText begins what asynq keeps of a task that is to be put back: a later version has to know it too.
const parkedText = "asynqmw: parked until "

// parkedTextUntil is the whole of it.
func parkedTextUntil(due time.Time) string {
	return parkedText + due.UTC().Format(time.RFC3339) + ": guard: whatever"
}

// A held task whose own deadline comes goes through asynq's archive, and back.
func TestParked(t *testing.T) {
	t.Parallel()
	sideBySide(t, map[string]func(t *testing.T){
		"at its deadline, and put back":   parkedAtDeadline,
		"without an Inspector":            parkedForGood,
		"with an absolute deadline":       parkedWithDeadline,
		"by a process before this one":    parkedBefore,
		"and then failed for real":        parkedThenFailed,
		"and then timed out for real":     parkedThenTimedOut,
		"while a stopped handler lingers": parkedWhileStopping,
		"and then deleted":                parkedThenDeleted,
		"on a queue of its own":           parkedElsewhere,
		"while Redis says nothing":        parkedWithoutRedis,
	})
}

// parkedAtDeadline looks at asynq's archive all the time: the task is there before its deadline, and is put back.
func parkedAtDeadline(t *testing.T) {
	s, w := newSite(t), done()
	s.Deny(device, guard.CodeDeviceRevoked)
	outside := working(s.around(w, asynqmw.WithInspector(s.inspector)).ProcessTask)
	s.start(t, outside)
	id := s.enqueue(t, asynq.MaxRetry(0), asynq.Timeout(2*time.Second), asynq.Retention(time.Hour))
	deadline, _ := outside.await(t, id, 1).ctx.Deadline()
	info := s.await(t, id, asynq.TaskStateArchived)
	if time.Now().After(deadline) {
		t.Error("the archive has it after its deadline")
	}
	parked := time.Now()
	text, want := info.LastErr, `: guard: device "`+device+`" refused: DEVICE_REVOKED (request `
	if !strings.HasPrefix(text, parkedText) || !strings.Contains(text, want) || info.Retried != 0 {
		t.Errorf("%d retries spent, LastErr = %q, want %q...", info.Retried, text, parkedText+"(a time)"+want)
	}
	if due, ok := asynqmw.ParkedUntil(text); !ok || due.Sub(parked).Abs() > interval*3/2+time.Second {
		t.Errorf("parked until %v, %t", due, ok)
	}
	outside.await(t, id, 2)
	if away := time.Since(parked); away < interval-50*time.Millisecond || away > interval*3/2+slack {
		t.Errorf("it was put back after %v, the interval is %v", away, interval)
	}
	w.want(t, id, 0)
	s.unspent(t, id, asynq.TaskStateActive, 0)
	s.Allow(device)
	s.unspent(t, id, asynq.TaskStateCompleted, 0)
	w.want(t, id, 1)
	if all := s.reported.get(); len(all) > 0 {
		t.Errorf("the ErrorHandler was given %v", all)
	}
	if lines := s.log.ours(""); len(lines) > 0 {
		t.Errorf("logged: %q", lines)
	}
}

func parkedForGood(t *testing.T) {
	s, w := newSite(t), done()
	s.Deny(device, guard.CodeDeviceRevoked)
	s.start(t, s.around(w))
	id := s.enqueue(t, asynq.MaxRetry(0), asynq.Timeout(time.Second))
	info := s.await(t, id, asynq.TaskStateArchived)
	s.lost(t, id)
	if strings.Contains(info.LastErr, parkedText) || !strings.Contains(info.LastErr, "DEVICE_REVOKED") {
		t.Errorf("LastErr = %q", info.LastErr)
	}
	s.Allow(device)
	throughout(t, time.Second, "it stays in the archive", func() bool { return s.is(t, id, asynq.TaskStateArchived) })
	w.want(t, id, 0)
}

// lost wants a task to have been logged by its id, once, and handed to the ErrorHandler.
func (s *site) lost(t *testing.T, id string) {
	t.Helper()
	lines := s.log.ours("id=" + id)
	if len(lines) != 1 || !strings.HasPrefix(lines[0], "ERROR ") || !strings.Contains(lines[0], `"default"`) {
		t.Errorf("logged %q, want task %s once", lines, id)
	}
	denied := 0
	for _, err := range s.reported.get() {
		if errors.Is(err, guard.ErrDenied) {
			denied++
		}
	}
	if want := len(s.log.ours("stays in the archive")); denied != want {
		t.Errorf("the ErrorHandler was given %d denials, want %d", denied, want)
	}
}

// parkedWithDeadline: asynq archives a task whose deadline is over before it comes to us. It is not handled again: where asynq's end
// of it came in the moment in which it was put back, asynq archives it a second time.
func parkedWithDeadline(t *testing.T) {
	s, w := newSite(t), done()
	s.Deny(device, guard.CodeDeviceRevoked)
	outside := working(s.around(w, asynqmw.WithInspector(s.inspector)).ProcessTask)
	s.start(t, outside)
	end := time.Now().Add(3 * time.Second)
	id := s.enqueue(t, asynq.MaxRetry(0), asynq.Deadline(end))
	eventually(t, "asynq's own archive", func() bool {
		info := s.info(t, id)
		return info.State == asynq.TaskStateArchived && info.LastErr == context.DeadlineExceeded.Error()
	})
	s.Allow(device)
	visits := len(outside.visits(id))
	throughout(t, 2*time.Second, "it is not handled again", func() bool { return len(outside.visits(id)) == visits })
	eventually(t, "it is archived", func() bool { return s.is(t, id, asynq.TaskStateArchived) })
	if n := len(outside.visits(id)); n > 3 || time.Now().Before(end) {
		t.Errorf("asynq has had it %d times", n)
	}
	w.want(t, id, 0)
}

// A new process looks for what the one before has left, also in a queue that nobody puts a task into: for that, and nothing else.
func parkedBefore(t *testing.T) {
	s, w := newSite(t), done()
	const n = 130 // more than a page of the Inspector's
	shutdown := s.startBare(t, s.config, asynq.HandlerFunc(func(_ context.Context, task *asynq.Task) error {
		return errors.New(string(task.Payload()))
	}))
	var parked, failed []string
	for range n {
		parked = append(parked, s.enqueueTask(t, asynq.NewTask(kind, []byte(parkedTextUntil(time.Now()))), asynq.MaxRetry(0)))
		failed = append(failed, s.enqueueTask(t, asynq.NewTask(kind, []byte("boom")), asynq.MaxRetry(0)))
	}
	failed = append(failed, s.enqueueTask(t, asynq.NewTask(kind, []byte(parkedText+"doomsday: guard: whatever")), asynq.MaxRetry(0)))
	alive := s.enqueueTask(t, asynq.NewTask(kind, []byte(parkedTextUntil(time.Now().Add(time.Hour)))), asynq.MaxRetry(0)) // its process sees to it
	late := s.enqueueTask(t, asynq.NewTask(kind, []byte(context.DeadlineExceeded.Error())), asynq.MaxRetry(0))            // a failure like any other
	outside := s.enqueueTask(t, asynq.NewTask(kind, []byte("outer: "+parkedTextUntil(time.Now()))), asynq.MaxRetry(0))
	eventually(t, "all are archived", func() bool { return counts(t, s.inspector, "default").archived == 2*n+4 })
	shutdown()

	for range 2 { // two begin at the same time, and look for the same
		s.start(t, s.around(w, asynqmw.WithInspector(s.inspector)))
	}
	eventually(t, "all that were parked are done", func() bool {
		return counts(t, s.inspector, "default") == count{archived: n + 3} && len(w.visits("")) == n+1
	})
	if lines := s.log.ours(""); len(lines) > 0 {
		t.Errorf("logged: %q", lines)
	}
	for _, id := range append(parked, outside) {
		w.want(t, id, 1)
	}
	for _, id := range append(failed, late, alive) {
		w.want(t, id, 0)
	}
}

// Somebody else puts a parked task back, and then it fails on its own account: it is not revived.
func parkedThenFailed(t *testing.T) {
	const long = 2 * time.Second
	s := newSite(t, guard.WithInterval(long))
	w := working(func(context.Context, *asynq.Task) error { return errOwn })
	s.Deny(device, guard.CodeDeviceRevoked)
	s.start(t, s.around(w, asynqmw.WithInspector(s.inspector), asynqmw.WithMaxHeld(0)))
	id := s.enqueue(t, asynq.MaxRetry(0))
	s.await(t, id, asynq.TaskStateArchived)
	s.Allow(device)
	if err := s.inspector.RunTask("default", id); err != nil {
		t.Fatal(err)
	}
	w.await(t, id, 1)
	s.await(t, id, asynq.TaskStateArchived)
	throughout(t, long*3/2+time.Second, "it stays in the archive", func() bool { return s.is(t, id, asynq.TaskStateArchived) })
	w.want(t, id, 1)
	if text := s.info(t, id).LastErr; text != errOwn.Error() {
		t.Errorf("LastErr = %q", text)
	}
	if lines := s.log.ours(""); len(lines) > 0 {
		t.Errorf("logged: %q", lines)
	}
}

// So with a failure that looks like the end of a wait.
func parkedThenTimedOut(t *testing.T) {
	const long = 4 * time.Second
	s := newSite(t, guard.WithInterval(long))
	w := working(func(ctx context.Context, _ *asynq.Task) error {
		<-ctx.Done()
		return ctx.Err()
	})
	s.Deny(device, guard.CodeDeviceRevoked)
	s.start(t, s.around(w, asynqmw.WithInspector(s.inspector), asynqmw.WithMaxHeld(0)))
	id := s.enqueue(t, asynq.MaxRetry(0), asynq.Timeout(time.Second))
	s.await(t, id, asynq.TaskStateArchived)
	s.Allow(device)
	if err := s.inspector.RunTask("default", id); err != nil {
		t.Fatal(err)
	}
	w.await(t, id, 1)
	s.await(t, id, asynq.TaskStateArchived)
	throughout(t, long*3/2+time.Second, "it stays in the archive", func() bool { return s.is(t, id, asynq.TaskStateArchived) })
	w.want(t, id, 1)
}

// asynq does not wait for a handler when the deadline comes. This one had been stopped: it is put back when it returns.
func parkedWhileStopping(t *testing.T) {
	s := newSite(t)
	release := make(chan struct{})
	w := working(func(ctx context.Context, _ *asynq.Task) error {
		<-release
		return errOwn
	})
	again := done()
	both := asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error {
		if len(w.visits("")) == 0 {
			return w.ProcessTask(ctx, task)
		}
		return again.ProcessTask(ctx, task)
	})
	s.start(t, s.around(both, asynqmw.WithInspector(s.inspector)))
	id := s.enqueue(t, asynq.MaxRetry(0), asynq.Timeout(time.Second), asynq.Retention(time.Hour))
	w.await(t, id, 1)
	s.revoke(guard.CodeDeviceRevoked)
	info := s.await(t, id, asynq.TaskStateArchived)
	if info.LastErr != context.DeadlineExceeded.Error() {
		t.Errorf("LastErr = %q", info.LastErr)
	}
	s.Allow(device)
	throughout(t, 2*interval, "nothing is put back beside the handler", func() bool { return s.is(t, id, asynq.TaskStateArchived) })
	close(release)
	s.unspent(t, id, asynq.TaskStateCompleted, 0)
	w.want(t, id, 1)
	again.want(t, id, 1)
}

func parkedThenDeleted(t *testing.T) {
	s, w := newSite(t, guard.WithInterval(time.Second)), done()
	s.Deny(device, guard.CodeDeviceRevoked)
	s.start(t, s.around(w, asynqmw.WithInspector(s.inspector), asynqmw.WithMaxHeld(0)))
	id := s.enqueue(t, asynq.MaxRetry(0))
	s.await(t, id, asynq.TaskStateArchived)
	if err := s.inspector.DeleteTask("default", id); err != nil {
		t.Fatal(err)
	}
	s.Allow(device)
	throughout(t, 2*time.Second, "it is gone", func() bool { return s.info(t, id) == nil })
	if lines := s.log.ours(""); len(lines) > 0 {
		t.Errorf("logged: %q", lines)
	}
	w.want(t, "", 0)
}

func parkedElsewhere(t *testing.T) {
	s, w := newSite(t), done()
	s.config.Queues = map[string]int{"special": 1}
	s.Deny(device, guard.CodeDeviceRevoked)
	s.start(t, s.around(w, asynqmw.WithInspector(s.inspector), asynqmw.WithMaxHeld(0)))
	s.enqueue(t, asynq.MaxRetry(0), asynq.Queue("special"), asynq.Retention(time.Hour))
	eventually(t, "it is parked", func() bool { return counts(t, s.inspector, "special") == count{archived: 1} })
	s.asked(t, 2)
	s.Allow(device)
	eventually(t, "it is done", func() bool { return counts(t, s.inspector, "special") == count{completed: 1} })
	w.want(t, "", 1)
}

// Redis stands still when a task is to be put back, for a while.
func parkedWithoutRedis(t *testing.T) {
	s, w, own := newSite(t), done(), ownRedis(t)
	if !own.stops() {
		t.Skip("miniredis cannot be suspended")
	}
	s.redis = own.opt(0)
	s.redis.ReadTimeout = 200 * time.Millisecond
	s.client, s.inspector = newClient(t, s.redis), newInspector(t, s.redis)
	s.Deny(device, guard.CodeDeviceRevoked)
	s.start(t, s.around(w, asynqmw.WithInspector(s.inspector), asynqmw.WithMaxHeld(0)))
	id := s.enqueue(t, asynq.MaxRetry(0), asynq.Retention(time.Hour))
	s.await(t, id, asynq.TaskStateArchived)
	own.stop(t)
	receive(t, "two intervals and more", time.After(3*time.Second))
	s.Allow(device)
	own.cont(t)
	s.unspent(t, id, asynq.TaskStateCompleted, 0)
	w.want(t, id, 1)
}

// The goroutine that puts tasks back ends with the last of them.
func TestNothingIsLeftOfParking(t *testing.T) {
	newRedis(t) // which is there for all tests
	before := goleak.IgnoreCurrent()
	t.Run("parked", func(t *testing.T) {
		s, w := newSite(t), done()
		s.Deny(device, guard.CodeDeviceRevoked)
		shutdown := s.start(t, s.around(w, asynqmw.WithInspector(s.inspector), asynqmw.WithMaxHeld(1)))
		for range 5 {
			s.enqueue(t, asynq.MaxRetry(0), asynq.Retention(time.Hour))
		}
		eventually(t, "four are parked", func() bool { return counts(t, s.inspector, "default") == count{active: 1, archived: 4} })
		s.Allow(device)
		eventually(t, "all are done", func() bool { return counts(t, s.inspector, "default") == count{completed: 5} })
		shutdown()
	})
	goleak.VerifyNone(t, before)
}
