package guard_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/contextx"
	"github.com/execguard/execguard/guard"
)

// derivations are contexts that a client makes of the one that it was given.
func derivations() map[string]func(ctx context.Context) (context.Context, context.CancelFunc) {
	type key struct{}
	uncancelled := func(derive func(context.Context) context.Context) func(context.Context) (context.Context, context.CancelFunc) {
		return func(ctx context.Context) (context.Context, context.CancelFunc) { return derive(ctx), func() {} }
	}
	return map[string]func(ctx context.Context) (context.Context, context.CancelFunc){
		"itself": uncancelled(func(ctx context.Context) context.Context { return ctx }),
		"cancel": context.WithCancel,
		"cause":  withCause(errDown),
		"timeout": func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Second)
		},
		"value": uncancelled(func(ctx context.Context) context.Context { return context.WithValue(ctx, key{}, false) }),
		"typed value": uncancelled(func(ctx context.Context) context.Context {
			return contextx.NewKey[bool]("guard.validating").With(ctx, false)
		}),
		"without": uncancelled(context.WithoutCancel),
		"without, then": func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithCancel(context.WithoutCancel(ctx))
		},
		"cleanup": func(ctx context.Context) (context.Context, context.CancelFunc) {
			return contextx.Cleanup(ctx, time.Second)
		},
		"merged": func(ctx context.Context) (context.Context, context.CancelFunc) {
			return contextx.Merge(ctx, context.Background())
		},
		"somebody's": uncancelled(func(ctx context.Context) context.Context { return newCallersContext(ctx) }),
	}
}

// wantMarked fails unless Validating says the same of ctx and of all that is derived from it.
func wantMarked(t *testing.T, what string, ctx context.Context, want bool) {
	t.Helper()
	for name, derive := range derivations() {
		derived, cancel := derive(ctx)
		if got := guard.Validating(derived); got != want {
			t.Errorf("%s, %s: Validating says %v, want %v", what, name, got, want)
		}
		cancel()
		if got := guard.Validating(derived); got != want {
			t.Errorf("%s, %s, when it has ended: Validating says %v, want %v", what, name, got, want)
		}
	}
}

// remember keeps what its calls were given, and does what b does.
func remember(ctxs *[]context.Context, b behaviour) behaviour {
	return func(ctx context.Context, c *asked) (guard.Decision, error) {
		*ctxs = append(*ctxs, ctx)
		return b(ctx, c)
	}
}

func TestValidating_InTheValidatorAndBelow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		called := 0
		a.set(func(ctx context.Context, c *asked) (guard.Decision, error) {
			called++
			wantMarked(t, "in the validator", ctx, true)
			return allows(ctx, c)
		})
		if err := newGuard(t, a).Run(t.Context(), "dev", nothing); err != nil || called != 1 {
			t.Errorf("Run: %v, asked %d times", err, called)
		}
	})
}

// Whoever it is that makes the guard ask, on whose behalf: the validator's context says so, and says
// it still when the call has returned or was given up.
func TestValidating_WhoeverAsks(t *testing.T) {
	run := func(t *testing.T, g *guard.Guard) {
		r := launch(t.Context(), g, "dev")
		time.Sleep(time.Minute) // the watch
		wantRunning(t, r, "after a minute")
	}
	for name, c := range map[string]struct {
		opts []guard.Option
		b    behaviour
		ask  func(t *testing.T, g *guard.Guard)
		min  int
	}{
		"run and watch": {nil, allows, run, 6},
		"validate":      {nil, allows, func(t *testing.T, g *guard.Guard) { _, _ = g.Validate(t.Context(), "dev") }, 1},
		"keep": {nil, denies(guard.CodeDeviceRevoked), func(t *testing.T, g *guard.Guard) {
			keep(t.Context(), g, "dev")
			time.Sleep(time.Minute)
		}, 3},
		"hint": {nil, allows, func(t *testing.T, g *guard.Guard) {
			launch(t.Context(), g, "dev")
			synctest.Wait()
			g.Hint("")
			synctest.Wait()
		}, 2},
		"reuse":    {[]guard.Option{guard.WithReuse(5 * time.Second)}, allows, run, 6},
		"retry":    {[]guard.Option{retries(time.Second, 5*time.Second)}, inTurn(fails(errDown), fails(errDown), allows), run, 8},
		"given up": {nil, hangs, func(t *testing.T, g *guard.Guard) { _ = g.Run(t.Context(), "dev", mustNotRun(t)) }, 1},
		"session": {nil, allows, func(t *testing.T, g *guard.Guard) {
			_, s := open(t.Context(), t, g, "dev")
			s.End(nil)
			_ = s.Wait()
		}, 1},
	} {
		bubble(t, name, func(t *testing.T) {
			a := newAuthority()
			var ctxs []context.Context
			a.set(remember(&ctxs, c.b))
			c.ask(t, newGuard(t, a, c.opts...))
			synctest.Wait()
			if len(ctxs) < c.min {
				t.Errorf("asked %d times: this tests too little", len(ctxs))
			}
			for _, ctx := range ctxs {
				wantMarked(t, "a call's", ctx, true)
			}
		})
	}
}

