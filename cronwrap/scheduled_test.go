package cronwrap_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/execguard/execguard/cronwrap"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

// wantTimes fails the test unless the runs had just those times.
func wantTimes(t testing.TB, got []time.Time, want ...time.Time) {
	t.Helper()
	if !slices.EqualFunc(got, want, time.Time.Equal) {
		t.Errorf("scheduled for %v, want %v", got, want)
	}
}

// «The tick's scheduled time», and not the time at which it begins, which the authority's answer delays.
func TestScheduledIsTheTicksTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c, seen := newFixture(t), newCron(t), &runs{}
		f.script.Always(device, guardtest.Delay(2*time.Second, guardtest.Reply(guard.Decision{Allowed: true, Code: guard.CodeAllow}, nil)))
		add(t, c, "0 0 * * * *", f.job(seen.do))
		c.Start()
		pass(3*time.Hour + time.Minute)
		stop(t, c)
		wantTimes(t, seen.scheduled(), day(1, 0, 0), day(2, 0, 0), day(3, 0, 0))
		for i, began := range seen.begun() {
			if late := began.Sub(seen.scheduled()[i]); late != 2*time.Second {
				t.Errorf("began %v late", late)
			}
		}
	})
}

// It is a key: == is equality, so it has no monotonic clock's reading, and it is in the Cron's location.
func TestScheduledIsAKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		berlin := location(t, "Europe/Berlin")
		f, c, seen := newFixture(t), newCron(t, cron.WithLocation(berlin)), &runs{}
		add(t, c, "0 0 * * * *", f.job(seen.do))
		add(t, c, "@every 1h", f.job(seen.do))
		c.Start()
		pass(time.Hour + time.Minute)
		stop(t, c)
		want := time.Date(2000, 1, 1, 2, 0, 0, 0, berlin)
		if at := seen.scheduled(); len(at) != 2 || at[0] != want || at[1] != want {
			t.Errorf("scheduled for %v, want %v twice", at, want)
		}
	})
}

// Absent where a job was added as cron does, where there is no job, and in a job that runs inside of another's base.
func TestNotScheduled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if at, ok := cronwrap.Scheduled(t.Context()); ok {
			t.Errorf("no job is scheduled for %v", at)
		}
		f, c, seen := newFixture(t), newCron(t), &runs{}
		addBare(t, c, "0 0 * * * *", f.job(seen.do))
		add(t, c, "0 30 * * * *", f.job(func(ctx context.Context) error {
			f.job(seen.do, cronwrap.WithContext(ctx)).Run()
			return nil
		}))
		c.Start()
		pass(time.Hour + time.Minute)
		stop(t, c)
		wantTimes(t, seen.scheduled(), time.Time{}, time.Time{})
	})
}

// «Absent in a run by hand»: also while a tick has just been skipped, whose time nobody has taken.
func TestRunByHandAfterASkippedTick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, seen := newFixture(t), &runs{}
		c := newCron(t, cron.WithChain(cronwrap.SkipIfStillRunning(cron.DiscardLogger)))
		j := f.job(func(ctx context.Context) error {
			seen.note(ctx)
			select {
			case <-time.After(90 * time.Minute): // over the next tick
			case <-ctx.Done():
			}
			return nil
		})
		id := add(t, c, "0 0 * * * *", j)
		c.Start()
		pass(2*time.Hour + time.Minute) // 01:00 has run, 02:00 was skipped
		go c.Entry(id).Job.Run()
		go j.Run()
		synctest.Wait()
		pass(30 * time.Minute)
		go c.Entry(id).WrappedJob.Run() // the first run is over
		synctest.Wait()
		wantTimes(t, seen.scheduled(), day(1, 0, 0), time.Time{}, time.Time{}, time.Time{})
		pass(3 * time.Hour) // 03:00 and 04:00 were skipped for that by hand, and 05:00 was not
		wantTimes(t, seen.scheduled()[4:], day(5, 0, 0))
		stop(t, c)
	})
}

// A tick that takes its time before or after cron asks for the next one gets the same: the wrapped schedule is asked on
// the scheduler's goroutine, the time is taken on the job's. Many entries mix both orders.
func TestEveryTickHasItsOwnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const entries, seconds = 40, 30
		f, c := newFixture(t, guard.WithReuse(time.Second)), newCron(t)
		all := make([]*runs, entries)
		for i := range all {
			all[i] = &runs{}
			add(t, c, "* * * * * *", f.job(all[i].do))
		}
		c.Start()
		pass(seconds*time.Second + time.Millisecond)
		stop(t, c)
		for _, seen := range all {
			if at := seen.scheduled(); len(at) != seconds || !at[0].Equal(day(0, 0, 1)) || !at[seconds-1].Equal(day(0, 0, seconds)) {
				t.Fatalf("%d ticks: %v", len(at), at)
			}
		}
	})
}

