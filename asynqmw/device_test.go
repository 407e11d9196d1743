package asynqmw_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/asynqmw"
	"github.com/execguard/execguard/guard"
)

// Nothing can be guarded with these: the program is told when it starts.
func TestMistakesPanic(t *testing.T) {
	g, _ := newGuard(t)
	fixed := asynqmw.Fixed(device)
	for text, try := range map[string]func(){
		"asynqmw: New: the Runner is nil":                   func() { asynqmw.New(nil, fixed) },
		"asynqmw: New: the Runner is nil (a nil *Guard)":    func() { asynqmw.New((*guard.Guard)(nil), fixed) },
		"asynqmw: New: the Runner is nil (a nil function)":  func() { asynqmw.New(runnerFunc(nil), fixed) },
		"asynqmw: New: the DeviceFunc is nil":               func() { asynqmw.New(g, nil) },
		"asynqmw: New: an Option is nil":                    func() { asynqmw.New(g, fixed, asynqmw.WithMaxHeld(1), nil) },
		"asynqmw: WithInspector: the Inspector is nil":      func() { asynqmw.WithInspector(nil) },
		"asynqmw: WithMaxHeld: the number is negative":      func() { asynqmw.WithMaxHeld(-1) },
		"asynqmw: FromHeader: the name is blank":            func() { asynqmw.FromHeader("") },
		"asynqmw: FromHeader: the name is blank (of blank)": func() { asynqmw.FromHeader(" \t\n") },
	} {
		t.Run(text, func(t *testing.T) {
			defer func() {
				text, _, _ := strings.Cut(text, " (")
				if got := fmt.Sprint(recover()); got != text {
					t.Errorf("panic: %s, want %s", got, text)
				}
			}()
			try()
		})
	}
}

// runnerFunc is a Runner that is a function.
type runnerFunc func(ctx context.Context, deviceID string, fn func(context.Context) error) error

func (r runnerFunc) Run(ctx context.Context, deviceID string, fn func(context.Context) error) error {
	return r(ctx, deviceID, fn)
}

func TestFixed(t *testing.T) {
	id, err := asynqmw.Fixed(device)(t.Context(), asynq.NewTaskWithHeaders(kind, nil, map[string]string{"device": other}))
	if id != device || err != nil {
		t.Errorf("%q, %v", id, err)
	}
}

func TestFromHeader(t *testing.T) {
	from := asynqmw.FromHeader("device")
	for _, c := range []struct {
		headers map[string]string
		want    string
	}{
		{map[string]string{"device": device}, device},
		{map[string]string{"device": " " + device}, " " + device}, // the guard changes no id (S2), nor does this
		{map[string]string{"Device": device}, ""},                 // headers of a task are no HTTP
		{map[string]string{"device": ""}, ""},
		{map[string]string{"device": " \t"}, ""},
		{map[string]string{}, ""},
		{nil, ""},
	} {
		id, err := from(t.Context(), asynq.NewTaskWithHeaders(kind, nil, c.headers))
		if id != c.want || errors.Is(err, asynqmw.ErrNoIdentity) != (c.want == "") {
			t.Errorf("%q: %q, %v; want %q", c.headers, id, err, c.want)
		}
	}
}

// secretError is somebody's error that prints what is nobody's business.
type secretError struct{ token string }

func (e *secretError) Error() string { return "dial with token " + e.token }

// What a DeviceFunc says is found by errors.Is and errors.As, and printed nowhere.
func TestDeviceFuncRefuses(t *testing.T) {
	t.Parallel()
	const token = "tok_5f0c7a529d0e"
	inner := &secretError{token}
	sideBySide(t, map[string]func(t *testing.T){
		"an error":              func(t *testing.T) { deviceRefused(t, inner, token) },
		"one that wraps ours":   func(t *testing.T) { deviceRefused(t, errors.Join(inner, errOwn), token) },
		"SkipRetry":             func(t *testing.T) { deviceRefused(t, fmt.Errorf("%w: %w", asynq.SkipRetry, inner), token) },
		"RevokeTask":            func(t *testing.T) { deviceRefused(t, fmt.Errorf("%w: %w", asynq.RevokeTask, inner), token) },
		"an error and a device": func(t *testing.T) { deviceRefused(t, inner, token) },
	})
}

