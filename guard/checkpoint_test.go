package guard_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// detachments are the ways in which a context comes from another.
var detachments = map[string]func(context.Context) context.Context{
	"itself":   func(ctx context.Context) context.Context { return ctx },
	"detached": context.WithoutCancel,
	"derived": func(ctx context.Context) context.Context {
		type key struct{}
		return context.WithValue(ctx, key{}, 1)
	},
	"ended": func(ctx context.Context) context.Context {
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		return ctx
	},
	"detached and bounded": func(ctx context.Context) context.Context {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Hour)
		context.AfterFunc(ctx, cancel)
		return ctx
	},
}

// checkAll looks at every context that comes from ctx.
func checkAll(t *testing.T, ctx context.Context, check func(t *testing.T, err error)) {
	t.Helper()
	for name, detach := range detachments {
		t.Log(name)
		check(t, guard.Checkpoint(detach(ctx)))
	}
}

func wantYes(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("Checkpoint says %v, want nil", err)
	}
}

func TestCheckpoint_OfNoRun(t *testing.T) {
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for _, ctx := range []context.Context{t.Context(), over} {
		checkAll(t, ctx, func(t *testing.T, err error) {
			if !errors.Is(err, guard.ErrDenied) || errors.Is(err, guard.ErrUnavailable) || errors.Is(err, guard.ErrClosed) {
				t.Errorf("got %v, want a denial", err)
			}
		})
	}
}

// Nil while the permission is live, however long that is; the denial from the moment that it is
// learnt; and Run returns that denial.
func TestCheckpoint_FollowsThePermission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		var said *guard.DeniedError
		err := g.Run(t.Context(), "dev", func(ctx context.Context) error {
			for range 100 {
				time.Sleep(time.Second)
				checkAll(t, ctx, wantYes)
			}
			a.deny(guard.CodeDeviceRevoked)
			<-ctx.Done()
			said = wantDenied(t, guard.Checkpoint(ctx), "dev", guard.CodeDeviceRevoked, true)
			a.allow()
			if _, err := g.Validate(context.Background(), "dev"); err != nil {
				t.Error(err)
			}
			checkAll(t, ctx, func(t *testing.T, err error) { // a newer ALLOW is not for this run
				if !errors.Is(err, said) {
					t.Errorf("got %v, want the denial of before", err)
				}
			})
			return nil
		})
		denied := wantDenied(t, err, "dev", guard.CodeDeviceRevoked, true)
		if denied.Decision != said.Decision {
			t.Errorf("Run returned %+v, Checkpoint had said %+v", denied, said)
		}
	})
}

// At the line it says no by itself, and the no is final: the context ends, Run returns it, and
// the other runs of the device are stopped with it, though no timer has fired.
func TestCheckpoint_ANoIsFinal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		a.set(until(time.Now().Add(5 * time.Second)))
		g := newGuard(t, a)
		other := launch(t.Context(), g, "dev")
		synctest.Wait()
		err := g.Run(t.Context(), "dev", func(ctx context.Context) error {
			time.Sleep(5*time.Second - 1)
			wantYes(t, guard.Checkpoint(ctx))
			time.Sleep(1)
			no := guard.Checkpoint(context.WithoutCancel(ctx))
			wantDenied(t, no, "dev", guard.CodeSystemUnavailable, true)
			wantStopped(t, ctx, "dev", guard.CodeSystemUnavailable)
			a.allow()
			for range 10 {
				if again := guard.Checkpoint(ctx); again != no {
					t.Errorf("then it says %v", again)
				}
				time.Sleep(time.Second)
			}
			return nil
		})
		wantDenied(t, err, "dev", guard.CodeSystemUnavailable, true)
		wantDenied(t, other.finish(), "dev", guard.CodeSystemUnavailable, true)
	})
}

// The end of the caller's context says nothing of the permission.
func TestCheckpoint_SaysNothingOfTheCallersContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, newAuthority())
		caller, cancel := context.WithCancel(t.Context())
		if err := g.Run(caller, "dev", func(ctx context.Context) error {
			cancel()
			checkAll(t, ctx, wantYes)
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
}

// A run that is over gives no permission, whatever ended it, however live the device's is.
func TestCheckpoint_OfARunThatIsOver(t *testing.T) {
	ends := map[string]func(a *authority, g *guard.Guard, ctx context.Context) error{
		"returned": func(*authority, *guard.Guard, context.Context) error { return nil },
		"failed":   func(*authority, *guard.Guard, context.Context) error { return errDown },
		"panicked": func(*authority, *guard.Guard, context.Context) error { panic(errDown) },
		"denied": func(a *authority, _ *guard.Guard, ctx context.Context) error {
			a.deny(guard.CodeDeviceRevoked)
			<-ctx.Done()
			a.allow()
			return nil
		},
	}
	for name, end := range ends {
		bubble(t, name, func(t *testing.T) {
			a := newAuthority()
			g := newGuard(t, a, guard.WithReuse(10*time.Second))
			var left context.Context
			func() {
				defer func() { _ = recover() }()
				_ = g.Run(t.Context(), "dev", func(ctx context.Context) error {
					left = ctx
					return end(a, g, ctx)
				})
			}()
			r := launch(t.Context(), g, "dev") // the device is allowed again
			synctest.Wait()
			for range 20 {
				checkAll(t, left, func(t *testing.T, err error) {
					if !errors.Is(err, guard.ErrDenied) || errors.Is(err, guard.ErrClosed) {
						t.Errorf("got %v, want a denial", err)
					}
				})
				time.Sleep(time.Second)
			}
			wantRunning(t, r, "another run was over")
		})
	}
}

// After Close it is ErrClosed, in runs that the function has not left yet; after Shutdown began,
// they go on.
func TestCheckpoint_AfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, newAuthority())
		err := g.Run(t.Context(), "dev", func(ctx context.Context) error {
			go func() { _ = g.Shutdown(context.Background()) }()
			time.Sleep(time.Minute)
			checkAll(t, ctx, wantYes)
			_ = g.Close()
			checkAll(t, ctx, func(t *testing.T, err error) { wantClosed(t, "after Close", err) })
			return nil
		})
		wantClosed(t, "Run", err)
	})
}

