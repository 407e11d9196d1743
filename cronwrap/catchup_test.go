package cronwrap_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/execguard/execguard/cronwrap"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

// kind is how the Runner is known: a *guard.Guard, which is waited for by Keep, or another, which is asked again.
type kind struct {
	name string
	job  func(f fixture, fn func(context.Context) error, more ...cronwrap.Option) cron.Job
}

var kinds = []kind{{"Guard", fixture.exact}, {"another Runner", fixture.job}}

// eachKind runs a test in a bubble with either.
func eachKind(t *testing.T, test func(t *testing.T, k kind)) {
	t.Helper()
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, k) })
		})
	}
}

// «One run (one, not one for each missed tick) follows when the device is allowed again», with the time of the
// latest tick that was missed. It costs the authority a question an interval.
func TestCatchUpIsOneRun(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		f, c, seen := newFixture(t), newCron(t), &runs{}
		add(t, c, "0 0 * * * *", k.job(f, seen.do, cronwrap.WithCatchUp()))
		f.script.Deny(device, guard.CodeDeviceRevoked)
		c.Start()
		pass(5*time.Hour + 30*time.Minute)
		if seen.count() != 0 {
			t.Fatal("it has run")
		}
		waited := 4*time.Hour + 30*time.Minute
		if n, most := len(f.script.Calls()), int(waited/f.Interval())+3; n > most || n < most/2 {
			t.Errorf("%d questions, at most %d are due", n, most)
		}
		f.log.want(t, slog.LevelWarn, "denied: to be caught up", "scheduled", day(1, 0, 0).String())
		if n := len(f.log.find("skipped: a missed run is waiting")); n != 4 {
			t.Errorf("%d ticks were skipped meanwhile", n)
		}
		f.allow()
		allowed := time.Now()
		pass(29 * time.Minute)
		wantTimes(t, seen.scheduled(), day(5, 0, 0))
		if late := seen.begun()[0].Sub(allowed); late > f.Interval()*3/2 {
			t.Errorf("caught up %v after the device was allowed again", late)
		}
		f.log.want(t, slog.LevelInfo, "catching up", "scheduled", day(5, 0, 0).String())
		pass(time.Hour) // and all is as ever
		wantTimes(t, seen.scheduled(), day(5, 0, 0), day(6, 0, 0))
		stop(t, c)
		if n := len(f.log.find("")); n != 6 {
			t.Errorf("logged: %v", f.log.find(""))
		}
	})
}

// A run that is cut is caught up as well, and one that is cut again, again. Its own outcome does not count.
func TestCatchUpOfARunThatWasCut(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		f, c, seen := newFixture(t), newCron(t), &runs{}
		add(t, c, "0 0 */6 * * *", k.job(f, func(ctx context.Context) error {
			seen.note(ctx)
			select {
			case <-ctx.Done():
				return nil // as if it were done
			case <-time.After(time.Hour):
				return errors.New("own")
			}
		}, cronwrap.WithCatchUp(), cronwrap.WithErrorHandler(func(err error) {
			if seen.count() != 4 {
				t.Errorf("handled %v of run %d", err, seen.count())
			}
		})))
		c.Start()
		pass(6 * time.Hour)
		for range 3 {
			pass(time.Minute)
			f.deny(t, guard.CodePlanFrozen)
			pass(time.Minute)
			f.allow()
			f.Hint(device)
		}
		pass(2 * time.Hour)
		stop(t, c)
		six := day(6, 0, 0)
		wantTimes(t, seen.scheduled(), six, six, six, six)
		cuts := f.log.find("denied while it ran: stopped, to be caught up")
		if len(cuts) != 3 {
			t.Errorf("%d stops were logged: %v", len(cuts), f.log.find(""))
		}
		for _, r := range cuts {
			if r.attrs["code"] != "PLAN_FROZEN" || r.attrs["request_id"] == "" {
				t.Errorf("logged: %v", r)
			}
		}
		if n := len(f.log.find("catching up")); n != 3 {
			t.Errorf("caught up %d times", n)
		}
	})
}

