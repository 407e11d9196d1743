package cronwrap_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/execguard/execguard/cronwrap"
	"github.com/execguard/execguard/guard"
)

// «The time of the latest tick that was missed», also for a job inside of New: the outer knows of no wait.
func TestMissedTimeInsideOfNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outer, inner, c, seen := newFixture(t), newFixture(t), newCron(t), &runs{}
		add(t, c, "0 0 * * * *", outer.wrap()(inner.exact(seen.do, cronwrap.WithCatchUp())))
		inner.script.Deny(device, guard.CodeDeviceRevoked)
		c.Start()
		pass(5*time.Hour + 30*time.Minute)
		inner.allow()
		pass(10 * time.Minute)
		wantTimes(t, seen.scheduled(), day(5, 0, 0))
		stop(t, c)
		if n := len(inner.log.find("skipped: a missed run is waiting")); n != 4 {
			t.Errorf("%d ticks were skipped meanwhile: %v", n, inner.log.find(""))
		}
		outer.log.wantEmpty(t)
	})
}

// The same for a job inside of SkipIfStillRunning that is added together with it.
func TestMissedTimeInsideOfASkipThatWasAdded(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		f, c, seen := newFixture(t), newCron(t), &runs{}
		add(t, c, "0 0 * * * *", cronwrap.SkipIfStillRunning(cron.DiscardLogger)(k.job(f, seen.do, cronwrap.WithCatchUp())))
		c.Start()
		pass(90 * time.Minute)
		f.script.Deny(device, guard.CodePlanFrozen)
		pass(3 * time.Hour)
		f.allow()
		pass(15 * time.Minute)
		wantTimes(t, seen.scheduled(), day(1, 0, 0), day(4, 0, 0))
		stop(t, c)
	})
}

// A wait that was given up takes its time along: a later one, of ticks without times, has none.
func TestMissedTimeOfAWaitThatWasGivenUp(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		f, c, bare, seen := newFixture(t), newCron(t), newCron(t), &runs{}
		j := k.job(f, seen.do, cronwrap.WithCatchUp())
		add(t, c, "0 0 * * * *", j)
		addBare(t, bare, "0 0 * * * *", j)
		f.script.Deny(device, guard.CodeDeviceRevoked)
		c.Start()
		pass(3*time.Hour + 30*time.Minute)
		stop(t, c) // given up: 03:00
		bare.Start()
		pass(24 * time.Hour)
		f.allow()
		pass(time.Minute)
		wantTimes(t, seen.scheduled(), time.Time{})
		stop(t, bare)
	})
}

// The tick at the very instant at which the device is allowed again: whichever of the two comes first, the run that is
// caught up takes no time from the tick, which may be on its way. It is a race, and so tried often.
func TestTickAtTheInstantOfTheAllow(t *testing.T) {
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			f, c, seen := newFixture(t, guard.WithInterval(time.Hour)), newCron(t), &runs{}
			add(t, c, "0 0 * * * *", f.exact(seen.do, cronwrap.WithCatchUp()))
			f.script.Deny(device, guard.CodeDeviceRevoked)
			c.Start()
			pass(90 * time.Minute)
			f.allow()
			time.Sleep(time.Until(day(2, 0, 0)))
			f.Hint(device)
			pass(time.Second)
			times := map[time.Time]int{}
			for _, at := range seen.scheduled() {
				times[at]++
			}
			if seen.count() > 2 || times[time.Time{}] > 0 || times[day(2, 0, 0)] == 0 {
				t.Errorf("scheduled for %v", seen.scheduled())
			}
			stop(t, c)
		})
	}
}

// A wait outlives its entry; the ticks of the next entry of the same job are missed by the same wait.
func TestMissedTimeOfAJobRemovedAndAddedAgain(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		f, c, seen := newFixture(t), newCron(t), &runs{}
		j := k.job(f, seen.do, cronwrap.WithCatchUp())
		id := add(t, c, "0 0 * * * *", j)
		c.Start()
		f.script.Deny(device, guard.CodeDeviceRevoked)
		pass(90 * time.Minute)
		c.Remove(id)
		pass(time.Hour)
		add(t, c, "0 15 * * * *", j)
		pass(time.Hour)
		f.allow()
		pass(10 * time.Minute)
		wantTimes(t, seen.scheduled(), day(3, 15, 0))
		pass(time.Hour)
		wantTimes(t, seen.scheduled(), day(3, 15, 0), day(4, 15, 0))
		stop(t, c)
	})
}

// One job in two Crons has the ticks of both, with their times, and those of the one when the other was stopped.
func TestJobInTwoCrons(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		f, a, b, seen := newFixture(t), newCron(t), newCron(t), &runs{}
		j := k.job(f, seen.do, cronwrap.WithCatchUp())
		add(t, a, "0 0 * * * *", j)
		add(t, b, "0 0 * * * *", j)
		a.Start()
		b.Start()
		pass(90 * time.Minute)
		stop(t, a)
		pass(time.Hour)
		stop(t, b)
		wantTimes(t, seen.scheduled(), day(1, 0, 0), day(1, 0, 0), day(2, 0, 0))
	})
}

// What an entry has made of a job can be added to another Cron: the times are those of the entry that ticks.
func TestAddOfAnotherEntrysWrappedJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, seen := newFixture(t), &runs{}
		a := newCron(t, cron.WithChain(cronwrap.SkipIfStillRunning(cron.DiscardLogger)))
		b := newCron(t)
		id := add(t, a, "0 0 * * * *", f.job(seen.do))
		a.Start()
		pass(30 * time.Minute)
		add(t, b, "0 10 * * * *", a.Entry(id).WrappedJob)
		stop(t, a)
		b.Start()
		pass(2 * time.Hour)
		stop(t, b)
		wantTimes(t, seen.scheduled(), day(1, 10, 0), day(2, 10, 0))
	})
}
