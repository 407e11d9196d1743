package guard_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

func TestS1_NothingStartsWithoutAnAllow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		a.deny(guard.CodeDeviceNotFound)
		g := newGuard(t, a)
		err := g.Run(t.Context(), "dev", mustNotRun(t))
		denied := wantDenied(t, err, "dev", guard.CodeDeviceNotFound, false)
		if denied.Decision.RequestID != "r1" {
			t.Errorf("request id %q, want r1", denied.Decision.RequestID)
		}
		if n := a.count(); n != 1 {
			t.Errorf("%d requests, want 1", n)
		}
	})
}

// Without reuse, whatever the guard knows already, the request that starts a run is sent after
// Run was called.
func TestS1_AStartIsBackedByARequestSentAfterRunWasCalled(t *testing.T) {
	before := map[string]func(t *testing.T, g *guard.Guard){
		"nothing": func(*testing.T, *guard.Guard) {},
		"a run that is over": func(t *testing.T, g *guard.Guard) {
			if err := g.Run(t.Context(), "dev", func(context.Context) error { return nil }); err != nil {
				t.Error(err)
			}
		},
		"a run in flight": func(t *testing.T, g *guard.Guard) { launch(t.Context(), g, "dev") },
		"an answer to Validate": func(t *testing.T, g *guard.Guard) {
			if d, err := g.Validate(t.Context(), "dev"); !d.Allowed || err != nil {
				t.Errorf("%+v, %v", d, err)
			}
		},
		"both in the same instant": func(t *testing.T, g *guard.Guard) {
			launch(t.Context(), g, "dev")
			if _, err := g.Validate(t.Context(), "dev"); err != nil {
				t.Error(err)
			}
		},
	}
	for name, first := range before {
		bubble(t, name, func(t *testing.T) {
			a := newAuthority()
			// The watch must not ask meanwhile: a second of an hour leaves it no chance.
			g := newGuard(t, a, guard.WithInterval(24*time.Hour))
			first(t, g)
			synctest.Wait()
			known := a.count()
			err := g.Run(t.Context(), "dev", func(ctx context.Context) error {
				if n := a.count(); n != known+1 {
					t.Errorf("the function was called after %d requests, want %d", n, known+1)
				}
				if d, ok := guard.DecisionFrom(ctx); !ok || d.RequestID != a.last(t).id() {
					t.Errorf("the run stands on %+v, want the answer to %s", d, a.last(t).id())
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// A request that is in flight when Run is called was sent too early for it.
func TestS1_ARequestInFlightIsTooOldForAStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		a.set(deaf(2*time.Second, allows))
		g := newGuard(t, a)
		began := time.Now()
		first := launch(t.Context(), g, "dev")
		time.Sleep(time.Second)
		second := launch(t.Context(), g, "dev")
		time.Sleep(time.Second)
		synctest.Wait()
		if !first.started() || second.started() {
			t.Fatalf("after 2 s: first started %v, second %v; want only the first", first.started(), second.started())
		}
		<-second.began
		if d, _ := guard.DecisionFrom(second.ctx); d.RequestID != "r2" {
			t.Errorf("the second run stands on %+v, want r2", d)
		}
		if sent, at := a.asked()[1].sent.Sub(began), time.Since(began); sent != 2*time.Second || at != 4*time.Second {
			t.Errorf("asked at %v and started at %v, want 2s and 4s", sent, at)
		}
	})
}

// A revocation that takes effect while a request is in flight is seen by who came after it.
func TestS1_AStartAfterARevocationIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		a.set(deaf(2*time.Second, allows))
		g := newGuard(t, a)
		launch(t.Context(), g, "dev")
		time.Sleep(time.Second)
		a.deny(guard.CodeDeviceRevoked)
		err := g.Run(t.Context(), "dev", mustNotRun(t))
		wantDenial(t, err, "dev", guard.CodeDeviceRevoked)
	})
}

// With reuse an ALLOW may start work until maxAge after its request was sent, not after its
// answer came, and not a nanosecond longer.
func TestS1_ReuseEndsMaxAgeAfterTheRequestWasSent(t *testing.T) {
	const maxAge, latency = 5 * time.Second, time.Second
	for _, c := range []struct {
		name     string
		age      time.Duration // since the request was sent
		requests int
	}{
		{"at once", latency, 1},
		{"younger", maxAge - 1, 1},
		{"just maxAge", maxAge, 1},
		{"a nanosecond older", maxAge + 1, 2},
		{"maxAge after the answer", maxAge + latency, 2},
		{"an interval", 10 * time.Second, 2},
	} {
		bubble(t, c.name, func(t *testing.T) {
			a := newAuthority()
			a.set(deaf(latency, allows))
			g := newGuard(t, a, guard.WithReuse(maxAge))
			start := func(want int) {
				t.Helper()
				if err := g.Run(t.Context(), "dev", func(context.Context) error {
					if n := a.count(); n != want {
						t.Errorf("the function was called after %d requests, want %d", n, want)
					}
					return nil
				}); err != nil {
					t.Error(err)
				}
			}
			start(1)
			time.Sleep(c.age - latency)
			start(c.requests)
		})
	}
}

// The ALLOW of one device starts nothing on another, however alike their ids are.
func TestS1_ReuseIsForTheSameDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a, guard.WithReuse(5*time.Second))
		if _, err := g.Validate(t.Context(), "dev"); err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{"dev2", "DEV", "dev ", " dev", "dev\x00"} {
			a.deny(guard.CodeDeviceRevoked, id)
			err := g.Run(t.Context(), id, mustNotRun(t))
			wantDenied(t, err, id, guard.CodeDeviceRevoked, false)
		}
	})
}