// Every denial is told of, and each is caught up once.
func TestCatchUpAgainAndAgain(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		f, c, seen := newFixture(t), newCron(t), &runs{}
		add(t, c, "0 0 * * * *", k.job(f, seen.do, cronwrap.WithCatchUp()))
		c.Start()
		for i := range 3 {
			f.script.Deny(device, guard.CodeDeviceRevoked)
			pass(time.Hour + 10*time.Minute)
			f.allow()
			pass(50 * time.Minute)
			if n := len(f.log.find("denied: to be caught up")); n != i+1 {
				t.Errorf("after denial %d: %d refused ticks were logged", i+1, n)
			}
		}
		wantTimes(t, seen.scheduled(), day(1, 0, 0), day(2, 0, 0), day(3, 0, 0), day(4, 0, 0), day(5, 0, 0), day(6, 0, 0))
		stop(t, c)
	})
}

// A Runner that calls its function twice when the device is allowed again.
func TestCatchUpIsCalledOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, seen, log, asked := newCron(t), &runs{}, &journal{}, new(atomic.Int64)
		r := runnerFunc(func(ctx context.Context, _ string, fn func(context.Context) error) error {
			if asked.Add(1) == 1 {
				return &guard.DeniedError{Decision: guard.Decision{Code: guard.CodeDeviceRevoked}}
			}
			err := fn(ctx)
			if fn(ctx) == nil {
				t.Error("called again: no error")
			}
			return err
		})
		add(t, c, "0 0 12 * * *", cronwrap.Job(r, device, seen.do, cronwrap.WithCatchUp(), cronwrap.WithLogger(slog.New(log))))
		c.Start()
		pass(13 * time.Hour)
		stop(t, c)
		if n := len(log.find("catching up")); seen.count() != 1 || n != 1 {
			t.Errorf("%d runs, %d of them logged", seen.count(), n)
		}
	})
}

// What was given up at Stop stands in nobody's way after Start: ticks run, or wait, as ever.
func TestCatchUpAfterStopAndStart(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		f, c, seen := newFixture(t), newCron(t), &runs{}
		f.script.Deny(device, guard.CodeDeviceRevoked)
		add(t, c, "0 0 * * * *", k.job(f, seen.do, cronwrap.WithCatchUp()))
		for range 2 {
			c.Start()
			pass(time.Hour + time.Minute)
			stop(t, c)
		}
		if n := len(f.log.find("denied: to be caught up")); n != 2 {
			t.Errorf("logged: %v", f.log.find(""))
		}
		c.Start()
		f.allow()
		pass(time.Hour)
		wantTimes(t, seen.scheduled(), day(3, 0, 0))
		stop(t, c)
	})
}

// A tick whose authority could not be asked is caught up too.
func TestCatchUpAfterAnOutage(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		f, c, seen := newFixture(t), newCron(t), &runs{}
		f.script.Always("", guardtest.Hang())
		add(t, c, "0 0 * * * *", k.job(f, seen.do, cronwrap.WithCatchUp()))
		c.Start()
		pass(90 * time.Minute)
		f.log.want(t, slog.LevelWarn, "denied: to be caught up", "code", "SYSTEM_UNAVAILABLE")
		f.script.Always("", nil)
		pass(20 * time.Second)
		wantTimes(t, seen.scheduled(), day(1, 0, 0))
		stop(t, c)
	})
}

// A hint wakes a wait for a Guard at once, and a RetryAfter is heeded by both.
func TestCatchUpHearsHints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c, seen := newFixture(t, guard.WithInterval(time.Hour)), newCron(t), &runs{}
		f.script.Deny(device, guard.CodeDeviceRevoked)
		add(t, c, "0 0 12 * * *", f.exact(seen.do, cronwrap.WithCatchUp()))
		c.Start()
		pass(12*time.Hour + time.Second)
		f.allow()
		f.Hint(device)
		synctest.Wait()
		if seen.count() != 1 {
			t.Error("not caught up at once")
		}
		stop(t, c)
	})
}

