package asynqmw_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/asynqmw"
	"github.com/execguard/execguard/guard"
)

// Configure wraps what the user has set, and asks it about everything but refusals.
func TestConfigure(t *testing.T) {
	t.Parallel()
	sideBySide(t, map[string]func(t *testing.T){
		"once":              func(t *testing.T) { configured(t, asynqmw.Configure) },
		"twice":             func(t *testing.T) { configured(t, configureTwice) },
		"of nothing":        func(t *testing.T) { configuredDefaults(t, asynqmw.Configure) },
		"of nothing, twice": func(t *testing.T) { configuredDefaults(t, configureTwice) },
		"its BaseContext":   configuredBaseContext,
		"its Logger":        configuredLogger,
		"behind middleware": configuredBehindMiddleware,
	})
}

func configureTwice(cfg asynq.Config) asynq.Config { return asynqmw.Configure(asynqmw.Configure(cfg)) }

// hooks are functions of a user's Config that note what they are asked.
type hooks struct{ failures, delays, handled list[error] }

var errHarmless = errors.New("not counted")

func (h *hooks) set(cfg *asynq.Config) {
	cfg.IsFailure = func(err error) bool {
		h.failures.add(err)
		return err != errHarmless
	}
	cfg.RetryDelayFunc = func(n int, err error, task *asynq.Task) time.Duration {
		h.delays.add(err)
		return time.Hour
	}
	cfg.ErrorHandler = asynq.ErrorHandlerFunc(func(_ context.Context, task *asynq.Task, err error) { h.handled.add(err) })
}

// noDenial wants nobody to have been asked about a denial, and everybody about the others once.
func (h *hooks) want(t *testing.T, errs ...error) {
	t.Helper()
	for name, l := range map[string]*list[error]{"IsFailure": &h.failures, "RetryDelayFunc": &h.delays, "ErrorHandler": &h.handled} {
		got := map[error]int{}
		for _, err := range l.get() {
			got[err]++
		}
		for _, err := range errs {
			if got[err] != 1 {
				t.Errorf("%s was asked %d times about %v", name, got[err], err)
			}
			delete(got, err)
		}
		if len(got) > 0 {
			t.Errorf("%s was asked about %v too", name, got)
		}
	}
}

func configured(t *testing.T, configure func(asynq.Config) asynq.Config) {
	s, h := newSite(t), &hooks{}
	h.set(&s.config)
	s.Deny(device, guard.CodeDeviceRevoked)
	w := working(func(_ context.Context, task *asynq.Task) error {
		if string(task.Payload()) == "harmless" {
			return errHarmless
		}
		return errOwn
	})
	s.startBare(t, configure(s.config), asynqmw.New(s.guard, asynqmw.FromHeader("device"))(w))
	headers := map[string]string{"device": other}
	refused := s.enqueueFor(t, device, asynq.MaxRetry(3))
	fails := s.enqueueFor(t, other, asynq.MaxRetry(3))
	harmless := s.enqueueTask(t, asynq.NewTaskWithHeaders(kind, []byte("harmless"), headers), asynq.MaxRetry(3))
	s.unspent(t, refused, asynq.TaskStateRetry, 0)
	s.unspent(t, fails, asynq.TaskStateRetry, 1)
	s.unspent(t, harmless, asynq.TaskStateRetry, 0)
	h.want(t, errOwn, errHarmless)
	for id, want := range map[string]time.Duration{refused: interval + time.Second, fails: time.Hour, harmless: time.Hour} {
		if info := s.info(t, id); info != nil && info.State == asynq.TaskStateRetry && time.Until(info.NextProcessAt) > want+slack ||
			info != nil && want == time.Hour && time.Until(info.NextProcessAt) < want-time.Minute {
			t.Errorf("%s comes again in %v, want about %v", info.LastErr, time.Until(info.NextProcessAt), want)
		}
	}
}

