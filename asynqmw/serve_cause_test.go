package asynqmw_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/asynqmw"
	"github.com/execguard/execguard/guard"
)

// An errgroup cancels its context with what one of its functions has returned. That may be a denial,
// and is none of Serve's own: it ends as with any other cause.
func TestServeContextEndsWithAForeignDenial(t *testing.T) {
	for name, why := range map[string]error{
		"denied": &guard.DeniedError{DeviceID: "elsewhere", Decision: guard.Decision{Code: guard.CodeDeviceRevoked}, InFlight: true},
		"closed": fmt.Errorf("elsewhere: %w", guard.ErrClosed),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ended, finished, release := make(chan error, 1), make(chan error, 1), make(chan struct{})
			s := newServing(t, func(ctx context.Context, task *asynq.Task) error {
				if string(task.Payload()) == "finishes" {
					<-release
					finished <- errors.Join(ctx.Err(), guard.Checkpoint(ctx))
					return nil
				}
				<-ctx.Done()
				ended <- context.Cause(ctx)
				return nil
			})
			s.config.ShutdownTimeout = 600 * time.Millisecond
			s.start().enqueue([]string{"slow", "finishes"}, asynq.MaxRetry(0))
			t.Cleanup(func() { s.guard.Close() }) // at which one that waits for handlers returns too
			s.work.atWork(t, 2)
			s.end(why)
			s.log.hears(t, "Waiting for all workers")
			close(release)
			if err := serveReceive(t, finished, "a handler was not let finish"); err != nil {
				t.Errorf("a handler that may finish finds %v", err)
			}
			if err := s.result(); err != why {
				t.Errorf("Serve returned %v, want %v", err, why)
			}
			if cause := serveReceive(t, ended, "the handler's context does not end"); errors.Is(cause, guard.ErrDenied) || errors.Is(cause, guard.ErrClosed) {
				t.Errorf("the device is allowed, and the handler ended because of %v", cause)
			}
			s.nothingSpent("slow")
			serveAwait(t, s.noServer)
		})
	}
}

// Nor is there anything to wait for when the device was denied before, and a handler goes on.
func TestServeContextEndsWithAForeignDenialAfterItsOwn(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s := newServing(t, func(context.Context, *asynq.Task) error {
		<-release
		return nil
	}).start()
	t.Cleanup(func() { close(release) })
	s.enqueue([]string{"deaf"}, asynq.MaxRetry(0))
	s.work.atWork(t, 1)
	s.revoke()
	s.log.hears(t, "Stopping processor") // it waits for the handler
	why := &guard.DeniedError{DeviceID: "elsewhere", Decision: guard.Decision{Code: guard.CodeDeviceRevoked}}
	s.end(why)
	if err := s.result(); err != error(why) {
		t.Errorf("Serve returned %v, want %v", err, why)
	}
	s.nothingSpent("deaf")
	s.work.atWork(t, 1)
}

// Nobody waits for a stopped handler when the process ends. The stop of a run around Serve is no such end: that
// one has to wait for all that is under it.
func TestServeWithinARunThatIsDeniedAfterItsOwnDevice(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s := newServing(t, func(ctx context.Context, _ *asynq.Task) error {
		<-ctx.Done()
		<-release
		return ctx.Err()
	})
	outer, v := newGuard(t)
	s.enqueue([]string{"deaf"}, asynq.MaxRetry(0))
	ended := make(chan error, 1)
	go func() {
		ended <- outer.Run(t.Context(), device, func(ctx context.Context) error { return s.startWithin(ctx).result() })
	}()
	s.work.atWork(t, 1)
	s.revoke()
	s.log.hears(t, "Stopping processor") // it has been told, and waits
	v.Deny(device, guard.CodeDeviceRevoked)
	if d, err := outer.Validate(t.Context(), device); err != nil || d.Allowed {
		t.Fatalf("%+v, %v", d, err)
	}
	select {
	case err := <-ended:
		t.Errorf("Serve has returned beside a handler that goes on: %v", err)
		ended <- err
	case <-time.After(3 * s.config.ShutdownTimeout):
	}
	close(release)
	denied := (*guard.DeniedError)(nil)
	if err := serveReceive(t, ended, "the outer run does not end"); !errors.As(err, &denied) || denied.DeviceID != device {
		t.Errorf("the outer run ended with %v", err)
	}
	s.nothingSpent("deaf")
}

// What a handler panics with after the stop is no failure of the task. It is told all the same, with the place.
func TestServeLogsAPanicAfterTheStop(t *testing.T) {
	t.Parallel()
	s := newServing(t, panicsWhenStopped)
	s.config = asynqmw.Configure(s.config)
	s.start().enqueue([]string{"panics"}, asynq.MaxRetry(0))
	s.work.atWork(t, 1)
	s.revoke()
	s.become(count{pending: 1})
	s.nothingSpent("panics")
	for _, text := range []string{"a handler panicked after it had been stopped: out of order\n", "panicsWhenStopped", "serve_cause_test.go:"} {
		if n := s.log.said(text); n != 1 {
			t.Errorf("%d lines say %q, want one", n, text)
		}
	}
}

func panicsWhenStopped(ctx context.Context, _ *asynq.Task) error {
	<-ctx.Done()
	panic("out of order")
}