func TestCatchUpHeedsRetryAfter(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		const wait = 10 * time.Minute
		f, c, seen := newFixture(t), newCron(t), &runs{}
		f.script.Next(device, guardtest.Reply(guard.Decision{Code: guard.CodeSystemUnavailable, RetryAfter: wait}, errors.New("429")))
		add(t, c, "0 0 12 * * *", k.job(f, seen.do, cronwrap.WithCatchUp()))
		c.Start()
		pass(13 * time.Hour)
		stop(t, c)
		if seen.count() != 1 || len(f.script.Calls()) != 2 {
			t.Fatalf("%d runs, %d questions", seen.count(), len(f.script.Calls()))
		}
		if after := seen.begun()[0].Sub(day(12, 0, 0)); after <= wait || after > wait+f.Interval() { // some time after, lest all come at once
			t.Errorf("asked again after %v, the authority wants %v", after, wait)
		}
	})
}

// A RetryAfter beyond reason is heeded for a day, as the guard does.
func TestCatchUpOfAnEndlessRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, seen, log := newCron(t), &runs{}, &journal{}
		asked := 0
		r := runnerFunc(func(ctx context.Context, _ string, fn func(context.Context) error) error {
			if asked++; asked == 1 {
				return &guard.DeniedError{Decision: guard.Decision{Code: guard.CodeSystemUnavailable, RetryAfter: 1 << 62}}
			}
			return fn(ctx)
		})
		add(t, c, "0 0 12 * * *", cronwrap.Job(r, device, seen.do, cronwrap.WithCatchUp(), cronwrap.WithLogger(slog.New(log))))
		c.Start()
		pass(36*time.Hour + time.Minute)
		wantTimes(t, seen.scheduled(), day(12, 0, 0).AddDate(0, 0, 1))
		stop(t, c)
	})
}

// Where a Runner does not tell its interval, it is a guard's default, also where what it tells is none; with one and a half of
// it at most between two questions.
func TestCatchUpWithARunnersInterval(t *testing.T) {
	for name, test := range map[string]struct {
		interval time.Duration
		want     time.Duration
	}{"none": {-1, 10 * time.Second}, "nothing": {0, 10 * time.Second}, "a minute": {time.Minute, time.Minute}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var asked []time.Time
				refuse := runnerFunc(func(context.Context, string, func(context.Context) error) error {
					asked = append(asked, time.Now())
					return &guard.DeniedError{Decision: guard.Decision{Code: guard.CodeDeviceRevoked}}
				})
				var r guard.Runner = refuse
				if test.interval >= 0 {
					r = withInterval{refuse, test.interval}
				}
				c, log := newCron(t), &journal{}
				add(t, c, "0 0 12 * * *", cronwrap.Job(r, device, obey, cronwrap.WithCatchUp(), cronwrap.WithLogger(slog.New(log))))
				c.Start()
				pass(13 * time.Hour)
				stop(t, c)
				if len(asked) < 30 {
					t.Errorf("asked %d times in an hour", len(asked))
				}
				for i := range asked[1:] {
					if gap := asked[i+1].Sub(asked[i]); gap < test.want || gap > test.want*3/2 {
						t.Errorf("%v between two questions", gap)
					}
				}
			})
		})
	}
}

type withInterval struct {
	runnerFunc

	interval time.Duration
}

func (w withInterval) Interval() time.Duration { return w.interval }

// A Runner that embeds a Guard is asked by its own Run, which must not be gone round.
func TestRunnerThatEmbedsAGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c, seen := newFixture(t), newCron(t), &runs{}
		counted := &counting{Guard: f.Guard}
		f.script.Deny(device, guard.CodeDeviceRevoked)
		add(t, c, "0 0 * * * *", cronwrap.Job(counted, device, seen.do, f.options(cronwrap.WithCatchUp())...))
		c.Start()
		pass(time.Hour + time.Minute)
		f.allow()
		pass(time.Minute)
		stop(t, c)
		if seen.count() != 1 || counted.starts != 1 {
			t.Errorf("%d runs, %d of them through its own Run", seen.count(), counted.starts)
		}
	})
}

type counting struct {
	*guard.Guard

	starts int
}

func (c *counting) Run(ctx context.Context, id string, fn func(context.Context) error) error {
	return c.Guard.Run(ctx, id, func(ctx context.Context) error {
		c.starts++
		return fn(ctx)
	})
}

