package guard

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// runsOn makes a guard with a run in flight and an authority that allows it; wall as in clock.
func runsOn(t *testing.T, wall func(time.Time) int64) *Guard {
	t.Helper()
	g, err := New(ValidatorFunc(func(_ context.Context, id string) (Decision, error) {
		return Decision{Allowed: true, Code: CodeAllow, DeviceID: id}, nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	g.clock.wall = wall
	go func() {
		_ = g.Run(t.Context(), "d", func(ctx context.Context) error {
			<-ctx.Done()
			return nil
		})
	}()
	synctest.Wait()
	return g
}

// A timer that does not fire is what a new process is for: nothing else will end the work at its line.
func TestHealth_ATimerThatHangsIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := runsOn(t, nil)
		for range 100 { // in good order it is never behind
			time.Sleep(937 * time.Millisecond)
			if h := g.Health(); h.Behind != 0 || h.Live() != nil {
				t.Fatalf("%+v: %v", h, h.Live())
			}
		}
		g.schedule.mu.Lock()
		due := g.schedule.entries[0].entry.at
		g.schedule.timer.Stop()
		g.schedule.mu.Unlock()
		bound := g.StopBound()
		time.Sleep(due - g.clock.now() + bound)
		if h := g.Health(); h.Behind != bound || h.Live() != nil {
			t.Errorf("%+v: %v", h, h.Live())
		}
		time.Sleep(time.Millisecond)
		h := g.Health()
		if want := "guard: its timer is 13.001s late"; h.Live() == nil || h.Live().Error() != want {
			t.Errorf("%+v: %v", h, h.Live())
		}
	})
}

// After a leap of a clock everything is due at once. That the timer has a moment to go until it notices is no reason
// to end the process.
func TestHealth_ALeapOfTheClockIsNoDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ahead atomic.Int64
		g := runsOn(t, func(at time.Time) int64 { return at.UnixNano() + ahead.Load() })
		time.Sleep(time.Second)
		ahead.Store(int64(time.Hour))
		for range 20 {
			if h := g.Health(); h.Behind != 0 {
				t.Errorf("%+v", h)
			}
			time.Sleep(time.Second / 10)
		}
	})
}

// Health only reads: a permission that is over, and a denial that a device has not heard of, are for those to apply
// who change it.
func TestHealth_ChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := runsOn(t, nil)
		g.schedule.mu.Lock()
		g.schedule.timer.Stop()
		g.schedule.mu.Unlock()
		time.Sleep(20 * time.Second)
		h := g.Health()
		for range g.Devices() {
			continue
		}
		d := g.registry.one("d")[0]
		if !d.running() || d.perm == nil || h.OldestPermission != 20*time.Second {
			t.Errorf("running %v, %+v", d.running(), h)
		}
	})
}

// A device that went between the listing and the look is in no count.
func TestHealth_WhoIsForgottenMeanwhileIsNotCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := runsOn(t, nil)
		d := g.registry.one("d")
		d[0].gone = true
		h := Health{Refused: map[Code]int{}}
		h.look(d, g.clock.now())
		if h.Devices != 0 || h.Runs != 0 || len(describe(nil, d)) != 0 {
			t.Errorf("%+v", h)
		}
		d[0].gone = false
	})
}

// What Health remembers of a failure to ask takes nothing from the denial before it: an ALLOW that was sent before
// that one, and that its caller has not seen yet, stays overtaken (S5).
func TestS5_AFailureToAskDoesNotHideTheDenialBeforeIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := runsOn(t, nil)
		d := g.registry.one("d")[0]
		now := d.lock()
		sent := g.seq.Add(1)
		d.deny(&DeniedError{DeviceID: "d", Decision: Decision{Code: CodeDeviceRevoked}}, now)
		for range 2 {
			d.unasked(unavailable(Decision{}, nil, "no"))
			if err := d.overtaking(sent); err == nil || err.Decision.Code != CodeDeviceRevoked {
				t.Errorf("overtaken by %v", err)
			}
			if by := d.deniedBy(); by == nil || by.Code != CodeSystemUnavailable {
				t.Errorf("denied by %v", by)
			}
		}
		d.unlock(now)
	})
	synctest.Test(t, func(t *testing.T) {
		g := runsOn(t, nil)
		d := g.registry.one("d")[0]
		now := d.lock()
		d.unasked(unavailable(Decision{}, nil, "no")) // and where there was none before, none is made up
		if err := d.overtaking(0); err != nil {
			t.Errorf("overtaken by %v", err)
		}
		d.unlock(now)
	})
}

// An ALLOW lifts an organisation's denial only where it was asked for afterwards, though it is taken by a device that
// has not heard of that denial yet.
func TestHealth_AnOlderAllowDoesNotLiftTheOrganisationsDenial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := runsOn(t, nil)
		d := g.registry.one("d")[0]
		now := d.lock()
		older := *d.perm
		older.seq = g.seq.Add(1)
		g.learnWide(&denial{seq: g.seq.Add(1), err: &DeniedError{Decision: Decision{Code: CodePlanFrozen}}})
		d.permit(&older)
		if g.orgDenial.Load().lifted.Load() {
			t.Error("lifted by an ALLOW that was asked for before")
		}
		newer := older
		newer.seq = g.seq.Add(1)
		d.permit(&newer)
		if !g.orgDenial.Load().lifted.Load() {
			t.Error("an ALLOW that was asked for afterwards does not lift it")
		}
		d.unlock(now)
	})
}
