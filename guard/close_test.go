package guard_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// closings are the ways in which a guard is closed.
var closings = []struct {
	name  string
	close func(g *guard.Guard) error
}{
	{"Close", (*guard.Guard).Close},
	{"Shutdown", func(g *guard.Guard) error { return g.Shutdown(context.Background()) }},
}

// wantClosed fails unless err says that the guard was closed, and nothing of a denial.
func wantClosed(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, guard.ErrClosed) || errors.Is(err, guard.ErrDenied) || errors.Is(err, context.Canceled) {
		t.Errorf("%s: %v, want ErrClosed", what, err)
	}
}

// Real goroutines race with the closing. That a function begins just as Close is called cannot
// be helped and does no harm; its context must have ended, or be about to.
func TestS7_NothingStartsOnceClosingHasBegun(t *testing.T) {
	for _, closing := range closings {
		for name, opts := range map[string][]guard.Option{
			"fresh":    nil,
			"reuse":    {guard.WithReuse(time.Second)},
			"observed": {guard.WithObserver(func(context.Context, guard.Event) {})},
		} {
			t.Run(closing.name+", "+name, func(t *testing.T) {
				for range 8 {
					raceWithClosing(t, closing.close, opts)
				}
			})
		}
	}
}

func raceWithClosing(t *testing.T, closeIt func(*guard.Guard) error, opts []guard.Option) {
	g, err := guard.New(newAuthority(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	var closing, over atomic.Bool
	var inside, runs atomic.Int64
	enough := make(chan struct{})
	work := func(begun bool) func(context.Context) error {
		return func(ctx context.Context) error {
			defer inside.Add(-1)
			inside.Add(1)
			if begun {
				t.Error("a function was called by a call that came after the closing")
			}
			if over.Load() && ctx.Err() == nil {
				t.Error("a function goes on after the guard was closed")
			}
			if runs.Add(1) == 300 {
				close(enough)
			}
			return nil
		}
	}
	var starters sync.WaitGroup
	for i := range 16 {
		starters.Go(func() {
			for {
				device, begun := fmt.Sprint(i%3), closing.Load()
				var err error
				switch i % 4 {
				case 0:
					err = g.Keep(context.Background(), device, work(begun))
				case 1:
					var d guard.Decision
					if d, err = g.Validate(context.Background(), device); err != nil && d.Allowed {
						t.Error("an allowed decision came with an error")
					}
				default:
					err = g.Run(context.Background(), device, work(begun))
				}
				if err != nil {
					wantClosed(t, "starter", err)
					return
				}
				if begun {
					t.Error("a call that came after the closing was not refused")
					return
				}
			}
		})
	}
	<-enough
	if err := closeIt(g); err != nil {
		t.Errorf("closing: %v", err)
	}
	over.Store(true)
	closing.Store(true)
	starters.Wait()
	if inside.Load() != 0 {
		t.Error("a function was left behind")
	}
}

// After Shutdown has returned nil, no function is under way: neither one that it waited for nor
// one that slipped in.
func TestS7_ShutdownLeavesNoFunctionBehind(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			a := newAuthority()
			a.set(func(ctx context.Context, c *asked) (guard.Decision, error) {
				time.Sleep(rand.N(time.Second))
				return allows(ctx, c)
			})
			g := newGuard(t, a)
			var inside atomic.Int64
			var starters sync.WaitGroup
			for i := range 50 {
				starters.Go(func() {
					for {
						err := g.Run(context.Background(), fmt.Sprint(i%7), func(context.Context) error {
							defer inside.Add(-1)
							inside.Add(1)
							time.Sleep(rand.N(time.Second))
							return nil
						})
						if err != nil {
							wantClosed(t, "Run", err)
							return
						}
					}
				})
			}
			time.Sleep(rand.N(10 * time.Second))
			if err := g.Shutdown(context.Background()); err != nil {
				t.Errorf("Shutdown: %v", err)
			}
			if n := inside.Load(); n != 0 {
				t.Errorf("%d functions under way after Shutdown", n)
			}
			starters.Wait()
			time.Sleep(time.Second) // for validators that heed no context
		})
	}
}

