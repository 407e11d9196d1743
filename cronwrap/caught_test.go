package cronwrap_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/execguard/execguard/cronwrap"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

// A job that returns what guard.Checkpoint tells it returns the denial itself: that is no error of its own, and
// such a run is caught up as often as it is cut.
func TestCatchUpOfARunThatReturnsItsDenial(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		f, c, seen, handled := newFixture(t), newCron(t), &runs{}, &errorsSeen{}
		add(t, c, "0 0 */6 * * *", k.job(f, func(ctx context.Context) error {
			seen.note(ctx)
			select {
			case <-ctx.Done():
				return guard.Checkpoint(ctx)
			case <-time.After(time.Hour):
				return nil
			}
		}, cronwrap.WithCatchUp(), cronwrap.WithErrorHandler(handled.handle)))
		c.Start()
		pass(6 * time.Hour)
		for range 2 {
			pass(time.Minute)
			f.deny(t, guard.CodePlanFrozen)
			pass(time.Minute)
			f.allow()
			f.Hint(device)
		}
		pass(2 * time.Hour)
		stop(t, c)
		if seen.count() != 3 || len(handled.list()) != 0 {
			t.Errorf("%d runs, want 3; handled %v", seen.count(), handled.list())
		}
	})
}

// A Runner that wraps what comes back, as a layer for traces does: the job's own error is still that, and is
// handed on as the job has returned it.
func TestRunnerThatWrapsErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c, seen, handled := newFixture(t), newCron(t), &runs{}, &errorsSeen{}
		r := runnerFunc(func(ctx context.Context, id string, fn func(context.Context) error) error {
			if err := f.Run(ctx, id, fn); err != nil {
				return fmt.Errorf("traced: %w", err)
			}
			return nil
		})
		own := errors.New("the disk is full")
		add(t, c, "0 0 12 * * *", cronwrap.Job(r, device, func(ctx context.Context) error {
			seen.note(ctx)
			return own
		}, f.options(cronwrap.WithCatchUp(), cronwrap.WithErrorHandler(handled.handle))...))
		c.Start()
		pass(13 * time.Hour)
		stop(t, c)
		if all := handled.list(); seen.count() != 1 || len(all) != 1 || all[0] != own {
			t.Errorf("%d runs of one tick that was never denied; handled %v", seen.count(), all)
		}
		f.log.wantEmpty(t)
	})
}

// A wait that ends because the device's id is invalid is told of: nobody will run what was missed.
func TestWaitForAnInvalidDeviceIsToldOf(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		f, c, seen := newFixture(t), newCron(t), &runs{}
		add(t, c, "0 0 12 * * *", k.job(f, seen.do, cronwrap.WithCatchUp()))
		f.script.Deny(device, guard.CodeDeviceRevoked)
		c.Start()
		pass(12*time.Hour + time.Minute)
		f.script.Deny(device, guard.CodeInvalidDeviceID)
		pass(time.Minute)
		select {
		case <-c.Stop().Done():
		case <-time.After(time.Second):
			t.Error("it still waits")
		}
		f.log.want(t, slog.LevelWarn, "denied: to be caught up", "code", "DEVICE_REVOKED")
		f.log.want(t, slog.LevelWarn, "denied: skipped", "code", string(guard.CodeInvalidDeviceID))
	})
}

// A plain job that was denied while it ran has run to its end, and so has missed nothing: it does not run twice.
func TestPlainJobIsNotRunTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, ended := newFixture(t), new(atomic.Int64)
		c := newCron(t, cron.WithChain(f.wrap(cronwrap.WithCatchUp())))
		addBare(t, c, "0 0 12 * * *", cron.FuncJob(func() {
			time.Sleep(time.Hour)
			ended.Add(1)
		}))
		c.Start()
		pass(12*time.Hour + time.Minute)
		f.deny(t, guard.CodeDeviceRevoked)
		pass(5 * time.Minute)
		f.allow()
		pass(5 * time.Hour)
		if ended.Load() != 1 {
			t.Errorf("one tick, %d runs to the end; logged %v", ended.Load(), f.log.find(""))
		}
		f.log.want(t, slog.LevelWarn, "and has run to its end", "code", "DEVICE_REVOKED")
		stop(t, c)
	})
}

