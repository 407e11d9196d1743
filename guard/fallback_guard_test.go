package guard_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// Here Fallback is a Guard's validator: the contract holds with it as with any other.

// A run starts on the file's word where online could not be asked, and what it started on shows.
func TestFallback_S1_ARunStartsOnTheFilesWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTwin()
		g := newGuard(t, w)
		stoodOn := func() (d guard.Decision) {
			err := g.Run(t.Context(), "dev", func(ctx context.Context) error {
				d, _ = guard.DecisionFrom(ctx)
				return guard.Checkpoint(ctx)
			})
			if err != nil {
				t.Errorf("Run: %v", err)
			}
			return d
		}
		if d := stoodOn(); strings.HasPrefix(d.Reason, "offline") {
			t.Errorf("stood on %+v, want the authority's", d)
		}
		for name, c := range couldNotAsk {
			w.online.set(c.b)
			if d := stoodOn(); !strings.HasPrefix(d.Reason, "offline: ") {
				t.Errorf("%s: stood on %+v, want the file's", name, d)
			}
		}
		w.online.hang()
		began := time.Now()
		if d := stoodOn(); !strings.HasPrefix(d.Reason, "offline: ") || time.Since(began) != 1500*time.Millisecond {
			t.Errorf("stood on %+v after %v, want the file's after half the timeout", d, time.Since(began))
		}
		w.online.set(denies(guard.CodeDeviceRevoked))
		wantDenied(t, g.Run(t.Context(), "dev", mustNotRun(t)), "dev", guard.CodeDeviceRevoked, false)
	})
}

// A run goes on through an outage on the file's word, until the file ends, to the nanosecond.
func TestFallback_S10_TheFilesEndIsTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTwin()
		g := newGuard(t, w)
		end := time.Now().Add(time.Hour + 12345)
		w.offline.set(func(_ context.Context, c *asked) (guard.Decision, error) {
			return guard.Decision{Allowed: true, Code: guard.CodeAllow, DeviceID: c.device, ExpiresAt: end}, nil
		}, "dev")
		r, other := watch(t, g, "dev"), launch(t.Context(), g, "other")
		time.Sleep(time.Minute)
		w.online.hang()
		time.Sleep(30 * time.Minute)
		wantRunning(t, r.running, "in an outage")
		wantDenied(t, r.finish(), "dev", guard.CodeSystemUnavailable, true)
		if !r.ended.Equal(end) {
			t.Errorf("stopped %v after the file's end", r.ended.Sub(end))
		}
		time.Sleep(time.Minute)
		wantRunning(t, other, "its own file goes on")
		err := g.Run(t.Context(), "dev", mustNotRun(t))
		wantDenied(t, err, "dev", guard.CodeSystemUnavailable, false)
		if !strings.Contains(err.Error(), "run out") {
			t.Errorf("got %v", err)
		}
	})
}

// A file of another opinion stops its device at the next question, «could not ask», and nobody
// else: its code is not the authority's.
func TestFallback_S3_TheFilesDenialStopsItsDeviceAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTwin()
		g := newGuard(t, w)
		w.unplug()
		r, other := watch(t, g, "dev"), launch(t.Context(), g, "other")
		time.Sleep(time.Minute)
		w.offline.deny(guard.CodeEntitlementExpired, "dev")
		err := r.finish()
		wantDenied(t, err, "dev", guard.CodeSystemUnavailable, true)
		if !errors.Is(err, errCable) || !strings.Contains(err.Error(), "ENTITLEMENT_EXPIRED") {
			t.Errorf("got %v, want both reasons", err)
		}
		time.Sleep(time.Minute)
		wantRunning(t, other, "the file denies another device")
	})
}

