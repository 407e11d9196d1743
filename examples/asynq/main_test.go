package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/hibiken/asynq"
	"go.uber.org/goleak"

	"github.com/execguard/execguard/guard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// expectInOrder looks for one match after the other, each behind the one before.
func expectInOrder(t *testing.T, text string, patterns ...string) {
	t.Helper()
	rest := text
	for _, pattern := range patterns {
		at := regexp.MustCompile(pattern).FindStringIndex(rest)
		if at == nil {
			t.Fatalf("nothing matches %q where it should in:\n%s", pattern, text)
		}
		rest = rest[at[1]:]
	}
}

const (
	requestID = `[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`
	denial    = `: DEVICE_REVOKED, request ` + requestID + `\n`
)

func expectStory(t *testing.T, text string) {
	t.Helper()
	expectInOrder(t, text,
		`\(enqueued\) +36 tasks, 12 of them with MaxRetry\(0\)\n`, `\(revoked\) +worker:demo:press:01\n`,
		`cut +page \d+ of worker:demo:press:01`+denial,
		`meanwhile +all 18 of worker:demo:mailer:01 are handled; of worker:demo:press:01 \d+ are, \d are held and \d+ have gone back\n`,
		`\(restored\) +worker:demo:press:01\n`, `\(done\) +36 handled\n`,
		`\(enqueued\) +12 tasks, all of them with MaxRetry\(0\)\n`, `\(revoked\) +worker:demo:scanner:01\n`,
		`cut +page \d+ of worker:demo:scanner:01`+denial, `meanwhile +\d are handled, \d+ wait in the queue, and none is fetched\n`,
		`\(restored\) +worker:demo:scanner:01\n`, `\(done\) +12 handled\n`,
		`\(account\) +enqueued 48, handled 48, cut \d+, refused \d+, retries spent 0, archived 0\n$`,
	)
}

func TestStory(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := demonstrate(t.Context(), &out, ""); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	expectStory(t, out.String())
}

// Somebody's own Redis is left as it was, but for what the command says of itself.
func TestStoryInARedisOfSomebodys(t *testing.T) {
	t.Parallel()
	redis := miniredis.RunT(t)
	if err := redis.Set("theirs", "1"); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := demonstrate(t.Context(), &out, redis.Addr()); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	expectStory(t, out.String())
	expectTidy(t, redis)
	if !redis.Exists("theirs") {
		t.Error("what was somebody's own is gone")
	}
}

// expectTidy finds what was left in Redis.
func expectTidy(t *testing.T, redis *miniredis.Miniredis) {
	t.Helper()
	counters := regexp.MustCompile(`^asynq:\{execguard-demo-(shared|own)-[a-z0-9]{8}\}:(processed|failed)(:[-\d]+|:total)?$`)
	for _, key := range redis.Keys() {
		if key != "theirs" && !counters.MatchString(key) {
			t.Errorf("%s is left", key)
		}
	}
}

func TestRedisThatIsNotThere(t *testing.T) {
	t.Parallel()
	redis := miniredis.RunT(t)
	addr := redis.Addr()
	redis.Close()
	if err := demonstrate(t.Context(), io.Discard, addr); err == nil {
		t.Error("nobody has noticed")
	}
}

// runnerFunc is a guard that does not do all that one should.
type runnerFunc func(ctx context.Context, deviceID string, fn func(context.Context) error) error

func (f runnerFunc) Run(ctx context.Context, deviceID string, fn func(context.Context) error) error {
	return f(ctx, deviceID, fn)
}

// onlyFor spoils what a guard does for one device.
func onlyFor(device string, g *guard.Guard, spoilt runnerFunc) guard.Runner {
	return runnerFunc(func(ctx context.Context, id string, fn func(context.Context) error) error {
		if id == device {
			return spoilt(ctx, id, fn)
		}
		return g.Run(ctx, id, fn)
	})
}