// callers are the ways to wait for a permission of device d.
var callers = []struct {
	name string
	call func(ctx context.Context, g *guard.Guard, fn func(context.Context) error) error
}{
	{"Run", func(ctx context.Context, g *guard.Guard, fn func(context.Context) error) error {
		return g.Run(ctx, "d", fn)
	}},
	{"Keep", func(ctx context.Context, g *guard.Guard, fn func(context.Context) error) error {
		return g.Keep(ctx, "d", fn)
	}},
	{"Validate", func(ctx context.Context, g *guard.Guard, _ func(context.Context) error) error {
		d, err := g.Validate(ctx, "d")
		if d.Allowed {
			return errors.New("allowed")
		}
		return err
	}},
}

// waits are the things that a caller waits for. Each makes a guard in which a call about device
// d waits.
var waits = []struct {
	name string
	make func(t *testing.T) *guard.Guard
}{
	{"the answer", func(t *testing.T) *guard.Guard {
		a := newAuthority()
		a.hang()
		return newGuard(t, a)
	}},
	{"the answer of a validator that ignores its context", func(t *testing.T) *guard.Guard {
		a := newAuthority()
		a.set(deaf(2*time.Second, allows))
		return newGuard(t, a)
	}},
	{"the question after the one in flight", func(t *testing.T) *guard.Guard {
		a := newAuthority()
		a.set(after(2*time.Second, allows))
		g := newGuard(t, a)
		launch(t.Context(), g, "d")
		synctest.Wait()
		return g
	}},
	{"a slot", func(t *testing.T) *guard.Guard {
		a := newAuthority()
		a.hang()
		g := newGuard(t, a, guard.WithMaxRequests(1))
		launch(t.Context(), g, "other")
		synctest.Wait()
		return g
	}},
	{"a slot in the queue of the watches", func(t *testing.T) *guard.Guard {
		a := newAuthority()
		g := newGuard(t, a, guard.WithMaxRequests(1))
		launch(t.Context(), g, "d")
		synctest.Wait()
		a.set(deaf(2900*time.Millisecond, allows), "other")
		launch(t.Context(), g, "other")
		synctest.Wait()
		g.Hint("d")
		return g
	}},
	{"the back-off", func(t *testing.T) *guard.Guard {
		a := newAuthority()
		a.fail(errors.New("down"))
		return newGuard(t, a, guard.WithRetry(waitsOf(10*time.Second), time.Minute))
	}},
	{"another's back-off", func(t *testing.T) *guard.Guard {
		a := newAuthority()
		a.fail(errors.New("down"))
		g := newGuard(t, a, guard.WithRetry(waitsOf(10*time.Second), time.Minute))
		launch(t.Context(), g, "d")
		synctest.Wait()
		return g
	}},
}

// waitsOf makes back-offs of which every wait is d.
func waitsOf(d time.Duration) func() guard.BackOff {
	return func() guard.BackOff { return constantBackOff(d) }
}

type constantBackOff time.Duration

func (b constantBackOff) NextBackOff() time.Duration { return time.Duration(b) }
func (b constantBackOff) Reset()                     {}

func TestS7_CallersThatWaitGetErrClosedAtOnce(t *testing.T) {
	for _, closing := range closings {
		for _, wait := range waits {
			for _, caller := range callers {
				t.Run(fmt.Sprintf("%s, %s waits for %s", closing.name, caller.name, wait.name), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						g := wait.make(t)
						var got error
						done := make(chan struct{})
						go func() {
							defer close(done)
							got = caller.call(t.Context(), g, func(context.Context) error {
								t.Error("started")
								return nil
							})
						}()
						time.Sleep(100 * time.Millisecond)
						synctest.Wait()
						if closed(done) {
							t.Fatalf("it does not wait: %v", got)
						}
						go func() { _ = closing.close(g) }()
						synctest.Wait() // and no time goes by
						if !closed(done) {
							t.Fatal("it still waits")
						}
						wantClosed(t, caller.name, got)
						_ = g.Close()
						time.Sleep(3 * time.Second) // for validators that heed no context
					})
				})
			}
		}
	}
}