// Revoked, then the cable pulled: nothing starts until online has said ALLOW (S5); a hint brings
// nobody back either (B3).
func TestFallback_S5_PullingTheCableRevivesNobody(t *testing.T) {
	for name, code := range map[string]guard.Code{"revoked": guard.CodeDeviceRevoked, "switched off": guard.CodeOrgDisabled} {
		bubble(t, name, func(t *testing.T) {
			w := newTwin()
			g := newGuard(t, w)
			r := watch(t, g, "dev")
			time.Sleep(5 * time.Second)
			w.online.deny(code)
			revoked := time.Now()
			g.Hint("dev")
			wantDenied(t, r.finish(), "dev", code, true)
			if bound := g.Interval() + 3*time.Second; r.ended.Sub(revoked) > bound {
				t.Errorf("B1: stopped after %v, want at most %v", r.ended.Sub(revoked), bound)
			}
			w.unplug()
			for range 3 {
				err := g.Run(t.Context(), "dev", mustNotRun(t))
				wantDenied(t, err, "dev", guard.CodeSystemUnavailable, false)
				if !strings.Contains(err.Error(), string(code)) {
					t.Errorf("got %v, want %s in it", err, code)
				}
				g.Hint("")
				time.Sleep(time.Minute)
			}
			again := newGuard(t, w) // another guard on the same Fallback
			wantDenied(t, again.Run(t.Context(), "dev", mustNotRun(t)), "dev", guard.CodeSystemUnavailable, false)
			w.online.allow()
			if err := g.Run(t.Context(), "dev", nothing); err != nil {
				t.Fatalf("allowed again: %v", err)
			}
			w.unplug()
			if err := g.Run(t.Context(), "dev", nothing); err != nil {
				t.Errorf("the file counts again: %v", err)
			}
		})
	}
}

// A denial that comes as the late answer of a call that was given up latches too (S3, S5).
func TestFallback_S5_ALateDenialLatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTwin()
		g := newGuard(t, w)
		w.online.set(deaf(5*time.Second, denies(guard.CodeDeviceRevoked)))
		err := g.Run(t.Context(), "dev", mustNotRun(t)) // given up after 3 s
		wantDenied(t, err, "dev", guard.CodeSystemUnavailable, false)
		w.unplug()
		if err := g.Run(t.Context(), "dev", nothing); err != nil {
			t.Errorf("before the denial was learnt: %v", err)
		}
		time.Sleep(5 * time.Second)
		err = g.Run(t.Context(), "dev", mustNotRun(t))
		wantDenied(t, err, "dev", guard.CodeSystemUnavailable, false)
		if !strings.Contains(err.Error(), "DEVICE_REVOKED") {
			t.Errorf("got %v", err)
		}
	})
}

// Validators that ignore their context let no run live past its line, and are counted: a device
// has at most two such calls (S4, L4).
func TestComposed_S4_ADeafValidatorHoldsUpNoLine(t *testing.T) {
	for name, of := range map[string]func(deaf, other *authority) guard.Validator{
		"online":       func(d, o *authority) guard.Validator { return guard.Fallback(d, o) },
		"offline":      func(d, o *authority) guard.Validator { o.fail(errCable); return guard.Fallback(o, d) },
		"one of all":   func(d, o *authority) guard.Validator { return guard.All(o, d) },
		"first of all": func(d, o *authority) guard.Validator { return guard.All(d, o) },
	} {
		bubble(t, name, func(t *testing.T) {
			d, o := newAuthority(), newAuthority()
			g := newGuard(t, of(d, o))
			d.endWith(t)
			r := watch(t, g, "dev")
			time.Sleep(5 * time.Second)
			d.stick(t, allows)
			went := time.Now()
			wantDenied(t, r.finish(), "dev", guard.CodeSystemUnavailable, true)
			if r.ended.Sub(went) > g.StopBound() {
				t.Errorf("stopped after %v, want at most %v", r.ended.Sub(went), g.StopBound())
			}
			for range 5 {
				wantDenied(t, g.Run(t.Context(), "dev", mustNotRun(t)), "dev", guard.CodeSystemUnavailable, false)
			}
			if n := d.inFlight(); n > 2 {
				t.Errorf("%d calls hang", n)
			}
		})
	}
}

// Opted-in retries ride out what neither could answer, wait as long as the authority wants (R3),
// and never retry a denial (R2).
func TestFallback_R2_WhatNeitherCouldAnswerIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTwin()
		busy := answers(guard.Decision{Code: guard.CodeSystemUnavailable, RetryAfter: 2 * time.Second}, nil)
		w.online.set(inTurn(busy, busy, denies(guard.CodeDeviceRevoked)))
		w.offline.deny(guard.CodePlanFrozen)
		g := newGuard(t, w, guard.WithRetry(steps(time.Millisecond), 8*time.Second))
		start := time.Now()
		wantDenied(t, g.Run(t.Context(), "dev", mustNotRun(t)), "dev", guard.CodeDeviceRevoked, false)
		wantOffsets(t, w.online, start, 0, 2*time.Second, 4*time.Second)
	})
}
