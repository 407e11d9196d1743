package guard

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// expiringAt has the authority allow until a time of the wall clock as it is now.
func expiringAt(a *clockAuthority, wall *wallClock, left time.Duration) {
	end := time.Unix(0, wall.nanos(time.Now())).Add(left)
	a.set(func(context.Context) (Decision, error) {
		return Decision{Allowed: true, Code: CodeAllow, ExpiresAt: end}, nil
	})
}

// Where the wall clock stands when the request is sent decides how much time is left, whatever
// the guard's own beginning was.
func TestS10_TheEndIsReadOnTheWallClock(t *testing.T) {
	for _, tc := range clockSteps {
		for name, step := range map[string]time.Duration{"set ahead": tc.step, "set back": -tc.step} {
			t.Run(name+"/"+tc.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					g, wall, a := newSteppedGuard(t)
					wall.step(step) // long before anything is asked
					time.Sleep(time.Minute)
					expiringAt(a, wall, 5*time.Second)
					began := time.Now()
					r := startClockRun(t, g)
					wantRanOut(t, r.wait())
					if lived := r.ran.Sub(began); lived != 5*time.Second {
						t.Errorf("lived %v, want 5s", lived)
					}
				})
			})
		}
	}
}

// Set back while the permission lives, the wall clock does not lengthen it: as much monotonic
// time as was left when the request was sent is all there is.
func TestS10_AWallClockSetBackDoesNotPutTheEndOff(t *testing.T) {
	for _, tc := range clockSteps {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, wall, a := newSteppedGuard(t, WithInterval(24*time.Hour)) // the watch is far away
				expiringAt(a, wall, 5*time.Second)
				began := time.Now()
				r := startClockRun(t, g)
				time.Sleep(2 * time.Second)
				wall.step(-tc.step)
				wantRanOut(t, r.wait())
				if lived := r.ran.Sub(began); lived != 5*time.Second {
					t.Errorf("lived %v, want 5s", lived)
				}
			})
		})
	}
}

// Set ahead past the end, it ends the permission: Checkpoint sees it at once, the context within
// a second.
func TestS10_AWallClockSetAheadBringsTheEndNear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, wall, a := newSteppedGuard(t, WithInterval(24*time.Hour))
		expiringAt(a, wall, time.Hour)
		r := startClockRun(t, g)
		time.Sleep(time.Minute)
		wall.step(58 * time.Minute)
		if err := Checkpoint(r.ctx); err != nil {
			t.Fatalf("a minute before the end: %v", err)
		}
		time.Sleep(59 * time.Second)
		if err := Checkpoint(r.ctx); err != nil || r.ctx.Err() != nil {
			t.Fatalf("a second before the end: %v, %v", err, r.ctx.Err())
		}
		wall.step(time.Second)
		stepped := time.Now()
		wantRanOut(t, Checkpoint(r.ctx))
		wantRanOut(t, r.wait())
		if late := r.ran.Sub(stepped); late > time.Second {
			t.Errorf("the context ended %v after the step", late)
		}
	})
}

// A step while the request is in flight counts as time that has passed since it was sent.
func TestS10_AStepWhileTheRequestIsInFlight(t *testing.T) {
	for name, c := range map[string]struct{ step, lived time.Duration }{
		"ahead": {2 * time.Second, 2 * time.Second}, // of five; one the answer takes, two the step
		"back":  {-time.Hour, 4 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, wall, a := newSteppedGuard(t, WithInterval(24*time.Hour))
				end := time.Unix(0, wall.nanos(time.Now())).Add(5 * time.Second)
				a.set(func(context.Context) (Decision, error) {
					time.Sleep(time.Second)
					wall.step(c.step)
					return Decision{Allowed: true, Code: CodeAllow, ExpiresAt: end}, nil
				})
				r := startClockRun(t, g)
				began := time.Now()
				wantRanOut(t, r.wait())
				if lived := r.ran.Sub(began); lived != c.lived {
					t.Errorf("lived %v after the answer, want %v", lived, c.lived)
				}
			})
		})
	}
}

// An end that is past on the wall clock, though not on the monotonic one, allows nothing.
func TestS10_AnEndThatAStepHasPassed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, wall, a := newSteppedGuard(t)
		expiringAt(a, wall, time.Hour)
		wall.step(time.Hour)
		called := false
		err := g.Run(t.Context(), "d", func(context.Context) error { called = true; return nil })
		denied, ok := err.(*DeniedError)
		if !ok || denied.Decision.Code != CodeSystemUnavailable || denied.Decision.Reason == "" || called {
			t.Errorf("got %v (called: %v), want SYSTEM_UNAVAILABLE", err, called)
		}
	})
}
