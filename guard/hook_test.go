package guard_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// hooked counts how often a hook was called, and what had become of the context by then.
type hooked struct {
	n     atomic.Int32
	cause atomic.Value
}

func (h *hooked) on(ctx context.Context) {
	guard.AfterStop(ctx, func() {
		if err := context.Cause(ctx); err != nil {
			h.cause.Store(err)
		}
		h.n.Add(1)
	})
}

// want fails unless the hook was called n times by now.
func (h *hooked) want(t *testing.T, why string, n int32) {
	t.Helper()
	synctest.Wait()
	if got := h.n.Load(); got != n {
		t.Errorf("%s: called %d times, want %d", why, got, n)
	}
}

// hookedContexts are the contexts of a run, from which a hook may be asked for.
var hookedContexts = map[string]func(ctx context.Context) context.Context{
	"the run's":      func(ctx context.Context) context.Context { return ctx },
	"with a value":   func(ctx context.Context) context.Context { return context.WithValue(ctx, hookedContextKey{}, 1) },
	"asked for Done": func(ctx context.Context) context.Context { _ = ctx.Done(); return ctx },
}

type hookedContextKey struct{}

func TestAfterStopIsCalledOnceWhenTheRunIsStopped(t *testing.T) {
	for name, of := range hookedContexts {
		for _, first := range []bool{true, false} {
			bubble(t, name, func(t *testing.T) {
				a := newAuthority()
				g := newGuard(t, a)
				h, two := &hooked{}, &hooked{}
				r := launchFunc(t.Context(), g, "d", func(ctx context.Context) error {
					if first {
						h.on(of(ctx))
						two.on(of(ctx))
					}
					_ = ctx.Done() // also between two hooks, and after
					if !first {
						h.on(of(ctx))
						two.on(of(ctx))
					}
					<-ctx.Done()
					time.Sleep(time.Second)
					return nil
				})
				<-r.began
				h.want(t, "nothing has happened", 0)
				a.deny(guard.CodeDeviceRevoked)
				_, _ = g.Validate(t.Context(), "d")
				h.want(t, "denied", 1)
				two.want(t, "denied", 1)
				if cause, _ := h.cause.Load().(error); !errors.Is(cause, guard.ErrDenied) {
					t.Errorf("the context's cause was %v, want the denial: it ends first", cause)
				}
				_ = r.finish()
				h.want(t, "returned", 1)
			})
		}
	}
}

func TestAfterStopOfARunThatEndsOtherwise(t *testing.T) {
	for name, of := range hookedContexts {
		bubble(t, name, func(t *testing.T) {
			a := newAuthority()
			g := newGuard(t, a)
			h := &hooked{}
			gone, leave := context.WithCancel(t.Context())
			r := launchFunc(gone, g, "d", func(ctx context.Context) error {
				h.on(of(ctx))
				<-ctx.Done()
				return nil
			})
			<-r.began
			leave()
			_ = r.finish()
			h.want(t, "the caller has gone", 0)
			_ = launchFunc(t.Context(), g, "d", func(ctx context.Context) error {
				h.on(of(ctx))
				return nil
			}).finish()
			a.deny(guard.CodeDeviceRevoked)
			_, _ = g.Validate(t.Context(), "d")
			h.want(t, "the function has returned", 0)
		})
	}
}

func TestAfterStopOfARunThatWasStoppedBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, newAuthority())
		h := &hooked{}
		r := launchFunc(t.Context(), g, "d", func(ctx context.Context) error {
			<-ctx.Done()
			h.on(ctx)
			synctest.Wait()
			return nil
		})
		<-r.began
		_ = g.Close()
		_ = r.finish()
		h.want(t, "closed", 1)
		if cause, _ := h.cause.Load().(error); !errors.Is(cause, guard.ErrClosed) {
			t.Errorf("the context's cause was %v, want ErrClosed", cause)
		}
	})
}

func TestAfterStopOfNestedRuns(t *testing.T) {
	for _, outside := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			outer, inner := newAuthority(), newAuthority()
			g, within := newGuard(t, outer), newGuard(t, inner)
			h := &hooked{}
			r := launchFunc(t.Context(), g, "d", func(ctx context.Context) error {
				return within.Run(ctx, "e", func(ctx context.Context) error {
					h.on(ctx)
					<-ctx.Done()
					return nil
				})
			})
			synctest.Wait()
			if outside {
				outer.deny(guard.CodeDeviceRevoked)
				_, _ = g.Validate(t.Context(), "d")
			} else {
				inner.deny(guard.CodeDeviceRevoked)
				_, _ = within.Validate(t.Context(), "e")
			}
			_ = r.finish()
			h.want(t, "one of two was stopped", 1)
		})
	}
}

func TestAfterStopInAContextOfNoRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for cause, want := range map[error]int32{guard.ErrDenied: 1, guard.ErrClosed: 1, errors.New("another"): 0} {
			ctx, end := context.WithCancelCause(t.Context())
			h := &hooked{}
			h.on(ctx)
			end(cause)
			h.want(t, cause.Error(), want)
		}
	})
}

// Whoever comes while the run is being told is called once, whether he was found or finds it himself.
func TestAfterStopWhileTheRunIsTold(t *testing.T) {
	for range 300 {
		a := newAuthority()
		g := newGuard(t, a)
		var asked, called atomic.Int32
		var hooks sync.WaitGroup
		r := launchFunc(t.Context(), g, "d", func(ctx context.Context) error {
			for ctx.Err() == nil {
				hooks.Add(1)
				asked.Add(1)
				guard.AfterStop(ctx, func() {
					called.Add(1)
					hooks.Done()
				})
				if asked.Load()%3 == 0 {
					_ = ctx.Done()
				}
				if asked.Load() > 100 {
					<-ctx.Done()
				}
			}
			return nil
		})
		<-r.began
		a.deny(guard.CodeDeviceRevoked)
		_, _ = g.Validate(t.Context(), "d")
		_ = r.finish()
		hooks.Wait()
		if asked.Load() != called.Load() {
			t.Fatalf("%d hooks, %d calls", asked.Load(), called.Load())
		}
		_ = g.Close()
	}
}

// The first hook costs what the hook is and where it is kept, and makes no standard context.
func TestAfterStopCostsLittle(t *testing.T) {
	g := newGuard(t, newAuthority(), guard.WithReuse(time.Second))
	_ = launchFunc(t.Context(), g, "d", func(ctx context.Context) error {
		f := func() {}
		if n := testing.AllocsPerRun(100, func() { guard.AfterStop(ctx, f) }); n > 2 {
			t.Errorf("%v allocations, want 2", n)
		}
		return nil
	}).finish()
}