// tellWith tells the story with the guard that spoil makes of a good one. Serve takes a whole guard,
// which can be spoilt by its validator alone.
func tellWith(ctx context.Context, t *testing.T, patience time.Duration, spoil func(g *guard.Guard) guard.Runner,
	validator func(v guard.Validator) guard.Validator,
) (text string, err error) {
	t.Helper()
	redis := miniredis.RunT(t)
	org, err := register(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	g, err := guard.New(validator(org), guard.WithInterval(interval))
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	defer org.Subscribe(g.Hint)()
	var out bytes.Buffer
	err = newStory(&out, org, asynq.RedisClientOpt{Addr: redis.Addr()}).tell(ctx, spoil(g), g, patience)
	expectTidy(t, redis)
	return out.String(), err
}

func good(g *guard.Guard) guard.Runner { return g }

func honest(v guard.Validator) guard.Validator { return v }

// always lets everything start, and stops nothing.
func always(g *guard.Guard) guard.Runner {
	return onlyFor(press, g, func(ctx context.Context, _ string, fn func(context.Context) error) error { return fn(ctx) })
}

// never denies the one that nobody has revoked.
func never(g *guard.Guard) guard.Runner {
	return onlyFor(mailer, g, func(context.Context, string, func(context.Context) error) error {
		return &guard.DeniedError{Decision: guard.Decision{Code: guard.CodeDeviceNotFound}}
	})
}

// another makes errors of its own of denials, so that each costs a retry, or the task.
func another(g *guard.Guard) guard.Runner {
	return onlyFor(press, g, func(ctx context.Context, id string, fn func(context.Context) error) error {
		if err := g.Run(ctx, id, func(ctx context.Context) error { _ = fn(ctx); return nil }); err != nil {
			return fn(failed(ctx))
		}
		return nil
	})
}

// failed is a context that has ended.
func failed(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	return ctx
}

// deaf is an authority that allows whatever is revoked.
func deaf(v guard.Validator) guard.Validator {
	return guard.ValidatorFunc(func(ctx context.Context, id string) (guard.Decision, error) {
		d, err := v.Validate(ctx, id)
		if id == scanner {
			d.Allowed, d.Code = true, guard.CodeAllow
		}
		return d, err
	})
}

func TestGuardThatDoesNotDoItsWorkIsFoundOut(t *testing.T) {
	for name, test := range map[string]struct {
		spoil     func(g *guard.Guard) guard.Runner
		validator func(v guard.Validator) guard.Validator
		patience  time.Duration
		says      string
	}{
		"the tasks go on":         {always, honest, time.Minute, "one device should be done and the other not"},
		"a denial costs tasks":    {another, honest, time.Minute, "one device should be done and the other not"},
		"somebody else is denied": {never, honest, 3 * time.Second, errTooLong.Error()},
		"the process goes on":     {good, deaf, time.Minute, "12 tasks should be handled or wait"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text, err := tellWith(t.Context(), t, test.patience, test.spoil, test.validator)
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want it to say %q:\n%s", err, test.says, text)
			}
		})
	}
}

func TestPatienceEndsTheStory(t *testing.T) {
	t.Parallel()
	text, err := tellWith(t.Context(), t, time.Millisecond, good, honest)
	if !errors.Is(err, errTooLong) {
		t.Errorf("got %v after:\n%s", err, text)
	}
}

// writer calls a function when a text comes.
type writer struct {
	bytes.Buffer
	waits string
	then  func()
}

func (w *writer) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(w.waits)) {
		w.then()
	}
	return w.Buffer.Write(p)
}

func TestInterruptEndsTheStory(t *testing.T) {
	for _, device := range []string{press, scanner} {
		t.Run(device, func(t *testing.T) {
			t.Parallel()
			redis := miniredis.RunT(t)
			ctx, interrupt := context.WithCancelCause(t.Context())
			interrupted := errors.New("interrupted")
			out := &writer{waits: "(revoked)   " + device, then: func() { interrupt(interrupted) }}
			err := demonstrate(ctx, out, redis.Addr())
			if !errors.Is(err, interrupted) && !errors.Is(err, context.Canceled) || strings.Contains(out.String(), "(restored)  "+device) {
				t.Errorf("got %v after:\n%s", err, out)
			}
			expectTidy(t, redis)
		})
	}
}

func TestAccountIsChecked(t *testing.T) {
	good := account{enqueued: 4, handled: 4, cut: 1, refused: 2}
	for name, test := range map[string]struct {
		spoil func(a *account)
		bad   bool
	}{
		"good":          {func(*account) {}, false},
		"one is lost":   {func(a *account) { a.handled-- }, true},
		"one too many":  {func(a *account) { a.handled++ }, true},
		"a retry spent": {func(a *account) { a.spent++ }, true},
		"one archived":  {func(a *account) { a.archived++ }, true},
		"nothing cut":   {func(a *account) { a.cut = 0 }, true},
		"none refused":  {func(a *account) { a.refused = 0 }, true},
	} {
		a := good
		test.spoil(&a)
		if err := a.check(); (err != nil) != test.bad || err != nil && !strings.Contains(err.Error(), fmt.Sprint(a)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
