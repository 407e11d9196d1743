package guard_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// startsOn runs a function that ends at once and gives the id of the request that allowed it.
func startsOn(t *testing.T, g *guard.Guard, device string) (request string) {
	t.Helper()
	err := g.Run(t.Context(), device, func(ctx context.Context) error {
		decision, ok := guard.DecisionFrom(ctx)
		if !ok {
			t.Error("no decision in the function's context")
		}
		request = decision.RequestID
		return nil
	})
	if err != nil {
		t.Errorf("Run(%q): %v", device, err)
	}
	return request
}

// While no run is in flight, the denial of a start that was asked for ends the reuse of the rest.
func TestS3_ADenialEndsReuseAlsoWhileNothingRuns(t *testing.T) {
	for name, wide := range map[string]guard.Code{"of the device": guard.CodeDeviceRevoked, "of the organisation": guard.CodePlanFrozen} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				g := newGuard(t, a, guard.WithReuse(10*time.Second))
				_ = startsOn(t, g, "d")
				about := "d"
				if wide == guard.CodePlanFrozen {
					about = "other"
				}
				a.deny(wide, about)
				_, _ = g.Validate(t.Context(), about)
				a.allow()
				if got := startsOn(t, g, "d"); got != "r3" {
					t.Errorf("started on %s, want r3: asked after the denial", got)
				}
			})
		})
	}
}

// «Could not ask» is no answer of the watch's: what is held for reuse stays.
func TestS3_AStartThatCouldNotAskEndsNoReuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a, guard.WithReuse(10*time.Second))
		_ = startsOn(t, g, "d")
		a.fail(errors.New("down"))
		if _, err := g.Validate(t.Context(), "d"); !errors.Is(err, guard.ErrUnavailable) {
			t.Errorf("Validate: %v", err)
		}
		if got := startsOn(t, g, "d"); got != "r1" {
			t.Errorf("started on %s, want r1", got)
		}
	})
}

// The stop line of a run that started on a reused ALLOW counts from that ALLOW's request.
func TestB2_ReuseDoesNotMoveTheStopLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g, start := newGuard(t, a, guard.WithReuse(10*time.Second)), time.Now()
		_ = startsOn(t, g, "d")
		a.hang()
		time.Sleep(9900 * time.Millisecond)
		r := launch(t.Context(), g, "d")
		_ = r.finish()
		if !r.started() {
			t.Fatal("not started on the reused ALLOW")
		}
		if lived := r.at.Sub(start); lived > g.StopBound() {
			t.Errorf("stopped %v after the request of the last ALLOW, the bound is %v", lived, g.StopBound())
		}
	})
}

func TestL6_InSteadyRunningNoCallerWaits(t *testing.T) {
	const maxAge = 4 * time.Second
	for _, latency := range []time.Duration{0, 50 * time.Millisecond, maxAge / 5} {
		for _, every := range []time.Duration{17 * time.Millisecond, 100 * time.Millisecond, maxAge / 3, maxAge * 9 / 10} {
			for _, watched := range []bool{false, true} {
				t.Run(fmt.Sprint("latency ", latency, ", every ", every, ", watched ", watched), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						a := newAuthority()
						a.set(after(latency, allows))
						g := newGuard(t, a, guard.WithReuse(maxAge))
						if watched {
							launch(t.Context(), g, "d")
						}
						_ = startsOn(t, g, "d") // warms up
						slow := 0
						for end := time.Now().Add(25 * maxAge); time.Now().Before(end); time.Sleep(every) {
							before := time.Now()
							_ = startsOn(t, g, "d")
							if time.Since(before) > 0 {
								slow++
							}
						}
						if slow > 0 {
							t.Errorf("%d callers waited", slow)
						}
					})
				})
			}
		}
	}
}