func TestS7_AKeepThatWaitsForItsTurnGetsErrClosedAtOnce(t *testing.T) {
	for _, closing := range closings {
		for _, first := range []string{"refused", "stopped"} {
			t.Run(closing.name+", "+first, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a := newAuthority()
					g := newGuard(t, a)
					if first == "refused" {
						a.deny(guard.CodeDeviceRevoked)
					}
					var got error
					done := make(chan struct{})
					go func() {
						defer close(done)
						got = g.Keep(t.Context(), "d", func(ctx context.Context) error {
							<-ctx.Done()
							return ctx.Err()
						})
					}()
					synctest.Wait()
					a.deny(guard.CodeDeviceRevoked)
					time.Sleep(10*time.Second + rand.N(time.Minute))
					synctest.Wait()
					asked := a.count()
					_ = closing.close(g)
					synctest.Wait()
					if !closed(done) {
						t.Fatal("Keep still waits")
					}
					wantClosed(t, "Keep", got)
					time.Sleep(time.Minute)
					if a.count() != asked {
						t.Error("the authority was asked after the closing")
					}
				})
			})
		}
	}
}

func TestS7_CallsAfterTheClosingAreRefusedUnasked(t *testing.T) {
	for _, closing := range closings {
		for _, caller := range callers {
			t.Run(closing.name+", "+caller.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a := newAuthority()
					g := newGuard(t, a, guard.WithReuse(10*time.Second))
					if err := g.Run(t.Context(), "d", func(context.Context) error { return nil }); err != nil {
						t.Fatal(err)
					}
					if err := closing.close(g); err != nil {
						t.Fatal(err)
					}
					err := caller.call(t.Context(), g, func(context.Context) error {
						t.Error("started")
						return nil
					})
					wantClosed(t, caller.name, err)
					if a.count() != 1 {
						t.Errorf("%d requests, want that before the closing only", a.count())
					}
				})
			})
		}
	}
}

func TestS7_ShutdownGoesOnRevalidating(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		var live error
		r := launchFunc(t.Context(), g, "d", func(ctx context.Context) error {
			time.Sleep(10*time.Minute - time.Nanosecond)
			live = guard.Checkpoint(ctx)
			return ctx.Err()
		})
		synctest.Wait()
		began := time.Now()
		if err := g.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if took := time.Since(began); took != 10*time.Minute-time.Nanosecond {
			t.Errorf("Shutdown returned after %v", took)
		}
		if live != nil {
			t.Errorf("Checkpoint while the guard shut down: %v", live)
		}
		if err := r.finish(); err != nil {
			t.Errorf("Run: %v", err)
		}
		if n := a.count(); n != 61 {
			t.Errorf("%d requests in ten minutes, want 1 + 60", n)
		}
	})
}

// What a draining run learns counts as ever.
func TestS7_ShutdownDeniesWhileItDrains(t *testing.T) {
	for _, tc := range []struct {
		name string
		set  func(a *authority)
		want error
		in   time.Duration // the bound: B1, B2
	}{
		{"revoked", func(a *authority) { a.deny(guard.CodeDeviceRevoked) }, guard.ErrDenied, 10 * time.Second},
		{"the organisation is off", func(a *authority) { a.deny(guard.CodeOrgDisabled) }, guard.ErrDenied, 10 * time.Second},
		{"down", func(a *authority) { a.fail(errors.New("down")) }, guard.ErrUnavailable, 10 * time.Second},
		{"silent", (func(a *authority) { a.hang() }), guard.ErrUnavailable, 13 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const cleaning = 2 * time.Second
				a := newAuthority()
				g := newGuard(t, a)
				var told time.Time
				r := launchFunc(t.Context(), g, "d", func(ctx context.Context) error {
					<-ctx.Done()
					told = time.Now()
					time.Sleep(cleaning)
					return nil
				})
				var drained error
				var returned time.Time
				done := make(chan struct{})
				synctest.Wait()
				go func() {
					defer close(done)
					drained = g.Shutdown(t.Context())
					returned = time.Now()
				}()
				time.Sleep(rand.N(time.Minute))
				tc.set(a)
				since := time.Now()
				<-done
				if drained != nil {
					t.Errorf("Shutdown: %v", drained)
				}
				if took := told.Sub(since); took > tc.in {
					t.Errorf("told to stop %v after the change", took)
				}
				if late := returned.Sub(told); late != cleaning {
					t.Errorf("Shutdown returned %v after the function was told, want %v", late, cleaning)
				}
				if err := r.finish(); !errors.Is(err, tc.want) || errors.Is(err, guard.ErrClosed) {
					t.Errorf("Run: %v", err)
				}
			})
		})
	}
}