// A guard is a validator too: what it asks on another's behalf is asked by a validator, however
// many of them stand in a row; and the function that all of them guard is none.
func TestValidating_WhereTheValidatorIsAGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		var ctxs []context.Context
		a.set(remember(&ctxs, allows))
		inner := newGuard(t, a)
		middle := newGuard(t, inner)
		outer := newGuard(t, guard.ValidatorFunc(func(ctx context.Context, device string) (guard.Decision, error) {
			wantMarked(t, "the outer guard's", ctx, true)
			return middle.Validate(ctx, device)
		}))
		err := outer.Run(t.Context(), "dev", func(ctx context.Context) error {
			wantMarked(t, "the function's", ctx, false)
			time.Sleep(time.Minute)
			return nil
		})
		if err != nil || len(ctxs) < 6 {
			t.Errorf("Run: %v, asked %d times", err, len(ctxs))
		}
		for _, ctx := range ctxs {
			wantMarked(t, "the inner guard's", ctx, true)
		}
	})
}

// What runs under a guard is not the authority's own, and neither is what asks the guard.
func TestValidating_NowhereElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		told := &diary{}
		g := newGuard(t, newAuthority(), guard.WithObserver(told.observe))
		mine := context.WithValue(t.Context(), key{}, true)
		for name, ctx := range map[string]context.Context{"background": context.Background(), "todo": context.TODO(), "the caller's": mine} {
			wantMarked(t, name, ctx, false)
		}
		if _, err := g.Validate(mine, "dev"); err != nil {
			t.Errorf("Validate: %v", err)
		}
		for name, run := range map[string]func(context.Context, string, func(context.Context) error) error{"Run": g.Run, "Keep": g.Keep} {
			called := 0
			err := run(mine, "dev", func(ctx context.Context) error {
				called++
				wantMarked(t, name, ctx, false)
				return g.Run(ctx, "other", func(ctx context.Context) error {
					wantMarked(t, name+", nested", ctx, false)
					return nil
				})
			})
			if err != nil || called != 1 {
				t.Errorf("%s: %v, called %d times", name, err, called)
			}
		}
		run, s := open(mine, t, g, "dev")
		wantMarked(t, "a session", run, false)
		s.End(nil)
		_ = s.Wait()
		wantMarked(t, "a session that is over", run, false)
		wantMarked(t, "the caller's, afterwards", mine, false)
		synctest.Wait()
		for _, e := range told.read() {
			wantMarked(t, "an observer, of "+string(e.Kind), e.ctx, false)
		}
	})
}

// A validator that itself runs something under a guard is still the authority's client in there.
func TestValidating_InARunOfTheValidators(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		helper, called := newGuard(t, newAuthority()), 0
		g := newGuard(t, guard.ValidatorFunc(func(ctx context.Context, device string) (guard.Decision, error) {
			return guard.Do(ctx, helper, "helper", func(ctx context.Context) (guard.Decision, error) {
				called++
				wantMarked(t, "the validator's run", ctx, true)
				return allowAll(ctx, device)
			})
		}))
		if err := g.Run(t.Context(), "dev", nothing); err != nil || called != 1 {
			t.Errorf("Run: %v, called %d times", err, called)
		}
	})
}

// The mark takes nothing from the context that it is on: what is derived from it ends with it, with
// its cause, and it has no values but that.
func TestValidating_IsAllThatTheContextAnswersOtherwise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		a := newAuthority()
		ended := 0
		a.set(func(ctx context.Context, _ *asked) (guard.Decision, error) {
			if v := ctx.Value(key{}); v != nil {
				t.Errorf("a value that nobody has put there: %v", v)
			}
			child, cancel := context.WithCancel(context.WithValue(ctx, key{}, 1))
			defer cancel()
			<-child.Done()
			if cause := context.Cause(child); cause != context.Cause(ctx) || !errors.Is(cause, context.DeadlineExceeded) {
				t.Errorf("the child's cause is %v, the call's %v", cause, context.Cause(ctx))
			}
			if child.Value(key{}) != 1 {
				t.Error("the child's value is lost")
			}
			ended++
			return guard.Decision{}, context.Cause(child)
		})
		err := newGuard(t, a).Run(t.Context(), "dev", mustNotRun(t))
		wantDenied(t, err, "dev", guard.CodeSystemUnavailable, false)
		synctest.Wait()
		if ended != 1 {
			t.Errorf("the child has ended %d times", ended)
		}
	})
}
