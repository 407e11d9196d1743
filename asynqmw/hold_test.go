package asynqmw_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/asynqmw"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

// On its last attempt a refused task is held in the middleware, because asynq would archive it.
func TestHeld(t *testing.T) {
	t.Parallel()
	sideBySide(t, map[string]func(t *testing.T){
		"with MaxRetry(0)":                  heldWithoutRetries,
		"on the last attempt":               heldOnLastAttempt,
		"woken by a hint":                   heldUntilHint,
		"requeued on Shutdown":              heldUntilShutdown,
		"cancelled by CancelProcessing":     heldUntilCancelled,
		"by a guard that is closed":         heldByClosed,
		"while the authority is not there":  heldWithoutAnswer,
		"with a Runner that is no Guard":    heldByRunner,
		"without a device":                  heldWithoutDevice,
		"and fails on its own account then": heldThenFails,
		"and panics on its own account":     heldThenPanics,
		"unique all the time":               heldUnique,
		"without any traffic":               heldWithoutTraffic,
	})
}

func heldWithoutRetries(t *testing.T) {
	s, w := newSite(t), done()
	s.Deny(device, guard.CodeDeviceRevoked)
	outside := done() // counts asynq's attempts
	inside := s.around(w)
	outside.act = func(ctx context.Context, task *asynq.Task) error { return inside.ProcessTask(ctx, task) }
	s.start(t, outside)
	id := s.enqueue(t, asynq.MaxRetry(0), asynq.Retention(time.Hour))
	for range 4 {
		s.asked(t, 1)
		s.unspent(t, id, asynq.TaskStateActive, 0)
	}
	w.want(t, id, 0)
	s.Allow(device)
	s.unspent(t, id, asynq.TaskStateCompleted, 0)
	w.want(t, id, 1)
	outside.want(t, id, 1)
	if all := s.reported.get(); len(all) > 0 {
		t.Errorf("the ErrorHandler was given %v", all)
	}
}

func heldOnLastAttempt(t *testing.T) {
	s := newSite(t)
	w := working(func(ctx context.Context, _ *asynq.Task) error {
		if n, _ := asynq.GetRetryCount(ctx); n > 0 {
			return nil
		}
		s.Deny(device, guard.CodeDeviceRevoked)
		return errors.New("on my own account")
	})
	s.start(t, s.around(w))
	id := s.enqueue(t, asynq.MaxRetry(1), asynq.Retention(time.Hour))
	w.await(t, id, 1)
	s.asked(t, 4)
	s.unspent(t, id, asynq.TaskStateActive, 1)
	s.Allow(device)
	s.unspent(t, id, asynq.TaskStateCompleted, 1)
	w.want(t, id, 2)
}

// The guard's interval is an hour: nothing but the hint can have it ask.
func heldUntilHint(t *testing.T) {
	s, w := newSite(t, guard.WithInterval(time.Hour)), done()
	s.Deny(device, guard.CodeDeviceRevoked)
	s.start(t, s.around(w))
	id := s.enqueue(t, asynq.MaxRetry(0), asynq.Retention(time.Hour))
	s.await(t, id, asynq.TaskStateActive)
	eventually(t, "the first question", func() bool { return len(s.Calls()) > 0 })
	throughout(t, 500*time.Millisecond, "the task is held", func() bool { return s.is(t, id, asynq.TaskStateActive) })
	s.Allow(device)
	s.guard.Hint(device)
	s.unspent(t, id, asynq.TaskStateCompleted, 0)
	w.want(t, id, 1)
}