// Who looks at the times to come, as a page that lists the jobs does, changes nothing.
func TestLookingAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c, seen := newFixture(t), newCron(t), &runs{}
		id := add(t, c, "0 0 * * * *", f.job(seen.do))
		c.Start()
		for range 3 {
			pass(59*time.Minute + 59*time.Second)
			next, e := time.Now(), c.Entry(id)
			for range 5 {
				next = e.Schedule.Next(next)
			}
			if want := time.Now().Truncate(time.Hour).Add(5 * time.Hour); !next.Equal(want) {
				t.Errorf("the fifth time from now is %v, want %v", next, want)
			}
			pass(time.Second)
		}
		stop(t, c)
		wantTimes(t, seen.scheduled(), day(1, 0, 0), day(2, 0, 0), day(3, 0, 0))
	})
}

// One job added twice: each entry has times of its own. Added again from its Entry, it is the same job.
func TestJobAddedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c, seen := newFixture(t), newCron(t), &runs{}
		j := f.job(seen.do)
		id := add(t, c, "0 0 * * * *", j)
		add(t, c, "0 30 * * * *", c.Entry(id).Job)
		c.Start()
		pass(2*time.Hour + time.Minute)
		stop(t, c)
		wantTimes(t, seen.scheduled(), day(0, 30, 0), day(1, 0, 0), day(1, 30, 0), day(2, 0, 0))
	})
}

// A Cron that was stopped for a while drops what it missed, and the times go on with the next tick.
func TestScheduledAfterAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c, seen := newFixture(t), newCron(t), &runs{}
		add(t, c, "0 0 * * * *", f.job(seen.do))
		c.Start()
		pass(time.Hour + time.Minute)
		stop(t, c)
		pass(5 * time.Hour)
		c.Start()
		pass(time.Hour)
		stop(t, c)
		wantTimes(t, seen.scheduled(), day(1, 0, 0), day(7, 0, 0))
	})
}

// deep is a wrapper that runs the job from n frames further down.
func deep(n int) cron.JobWrapper {
	return func(j cron.Job) cron.Job {
		var down func(n int)
		down = func(n int) {
			if n == 0 {
				j.Run()
				return
			}
			down(n - 1)
		}
		return cron.FuncJob(func() { down(n) })
	}
}

// However deep the stack is.
func TestScheduledAtEveryDepth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		for depth := range 60 {
			c, seen := newCron(t, cron.WithChain(deep(depth))), &runs{}
			add(t, c, "* * * * * *", f.job(seen.do))
			c.Start()
			pass(time.Second)
			stop(t, c)
			if at := seen.scheduled(); len(at) != 1 || at[0].IsZero() {
				t.Errorf("from %d frames further down: scheduled for %v", depth, at)
			}
		}
	})
}

// Through chains: wrappers outside, New outside, and deep stacks.
func TestScheduledThroughWrappers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		for name, chain := range map[string][]cron.JobWrapper{
			"Recover and Skip": {cron.Recover(cron.DiscardLogger), cron.SkipIfStillRunning(cron.DiscardLogger)},
			"Delay":            {cron.DelayIfStillRunning(cron.DiscardLogger)},
			"ours":             {cronwrap.SkipIfStillRunning(cron.DiscardLogger), cronwrap.New(f, device)},
			"deep":             {deep(500)},
		} {
			c, seen := newCron(t, cron.WithChain(chain...)), &runs{}
			id := add(t, c, "0 0 * * * *", f.job(seen.do))
			c.Start()
			first := time.Now().Truncate(time.Hour).Add(time.Hour)
			time.Sleep(time.Hour + time.Minute)
			c.Entry(id).WrappedJob.Run()
			time.Sleep(time.Hour)
			stop(t, c)
			if at := seen.scheduled(); len(at) != 3 || !at[0].Equal(first) || !at[1].IsZero() || !at[2].Equal(first.Add(time.Hour)) {
				t.Errorf("%s: scheduled for %v, want %v first", name, at, first)
			}
		}
	})
}

// A wrapper that runs the job on a goroutine of its own hides the time: none is better than a wrong one.
func TestScheduledBehindAGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, seen := newFixture(t), &runs{}
		c := newCron(t, cron.WithChain(func(j cron.Job) cron.Job { return cron.FuncJob(func() { go j.Run() }) }))
		add(t, c, "0 0 * * * *", f.job(seen.do))
		c.Start()
		pass(time.Hour + time.Minute)
		stop(t, c)
		wantTimes(t, seen.scheduled(), time.Time{})
	})
}