// configuredDefaults: asynq's own delay after a failure is fifteen seconds or more.
func configuredDefaults(t *testing.T, configure func(asynq.Config) asynq.Config) {
	s := newSite(t, guard.WithInterval(time.Hour))
	s.config.ErrorHandler, s.config.RetryDelayFunc = nil, nil
	cfg := configure(s.config)
	if cfg.ErrorHandler != nil {
		t.Error("there is an ErrorHandler now")
	}
	if cfg.IsFailure(nil) || !cfg.IsFailure(errOwn) {
		t.Error("IsFailure is not asynq's default")
	}
	w := working(func(context.Context, *asynq.Task) error { return errOwn })
	s.startBare(t, cfg, asynqmw.New(s.guard, asynqmw.FromHeader("device"))(w))
	s.Deny(device, guard.CodeDeviceRevoked)
	refused, fails := s.enqueueFor(t, device, asynq.MaxRetry(3)), s.enqueueFor(t, other, asynq.MaxRetry(3))
	s.unspent(t, refused, asynq.TaskStateRetry, 0)
	s.unspent(t, fails, asynq.TaskStateRetry, 1)
	if in := time.Until(s.info(t, fails).NextProcessAt); in < 10*time.Second || in > time.Minute {
		t.Errorf("the failure comes again in %v, want asynq's 15 s to 45 s", in)
	}
	if in := time.Until(s.info(t, refused).NextProcessAt); in < 59*time.Minute {
		t.Errorf("the refusal comes again in %v, want an hour", in)
	}
}

type contextKey struct{}

// The user's own BaseContext is asked for each task, and handed on with its values; a denial does not end it.
func configuredBaseContext(t *testing.T) {
	for _, configure := range []func(asynq.Config) asynq.Config{asynqmw.Configure, configureTwice} {
		s := newSite(t)
		var asked list[bool]
		base, cancel := context.WithCancel(context.WithValue(t.Context(), contextKey{}, "mine"))
		defer cancel()
		s.config.BaseContext = func() context.Context {
			asked.add(true)
			return base
		}
		w := working(func(ctx context.Context, _ *asynq.Task) error {
			if ctx.Value(contextKey{}) != "mine" {
				t.Error("the user's value is lost")
			}
			<-ctx.Done()
			return nil
		})
		before := len(asked.get())
		shutdown := s.startBare(t, configure(s.config), s.around(w))
		ids := []string{s.enqueue(t, asynq.MaxRetry(3)), s.enqueue(t, asynq.MaxRetry(3))}
		for _, id := range ids {
			w.await(t, id, 1)
		}
		s.revoke(guard.CodeDeviceRevoked)
		for _, id := range ids {
			s.unspent(t, id, asynq.TaskStateRetry, 0) // the mark is there
		}
		if n := len(asked.get()) - before; n < 2 {
			t.Errorf("BaseContext was called %d times for two tasks", n)
		}
		if base.Err() != nil {
			t.Error("a denial has cancelled the BaseContext")
		}
		shutdown()
	}
}

// What the middleware has to say goes where asynq's own log goes.
func configuredLogger(t *testing.T) {
	s := newSite(t)
	s.Deny(device, guard.CodeDeviceRevoked)
	s.start(t, s.around(done(), asynqmw.WithMaxHeld(0)))
	id := s.enqueue(t, asynq.MaxRetry(0))
	s.await(t, id, asynq.TaskStateArchived)
	eventually(t, "the log", func() bool { return len(s.log.ours("id="+id)) == 1 })
}

// A middleware outside of New's may wrap the refusal, or look into it.
func configuredBehindMiddleware(t *testing.T) {
	s, h := newSite(t), &hooks{}
	h.set(&s.config)
	s.Deny(device, guard.CodeDeviceRevoked)
	inside := s.around(done())
	var seen list[error]
	s.start(t, asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error {
		err := inside.ProcessTask(ctx, task)
		seen.add(err)
		return errors.Join(errOwn, err)
	}))
	id := s.enqueue(t, asynq.MaxRetry(3))
	s.unspent(t, id, asynq.TaskStateRetry, 0)
	h.want(t)
	denied := (*guard.DeniedError)(nil)
	if err := seen.get()[0]; !errors.Is(err, guard.ErrDenied) || !errors.As(err, &denied) || denied.Decision.Code != guard.CodeDeviceRevoked {
		t.Errorf("the middleware outside is given %v", err)
	}
}