func heldUntilShutdown(t *testing.T) {
	s, w := newSite(t), done()
	s.config.Concurrency = 1
	s.Deny(device, guard.CodeDeviceRevoked)
	shutdown := s.start(t, s.around(w))
	first := s.enqueue(t, asynq.MaxRetry(0), asynq.Retention(time.Hour))
	s.await(t, first, asynq.TaskStateActive)
	second, third := s.enqueue(t, asynq.MaxRetry(0)), s.enqueue(t, asynq.MaxRetry(0))
	s.asked(t, 2)
	shutdown()
	if got := counts(t, s.inspector, "default"); got != (count{pending: 3}) {
		t.Fatalf("after Shutdown: %+v", got)
	}
	s.unspent(t, first, asynq.TaskStatePending, 0)
	w.want(t, "", 0)

	s.Allow(device)
	s.start(t, s.around(w))
	w.await(t, "", 3)
	var order []string
	for _, v := range w.visits("") {
		order = append(order, v.id)
	}
	if want := []string{first, second, third}; !slices.Equal(order, want) {
		t.Errorf("the next server handles %q, want %q", order, want)
	}
	s.unspent(t, first, asynq.TaskStateCompleted, 0)
	if lines := s.log.ours(""); len(lines) > 0 {
		t.Errorf("logged: %q", lines)
	}
}

// asynq's own end of an attempt stays what it is: a failure.
func heldUntilCancelled(t *testing.T) {
	s, w := newSite(t), done()
	s.Deny(device, guard.CodeDeviceRevoked)
	s.start(t, s.around(w, asynqmw.WithInspector(s.inspector)))
	id := s.enqueue(t, asynq.MaxRetry(0))
	s.asked(t, 2)
	s.await(t, id, asynq.TaskStateActive)
	eventually(t, "the end of the attempt", func() bool { // a server that is about to subscribe does not hear it
		if err := s.inspector.CancelProcessing(id); err != nil {
			t.Fatal(err)
		}
		return s.is(t, id, asynq.TaskStateArchived)
	})
	s.Allow(device)
	throughout(t, time.Second, "the task is in the archive", func() bool { return s.is(t, id, asynq.TaskStateArchived) })
	if text := s.info(t, id).LastErr; text != context.Canceled.Error() {
		t.Errorf("LastErr = %q", text)
	}
	w.want(t, "", 0)
}

func heldByClosed(t *testing.T) {
	s, w := newSite(t), done()
	s.Deny(device, guard.CodeDeviceRevoked)
	shutdown := s.start(t, s.around(w))
	id := s.enqueue(t, asynq.MaxRetry(0))
	s.asked(t, 2)
	_ = s.guard.Close() // while it is held
	later := s.enqueue(t, asynq.MaxRetry(0))
	s.await(t, later, asynq.TaskStateActive)
	throughout(t, 4*interval, "both are held", func() bool { return counts(t, s.inspector, "default") == count{active: 2} })
	shutdown()
	s.unspent(t, id, asynq.TaskStatePending, 0)
	s.unspent(t, later, asynq.TaskStatePending, 0)
	w.want(t, "", 0)
}

func heldWithoutAnswer(t *testing.T) {
	s, w := newSite(t, guard.WithTimeout(50*time.Millisecond)), done()
	s.Always("", guardtest.Hang())
	s.start(t, s.around(w))
	id := s.enqueue(t, asynq.MaxRetry(0), asynq.Retention(time.Hour))
	s.asked(t, 3)
	s.unspent(t, id, asynq.TaskStateActive, 0)
	w.want(t, "", 0)
	s.Always("", nil)
	s.unspent(t, id, asynq.TaskStateCompleted, 0)
	w.want(t, id, 1)
}

// ownRunner embeds a Guard, whose Keep is no way round its own Run.
type ownRunner struct {
	*guard.Guard

	runs atomic.Int64
}

func (r *ownRunner) Run(ctx context.Context, deviceID string, fn func(context.Context) error) error {
	r.runs.Add(1)
	return r.Guard.Run(ctx, deviceID, fn)
}