// Any ALLOW may be reused while it is young: a start's, Validate's, the watch's.
func TestS1_ReuseOfAnyYoungAllow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a, guard.WithReuse(10*time.Second))
		if _, err := g.Validate(t.Context(), "dev"); err != nil {
			t.Fatal(err)
		}
		runs := []*running{launch(t.Context(), g, "dev")}
		synctest.Wait()
		for range 60 { // the watch renews what is reused
			time.Sleep(time.Second)
			at, r := time.Now(), launch(t.Context(), g, "dev")
			runs = append(runs, r)
			<-r.began
			d, _ := guard.DecisionFrom(r.ctx)
			for _, c := range a.asked() {
				if c.id() == d.RequestID && at.Sub(c.sent) > 10*time.Second {
					t.Fatalf("started on an ALLOW that was %v old", at.Sub(c.sent))
				}
			}
			if time.Since(at) != 0 {
				t.Fatalf("the start waited %v", time.Since(at))
			}
		}
		for _, r := range runs {
			wantRunning(t, r, "reused")
		}
	})
}

// An ALLOW that was running out when it was reused ends where its own line is.
func TestS1_ReuseDoesNotOutliveTheAuthoritysEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		expires := guard.Decision{Allowed: true, Code: guard.CodeAllow, ExpiresAt: time.Now().Add(2 * time.Second)}
		a.answer(expires, nil)
		g := newGuard(t, a, guard.WithReuse(5*time.Second))
		if _, err := g.Validate(t.Context(), "dev"); err != nil {
			t.Fatal(err)
		}
		a.deny(guard.CodeDeviceRevoked)
		time.Sleep(2*time.Second - 1)
		if err := g.Run(t.Context(), "dev", func(context.Context) error { return nil }); err != nil {
			t.Errorf("a nanosecond before its end: %v", err)
		}
		time.Sleep(1)
		err := g.Run(t.Context(), "dev", mustNotRun(t))
		wantDenied(t, err, "dev", guard.CodeDeviceRevoked, false)
	})
}

// An ALLOW that comes when its permission has run out starts nothing.
func TestS1_AnAllowThatRanOutOnItsWayStartsNothing(t *testing.T) {
	for name, left := range map[string]time.Duration{
		"a moment too late": time.Second, "long ago": -time.Hour, "as it is sent": 0,
	} {
		bubble(t, name, func(t *testing.T) {
			a := newAuthority()
			a.set(deaf(time.Second, answers(guard.Decision{
				Allowed: true, Code: guard.CodeAllow, ExpiresAt: time.Now().Add(left), RequestID: "late",
			}, nil)))
			g := newGuard(t, a)
			err := g.Run(t.Context(), "dev", mustNotRun(t))
			denied := wantDenied(t, err, "dev", guard.CodeSystemUnavailable, false)
			if denied.Decision.RequestID != "late" {
				t.Errorf("the denial does not name its request: %+v", denied.Decision)
			}
			if d, err := g.Validate(t.Context(), "dev"); d.Allowed || !errors.Is(err, guard.ErrUnavailable) {
				t.Errorf("Validate: %+v, %v", d, err)
			}
		})
	}
}

