package guard_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// Here All is a Guard's validator.

// Any of them stops the work, within the bound of one that is alone (B1), and a code that concerns
// the organisation stops every device (S3).
func TestAll_S3_AnyOfThemStopsTheWork(t *testing.T) {
	for i := range 3 {
		bubble(t, device(i), func(t *testing.T) {
			v := newThree()
			g := newGuard(t, v)
			r, other := watch(t, g, "dev"), watch(t, g, "other")
			time.Sleep(5 * time.Second)
			v.each[i].deny(guard.CodeDeviceRevoked, "dev")
			revoked := time.Now()
			wantDenied(t, r.finish(), "dev", guard.CodeDeviceRevoked, true)
			if bound := g.Interval() + 3*time.Second; r.ended.Sub(revoked) > bound {
				t.Errorf("stopped after %v, want at most %v", r.ended.Sub(revoked), bound)
			}
			wantRunning(t, other.running, "another device was revoked")
			v.each[i].deny(guard.CodePlanFrozen, "third")
			wantDenied(t, g.Run(t.Context(), "third", mustNotRun(t)), "third", guard.CodePlanFrozen, false)
			wantDenied(t, other.finish(), "other", guard.CodePlanFrozen, true)
		})
	}
}

// The earliest end is the line, even where the others name a later one or none (S10).
func TestAll_S10_TheEarliestEndIsTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newThree()
		end := time.Now().Add(time.Minute + 1)
		v.each[1].set(until(end))
		v.each[2].set(until(end.Add(time.Hour)))
		r := watch(t, newGuard(t, v), "dev")
		wantDenied(t, r.finish(), "dev", guard.CodeSystemUnavailable, true)
		if !r.ended.Equal(end) {
			t.Errorf("stopped %v after the end", r.ended.Sub(end))
		}
	})
}

// One that panics or ends its goroutine stops the work, and not the program; a denial beside it is
// heard (S2).
func TestAll_S2_ABrokenOneHidesNoDenial(t *testing.T) {
	for _, how := range []string{"a panic", "an ended goroutine"} {
		for i := range 3 {
			bubble(t, how, func(t *testing.T) {
				v := newThree()
				g := newGuard(t, v)
				v.each[i].set(couldNotAsk[how].b)
				wantDenied(t, g.Run(t.Context(), "dev", mustNotRun(t)), "dev", guard.CodeSystemUnavailable, false)
				v.each[(i+1)%3].set(after(time.Second, denies(guard.CodeOrgDisabled)))
				wantDenied(t, g.Run(t.Context(), "dev", mustNotRun(t)), "dev", guard.CodeOrgDisabled, false)
			})
		}
	}
}

// What a Guard hands to its validator is known as such in each of them.
func TestComposed_TheirValidatorsKnowThatAGuardAsks(t *testing.T) {
	n := 0
	ask := guard.ValidatorFunc(func(ctx context.Context, _ string) (guard.Decision, error) {
		if guard.Validating(ctx) {
			n++
		}
		return guard.Decision{}, errCable
	})
	g := newGuard(t, guard.Fallback(ask, guard.All(ask)))
	wantDenied(t, g.Run(t.Context(), "dev", mustNotRun(t)), "dev", guard.CodeSystemUnavailable, false)
	if n != 2 {
		t.Errorf("%d of 2 know", n)
	}
}