// The same with a latency that wavers, many devices and callers who come when they like.
func TestL6_NoCallerWaitsWithAWaveringAuthority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const maxAge, devices = 4 * time.Second, 40
		a := newAuthority()
		a.set(func(ctx context.Context, c *asked) (guard.Decision, error) {
			return after(10*time.Millisecond+rand.N(110*time.Millisecond), allows)(ctx, c)
		})
		g := newGuard(t, a, guard.WithReuse(maxAge))
		var wg sync.WaitGroup
		for i := range devices {
			device := fmt.Sprint("d", i)
			_ = startsOn(t, g, device)
			for range 3 {
				wg.Go(func() {
					for end := time.Now().Add(15 * maxAge); time.Now().Before(end); time.Sleep(rand.N(500 * time.Millisecond)) {
						before := time.Now()
						_ = startsOn(t, g, device)
						if took := time.Since(before); took > 0 {
							t.Errorf("a caller for %s waited %v", device, took)
						}
					}
				})
			}
		}
		wg.Wait()
	})
}

// A renewal that fails costs nobody anything while the permission lasts, and the authority that
// is down one request.
func TestL6_ARenewalThatFailsIsNobodysDenial(t *testing.T) {
	for name, b := range map[string]behaviour{
		"failing at once": fails(errors.New("down")),
		"failing late":    after(50*time.Millisecond, fails(errors.New("down"))),
		"silent":          hangs,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				g, start := newGuard(t, a, guard.WithReuse(4*time.Second)), time.Now()
				_ = startsOn(t, g, "d")
				a.set(b)
				for time.Since(start) < 4*time.Second {
					if got := startsOn(t, g, "d"); got != "r1" {
						t.Errorf("started on %s", got)
					}
					time.Sleep(10 * time.Millisecond)
				}
				if n := a.count() - 1; n < 1 || n > 2 {
					t.Errorf("%d renewals were tried within one maxAge, want one or so", n)
				}
				time.Sleep(100 * time.Millisecond)
				wantRefused(t, g.Run(t.Context(), "d", never(t)), guard.CodeSystemUnavailable)
			})
		})
	}
}

// L3: a question that nobody wants any more is cancelled. Here it was the watch's, and the last run
// has ended while it was in flight; that the device has been in demand meanwhile does not keep it.
func TestL3_TheWatchsQuestionIsCancelledWithTheLastRun(t *testing.T) {
	for range 20 {
		synctest.Test(t, watchIsLeftByItsLastRun)
	}
}

func watchIsLeftByItsLastRun(t *testing.T) {
	a := newAuthority()
	g := newGuard(t, a, guard.WithInterval(10*time.Second), guard.WithReuse(10*time.Second))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	began := time.Now()
	r := launch(ctx, g, "d")
	synctest.Wait()
	a.hang()
	for a.count() == 1 {
		time.Sleep(100 * time.Millisecond) // the watch's first question comes within an interval
	}
	if time.Since(began) > 9*time.Second {
		return // too late for a reuse that asks for nothing itself
	}
	if err := g.Run(t.Context(), "d", nothing); err != nil {
		t.Fatalf("on a permission that is there: %v", err)
	}
	cancel()
	_ = r.finish()
	synctest.Wait()
	if q := a.last(t); q.returned.IsZero() || !q.returned.Equal(time.Now()) || a.count() != 2 {
		t.Errorf("%d questions; the watch's returned at %v, now it is %v", a.count(), q.returned, time.Now())
	}
}

// L6, L2: a device in demand is asked about ahead of time, by as much as the answer takes, but never
// more than twice within maxAge, however slow the authority is.
func TestL6_ASlowAuthorityIsAskedNoMoreThanTwiceAMaxAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a, guard.WithReuse(16*time.Second), guard.WithInterval(16*time.Second), guard.WithTimeout(10*time.Second))
		a.set(after(5*time.Second, allows))
		startsOn(t, g, "d")
		for end := time.Now().Add(160 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			if err := g.Run(t.Context(), "d", nothing); err != nil {
				t.Fatal(err)
			}
		}
		if n := a.count(); n < 10 || n > 22 {
			t.Errorf("asked %d times in ten times maxAge, want about 20", n)
		}
	})
}