// Pitfall 5: what cron.DelayIfStillRunning has let pile up never has a time twice.
func TestScheduledBehindDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, seen, gate := newFixture(t), &runs{}, newGate(cron.DelayIfStillRunning(cron.DiscardLogger))
		c := newCron(t, cron.WithChain(gate.wrap))
		add(t, c, "0 0 * * * *", f.job(seen.do))
		c.Start()
		pass(4*time.Hour + time.Minute)
		gate.open()
		synctest.Wait()
		times := map[time.Time]int{}
		for _, at := range seen.scheduled() {
			times[at]++
		}
		if seen.count() != 4 || times[day(4, 0, 0)] != 1 || times[time.Time{}] != 3 {
			t.Errorf("scheduled for %v", seen.scheduled())
		}
		stop(t, c)
	})
}

// gate holds ticks back as cron.DelayIfStillRunning does, without the lock on which a bubble's time stands still.
type gate struct {
	inner  cron.JobWrapper
	opened chan struct{}
}

func newGate(inner cron.JobWrapper) *gate {
	return &gate{inner: inner, opened: make(chan struct{})}
}

func (g *gate) open() { close(g.opened) }

func (g *gate) wrap(j cron.Job) cron.Job {
	inside := g.inner(j)
	return cron.FuncJob(func() {
		<-g.opened
		inside.Run()
	})
}

func TestAddHandsErrorsBack(t *testing.T) {
	c, j := newCron(t), cronwrap.Job(runnerFunc(nil2), device, obey)
	for name, err := range map[string]error{
		"no Cron":           second(cronwrap.Add(nil, "@hourly", j)),
		"no job":            second(cronwrap.Add(c, "@hourly", nil)),
		"a nil FuncJob":     second(cronwrap.Add(c, "@hourly", cron.FuncJob(nil))),
		"a spec":            second(cronwrap.Add(c, "every now and then", j)),
		"a plain job's too": second(cronwrap.Add(c, "every now and then", cron.FuncJob(func() {}))),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	_, want := c.AddFunc("every now and then", func() {})
	if _, err := cronwrap.Add(c, "every now and then", j); err == nil || err.Error() != want.Error() {
		t.Errorf("err = %v, want cron's own: %v", err, want)
	}
	if n := len(c.Entries()); n != 0 {
		t.Errorf("%d entries were added", n)
	}
}

func nil2(context.Context, string, func(context.Context) error) error { return errors.ErrUnsupported }

func second[T any](_ T, err error) error { return err }

// Jobs of others are added as they are.
func TestAddOfAPlainJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, ran := newCron(t), new(atomic.Int64)
		id := add(t, c, "0 0 * * * *", cron.FuncJob(func() { ran.Add(1) }))
		if _, ok := c.Entry(id).Job.(cron.FuncJob); !ok {
			t.Errorf("added as %T", c.Entry(id).Job)
		}
		c.Start()
		pass(time.Hour + time.Minute)
		stop(t, c)
		if ran.Load() != 1 {
			t.Errorf("%d runs", ran.Load())
		}
	})
}

// Add while the Cron runs; its chain wraps the entry once and asks nobody for what parses the spec.
func TestAddWhileItRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, seen := newFixture(t), &runs{}
		c := newCron(t, cron.WithChain(cronwrap.New(f, device)))
		c.Start()
		pass(30 * time.Minute)
		id := add(t, c, "@every 10m", f.job(seen.do))
		if n := len(c.Entries()); n != 1 {
			t.Errorf("%d entries", n)
		}
		pass(10*time.Minute + time.Second)
		wantTimes(t, seen.scheduled(), day(0, 40, 0))
		if n := len(f.script.Calls()); n != 2 {
			t.Errorf("%d questions for a run under two guards", n)
		}
		c.Remove(id)
		pass(time.Hour)
		if seen.count() != 1 {
			t.Errorf("%d runs, of an entry that was removed", seen.count())
		}
		stop(t, c)
	})
}

// Somebody who removes whatever there is while Add adds: an error, and nothing without a schedule is left behind.
func TestAddBesideRemove(t *testing.T) {
	c := newCron(t, cron.WithLogger(cron.DiscardLogger))
	c.Start()
	over := make(chan struct{})
	go func() {
		defer close(over)
		for id := range cron.EntryID(4000) {
			c.Remove(id)
		}
	}()
	j, failed := cronwrap.Job(runnerFunc(allowing), device, obey), 0
	for done := false; !done; {
		if _, err := cronwrap.Add(c, "@yearly", j); err != nil {
			failed++
		}
		select {
		case <-over:
			done = true
		default:
		}
	}
	for _, e := range c.Entries() {
		if e.Schedule == nil || e.Schedule.Next(time.Now()).IsZero() {
			t.Errorf("entry %d has no schedule", e.ID)
		}
	}
	t.Logf("%d failed", failed)
}