// Behind SkipIfStillRunning, cron's or ours, the ticks that are missed meanwhile do not come here: the
// catch-up has the time of the latest all the same.
func TestCatchUpBehindSkip(t *testing.T) {
	for name, skip := range map[string]cron.JobWrapper{
		"cron's": cron.SkipIfStillRunning(cron.DiscardLogger), "ours": cronwrap.SkipIfStillRunning(cron.DiscardLogger),
	} {
		t.Run(name, func(t *testing.T) {
			eachKind(t, func(t *testing.T, k kind) {
				f, c, seen := newFixture(t), newCron(t, cron.WithChain(skip)), &runs{}
				add(t, c, "0 0 * * * *", k.job(f, seen.do, cronwrap.WithCatchUp()))
				f.script.Deny(device, guard.CodeDeviceRevoked)
				c.Start()
				pass(5*time.Hour + 30*time.Minute)
				f.allow()
				pass(time.Hour)
				wantTimes(t, seen.scheduled(), day(5, 0, 0), day(6, 0, 0))
				stop(t, c)
			})
		})
	}
}

// A job that was added twice is caught up once, for the latest tick of both entries.
func TestCatchUpOfAJobAddedTwice(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		f, c, seen := newFixture(t), newCron(t), &runs{}
		j := k.job(f, seen.do, cronwrap.WithCatchUp())
		add(t, c, "0 0 * * * *", j)
		add(t, c, "0 30 * * * *", j)
		f.script.Deny(device, guard.CodeDeviceRevoked)
		c.Start()
		pass(3*time.Hour + 45*time.Minute)
		f.allow()
		pass(10 * time.Minute)
		wantTimes(t, seen.scheduled(), day(3, 30, 0))
		stop(t, c)
	})
}

// A run that is cut while a tick already waits to be caught up leaves it at that: one run follows.
func TestTwoRunsCutAreCaughtUpOnce(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		f, c, seen := newFixture(t), newCron(t), &runs{}
		add(t, c, "0 0 * * * *", k.job(f, func(ctx context.Context) error {
			seen.note(ctx)
			select {
			case <-ctx.Done():
			case <-time.After(3 * time.Hour): // three at a time
			}
			return ctx.Err()
		}, cronwrap.WithCatchUp()))
		c.Start()
		pass(3*time.Hour + time.Minute)
		f.deny(t, guard.CodeDeviceRevoked)
		pass(time.Minute)
		f.allow()
		pass(50 * time.Minute)
		wantTimes(t, seen.scheduled(), day(1, 0, 0), day(2, 0, 0), day(3, 0, 0), day(3, 0, 0))
		stop(t, c)
	})
}

// The plain jobs of New are caught up too, and so is a job that was not added by Add; it has no time.
func TestCatchUpOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, seen, plain := newFixture(t), &runs{}, new(atomic.Int64)
		c := newCron(t, cron.WithChain(cronwrap.New(f.Guard, device, f.options(cronwrap.WithCatchUp())...)))
		bare := newCron(t)
		addBare(t, c, "0 0 * * * *", cron.FuncJob(func() { plain.Add(1) }))
		addBare(t, bare, "0 0 * * * *", f.exact(seen.do, cronwrap.WithCatchUp()))
		f.script.Deny(device, guard.CodeDeviceRevoked)
		c.Start()
		bare.Start()
		pass(3*time.Hour + time.Minute)
		f.allow()
		pass(time.Minute)
		if plain.Load() != 1 || seen.count() != 1 {
			t.Errorf("%d and %d runs", plain.Load(), seen.count())
		}
		wantTimes(t, seen.scheduled(), time.Time{})
		stop(t, c)
		stop(t, bare)
	})
}

// A run by hand is not caught up: who called it hears nothing, but is not kept waiting either; and while a
// tick waits, it is a run like any other.
func TestRunByHandIsNotCaughtUp(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		f, c, seen := newFixture(t), newCron(t), &runs{}
		f.script.Deny(device, guard.CodeDeviceRevoked)
		j := k.job(f, seen.do, cronwrap.WithCatchUp())
		id := add(t, c, "0 0 * * * *", j)
		began := time.Now()
		j.Run()
		c.Entry(id).Job.Run()
		c.Entry(id).WrappedJob.Run()
		if time.Since(began) > time.Second {
			t.Errorf("returned after %v", time.Since(began))
		}
		if n := len(f.log.find("denied: skipped")); n != 3 {
			t.Errorf("%d refused", n)
		}
		c.Start()
		pass(time.Hour + 15*time.Second)
		calls := len(f.script.Calls())
		j.Run()
		if len(f.script.Calls()) == calls {
			t.Error("a run by hand asks nobody while a tick waits")
		}
		f.allow()
		pass(time.Minute)
		wantTimes(t, seen.scheduled(), day(1, 0, 0))
		stop(t, c)
	})
}

