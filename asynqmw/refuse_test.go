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
	"github.com/execguard/execguard/guard/guardtest"
)

// A refused task with retries left goes back, and what has been spent stays as it was.
func TestRefused(t *testing.T) {
	t.Parallel()
	sideBySide(t, map[string]func(t *testing.T){
		"goes back, however often":           refusedGoesBack,
		"after a failure of its own":         refusedAfterFailure,
		"not before the interval":            refusedForInterval,
		"not before Retry-After":             refusedForRetryAfter,
		"not together with all others":       refusedWithJitter,
		"by an authority that is not there":  refusedWithoutAnswer,
		"by a guard that is closed":          refusedByClosed,
		"by a device id that is none":        refusedWithoutDevice,
		"before a handler that is not there": refusedUnknownType,
	})
}

func refusedGoesBack(t *testing.T) {
	s, w := newSite(t), done()
	s.Deny(device, guard.CodeDeviceRevoked)
	s.start(t, s.around(w))
	id := s.enqueue(t, asynq.MaxRetry(1), asynq.Retention(time.Hour))
	for range 3 {
		s.asked(t, 1)
		s.unspent(t, id, asynq.TaskStateRetry, 0)
	}
	info := s.info(t, id)
	if want := `asynqmw: guard: device "` + device + `" refused: DEVICE_REVOKED (request script-`; !strings.HasPrefix(info.LastErr, want) {
		t.Errorf("LastErr = %q, want %q...", info.LastErr, want)
	}
	w.want(t, "", 0)
	s.Allow(device)
	s.unspent(t, id, asynq.TaskStateCompleted, 0)
	w.want(t, id, 1)
	if all := s.reported.get(); len(all) > 0 {
		t.Errorf("the ErrorHandler was given %v", all)
	}
	queue, err := s.inspector.GetQueueInfo("default")
	if err != nil || queue.Failed != 0 || queue.Processed != 1 {
		t.Errorf("%d failed of %d processed, %v; want 0 of 1", queue.Failed, queue.Processed, err)
	}
	if lines := s.log.ours(""); len(lines) > 0 {
		t.Errorf("logged: %q", lines)
	}
}

// A retry that the handler has spent stays spent, and a denial that follows adds none.
func refusedAfterFailure(t *testing.T) {
	s := newSite(t)
	w := working(func(ctx context.Context, _ *asynq.Task) error {
		if n, _ := asynq.GetRetryCount(ctx); n > 0 {
			return nil
		}
		s.Deny(device, guard.CodeDeviceRevoked) // from the next question on, which is the next attempt's
		return errors.New("on my own account")
	})
	s.start(t, s.around(w))
	id := s.enqueue(t, asynq.MaxRetry(2), asynq.Retention(time.Hour))
	w.await(t, id, 1)
	s.asked(t, 2)
	s.unspent(t, id, asynq.TaskStateRetry, 1)
	s.Allow(device)
	s.unspent(t, id, asynq.TaskStateCompleted, 1)
	w.want(t, id, 2)
}

func refusedForInterval(t *testing.T) {
	const long = 20 * time.Second
	s, w := newSite(t, guard.WithInterval(long)), done()
	s.Deny(device, guard.CodeDeviceRevoked)
	s.start(t, s.around(w))
	id := s.enqueue(t, asynq.MaxRetry(1))
	at := s.await(t, id, asynq.TaskStateRetry).NextProcessAt
	if stays := at.Sub(s.Calls()[0].Returned); stays < long || stays > long*3/2+time.Second+slack {
		t.Errorf("it stays away for %v with an interval of %v", stays, long)
	}
}

// Ten tasks, because asynq cuts the time at which a task comes again to whole seconds: one might be lucky.
func refusedForRetryAfter(t *testing.T) {
	const wait = 40 * time.Second
	s := newSite(t, guard.WithInterval(time.Millisecond))
	s.Always(device, guardtest.Reply(guard.Decision{Code: guard.CodeSystemUnavailable, RetryAfter: wait}, nil))
	s.start(t, s.around(done()))
	for range 10 {
		asked := time.Now() // it is refused later
		at := s.await(t, s.enqueue(t, asynq.MaxRetry(1)), asynq.TaskStateRetry).NextProcessAt
		if stays := at.Sub(asked); stays < wait || stays > wait+time.Second+slack {
			t.Errorf("it stays away for %v, and the authority said %v", stays, wait)
		}
	}
}

