package guard

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// S6: a device may be due to be woken at a time that the clock has leapt over. The timer follows the
// monotonic clock and knows nothing of that; what is asked about that device after the leap still has
// its timeout, and what is allowed its line.
func TestS6_ALeapHoldsNobodyUpOnTheSameDevice(t *testing.T) {
	t.Run("a Keep waits, and a Validate comes after the leap", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g, wall, a := newSteppedGuard(t)
			a.set(func(context.Context) (Decision, error) {
				return Decision{Code: CodeDeviceRevoked, RetryAfter: time.Hour}, nil
			})
			go func() { _ = g.Keep(t.Context(), "d", func(context.Context) error { return nil }) }()
			time.Sleep(time.Minute)
			wall.step(5 * time.Hour)
			a.set(silent)
			began := time.Now()
			_, err := g.Validate(t.Context(), "d")
			if took := time.Since(began); !errors.Is(err, ErrUnavailable) || took > 6*time.Second {
				t.Errorf("Validate: %v after %v, want at most two timeouts", err, took)
			}
		})
	})
	t.Run("a run is watched, and one comes after the leap whose ALLOW expires at once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g, wall, a := newSteppedGuard(t)
			startClockRun(t, g)
			wall.step(11 * time.Second) // past the watch's turn, not past the line
			a.set(func(context.Context) (Decision, error) {
				now := time.Unix(0, wall.nanos(time.Now()))
				return Decision{Allowed: true, Code: CodeAllow, ExpiresAt: now.Add(time.Millisecond)}, nil
			})
			began := time.Now()
			r := startClockRun(t, g)
			_ = r.wait()
			if late := r.ran.Sub(began); late > time.Millisecond {
				t.Errorf("the context ended %v after the ALLOW was asked for, which expired after 1ms", late)
			}
		})
	})
}

// L2: a Keep that waits beside a run in flight takes the watch's turn. Where the clock has leapt over
// that turn, it must not ask again and again, as fast as the authority answers, until somebody looks
// at the clocks.
func TestL2_AKeepDoesNotHammerTheAuthorityAfterALeap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, wall, a := newSteppedGuard(t)
		startClockRun(t, g)
		asked := a.count()
		a.set(func(context.Context) (Decision, error) {
			time.Sleep(time.Millisecond)
			return Decision{Code: CodeSystemUnavailable}, nil
		})
		time.Sleep(time.Millisecond)
		wall.step(11 * time.Second) // over the watch's turn, not over the line
		go func() { _ = g.Keep(t.Context(), "d", func(context.Context) error { return nil }) }()
		time.Sleep(time.Second)
		synctest.Wait()
		if n := a.count() - asked; n > 3 {
			t.Errorf("%d requests in the second after the leap", n)
		}
		_ = g.Close()
		time.Sleep(time.Second)
	})
}

// S6: the timer may stand at a far time, set when nothing was in flight. When the clock leaps towards
// that time and only then a run starts, the time looks near and the timer still has all its way to
// go: the clocks are looked at within a second nevertheless.
func TestS6_ALeapTowardsAFarTimerDoesNotPutTheLookOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, wall, a := newSteppedGuard(t)
		asking, enough := context.WithCancel(t.Context())
		defer enough()
		a.set(silent)
		go func() { _, _ = g.Validate(asking, "other") }() // the timer stands at its timeout, 3 s away
		synctest.Wait()
		wall.step(2500 * time.Millisecond)
		a.set(nil)
		r := startClockRun(t, g)
		wall.step(13 * time.Second) // past the line
		began := time.Now()
		_ = r.wait()
		if late := r.ran.Sub(began); late > time.Second {
			t.Errorf("the context ended %v after the clock had leapt over the line, want at most a second", late)
		}
	})
}

// L4: a Keep that waits loses its turn where no slot is free and the authority is silent. Where the
// clock has leapt over that turn it must not take it again at once, and lose it again: it would go
// round as fast as it can until somebody wakes the device.
func TestL4_AKeepThatLosesItsTurnAfterALeapWaitsForTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g *Guard
		var refused atomic.Int32
		g, wall, a := newSteppedGuard(t, WithMaxRequests(1), WithObserver(func(_ context.Context, e Event) {
			if e.Kind == EventRefused && refused.Add(1) == 100 {
				_ = g.Close()
			}
		}))
		startClockRun(t, g)
		a.set(func(context.Context) (Decision, error) { return Decision{Code: CodeSystemUnavailable}, nil })
		go func() { _ = g.Keep(t.Context(), "d", func(context.Context) error { return nil }) }()
		synctest.Wait()
		d := g.registry.one("d")[0]
		now := d.lock()
		d.due, d.next.turn = 9*time.Second, 9*time.Second
		d.unlock(now)
		release := make(chan struct{})
		defer close(release)
		a.set(func(context.Context) (Decision, error) {
			<-release
			return Decision{}, nil
		})
		_, _ = g.Validate(t.Context(), "other") // it is given up, and keeps the only slot
		time.Sleep(8*time.Second - 3*time.Second - time.Millisecond)
		wall.step(2 * time.Second)
		d.unlock(d.lock()) // somebody looks at the device before the schedule does
		time.Sleep(time.Second)
		if n := refused.Load(); n > 10 {
			t.Errorf("refused %d times within a second", n)
		}
	})
}

// B3: a hint is asked about at the end of its tenth of an interval, also where a clock has just leapt
// towards the device's next turn, so that the timer looks as if it came sooner than it does.
func TestB3_ALeapDoesNotPutAHintOff(t *testing.T) {
	for turn := 501 * time.Millisecond; turn < time.Second; turn += time.Millisecond {
		synctest.Test(t, func(t *testing.T) {
			g, wall, a := newSteppedGuard(t, WithInterval(time.Second), WithTimeout(300*time.Millisecond))
			startClockRun(t, g)
			d := g.registry.one("d")[0]
			now := d.lock()
			d.due = turn
			d.unlock(now)
			wall.step(500 * time.Millisecond)
			g.Hint("")
			time.Sleep(time.Microsecond)
			asked := a.count()
			g.Hint("d")
			time.Sleep(110 * time.Millisecond)
			synctest.Wait()
			if n := a.count() - asked; n == 0 {
				t.Errorf("with the next turn at %v, the second hint was not asked about within a tenth of the interval", turn)
			}
		})
	}
}
