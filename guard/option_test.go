package guard_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

func noBackOff() guard.BackOff { return constant(-1) }

func observe(context.Context, guard.Event) {}

// Options that are zero, negative or absurd are refused by name and value.
func TestNew_RefusesBadOptions(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		name string
		opts []guard.Option
		says []string
	}{
		{"no interval", []guard.Option{guard.WithInterval(0)}, []string{"WithInterval", "0s"}},
		{"a negative interval", []guard.Option{guard.WithInterval(-time.Second)}, []string{"WithInterval", "-1s"}},
		{"an interval without a unit", []guard.Option{guard.WithInterval(10)}, []string{"WithInterval", "10ns"}},
		{"an interval too long", []guard.Option{guard.WithInterval(day + 1)}, []string{"WithInterval", "24h0m0.000000001s"}},
		{"an absurd interval", []guard.Option{guard.WithInterval(1<<63 - 1)}, []string{"WithInterval", "2562047h"}},
		{"no timeout", []guard.Option{guard.WithTimeout(0)}, []string{"WithTimeout", "0s"}},
		{"a negative timeout", []guard.Option{guard.WithTimeout(-1)}, []string{"WithTimeout", "-1ns"}},
		{"a timeout without a unit", []guard.Option{guard.WithTimeout(3)}, []string{"WithTimeout", "3ns"}},
		{"an absurd timeout", []guard.Option{guard.WithTimeout(1<<63 - 1)}, []string{"WithTimeout", "2562047h"}},
		{"no budget", []guard.Option{guard.WithRetry(nil, 0)}, []string{"WithRetry", "0s"}},
		{"a negative budget", []guard.Option{guard.WithRetry(noBackOff, -time.Second)}, []string{"WithRetry", "-1s"}},
		{"an absurd budget", []guard.Option{guard.WithRetry(nil, 1<<63-1)}, []string{"WithRetry", "2562047h"}},
		{"no reuse", []guard.Option{guard.WithReuse(0)}, []string{"WithReuse", "0s"}},
		{"a negative reuse", []guard.Option{guard.WithReuse(-time.Second)}, []string{"WithReuse", "-1s"}},
		{"an absurd reuse", []guard.Option{guard.WithReuse(1<<63 - 1)}, []string{"WithReuse", "2562047h"}},
		{"no requests", []guard.Option{guard.WithMaxRequests(0)}, []string{"WithMaxRequests", "0"}},
		{"a negative number", []guard.Option{guard.WithMaxRequests(-64)}, []string{"WithMaxRequests", "-64"}},
		{"an absurd number", []guard.Option{guard.WithMaxRequests(1 << 40)}, []string{"WithMaxRequests", "1099511627776"}},
		{"no observer", []guard.Option{guard.WithObserver(nil)}, []string{"WithObserver", "nil"}},
		{"one observer of two", []guard.Option{guard.WithObserver(observe), guard.WithObserver(nil)}, []string{"WithObserver", "nil"}},
		{"no logger", []guard.Option{guard.WithLogger(nil)}, []string{"WithLogger", "nil"}},
		{"no option", []guard.Option{guard.WithInterval(time.Second), nil}, []string{"Option", "nil"}},

		// Contradictions name both.
		{"reuse beyond the interval", []guard.Option{guard.WithReuse(6 * time.Second), guard.WithInterval(5 * time.Second)}, []string{"WithReuse", "6s", "WithInterval", "5s"}},
		{"in the other order", []guard.Option{guard.WithInterval(5 * time.Second), guard.WithReuse(6 * time.Second)}, []string{"WithReuse", "6s", "WithInterval", "5s"}},
		{"by a nanosecond", []guard.Option{guard.WithInterval(5 * time.Second), guard.WithReuse(5*time.Second + 1)}, []string{"WithReuse", "5.000000001s", "WithInterval", "5s"}},
		{"beyond the default interval", []guard.Option{guard.WithReuse(11 * time.Second)}, []string{"WithReuse", "11s", "WithInterval", "10s"}},

		// Two faults, both are named.
		{"two faults", []guard.Option{guard.WithInterval(-1), guard.WithTimeout(-2)}, []string{"WithInterval", "-1ns", "WithTimeout", "-2ns"}},
		// A good value does not heal a bad one.
		{"given twice, bad first", []guard.Option{guard.WithInterval(0), guard.WithInterval(time.Second)}, []string{"WithInterval", "0s"}},
		{"given twice, bad last", []guard.Option{guard.WithTimeout(time.Second), guard.WithTimeout(0)}, []string{"WithTimeout", "0s"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, err := guard.New(newAuthority(), c.opts...)
			if g != nil || err == nil {
				t.Fatalf("got %v, %v, want an error", g, err)
			}
			for _, word := range c.says {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("the error does not name %s: %v", word, err)
				}
			}
		})
	}
}

