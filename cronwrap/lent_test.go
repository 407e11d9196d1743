package cronwrap_test

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/execguard/execguard/cronwrap"
	"github.com/execguard/execguard/guard"
)

// A tick that waits behind a run over a Stop and a Start, as with cron.DelayIfStillRunning, has its own time, and not
// that of the next tick, which is announced when the Cron starts and has not come yet.
func TestDelayedTickOverAStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, seen := newFixture(t), &runs{}
		c := newCron(t, cron.WithChain(delay))
		add(t, c, "0 0 * * * *", f.job(func(ctx context.Context) error {
			seen.note(ctx)
			select {
			case <-ctx.Done():
			case <-time.After(90 * time.Minute):
			}
			return nil
		}))
		c.Start()
		pass(2*time.Hour + 10*time.Minute) // that of 02:00 waits for that of 01:00
		c.Stop()
		c.Start()
		pass(30 * time.Minute)
		wantTimes(t, seen.scheduled(), day(1, 0, 0), day(2, 0, 0))
		stop(t, c)
	})
}

// delay is cron.DelayIfStillRunning with a channel for its lock: a bubble's time stands still while somebody waits for
// a sync.Mutex.
func delay(j cron.Job) cron.Job {
	free := make(chan struct{}, 1)
	return cron.FuncJob(func() {
		free <- struct{}{}
		defer func() { <-free }()
		j.Run()
	})
}

// A tick that SkipIfStillRunning has skipped behind a run at work was not missed: a wait that begins later, of a
// tick without a time, has none of its.
func TestTickSkippedBehindARunIsNotMissed(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		f, c, bare, seen := newFixture(t), newCron(t), newCron(t), &runs{}
		j := k.job(f, func(ctx context.Context) error {
			seen.note(ctx)
			select {
			case <-ctx.Done():
			case <-time.After(90 * time.Minute):
			}
			return nil
		}, cronwrap.WithCatchUp())
		add(t, c, "0 0 * * * *", cronwrap.SkipIfStillRunning(cron.DiscardLogger)(j))
		addBare(t, bare, "0 0 * * * *", j)
		c.Start()
		pass(2*time.Hour + 45*time.Minute) // 02:00 was skipped, and nobody waits
		stop(t, c)
		f.script.Deny(device, guard.CodeDeviceRevoked)
		bare.Start()
		pass(time.Hour)
		f.allow()
		pass(time.Minute)
		wantTimes(t, seen.scheduled(), day(1, 0, 0), time.Time{})
		stop(t, bare)
	})
}

// Who waits inside of New's run is told of the denial that ends it: with its code, and not only that a context has ended.
func TestWaitThatEndsWithTheOuterRun(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		outer, inner, c, seen := newFixture(t), newFixture(t), newCron(t), &runs{}
		add(t, c, "0 0 12 * * *", outer.wrap()(k.job(inner, seen.do, cronwrap.WithCatchUp())))
		inner.script.Deny(device, guard.CodeDeviceRevoked)
		c.Start()
		pass(12*time.Hour + time.Minute)
		inner.log.want(t, slog.LevelWarn, "denied: to be caught up", "code", "DEVICE_REVOKED")
		outer.deny(t, guard.CodePlanFrozen)
		pass(time.Minute)
		inner.log.want(t, slog.LevelWarn, "cronwrap: denied: skipped", "code", "PLAN_FROZEN")
		outer.log.want(t, slog.LevelWarn, "denied while it ran: stopped", "code", "PLAN_FROZEN")
		stop(t, c)
		if seen.count() != 0 {
			t.Errorf("%d runs", seen.count())
		}
	})
}

// A run that is not let begin because the one that it stands in was denied meanwhile is told of with that denial's code.
func TestOuterDenialBeforeTheQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outer, inner, seen := newFixture(t), newFixture(t), &runs{}
		between := runnerFunc(func(ctx context.Context, _ string, fn func(context.Context) error) error {
			outer.deny(t, guard.CodePlanFrozen)
			return fn(ctx)
		})
		outer.wrap()(cronwrap.New(between, device, inner.options()...)(inner.job(seen.do))).Run()
		inner.log.want(t, slog.LevelWarn, "cronwrap: denied: skipped", "code", "PLAN_FROZEN")
		if n := len(inner.script.Calls()); n != 0 || seen.count() != 0 {
			t.Errorf("%d questions, %d runs", n, seen.count())
		}
	})
}

// A Runner that has an error of its own after the job says nothing of a stop: the job may have done its work, and is not
// run again.
func TestRunnerThatFailsAfterwardsIsNotCaughtUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c, seen := newFixture(t), newCron(t), &runs{}
		r := runnerFunc(func(ctx context.Context, _ string, fn func(context.Context) error) error {
			_ = fn(ctx)
			return errors.New("odd")
		})
		add(t, c, "0 0 12 * * *", cronwrap.Job(r, device, seen.do, f.options(cronwrap.WithCatchUp())...))
		c.Start()
		pass(13 * time.Hour)
		stop(t, c)
		if seen.count() != 1 {
			t.Errorf("%d runs", seen.count())
		}
		f.log.want(t, slog.LevelWarn, "denied while it ran: stopped", "code", "SYSTEM_UNAVAILABLE", "error", "odd")
	})
}

// The shortest interval that there is does not overflow into none, or less.
func TestCatchUpWithTheShortestInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c, seen, asked := newFixture(t), newCron(t), &runs{}, new(atomic.Int64)
		r := runnerFunc(func(ctx context.Context, id string, fn func(context.Context) error) error {
			if asked.Add(1) <= 10 {
				return &guard.DeniedError{Decision: guard.Decision{Code: guard.CodeDeviceRevoked}}
			}
			return f.Run(ctx, id, fn)
		})
		add(t, c, "0 0 12 * * *", cronwrap.Job(withInterval{r, 1}, device, seen.do, f.options(cronwrap.WithCatchUp())...))
		c.Start()
		pass(12*time.Hour + time.Minute)
		stop(t, c)
		if asked.Load() != 11 || seen.count() != 1 {
			t.Errorf("%d questions, %d runs", asked.Load(), seen.count())
		}
	})
}

// A handler of logs finds WithContext's values in the context of every record, that of a tick which is skipped included.
func TestRecordsHaveTheContextOfTheJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c, seen, coloured := newFixture(t), newCron(t), &runs{}, &inColour{}
		base := colour.With(t.Context(), "blue")
		add(t, c, "0 0 * * * *", f.exact(seen.do, cronwrap.WithContext(base), cronwrap.WithCatchUp(), cronwrap.WithLogger(slog.New(coloured))))
		f.script.Deny(device, guard.CodeDeviceRevoked)
		c.Start()
		pass(3*time.Hour + time.Minute)
		stop(t, c)
		if len(coloured.find("skipped: a missed run is waiting")) != 2 || len(coloured.find("")) < 3 || coloured.bare.Load() != 0 {
			t.Errorf("logged %v, %d of them without the colour", coloured.find(""), coloured.bare.Load())
		}
	})
}

// inColour is a journal that counts the records whose context has no colour.
type inColour struct {
	journal

	bare atomic.Int64
}

func (c *inColour) Handle(ctx context.Context, r slog.Record) error {
	if ctx == nil {
		c.bare.Add(1)
	} else if v, _ := colour.From(ctx); v != "blue" {
		c.bare.Add(1)
	}
	return c.journal.Handle(ctx, r)
}