func refusedWithJitter(t *testing.T) {
	s := newSite(t, guard.WithInterval(time.Hour))
	s.Deny(device, guard.CodeDeviceRevoked)
	s.start(t, s.around(done()))
	first, last := time.Now().Add(24*time.Hour), time.Time{}
	for range 20 {
		at := s.await(t, s.enqueue(t, asynq.MaxRetry(1)), asynq.TaskStateRetry).NextProcessAt
		if at.Before(first) {
			first = at
		}
		if at.After(last) {
			last = at
		}
	}
	if spread := last.Sub(first); spread < 5*time.Minute || spread > 31*time.Minute {
		t.Errorf("20 tasks come again within %v, want about half an hour", spread)
	}
}

func refusedWithoutAnswer(t *testing.T) {
	s, w := newSite(t, guard.WithTimeout(50*time.Millisecond)), done()
	s.Always("", guardtest.Hang())
	s.start(t, s.around(w))
	id := s.enqueue(t, asynq.MaxRetry(1), asynq.Retention(time.Hour))
	s.asked(t, 2)
	s.unspent(t, id, asynq.TaskStateRetry, 0)
	w.want(t, "", 0)
	s.Always("", nil)
	s.unspent(t, id, asynq.TaskStateCompleted, 0)
}

// This process would fetch the task again and again: it waits here for the next one.
func refusedByClosed(t *testing.T) {
	s, w := newSite(t), done()
	_ = s.guard.Close()
	shutdown := s.start(t, s.around(w))
	id := s.enqueue(t, asynq.MaxRetry(1), asynq.Retention(time.Hour))
	s.await(t, id, asynq.TaskStateActive)
	throughout(t, 2*time.Second, "the task is held", func() bool { return s.is(t, id, asynq.TaskStateActive) })
	shutdown()
	s.unspent(t, id, asynq.TaskStatePending, 0)
	w.want(t, "", 0)
	g, _ := newGuard(t) // the next process
	s.start(t, asynqmw.New(g, asynqmw.Fixed(device))(w))
	s.unspent(t, id, asynq.TaskStateCompleted, 0)
	w.want(t, id, 1)
}

func refusedWithoutDevice(t *testing.T) {
	s, w := newSite(t), done()
	s.start(t, asynqmw.New(s.guard, asynqmw.FromHeader("device"))(w))
	for name, id := range map[string]string{
		"no header":    s.enqueue(t, asynq.MaxRetry(1)),
		"empty header": s.enqueueFor(t, "", asynq.MaxRetry(1)),
		"blank header": s.enqueueFor(t, " \t", asynq.MaxRetry(1)),
	} {
		s.unspent(t, id, asynq.TaskStateRetry, 0)
		if text := s.info(t, id).LastErr; text != "asynqmw: "+asynqmw.ErrNoIdentity.Error()+": the task has no header device" {
			t.Errorf("%s: LastErr = %q", name, text)
		}
	}
	named := s.enqueueFor(t, other, asynq.MaxRetry(1), asynq.Retention(time.Hour))
	s.unspent(t, named, asynq.TaskStateCompleted, 0)
	w.want(t, "", 1)
	if calls := s.Calls(); len(calls) != 1 || calls[0].DeviceID != other {
		t.Errorf("the authority was asked %+v", calls)
	}
	if lines := s.log.ours("no device"); len(lines) != 1 {
		t.Errorf("logged %q, want one warning", lines)
	}
}

// A task type that nobody handles passes the middleware too: while the device is denied it spends nothing.
func refusedUnknownType(t *testing.T) {
	s := newSite(t)
	s.Deny(device, guard.CodeDeviceRevoked)
	mux := asynq.NewServeMux()
	mux.Use(asynqmw.New(s.guard, asynqmw.Fixed(device)))
	s.start(t, mux)
	id := s.enqueue(t, asynq.MaxRetry(5))
	s.unspent(t, id, asynq.TaskStateRetry, 0)
	s.Allow(device)
	eventually(t, "asynq's own error", func() bool { return s.info(t, id).Retried > 0 })
	if text := s.info(t, id).LastErr; !strings.Contains(text, "handler not found") {
		t.Errorf("LastErr = %q", text)
	}
}