// Nor does one that ran out between its coming and its caller's seeing it.
func TestS1_AnAllowThatRanOutBeforeItsCallerSawItStartsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		ctx := heldContext{t.Context()} // asks at once, and looks for the answer after two seconds
		for left, starts := range map[time.Duration]bool{2*time.Second + 1: true, 2 * time.Second: false, 1: false} {
			a.set(func(context.Context, *asked) (guard.Decision, error) {
				return guard.Decision{Allowed: true, Code: guard.CodeAllow, ExpiresAt: time.Now().Add(left)}, nil
			})
			if starts {
				if err := g.Run(ctx, "dev", func(ctx context.Context) error { return guard.Checkpoint(ctx) }); err != nil {
					t.Errorf("%v left: %v", left, err)
				}
				continue
			}
			wantDenied(t, g.Run(ctx, "dev", mustNotRun(t)), "dev", guard.CodeSystemUnavailable, false)
		}
	})
}

// The observer of the start may take its time: the function is called under a live permission
// or not at all.
func TestS1_ASlowObserverDoesNotStartDeadWork(t *testing.T) {
	slow := func(d time.Duration) guard.Option {
		return guard.WithObserver(func(_ context.Context, e guard.Event) {
			if e.Kind == guard.EventStarted {
				time.Sleep(d)
			}
		})
	}
	for name, second := range map[string]struct {
		behaviour behaviour
		code      guard.Code
	}{
		"denied meanwhile": {denies(guard.CodeDeviceRevoked), guard.CodeDeviceRevoked},
		"the line passed":  {hangs, guard.CodeSystemUnavailable},
	} {
		bubble(t, name, func(t *testing.T) {
			a := newAuthority()
			a.set(inTurn(allows, second.behaviour))
			g := newGuard(t, a, slow(time.Minute))
			err := g.Run(t.Context(), "dev", mustNotRun(t))
			wantDenied(t, err, "dev", second.code, false)
		})
	}
	bubble(t, "closed meanwhile", func(t *testing.T) {
		g := newGuard(t, newAuthority(), slow(time.Minute))
		time.AfterFunc(time.Second, func() { _ = g.Close() })
		if err := g.Run(t.Context(), "dev", mustNotRun(t)); !errors.Is(err, guard.ErrClosed) {
			t.Errorf("got %v, want ErrClosed", err)
		}
	})
	bubble(t, "left meanwhile", func(t *testing.T) {
		g := newGuard(t, newAuthority(), slow(time.Minute))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := g.Run(ctx, "dev", mustNotRun(t)); err != context.DeadlineExceeded {
			t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
		}
	})
	bubble(t, "allowed meanwhile", func(t *testing.T) {
		g := newGuard(t, newAuthority(), slow(time.Minute))
		called := 0
		if err := g.Run(t.Context(), "dev", func(ctx context.Context) error {
			called++
			return guard.Checkpoint(ctx)
		}); err != nil || called != 1 {
			t.Errorf("got %v after %d calls, want nil after 1", err, called)
		}
	})
}

func TestReturns_TheFunctionRunsOnTheCallersGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, newAuthority())
		var theirs string
		if err := g.Run(t.Context(), "dev", func(context.Context) error {
			theirs = goroutine()
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if mine := goroutine(); theirs != mine {
			t.Errorf("the function ran on %s, its caller on %s", theirs, mine)
		}
	})
}

// goroutine names the goroutine that it is called on.
func goroutine() string {
	var buf [64]byte
	name, _, _ := strings.Cut(string(buf[:runtime.Stack(buf[:], false)]), " [")
	return name
}

// The function's context is the caller's with an end of its own: values, deadline and the
// caller's cancel go through.
func TestReturns_TheFunctionsContextIsDerivedFromTheCallers(t *testing.T) {
	type key struct{}
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, newAuthority())
		deadline := time.Now().Add(time.Minute)
		ctx, cancel := context.WithDeadline(context.WithValue(t.Context(), key{}, "value"), deadline)
		defer cancel()
		why := errors.New("why")
		caller, stop := context.WithCancelCause(ctx)
		if err := g.Run(caller, "dev", func(ctx context.Context) error {
			if got, ok := ctx.Deadline(); !ok || !got.Equal(deadline) || ctx.Value(key{}) != "value" {
				t.Errorf("deadline %v, value %v", got, ctx.Value(key{}))
			}
			stop(why)
			if ctx.Err() != context.Canceled || context.Cause(ctx) != why {
				t.Errorf("after the caller's cancel: %v, cause %v", ctx.Err(), context.Cause(ctx))
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
}