// A hint ends a wait for an authority that could not be asked, as it ends a Keep's.
func TestCatchUpHearsHintsAfterAnOutage(t *testing.T) {
	for _, how := range []string{"Keep", "WithCatchUp"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, c, seen := newFixture(t, guard.WithInterval(time.Hour)), newCron(t), &runs{}
				f.script.Always(device, guardtest.Reply(guard.Decision{Code: guard.CodeSystemUnavailable}, errors.New("503")))
				if how == "Keep" {
					go func() { _ = f.Keep(t.Context(), device, seen.do) }()
				} else {
					add(t, c, "0 0 * * * *", f.exact(seen.do, cronwrap.WithCatchUp()))
					c.Start()
					pass(time.Hour)
				}
				pass(time.Millisecond)
				if seen.count() != 0 {
					t.Error("there was no outage")
				}
				f.allow()
				f.Hint(device)
				pass(time.Second)
				if seen.count() != 1 {
					t.Errorf("%d runs a second after the hint", seen.count())
				}
				stop(t, c)
			})
		})
	}
}

// An authority whose permissions last a millisecond has a job begin again and again, but not at once each time.
func TestPermissionThatRunsOutAtOnce(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		f, c, seen := newFixture(t), newCron(t), &runs{}
		f.script.Always(device, guard.ValidatorFunc(func(context.Context, string) (guard.Decision, error) {
			return guard.Decision{Allowed: true, Code: guard.CodeAllow, ExpiresAt: time.Now().Add(time.Millisecond)}, nil
		}))
		add(t, c, "0 0 12 * * *", k.job(f, func(ctx context.Context) error {
			seen.note(ctx)
			return obey(ctx)
		}, cronwrap.WithCatchUp()))
		c.Start()
		pass(12*time.Hour + time.Minute)
		if n := seen.count(); n < 2 || n > 30 {
			t.Errorf("%d runs in a minute, at an interval of %v", n, f.Interval())
		}
		stop(t, c)
	})
}

// An interval beyond reason neither overflows into no wait at all, nor lets a job wait for ever: it is a day then.
func TestCatchUpWithAnIntervalBeyondReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, log := new(atomic.Int64), &journal{}
		refuse := runnerFunc(func(ctx context.Context, _ string, _ func(context.Context) error) error {
			if asked.Add(1) > 1000 {
				<-ctx.Done()
			}
			return &guard.DeniedError{Decision: guard.Decision{Code: guard.CodeDeviceRevoked}}
		})
		c := newCron(t)
		j := cronwrap.Job(withInterval{refuse, math.MaxInt64}, device, obey, cronwrap.WithCatchUp(), cronwrap.WithLogger(slog.New(log)))
		add(t, c, "0 0 12 * * *", j)
		c.Start()
		pass(12*time.Hour + time.Second)
		if asked.Load() != 1 {
			t.Errorf("%d questions in a second", asked.Load())
		}
		pass(36 * time.Hour)
		if asked.Load() != 2 {
			t.Errorf("%d questions in a day and a half", asked.Load())
		}
		stop(t, c)
	})
}

// flap has the authority allow every question at a start, and deny each at a renewal, and counts them.
func flap(f fixture) *atomic.Int64 {
	asked := new(atomic.Int64)
	f.script.Always(device, guard.ValidatorFunc(func(context.Context, string) (guard.Decision, error) {
		if asked.Add(1)%2 == 1 {
			return guard.Decision{Allowed: true, Code: guard.CodeAllow}, nil
		}
		return guard.Decision{Code: guard.CodeDeviceRevoked}, nil
	}))
	return asked
}

// A device that flaps has its job begin again and again, at two questions a time, and half an interval on average for
// each run; and every stop is told of.
func TestCatchUpOfADeviceThatFlaps(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		f, c, seen := newFixture(t), newCron(t), &runs{}
		asked := flap(f)
		add(t, c, "0 0 12 * * *", k.job(f, func(ctx context.Context) error {
			seen.note(ctx)
			return obey(ctx)
		}, cronwrap.WithCatchUp()))
		c.Start()
		pass(13 * time.Hour)
		stop(t, c)
		if n, intervals := asked.Load(), int64(time.Hour/f.Interval()); n > 5*intervals || n < intervals/2 {
			t.Errorf("%d questions in an hour of %d intervals", n, intervals)
		}
		if cuts := len(f.log.find("denied while it ran: stopped, to be caught up")); cuts < seen.count()-1 || seen.count() < 100 {
			t.Errorf("%d runs, %d stops were logged", seen.count(), cuts)
		}
	})
}