// The ends of what is accepted, and the stop bound that follows from it.
func TestNew_AcceptsTheLimits(t *testing.T) {
	const ms, day = time.Millisecond, 24 * time.Hour
	for _, c := range []struct {
		name  string
		opts  []guard.Option
		bound time.Duration
	}{
		{"nothing", nil, 13 * time.Second},
		{"the shortest", []guard.Option{guard.WithInterval(ms), guard.WithTimeout(ms), guard.WithReuse(ms)}, 2 * ms},
		{"the longest", []guard.Option{guard.WithInterval(day), guard.WithTimeout(day), guard.WithRetry(nil, day), guard.WithReuse(day)}, 3 * day},
		{"a timeout beyond the interval", []guard.Option{guard.WithInterval(time.Second), guard.WithTimeout(time.Minute)}, 61 * time.Second},
		{"a budget", []guard.Option{guard.WithRetry(noBackOff, 7*time.Second)}, 20 * time.Second},
		{"reuse of an interval", []guard.Option{guard.WithReuse(10 * time.Second)}, 13 * time.Second},
		{"one request", []guard.Option{guard.WithMaxRequests(1)}, 13 * time.Second},
		{"many requests", []guard.Option{guard.WithMaxRequests(1 << 16)}, 13 * time.Second},
		{"the last counts", []guard.Option{guard.WithInterval(time.Second), guard.WithInterval(2 * time.Second)}, 5 * time.Second},
		{"observers and a logger", []guard.Option{guard.WithObserver(observe), guard.WithObserver(observe), guard.WithLogger(slog.New(slog.DiscardHandler))}, 13 * time.Second},
	} {
		bubble(t, c.name, func(t *testing.T) {
			g := newGuard(t, newAuthority(), c.opts...)
			if g.StopBound() != c.bound {
				t.Errorf("the stop bound is %v, want %v", g.StopBound(), c.bound)
			}
			ran := false
			if err := g.Run(t.Context(), "dev", func(ctx context.Context) error {
				ran = true
				return guard.Checkpoint(ctx)
			}); err != nil || !ran {
				t.Errorf("Run: %v, ran %v", err, ran)
			}
		})
	}
}

// The default timeout is that of one call; the default is no retry, no reuse.
func TestNew_Defaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		a.hang()
		g := newGuard(t, a)
		at := time.Now()
		wantDenied(t, g.Run(t.Context(), "dev", mustNotRun(t)), "dev", guard.CodeSystemUnavailable, false)
		c := a.last(t)
		if took := time.Since(at); took != 3*time.Second || a.count() != 1 || !c.deadline.Equal(at.Add(took)) {
			t.Errorf("refused after %v and %d requests, deadline %v; want 3s, 1, 3s", took, a.count(), c.deadline.Sub(at))
		}
		a.allow()
		for range 2 {
			if err := g.Run(t.Context(), "dev", func(context.Context) error { return nil }); err != nil {
				t.Error(err)
			}
		}
		if n := a.count(); n != 3 {
			t.Errorf("%d requests, want one for each start", n)
		}
		r := launch(t.Context(), g, "dev")
		time.Sleep(100 * time.Second)
		wantRunning(t, r, "allowed")
		if n := a.count() - 4; n != 10 {
			t.Errorf("%d revalidations in 100 s, want 10", n)
		}
	})
}

// An option may be given to several guards.
func TestNew_OptionsCanBeShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := []guard.Option{guard.WithInterval(20 * time.Second), guard.WithReuse(10 * time.Second), retries(time.Second, time.Second)}
		for range 2 {
			if g := newGuard(t, newAuthority(), opts...); g.StopBound() != 24*time.Second {
				t.Errorf("the stop bound is %v, want 24s", g.StopBound())
			}
		}
	})
}

func TestNew_RefusesNoValidator(t *testing.T) {
	for _, v := range []guard.Validator{nil, guard.ValidatorFunc(nil)} {
		if g, err := guard.New(v); g != nil || err == nil || !strings.Contains(err.Error(), "Validator") {
			t.Errorf("got %v, %v, want an error that names the Validator", g, err)
		}
	}
}

// A validator that is nil inside cannot be told from one that is not; what it cannot answer is
// no ALLOW.
func TestNew_AValidatorThatIsNilInsideAllowsNothing(t *testing.T) {
	for name, v := range map[string]guard.Validator{
		"a nil pointer": (*authority)(nil), "a nil guard": (*guard.Guard)(nil),
	} {
		bubble(t, name, func(t *testing.T) {
			g, err := guard.New(v)
			if err != nil {
				return // refused at once is as good
			}
			wantDenied(t, g.Run(t.Context(), "dev", mustNotRun(t)), "dev", guard.CodeSystemUnavailable, false)
		})
	}
}

// No function is an error and no question; it is not a denial either.
func TestRun_RefusesNoFunction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		do := func() (err error) {
			defer func() {
				if p := recover(); p != nil {
					t.Errorf("Do panics: %v", p)
				}
			}()
			_, err = guard.Do[int](t.Context(), g, "dev", nil)
			return err
		}
		for name, err := range map[string]error{
			"Run": g.Run(t.Context(), "dev", nil), "Keep": g.Keep(t.Context(), "dev", nil), "Do": do(),
		} {
			if err == nil || !strings.Contains(err.Error(), "nil") {
				t.Errorf("%s: got %v, want an error that says so", name, err)
			}
		}
		if n := a.count(); n != 0 {
			t.Errorf("%d requests for nothing", n)
		}
	})
}

// New asks nothing and starts nothing.
func TestNew_StartsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g, err := guard.New(a, guard.WithReuse(time.Second), retries(time.Second, time.Second), guard.WithObserver(observe))
		if err != nil || g == nil {
			t.Fatal(g, err)
		}
		time.Sleep(time.Hour)
		if n := a.count(); n != 0 {
			t.Errorf("%d requests", n)
		}
		// A goroutine left behind would be a deadlock at the end of the bubble: g is not closed.
	})
}
