package guard_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// once answers the next call with d and every other with an ALLOW.
func once(a *authority, device string, d guard.Decision) {
	a.set(inTurn(answers(d, nil), allows), device)
}

// A Keep that was refused with a RetryAfter waits for it; the watch of a run of the same device
// does not, and keeps its turn.
func TestL2_AKeepThatWaitsDoesNotMoveTheWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		r := launch(t.Context(), g, "d")
		synctest.Wait()
		once(a, "d", guard.Decision{Code: guard.CodeSystemUnavailable, RetryAfter: time.Minute})
		go keeps(t.Context(), g, "d")
		time.Sleep(2 * time.Minute)
		wantRunning(t, r, "the authority has allowed it whenever it was asked by the watch")
	})
}

// The same with a budget, under which the stop line would not show that nobody asks.
func TestB1_AKeepThatWaitsDoesNotPutARevocationOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a, guard.WithRetry(waitsOf(time.Second), 10*time.Minute))
		r := launch(t.Context(), g, "d")
		synctest.Wait()
		once(a, "d", guard.Decision{Code: guard.CodeSystemUnavailable, RetryAfter: time.Hour})
		go keeps(t.Context(), g, "d")
		synctest.Wait()
		a.deny(guard.CodeDeviceRevoked, "d")
		revoked := time.Now()
		_ = r.finish()
		if took := time.Since(revoked); took > 13*time.Second {
			t.Errorf("stopped %v after the revocation", took)
		}
	})
}

// Two Keeps, one slot and an authority that takes its time: neither loses all its turns.
func TestKeep_IsNotStarvedByAnother(t *testing.T) {
	for range 10 {
		synctest.Test(t, func(t *testing.T) {
			a := newAuthority()
			a.set(after(2500*time.Millisecond, denies(guard.CodeDeviceRevoked)))
			g := newGuard(t, a, guard.WithMaxRequests(1))
			for _, device := range []string{"one", "two"} {
				go keeps(t.Context(), g, device)
			}
			time.Sleep(1000 * time.Second)
			if one, two := a.count("one"), a.count("two"); one < 50 || two < 50 {
				t.Errorf("asked %d and %d times in 100 intervals", one, two)
			}
		})
	}
}

// A renewal that finds no slot is given up: nobody waits for it, and when the outage ends the
// devices are long forgotten.
func TestL5_RenewalsDoNotQueueUpBehindAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const devices = 500
		a := newAuthority()
		g := newGuard(t, a, guard.WithReuse(10*time.Second), guard.WithMaxRequests(4))
		for range 2 { // the second time it is reused, and so in demand
			for i := range devices {
				if err := g.Run(t.Context(), device(i), nothing); err != nil {
					t.Fatal(err)
				}
			}
		}
		a.hang()
		time.Sleep(5 * time.Minute)
		a.allow()
		before := a.count()
		time.Sleep(time.Minute)
		if n := a.count() - before; n != 0 {
			t.Errorf("%d requests about devices that nobody has used for minutes", n)
		}
	})
}

// L4, L6: a renewal that finds no slot waits for one as long as a start does, an interval. Here it
// gets one just after maxAge is over.
func TestL6_ARenewalWaitsAnIntervalForASlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const devices = 20
		a := newAuthority()
		g := newGuard(t, a, guard.WithReuse(10*time.Second), guard.WithInterval(10*time.Second), guard.WithMaxRequests(1))
		for range 2 { // the second time it is reused, and so in demand
			for i := range devices {
				if err := g.Run(t.Context(), device(i), nothing); err != nil {
					t.Fatal(err)
				}
			}
		}
		release := a.stick(t, allows, "slow")
		go func() { _ = g.Run(t.Context(), "slow", nothing) }() // has the only slot
		time.Sleep(11 * time.Second)
		before := a.count()
		release()
		synctest.Wait()
		if n := a.count() - before; n < devices/2 || n > devices {
			t.Errorf("%d of %d renewals were asked for when there was a slot", n, devices)
		}
	})
}

// A start that waits for a slot gives up, and the Keep that shared its question is left. It must
// not be asked for against RetryAfter because of the place in the queue.
func TestKeep_HeedsRetryAfterWhereAStartHadQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		a.set(answers(guard.Decision{Code: guard.CodeDeviceRevoked, RetryAfter: time.Hour}, nil), "kept")
		a.set(hangs, "other")
		g := newGuard(t, a, guard.WithMaxRequests(1))
		go keeps(t.Context(), g, "kept")
		time.Sleep(time.Second)
		go func() { _ = g.Run(t.Context(), "other", nothing) }() // has the only slot
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := g.Run(ctx, "kept", nothing); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Run: %v", err)
		}
		time.Sleep(10 * time.Minute)
		if n := a.count("kept"); n != 1 {
			t.Errorf("asked %d times within RetryAfter", n)
		}
	})
}

// Keeps that are hinted at while they heed a RetryAfter come back one by one, each in its turn.
func TestKeep_HintedAtDuringRetryAfterWaitsForItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const devices = 100
		var asked atomic.Int64
		end := time.Now().Add(time.Minute)
		g := newGuard(t, guard.ValidatorFunc(func(context.Context, string) (guard.Decision, error) {
			asked.Add(1)
			return guard.Decision{Code: guard.CodeDeviceRevoked, RetryAfter: max(0, time.Until(end))}, nil
		}), guard.WithMaxRequests(1000))
		for i := range devices {
			go keeps(t.Context(), g, fmt.Sprint(i))
		}
		time.Sleep(30 * time.Second)
		g.Hint("")
		time.Sleep(time.Until(end) - 1)
		before := asked.Load()
		time.Sleep(100 * time.Millisecond)
		if n := asked.Load() - before; before != devices || n > devices/5 {
			t.Errorf("%d asked before the end of RetryAfter, %d within 100 ms of it", before-devices, n)
		}
	})
}
