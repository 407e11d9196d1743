package cronwrap_test

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/cronwrap"
	"github.com/execguard/execguard/guard"
)

// A Stop whose context has ended already tells that nothing runs, though cron says so on a goroutine of its own.
func TestStopOfAnIdleCronThatComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for range 100 {
			c := newCron(t)
			c.Start()
			if err := cronwrap.Stop(ctx, c); err != nil {
				t.Fatalf("nothing runs, and Stop: %v", err)
			}
		}
	})
}

// «Runs by hand … included»: Stop waits for them too, of which cron knows nothing.
func TestStopWaitsForRunsByHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c, over := newFixture(t), newCron(t), new(atomic.Bool)
		j := f.job(func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(time.Second)
			over.Store(true)
			return nil
		})
		add(t, c, "0 0 * * * *", j)
		go j.Run()
		synctest.Wait()
		if err := stopWithin(time.Minute, c); err != nil || !over.Load() {
			t.Errorf("Stop: %v; over: %t", err, over.Load())
		}
	})
}

// TestDenialDuringStop for a run that was caught up: its denial is known although Stop has ended it before.
func TestDenialDuringStopOfACaughtUpRun(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		f, c, seen := newFixture(t), newCron(t), &runs{}
		f.script.Deny(device, guard.CodePlanFrozen)
		add(t, c, "0 0 * * * *", k.job(f, func(ctx context.Context) error {
			seen.note(ctx)
			<-ctx.Done()
			time.Sleep(time.Minute)
			f.deny(t, guard.CodeDeviceRevoked)
			return nil
		}, cronwrap.WithCatchUp()))
		c.Start()
		pass(time.Hour + time.Minute)
		f.allow()
		pass(time.Minute)
		if err := stopWithin(time.Hour, c); err != nil {
			t.Errorf("Stop: %v", err)
		}
		f.log.want(t, slog.LevelWarn, "denied while it ran: stopped", "code", "DEVICE_REVOKED")
		if seen.count() != 1 {
			t.Errorf("%d runs", seen.count())
		}
	})
}

// family is a context that counts those that wait for its end.
type family struct {
	context.Context //nolint:containedctx // it is a context

	done     chan struct{}
	children atomic.Int64
}

func (f *family) Done() <-chan struct{} { return f.done }

func (f *family) AfterFunc(func()) (stop func() bool) {
	f.children.Add(1)
	return func() bool {
		f.children.Add(-1)
		return true
	}
}

// A job has a place in WithContext's context while it runs, and none when it is idle: jobs that come and go under one
// context would pile up there.
func TestIdleJobsAreNoBurden(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		f, base, c := newFixture(t), &family{Context: t.Context(), done: make(chan struct{})}, newCron(t)
		during := new(atomic.Int64)
		work := func(context.Context) error {
			during.Store(base.children.Load())
			return nil
		}
		j := k.job(f, work, cronwrap.WithContext(base), cronwrap.WithCatchUp())
		want := func(when string, running, idle int64) {
			t.Helper()
			if got := during.Swap(0); got != running || base.children.Load() != idle {
				t.Errorf("%s: %d places while it ran, want %d; %d afterwards, want %d", when, got, running, base.children.Load(), idle)
			}
		}
		j.Run()
		want("by hand", 1, 0)
		add(t, c, "0 0 * * * *", j)
		c.Start()
		pass(time.Hour + time.Minute)
		want("a tick", 1, 0)
		f.script.Deny(device, guard.CodeDeviceRevoked)
		pass(time.Hour)
		want("it waits", 0, 1)
		f.allow()
		pass(time.Minute)
		want("caught up", 1, 0)
		stop(t, c)
		want("stopped", 0, 0)
		j.Run()
		want("after Stop", 1, 0)
	})
}

// A run that ends takes its place along only if it is the last one, and none while a Stop goes on: what begins then is
// skipped, although the job has been idle.
func TestIdleJobBesideOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base, end := context.WithCancel(t.Context())
		defer end()
		f, c, seen := newFixture(t), newCron(t), &runs{}
		j := f.job(func(ctx context.Context) error {
			seen.note(ctx)
			if seen.count() == 1 {
				return obey(ctx)
			}
			return nil
		}, cronwrap.WithContext(base))
		add(t, c, "0 0 * * * *", j)
		add(t, c, "0 0 1 * * *", f.job(func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(time.Minute)
			return nil
		}))
		c.Start()
		pass(2*time.Hour + time.Minute)
		f.log.wantEmpty(t) // the first run goes on
		go func() {
			time.Sleep(30 * time.Second)
			j.Run()
			f.log.want(t, slog.LevelInfo, "skipped: its context has ended")
		}()
		if err := stopWithin(2*time.Minute, c); err != nil || seen.count() != 2 {
			t.Errorf("Stop: %v; %d runs", err, seen.count())
		}
	})
}