func TestS7_ShutdownCancelsWhenItsContextEndsAndReturnsTheCause(t *testing.T) {
	impatient := errors.New("impatient")
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		var told time.Time
		var why, live error
		r := launchFunc(t.Context(), g, "d", func(ctx context.Context) error {
			<-ctx.Done()
			told, why, live = time.Now(), context.Cause(ctx), guard.Checkpoint(ctx)
			time.Sleep(time.Hour) // it takes its time
			return nil
		})
		synctest.Wait()
		began := time.Now()
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(5*time.Second, func() { cancel(impatient) })
		if err := g.Shutdown(ctx); err != impatient { //nolint:errorlint // the cause itself
			t.Errorf("Shutdown: %v", err)
		}
		synctest.Wait()
		if took := time.Since(began); took != 5*time.Second || told.Sub(began) != took {
			t.Errorf("Shutdown returned after %v, the function was told after %v", took, told.Sub(began))
		}
		if !errors.Is(why, guard.ErrClosed) || !errors.Is(why, context.Canceled) || errors.Is(why, guard.ErrDenied) {
			t.Errorf("the cause is %v", why)
		}
		wantClosed(t, "Checkpoint", live)
		// Another Shutdown waits for what the first has left.
		if err := g.Shutdown(t.Context()); err != nil || time.Since(began) != time.Hour+5*time.Second {
			t.Errorf("the second Shutdown: %v after %v", err, time.Since(began))
		}
		wantClosed(t, "Run", r.finish())
	})
}

func TestS7_ShutdownTakesADeadlineForACause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, newAuthority())
		launch(t.Context(), g, "d")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := g.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown: %v", err)
		}
	})
}

func TestS7_ShutdownOfAnIdleGuardReturnsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a, guard.WithReuse(10*time.Second))
		if err := g.Run(t.Context(), "d", func(context.Context) error { return nil }); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := g.Shutdown(t.Context()); err != nil || time.Since(began) != 0 {
			t.Errorf("Shutdown: %v after %v", err, time.Since(began))
		}
	})
}

// Nothing runs, and the context has ended too: what Shutdown returns must not be a matter of luck.
func TestS7_ShutdownOfAnIdleGuardWithAnEndedContextIsNoLottery(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	results := map[string]int{}
	for range 64 {
		results[fmt.Sprint(newGuard(t, newAuthority()).Shutdown(ctx))]++
	}
	if len(results) != 1 {
		t.Errorf("Shutdown returned %v", results)
	}
}

func TestS7_CloseCancelsAndDoesNotWait(t *testing.T) {
	own := errors.New("own")
	for _, tc := range []struct {
		name string
		work func(ctx context.Context) error
		is   []error
		not  []error
	}{
		{"nil", func(context.Context) error { return nil }, nil, []error{own}},
		{"its own error", func(context.Context) error { return own }, []error{own}, nil},
		{"the context's error", func(ctx context.Context) error { return ctx.Err() }, nil, []error{own}},
		{"the cause", context.Cause, nil, []error{own}},
		{"its own error and the context's", func(ctx context.Context) error {
			return errors.Join(own, ctx.Err())
		}, []error{own}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const cleaning = 7 * time.Second
				g := newGuard(t, newAuthority())
				var told time.Time
				var why, live error
				calls := 0
				r := launchFunc(t.Context(), g, "d", func(ctx context.Context) error {
					calls++
					<-ctx.Done()
					told, why, live = time.Now(), context.Cause(ctx), guard.Checkpoint(ctx)
					time.Sleep(cleaning)
					return tc.work(ctx)
				})
				time.Sleep(rand.N(time.Minute))
				began := time.Now()
				if err := g.Close(); err != nil || time.Since(began) != 0 {
					t.Errorf("Close: %v after %v", err, time.Since(began))
				}
				if r.ctx.Err() == nil {
					t.Error("Close has returned and the run's context goes on")
				}
				err := r.finish()
				if !told.Equal(began) || r.at.Sub(began) != cleaning || calls != 1 {
					t.Errorf("told after %v, Run returned after %v, %d calls", told.Sub(began), r.at.Sub(began), calls)
				}
				if !errors.Is(why, guard.ErrClosed) || !errors.Is(why, context.Canceled) {
					t.Errorf("the cause is %v", why)
				}
				wantClosed(t, "Checkpoint", live)
				wantClosed(t, "Run", err)
				for _, is := range tc.is {
					if !errors.Is(err, is) {
						t.Errorf("%v does not match %v", err, is)
					}
				}
				for _, not := range tc.not {
					if errors.Is(err, not) {
						t.Errorf("%v matches %v", err, not)
					}
				}
			})
		})
	}
}