// Nil only while every run is live in which the context stands: of one guard or of several, in
// whatever order they end.
func TestCheckpoint_OfNestedRuns(t *testing.T) {
	for _, name := range []string{"one guard", "three guards"} {
		for _, ended := range []string{"first", "second", "third"} {
			bubble(t, name+"/"+ended, func(t *testing.T) {
				a := newAuthority()
				g1 := newGuard(t, a)
				g2, g3 := g1, g1
				if name != "one guard" {
					g2, g3 = newGuard(t, a), newGuard(t, a)
				}
				_ = g1.Run(t.Context(), "first", func(ctx context.Context) error {
					return g2.Run(context.WithoutCancel(ctx), "second", func(ctx context.Context) error {
						return g3.Run(context.WithoutCancel(ctx), "third", func(ctx context.Context) error {
							time.Sleep(time.Minute)
							checkAll(t, ctx, wantYes)
							a.deny(guard.CodeDeviceRevoked, ended)
							time.Sleep(20 * time.Second)
							checkAll(t, ctx, func(t *testing.T, err error) {
								wantDenied(t, err, ended, guard.CodeDeviceRevoked, true)
							})
							if (ended == "third") != (ctx.Err() != nil) {
								t.Errorf("a context that was detached from its outer runs says %v", ctx.Err())
							}
							return nil
						})
					})
				})
			})
		}
	}
}

// An inner run that outlives its outer one has no permission any more.
func TestCheckpoint_OfAnInnerRunWhoseOuterIsOver(t *testing.T) {
	for _, end := range []string{"returned", "closed"} {
		bubble(t, end, func(t *testing.T) {
			outer, inner := newGuard(t, newAuthority()), newGuard(t, newAuthority())
			var r *running
			err := outer.Run(t.Context(), "out", func(ctx context.Context) error {
				r = launch(context.WithoutCancel(ctx), inner, "in")
				<-r.began
				checkAll(t, r.ctx, wantYes)
				if end == "closed" {
					_ = outer.Close()
				}
				return nil
			})
			if (end == "closed") != errors.Is(err, guard.ErrClosed) {
				t.Errorf("the outer Run returned %v", err)
			}
			wantRunning(t, r, "the inner guard still allows it")
			checkAll(t, r.ctx, func(t *testing.T, err error) {
				if end == "closed" && !errors.Is(err, guard.ErrClosed) || end != "closed" && !errors.Is(err, guard.ErrDenied) {
					t.Errorf("got %v", err)
				}
			})
			_ = inner.Close()
			if err := r.finish(); !errors.Is(err, guard.ErrClosed) {
				t.Errorf("the inner Run returned %v", err)
			}
		})
	}
}

// It may be called from many goroutines at once, while the run ends.
func TestCheckpoint_FromManyGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a, guard.WithInterval(10*time.Millisecond), guard.WithTimeout(10*time.Millisecond))
		r := launch(t.Context(), g, "dev")
		<-r.began
		done := make(chan error)
		for range 8 {
			go func() {
				for {
					err := guard.Checkpoint(r.ctx)
					if err != nil {
						done <- err
						return
					}
					if r.ctx.Err() != nil {
						// The no may come a moment before the context's end, never after it.
						if guard.Checkpoint(r.ctx) == nil {
							t.Error("the context has ended and Checkpoint says yes")
						}
					}
					time.Sleep(time.Millisecond)
				}
			}()
		}
		time.Sleep(time.Second)
		a.deny(guard.CodeDeviceRevoked)
		for range 8 {
			if err := <-done; !errors.Is(err, guard.ErrDenied) {
				t.Errorf("got %v", err)
			}
		}
	})
}

// It allocates nothing and asks nothing: whether it says yes or no.
func TestCheckpoint_CostsNoAllocation(t *testing.T) {
	a := newAuthority()
	g := newGuard(t, a, guard.WithInterval(time.Hour))
	measure := func(what string, ctx context.Context, yes bool) {
		t.Helper()
		if n := testing.AllocsPerRun(1000, func() {
			if (guard.Checkpoint(ctx) == nil) != yes {
				t.Errorf("%s: Checkpoint does not say yes: %v", what, yes)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", what, n)
		}
	}
	measure("no run", t.Context(), false)
	var over context.Context
	err := g.Run(t.Context(), "dev", func(ctx context.Context) error {
		measure("one run", ctx, true)
		return g.Run(context.WithoutCancel(ctx), "dev", func(ctx context.Context) error {
			measure("two runs", ctx, true)
			over = ctx
			_ = g.Close()
			measure("closed", ctx, false)
			return nil
		})
	})
	if !errors.Is(err, guard.ErrClosed) {
		t.Error(err)
	}
	measure("over", over, false)
	if n := a.count(); n != 2 {
		t.Errorf("%d requests, want the 2 of the starts", n)
	}
}