func deviceRefused(t *testing.T, err error, token string) {
	s, w := newSite(t), done()
	inside := asynqmw.New(s.guard, func(context.Context, *asynq.Task) (string, error) { return device, err })(w)
	var seen list[error]
	s.start(t, asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error {
		err := inside.ProcessTask(ctx, task)
		seen.add(err)
		return err
	}))
	id := s.enqueue(t, asynq.MaxRetry(3))
	s.unspent(t, id, asynq.TaskStateRetry, 0)
	refused, as := seen.get()[0], (*secretError)(nil)
	if !errors.As(refused, &as) || as.token != token || !errors.Is(refused, asynqmw.ErrNoIdentity) {
		t.Errorf("%v hides what the DeviceFunc said", refused)
	}
	if errors.Is(refused, asynq.SkipRetry) || errors.Is(refused, asynq.RevokeTask) {
		t.Errorf("%v would have asynq end the task", refused)
	}
	printed := fmt.Sprintf("%v %+v %#v %q %s %v", refused, refused, refused, refused, s.info(t, id).LastErr, s.log.lines.get())
	if strings.Contains(printed, token) {
		t.Errorf("the token is in %s", printed)
	}
	w.want(t, "", 0)
	if n := len(s.Calls()); n > 0 {
		t.Errorf("the authority was asked %d times", n)
	}
}

// Two guards around one handler: each of the two devices can stop the task, and keep it from starting.
func TestNested(t *testing.T) {
	t.Parallel()
	tests := map[string]func(t *testing.T){}
	for _, who := range []string{device, other} {
		for _, retries := range []int{0, 3} {
			tests[fmt.Sprintf("%s, %d retries", who, retries)] = func(t *testing.T) { nested(t, who, retries) }
		}
	}
	sideBySide(t, tests)
}

func nested(t *testing.T, who string, retries int) {
	s := newSite(t)
	var again atomic.Bool
	w := working(func(ctx context.Context, _ *asynq.Task) error {
		if again.Swap(true) {
			return guard.Checkpoint(ctx)
		}
		<-ctx.Done()
		return errOwn
	})
	inner := asynqmw.New(s.guard, asynqmw.Fixed(other))
	s.start(t, asynqmw.New(s.guard, asynqmw.Fixed(device))(inner(w)))
	s.Deny(who, guard.CodeDeviceRevoked)
	id := s.enqueue(t, asynq.MaxRetry(retries), asynq.Retention(time.Hour))
	back := map[int]asynq.TaskState{0: asynq.TaskStateActive, 3: asynq.TaskStateRetry}[retries]
	s.asked(t, 3)
	s.unspent(t, id, back, 0)
	w.want(t, id, 0)
	s.Allow(who)
	w.await(t, id, 1)
	s.Deny(who, guard.CodeDeviceRevoked)
	s.asked(t, 4)
	s.unspent(t, id, back, 0)
	w.want(t, id, 1)
	s.Allow(who)
	s.unspent(t, id, asynq.TaskStateCompleted, 0)
	w.want(t, id, 2)
}