func TestS7_ShutdownAfterCloseWaitsForTheFunctions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, newAuthority())
		for i := range 5 {
			launchFunc(t.Context(), g, fmt.Sprint("device", i%2), func(ctx context.Context) error {
				<-ctx.Done()
				time.Sleep(time.Duration(i) * time.Second)
				return nil
			})
		}
		synctest.Wait()
		began := time.Now()
		_ = g.Close()
		if err := g.Shutdown(t.Context()); err != nil || time.Since(began) != 4*time.Second {
			t.Errorf("Shutdown: %v after %v", err, time.Since(began))
		}
	})
}

func TestS7_CloseDuringShutdownCancelsAndShutdownGoesOnWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, newAuthority())
		r := launchFunc(t.Context(), g, "d", func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(3 * time.Second)
			return nil
		})
		synctest.Wait()
		began := time.Now()
		time.AfterFunc(time.Second, func() { _ = g.Close() })
		if err := g.Shutdown(t.Context()); err != nil || time.Since(began) != 4*time.Second {
			t.Errorf("Shutdown: %v after %v", err, time.Since(began))
		}
		wantClosed(t, "Run", r.finish())
	})
}

func TestS7_ManyClosingsAtOnce(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			g := newGuard(t, newAuthority())
			for i := range 10 {
				launchFunc(t.Context(), g, fmt.Sprint(i%4), func(ctx context.Context) error {
					<-ctx.Done()
					time.Sleep(time.Second)
					return nil
				})
			}
			synctest.Wait()
			began := time.Now()
			var all sync.WaitGroup
			for i := range 20 {
				all.Go(func() {
					if i%2 == 0 {
						if err := g.Close(); err != nil {
							t.Errorf("Close: %v", err)
						}
						return
					}
					if err := g.Shutdown(t.Context()); err != nil || time.Since(began) != time.Second {
						t.Errorf("Shutdown: %v after %v", err, time.Since(began))
					}
				})
			}
			all.Wait()
			for range 3 {
				if err := errors.Join(g.Close(), g.Shutdown(t.Context())); err != nil {
					t.Errorf("closed once more: %v", err)
				}
			}
			if since := time.Since(began); since != time.Second {
				t.Errorf("it took %v", since)
			}
		})
	}
}

func TestS7_AFunctionMayCloseItsOwnGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, newAuthority())
		err := g.Run(t.Context(), "d", func(ctx context.Context) error {
			if err := g.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			if ctx.Err() == nil {
				t.Error("the context goes on")
			}
			return g.Shutdown(ctx) // it waits for itself, but only as long as its context goes on
		})
		wantClosed(t, "Run", err)
	})
}

func TestS7_CloseCancelsTheQuestionInFlight(t *testing.T) {
	for _, closing := range closings {
		t.Run(closing.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				a.hang()
				g := newGuard(t, a)
				r := launch(t.Context(), g, "d")
				time.Sleep(time.Second)
				_ = closing.close(g)
				synctest.Wait()
				if c := a.last(t); c.returned.Sub(c.sent) != time.Second || c.ended == nil {
					t.Errorf("the call returned at %v, its context: %v", c.returned.Sub(c.sent), c.ended)
				}
				wantClosed(t, "Run", r.finish())
			})
		})
	}
}

// Its device's runs were told to stop: an ALLOW that comes then is nothing to them.
func TestS7_AnAllowThatComesAfterCloseRevivesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a, guard.WithReuse(10*time.Second))
		r := launchFunc(t.Context(), g, "d", func(ctx context.Context) error {
			<-ctx.Done()
			for range 10 {
				wantClosed(t, "Checkpoint", guard.Checkpoint(ctx))
				time.Sleep(time.Second)
			}
			return nil
		})
		synctest.Wait()
		a.set(deaf(2*time.Second, allows))
		for a.inFlight() == 0 {
			time.Sleep(time.Second)
		}
		_ = g.Close()
		wantClosed(t, "Run", r.finish())
		time.Sleep(time.Minute)
		if n := a.count(); n != 2 {
			t.Errorf("%d requests, want those before Close only", n)
		}
	})
}

