package cronwrap_test

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/execguard/execguard/cronwrap"
	"github.com/execguard/execguard/guard"
)

// What cron v3.0.1 was measured to do, and what becomes of it here. Elsewhere stand: 1, a context (TestEveryCodeWhileItRuns,
// TestNewCannotStopAPlainJob); 2, New goes last (TestNewGoesLast); 3, the token (TestSkipKeepsItsToken); 8, Stop
// (stop_test.go); 11, clock changes (TestYears); 12, the logger (TestLogger).

// Pitfall 4: cron's default chain is empty, whatever its comment says: a panic ends the process. Of a Job it does not.
func TestPitfallNoChainRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, ran := newFixture(t), new(atomic.Int64)
		c := cron.New(cron.WithSeconds(), cron.WithLocation(time.UTC)) // as it comes, but for the seconds
		add(t, c, "0 * * * * *", f.job(func(context.Context) error {
			ran.Add(1)
			panic("boom")
		}))
		c.Start()
		pass(3*time.Minute + time.Second)
		stop(t, c)
		if ran.Load() != 3 {
			t.Errorf("%d runs", ran.Load())
		}
	})
}

// Pitfall 5: cron.DelayIfStillRunning lets ticks pile up behind a job that waits, and runs them back to back
// when it is over, even after Stop. Catching up needs no such wrapper: a day of denial is one goroutine and one run.
func TestPitfallNoStampede(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		f, c, seen := newFixture(t), newCron(t), &runs{}
		add(t, c, "0 * * * * *", k.job(f, seen.do, cronwrap.WithCatchUp()))
		f.script.Deny(device, guard.CodePlanFrozen)
		c.Start()
		pass(24*time.Hour + 30*time.Second)
		if n := len(f.log.find("to be caught up")); n != 1 {
			t.Errorf("%d ticks wait", n)
		}
		f.allow()
		pass(20 * time.Second)
		if seen.count() != 1 {
			t.Errorf("%d runs after a day of denial", seen.count())
		}
		stop(t, c)
		pass(time.Hour)
		if seen.count() != 1 {
			t.Errorf("%d runs after Stop", seen.count())
		}
	})
}

// Pitfall 5 again: what DelayIfStillRunning has let pile up does not run after Stop.
func TestPitfallNothingRunsAfterStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, seen := newFixture(t), &runs{}
		held := newGate(func(j cron.Job) cron.Job { return j })
		c := newCron(t, cron.WithChain(held.wrap))
		add(t, c, "0 * * * * *", f.job(seen.do))
		c.Start()
		pass(5*time.Minute + time.Second)
		stopped := make(chan error, 1)
		go func() { stopped <- stopWithin(time.Hour, c) }()
		pass(time.Minute)
		held.open()
		synctest.Wait()
		if err := <-stopped; err != nil {
			t.Errorf("Stop: %v", err)
		}
		if n := len(f.log.find("skipped: its context has ended")); seen.count() != 0 || n != 5 {
			t.Errorf("%d runs after Stop, %d were skipped", seen.count(), n)
		}
	})
}

// Pitfall 6: Entry.Job goes round cron's chain. Job is guarded there, and New's wrapper is gone round.
// (TestRunsByHand, TestNewGatesTheStart.) Pitfall 7: a chain is called once for each entry, and knows neither it nor its
// name: what New makes of one job is not what it makes of another.
func TestPitfallWrappersHaveNoNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		wrap := f.wrap(cronwrap.WithName("both"), cronwrap.WithCatchUp())
		c, first, other := newCron(t, cron.WithChain(wrap)), new(atomic.Int64), new(atomic.Int64)
		addBare(t, c, "0 0 * * * *", cron.FuncJob(func() { first.Add(1) }))
		addBare(t, c, "0 0 * * * *", cron.FuncJob(func() { other.Add(1) }))
		f.script.Deny(device, guard.CodeDeviceRevoked)
		c.Start()
		pass(2*time.Hour + time.Minute)
		f.allow()
		pass(time.Minute)
		if first.Load() != 1 || other.Load() != 1 {
			t.Errorf("caught up %d and %d times", first.Load(), other.Load())
		}
		for _, r := range f.log.find("denied: ") {
			if r.attrs["job"] != "both" {
				t.Errorf("logged: %v", r)
			}
		}
		stop(t, c)
	})
}