func heldByRunner(t *testing.T) {
	s, w := newSite(t), done()
	s.Deny(device, guard.CodeDeviceRevoked)
	r := &ownRunner{Guard: s.guard}
	s.start(t, asynqmw.New(r, asynqmw.Fixed(device))(w))
	id := s.enqueue(t, asynq.MaxRetry(0), asynq.Retention(time.Hour))
	s.asked(t, 4)
	s.unspent(t, id, asynq.TaskStateActive, 0)
	s.Allow(device)
	s.unspent(t, id, asynq.TaskStateCompleted, 0)
	w.want(t, id, 1)
	if runs, asked := int(r.runs.Load()), len(s.Calls()); runs != asked {
		t.Errorf("Run was called %d times, and the authority %d times", runs, asked)
	}
}

func heldWithoutDevice(t *testing.T) {
	s, w := newSite(t), done()
	var known atomic.Bool
	named := func(context.Context, *asynq.Task) (string, error) {
		if known.Load() {
			return device, nil
		}
		return "", errors.New("not now")
	}
	s.start(t, asynqmw.New(s.guard, named)(w))
	id := s.enqueue(t, asynq.MaxRetry(0), asynq.Retention(time.Hour))
	s.await(t, id, asynq.TaskStateActive)
	throughout(t, 3*interval, "the task is held", func() bool { return s.is(t, id, asynq.TaskStateActive) })
	known.Store(true)
	s.unspent(t, id, asynq.TaskStateCompleted, 0)
	w.want(t, id, 1)
}

// What a handler makes of a task after it was held is its own again.
func heldThenFails(t *testing.T) {
	s := newSite(t)
	failure := errors.New("on my own account")
	w := working(func(context.Context, *asynq.Task) error { return failure })
	s.Deny(device, guard.CodeDeviceRevoked)
	s.start(t, s.around(w, asynqmw.WithInspector(s.inspector)))
	id := s.enqueue(t, asynq.MaxRetry(0))
	s.asked(t, 2)
	s.Allow(device)
	s.await(t, id, asynq.TaskStateArchived)
	throughout(t, 2*interval, "the task is in the archive", func() bool { return s.is(t, id, asynq.TaskStateArchived) })
	if all := s.reported.get(); len(all) != 1 || all[0] != failure {
		t.Errorf("the ErrorHandler was given %v", all)
	}
	w.want(t, id, 1)
}

func heldThenPanics(t *testing.T) {
	s := newSite(t)
	w := working(func(context.Context, *asynq.Task) error { panic("on my own account") })
	s.Deny(device, guard.CodeDeviceRevoked)
	s.start(t, s.around(w, asynqmw.WithMaxHeld(1), asynqmw.WithInspector(s.inspector)))
	for range 2 { // the second finds the first one's place free
		s.Deny(device, guard.CodeDeviceRevoked)
		s.learn()
		id := s.enqueue(t, asynq.MaxRetry(0))
		s.asked(t, 2)
		s.unspent(t, id, asynq.TaskStateActive, 0)
		s.Allow(device)
		s.await(t, id, asynq.TaskStateArchived)
		w.want(t, id, 1)
	}
	if all := s.reported.get(); len(all) != 2 || !asynq.IsPanicError(all[0]) {
		t.Errorf("the ErrorHandler was given %v", all)
	}
}

// Nobody can enqueue a second one meanwhile.
func heldUnique(t *testing.T) {
	s, w := newSite(t), done()
	s.Deny(device, guard.CodeDeviceRevoked)
	s.start(t, s.around(w))
	held := s.enqueue(t, asynq.MaxRetry(0), asynq.Unique(time.Hour))
	s.asked(t, 2)
	again := func() error {
		_, err := s.client.EnqueueContext(t.Context(), asynq.NewTask(kind, nil), asynq.Unique(time.Hour))
		return err
	}
	if err := again(); !errors.Is(err, asynq.ErrDuplicateTask) {
		t.Errorf("while it is held: %v", err)
	}
	s.unspent(t, held, asynq.TaskStateActive, 0)
	s.Allow(device)
	eventually(t, "its end", func() bool { return s.info(t, held) == nil })
	w.want(t, held, 1)
	if err := again(); err != nil {
		t.Errorf("when it is done: %v", err)
	}
}