// The wait ends without a run at Stop and with WithContext's context; and not with the entry.
func TestCatchUpIsGivenUp(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(t *testing.T, c *cron.Cron, id cron.EntryID, cancel func())
		want int
	}{
		"Stop":    {func(t *testing.T, c *cron.Cron, _ cron.EntryID, _ func()) { stop(t, c) }, 0},
		"context": {func(_ *testing.T, _ *cron.Cron, _ cron.EntryID, cancel func()) { cancel() }, 0},
		"removed": {func(_ *testing.T, c *cron.Cron, id cron.EntryID, _ func()) { c.Remove(id) }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			eachKind(t, func(t *testing.T, k kind) {
				f, c, seen := newFixture(t), newCron(t), &runs{}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				f.script.Deny(device, guard.CodeDeviceRevoked)
				id := add(t, c, "0 0 * * * *", k.job(f, seen.do, cronwrap.WithCatchUp(), cronwrap.WithContext(ctx)))
				c.Start()
				pass(time.Hour + time.Minute)
				test.end(t, c, id, cancel)
				synctest.Wait()
				if n := len(f.log.find("its context has ended")); n != 1-test.want {
					t.Errorf("logged: %v", f.log.find(""))
				}
				f.allow()
				pass(time.Minute)
				if seen.count() != test.want {
					t.Errorf("%d runs", seen.count())
				}
				<-c.Stop().Done()
			})
		})
	}
}

// A panic of the run that is caught up, and Goexit, leave the job as they do otherwise.
func TestCatchUpThatPanics(t *testing.T) {
	for _, how := range []string{"panic", "cut and panic"} {
		t.Run(how, func(t *testing.T) {
			eachKind(t, func(t *testing.T, k kind) {
				f, c, ran := newFixture(t), newCron(t), new(atomic.Int64)
				f.script.Deny(device, guard.CodeDeviceRevoked)
				add(t, c, "0 0 * * * *", k.job(f, func(context.Context) error {
					if ran.Add(1) == 1 && how != "panic" {
						f.deny(t, guard.CodeDeviceRevoked)
					}
					if ran.Load() == 1 {
						panic("boom")
					}
					return nil
				}, cronwrap.WithCatchUp()))
				c.Start()
				pass(time.Hour + time.Minute)
				f.allow()
				pass(30 * time.Minute)
				f.allow()
				pass(20 * time.Minute)
				f.log.want(t, slog.LevelError, "panicked")
				want := int64(1)
				if how != "panic" {
					want = 2 // it was stopped, and so what it came to does not count
				}
				if ran.Load() != want {
					t.Errorf("%d runs, want %d", ran.Load(), want)
				}
				pass(time.Hour)
				if ran.Load() != want+1 {
					t.Errorf("%d runs, want %d", ran.Load(), want+1)
				}
				stop(t, c)
			})
		})
	}
}

// Held ticks share their questions: once each has been refused, and has asked again to begin its wait, a hundred jobs of
// a device that is denied cost what one does. And when it is allowed again, each runs once.
func TestManyWaitTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const jobs = 100
		f, c, seen := newFixture(t), newCron(t), &runs{}
		f.script.Deny(device, guard.CodeDeviceRevoked)
		for i := range jobs {
			add(t, c, "0 0 * * * *", f.exact(seen.do, cronwrap.WithCatchUp(), cronwrap.WithName(fmt.Sprint("job ", i))))
		}
		c.Start()
		pass(2*time.Hour - time.Second)
		if n, most := len(f.script.Calls()), 360+2*jobs+6; n > most {
			t.Errorf("%d questions in an hour, want at most %d", n, most)
		}
		f.allow()
		f.Hint(device)
		pass(time.Millisecond)
		if seen.count() != jobs {
			t.Errorf("%d runs", seen.count())
		}
		stop(t, c)
	})
}