// Whatever was under way, the authority hears no more of a guard that is closed.
func TestS7_NothingIsAskedAfterTheClosing(t *testing.T) {
	for _, closing := range closings {
		t.Run(closing.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				a.deny(guard.CodeDeviceRevoked, "denied")
				a.fail(errors.New("down"), "down")
				g := newGuard(t, a, guard.WithReuse(10*time.Second), guard.WithRetry(waitsOf(time.Second), time.Minute))
				short := func(context.Context) error {
					time.Sleep(3 * time.Second)
					return nil
				}
				for range 3 { // reused: in demand
					if err := g.Run(t.Context(), "reused", short); err != nil {
						t.Fatal(err)
					}
				}
				for _, device := range []string{"running", "denied", "down", "reused"} {
					go func() { _ = g.Keep(t.Context(), device, short) }()
					go func() { _ = g.Run(t.Context(), device, short) }()
				}
				time.Sleep(time.Second)
				if err := closing.close(g); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				asked := a.count()
				time.Sleep(time.Hour)
				g.Hint("")
				g.Hint("reused")
				time.Sleep(time.Hour)
				if n := a.count() - asked; n != 0 {
					t.Errorf("%d requests after the closing, the last about %q", n, a.last(t).device)
				}
			})
		})
	}
}

// A function that cleans up after Close cannot be allowed again: there is nothing to ask.
func TestS7_AHintAfterCloseCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		r := launchFunc(t.Context(), g, "d", func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(time.Minute)
			return nil
		})
		synctest.Wait()
		_ = g.Close()
		time.Sleep(time.Second)
		asked := a.count()
		g.Hint("d")
		g.Hint("")
		time.Sleep(20 * time.Second)
		if n := a.count() - asked; n != 0 {
			t.Errorf("%d requests after Close", n)
		}
		wantClosed(t, "Run", r.finish())
	})
}

func TestS7_AKeepDeniedWhileTheGuardDrainsDoesNotStartAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		calls, done := 0, make(chan error)
		go func() {
			done <- g.Keep(t.Context(), "d", func(ctx context.Context) error {
				calls++
				<-ctx.Done()
				return nil
			})
		}()
		synctest.Wait()
		drained := make(chan error)
		go func() { drained <- g.Shutdown(t.Context()) }()
		time.Sleep(25 * time.Second)
		a.deny(guard.CodeDeviceRevoked)
		g.Hint("d")
		wantClosed(t, "Keep", <-done)
		a.allow()
		if err := <-drained; err != nil || calls != 1 {
			t.Errorf("Shutdown: %v; the function was called %d times", err, calls)
		}
	})
}

func TestS7_AKeepWhoseFunctionEndsWhileTheGuardDrainsGetsItsResult(t *testing.T) {
	own := errors.New("own")
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, newAuthority())
		done := make(chan error)
		go func() {
			done <- g.Keep(t.Context(), "d", func(context.Context) error {
				time.Sleep(time.Minute)
				return own
			})
		}()
		synctest.Wait()
		go func() { _ = g.Shutdown(context.Background()) }()
		if err := <-done; err != own { //nolint:errorlint // unchanged
			t.Errorf("Keep: %v", err)
		}
	})
}

func TestS7_APanicOrGoexitUnderWayDoesNotHoldShutdownUp(t *testing.T) {
	for name, end := range unwindings {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGuard(t, newAuthority())
				go func() {
					defer func() { _ = recover() }()
					_ = g.Run(t.Context(), "d", func(context.Context) error {
						time.Sleep(time.Second)
						end()
						return nil
					})
				}()
				synctest.Wait()
				began := time.Now()
				if err := g.Shutdown(t.Context()); err != nil || time.Since(began) != time.Second {
					t.Errorf("Shutdown: %v after %v", err, time.Since(began))
				}
			})
		})
	}
}

// It is called with no lock held, so it may do what any caller may.
func TestS7_AValidatorMayCloseTheGuardThatAsksIt(t *testing.T) {
	for _, closing := range closings {
		t.Run(closing.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				g := newGuard(t, a)
				a.set(func(ctx context.Context, c *asked) (guard.Decision, error) {
					g.Hint(c.device)
					if err := closing.close(g); err != nil {
						t.Errorf("closing: %v", err)
					}
					return allows(ctx, c)
				})
				wantClosed(t, "Run", g.Run(t.Context(), "d", func(context.Context) error {
					t.Error("started")
					return nil
				}))
			})
		})
	}
}