// A Runner is somebody's own code, and may do what a Guard never does.
func TestOddRunners(t *testing.T) {
	t.Parallel()
	odd := errors.New("odd")
	once := func(ctx context.Context, fn func(context.Context) error) error { return fn(ctx) }
	tests := map[string]struct {
		run   func(ctx context.Context, fn func(context.Context) error) error
		work  error // the handler's
		state asynq.TaskState
		spent int
		calls int
		text  string // in LastErr
	}{
		"is honest":                     {once, nil, asynq.TaskStateCompleted, 0, 1, ""},
		"is honest about an error":      {once, errOwn, asynq.TaskStateRetry, 1, 1, errOwn.Error()},
		"does not call":                 {func(context.Context, func(context.Context) error) error { return nil }, nil, asynq.TaskStateRetry, 0, 0, "without an outcome"},
		"has an error of its own":       {func(context.Context, func(context.Context) error) error { return odd }, nil, asynq.TaskStateRetry, 0, 0, "asynqmw: odd"},
		"says SkipRetry without a call": {func(context.Context, func(context.Context) error) error { return asynq.SkipRetry }, nil, asynq.TaskStateRetry, 0, 0, "asynqmw: skip retry"},
		"swallows the error":            {func(ctx context.Context, fn func(context.Context) error) error { _ = fn(ctx); return nil }, errOwn, asynq.TaskStateRetry, 1, 1, errOwn.Error()},
		"wraps the error":               {func(ctx context.Context, fn func(context.Context) error) error { return fmt.Errorf("odd: %w", fn(ctx)) }, errOwn, asynq.TaskStateRetry, 1, 1, "odd: " + errOwn.Error()},
		"makes an error of success":     {func(ctx context.Context, fn func(context.Context) error) error { _ = fn(ctx); return odd }, nil, asynq.TaskStateRetry, 1, 1, "odd"},
		"calls twice":                   {func(ctx context.Context, fn func(context.Context) error) error { return errors.Join(fn(ctx), fn(ctx)) }, nil, asynq.TaskStateRetry, 1, 1, "can be handled only once"},
		"calls twice and swallows it": {func(ctx context.Context, fn func(context.Context) error) error {
			_, err := fn(ctx), fn(ctx)
			_ = err
			return nil
		}, nil, asynq.TaskStateCompleted, 0, 1, ""},
		"denies without a denial's type":   {func(context.Context, func(context.Context) error) error { return fmt.Errorf("no: %w", guard.ErrDenied) }, nil, asynq.TaskStateRetry, 0, 0, "asynqmw: no: "},
		"denies after the handler's end":   {func(ctx context.Context, fn func(context.Context) error) error { _ = fn(ctx); return guard.ErrDenied }, nil, asynq.TaskStateRetry, 0, 1, guard.ErrDenied.Error()},
		"is over when the handler has run": {func(ctx context.Context, fn func(context.Context) error) error { _ = fn(ctx); return guard.ErrClosed }, nil, asynq.TaskStateActive, 0, 1, ""},
	}
	all := map[string]func(t *testing.T){}
	for name, c := range tests {
		all[name] = func(t *testing.T) {
			s := newSite(t)
			s.config.RetryDelayFunc = func(int, error, *asynq.Task) time.Duration { return time.Hour }
			w := working(func(context.Context, *asynq.Task) error { return c.work })
			r := hourly(func(ctx context.Context, _ string, fn func(context.Context) error) error { return c.run(ctx, fn) })
			s.start(t, asynqmw.New(r, asynqmw.Fixed(device))(w))
			id := s.enqueue(t, asynq.MaxRetry(3), asynq.Retention(time.Hour))
			eventually(t, "the call", func() bool { return len(w.visits("")) >= c.calls })
			s.unspent(t, id, c.state, c.spent)
			w.want(t, id, c.calls)
			if text := s.info(t, id).LastErr; !strings.Contains(text, c.text) {
				t.Errorf("LastErr = %q, want %q", text, c.text)
			}
		}
	}
	sideBySide(t, all)
}

// hourly is a Runner whose interval is an hour.
type hourly runnerFunc

func (r hourly) Run(ctx context.Context, deviceID string, fn func(context.Context) error) error {
	return r(ctx, deviceID, fn)
}

func (hourly) Interval() time.Duration { return time.Hour }