// Pitfall 8: cron's own Stop cancels nothing, and Remove does not end a run.
func TestPitfallRemoveEndsNoRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c := newFixture(t), newCron(t)
		base, end := context.WithCancel(t.Context())
		defer end()
		running := new(atomic.Int64)
		id := add(t, c, "0 0 * * * *", f.job(func(ctx context.Context) error {
			running.Add(1)
			defer running.Add(-1)
			return obey(ctx)
		}, cronwrap.WithContext(base)))
		c.Start()
		pass(time.Hour + time.Minute)
		c.Remove(id)
		done := c.Stop().Done()
		pass(time.Hour)
		if running.Load() != 1 {
			t.Error("Remove or cron's Stop has ended a run; then Stop can be simpler")
		}
		end() // as Stop's comment says
		<-done
		synctest.Wait()
		if running.Load() != 0 {
			t.Error("it goes on")
		}
	})
}

// Pitfall 9: nothing is asked in Schedule.Next, which is called on the scheduler's goroutine: an entry whose device
// is denied goes on being scheduled, and is there at once when it is allowed again. Pitfall 13: that is a pause of one entry, with
// no flood afterwards.
func TestPitfallAPausedEntryIsStillScheduled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c, paused, other := newFixture(t), newCron(t), &runs{}, &runs{}
		f.script.Allow("other")
		id := add(t, c, "0 * * * * *", f.job(paused.do))
		add(t, c, "0 * * * * *", cronwrap.Job(f, "other", other.do))
		f.script.Deny(device, guard.CodeDeviceRevoked)
		c.Start()
		pass(time.Hour + 30*time.Second)
		if next, want := c.Entry(id).Next, day(1, 1, 0); !next.Equal(want) {
			t.Errorf("next at %v, want %v", next, want)
		}
		f.allow()
		pass(time.Minute)
		wantTimes(t, paused.scheduled(), day(1, 1, 0))
		if other.count() != 61 {
			t.Errorf("%d runs of the other entry", other.count())
		}
		stop(t, c)
	})
}

// Pitfall 10: cron remembers no missed run, and neither do we unless told to: the ticks that were refused are lost.
func TestPitfallMissedRunsAreSkippedByDefault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c, seen := newFixture(t), newCron(t), &runs{}
		add(t, c, "0 0 * * * *", f.job(seen.do))
		f.script.Deny(device, guard.CodeDeviceRevoked)
		c.Start()
		pass(3*time.Hour + time.Minute)
		f.allow()
		pass(30 * time.Minute)
		if n := len(f.log.find("denied: skipped")); seen.count() != 0 || n != 3 {
			t.Errorf("%d runs, %d skipped", seen.count(), n)
		}
		for _, r := range f.log.find("") {
			if r.level != slog.LevelWarn {
				t.Errorf("logged: %v", r)
			}
		}
		pass(time.Hour)
		wantTimes(t, seen.scheduled(), day(4, 0, 0))
		stop(t, c)
	})
}

// Pitfall 11: the time of a tick, and not now, is the key of what it does; in UTC it is unique also when clocks are set back.
func TestPitfallTheKeyIsUnique(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		zone := location(t, "America/New_York")
		f, c, seen := newFixture(t), newCron(t, cron.WithLocation(zone)), &runs{}
		add(t, c, "0 */15 1 * * *", f.job(seen.do))
		pass(time.Until(time.Date(2000, 10, 28, 12, 0, 0, 0, zone)))
		c.Start()
		pass(24 * time.Hour)
		stop(t, c)
		keys, shown := map[string]bool{}, map[string]bool{}
		for _, at := range seen.scheduled() {
			keys[at.Format(time.RFC3339)], shown[at.Format(time.DateTime)] = true, true
		}
		if seen.count() != 8 || len(keys) != 8 || len(shown) != 4 {
			t.Errorf("%d runs, %d keys, %d times of day", seen.count(), len(keys), len(shown))
		}
	})
}
