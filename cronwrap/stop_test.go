package cronwrap_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/execguard/execguard/cronwrap"
	"github.com/execguard/execguard/guard"
)

// stopWithin calls Stop with a context that ends after d.
func stopWithin(d time.Duration, c *cron.Cron) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), d, errLate)
	defer cancel()
	return cronwrap.Stop(ctx, c)
}

var errLate = errors.New("the service must end")

// «Stop scheduling, cancel what runs, wait for it»: ticks and runs by hand alike.
func TestStopCancelsAndWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c, ended := newFixture(t), newCron(t), new(atomic.Int64)
		j := f.job(func(ctx context.Context) error {
			<-ctx.Done()
			if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) || !strings.Contains(cause.Error(), "stopped") {
				t.Errorf("cause = %v", cause)
			}
			time.Sleep(3 * time.Second) // its cleaning up
			ended.Add(1)
			return context.Cause(ctx)
		}, cronwrap.WithName("report"))
		add(t, c, "0 0 * * * *", j)
		c.Start()
		pass(time.Hour + time.Minute)
		go j.Run()
		synctest.Wait()
		began := time.Now()
		if err := stopWithin(time.Minute, c); err != nil || ended.Load() != 2 {
			t.Errorf("err = %v, %d runs have ended", err, ended.Load())
		}
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("took %v", took)
		}
		if n := len(f.log.find("ended with its context")); n != 2 {
			t.Errorf("logged: %v", f.log.find(""))
		}
		pass(time.Hour)
		if ended.Load() != 2 {
			t.Error("it goes on")
		}
		if err := stopWithin(0, c); err != nil { // a second Stop is harmless
			pass(time.Millisecond) // though cron's own goroutine may not have had the time
			err = stopWithin(time.Millisecond, c)
			if err != nil {
				t.Errorf("the second Stop: %v", err)
			}
		}
	})
}

// A job that does not obey: Stop returns when its own context ends, with the cause, and names who still runs.
func TestStopWithAStuckJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c := newFixture(t), newCron(t)
		release, seen := make(chan struct{}), &runs{}
		stuck := func(context.Context) error { <-release; return nil }
		add(t, c, "0 0 * * * *", f.job(stuck, cronwrap.WithName("report")))
		nameless := addBare(t, c, "0 0 * * * *", f.job(stuck))
		add(t, c, "0 0,59 * * * *", f.job(seen.do, cronwrap.WithName("quick")))
		c.Start()
		pass(time.Hour + time.Minute)
		began := time.Now()
		err := stopWithin(5*time.Second, c)
		if took := time.Since(began); !errors.Is(err, errLate) || took != 5*time.Second {
			t.Errorf("err = %v after %v", err, took)
		}
		for word, want := range map[string]bool{`"report"`: true, fmt.Sprint("entry ", nameless): true, "quick": false} {
			if strings.Contains(err.Error(), word) != want {
				t.Errorf("err = %v: it names %s: %t, want %t", err, word, !want, want)
			}
		}
		// Start after Stop: who is not stuck runs as before, and a stuck one beside its stuck run.
		c.Start()
		pass(time.Hour)
		if seen.count() != 4 {
			t.Errorf("%d runs of the quick job", seen.count())
		}
		close(release)
		if err := stopWithin(time.Second, c); err != nil {
			t.Errorf("Stop: %v", err)
		}
	})
}

// A plain job cannot be cancelled; Stop waits for it, and names it where New is the outermost wrapper.
func TestStopWithAPlainJob(t *testing.T) {
	for name, test := range map[string]struct {
		chain []cron.JobWrapper
		want  string
	}{
		"of New":          {[]cron.JobWrapper{}, `"plain"`},
		"of New, further": {[]cron.JobWrapper{cron.Recover(cron.DiscardLogger)}, "a job that Stop cannot cancel"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, release := newFixture(t), make(chan struct{})
				c := newCron(t, cron.WithChain(append(test.chain, cronwrap.New(f, device, cronwrap.WithName("plain")))...))
				addBare(t, c, "0 0 * * * *", cron.FuncJob(func() { <-release }))
				c.Start()
				pass(time.Hour + time.Minute)
				if err := stopWithin(time.Second, c); !errors.Is(err, errLate) || !strings.Contains(err.Error(), test.want) {
					t.Errorf("err = %v", err)
				}
				close(release)
				if err := stopWithin(time.Second, c); err != nil {
					t.Errorf("err = %v", err)
				}
			})
		})
	}
}

// Runs that begin while Stop waits are skipped, those by hand too; afterwards they run again.
func TestRunsThatBeginWhileStopWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c, ran := newFixture(t), newCron(t), new(atomic.Int64)
		j := f.job(func(ctx context.Context) error {
			ran.Add(1)
			if ran.Load() == 1 {
				<-ctx.Done()
				time.Sleep(time.Minute)
			}
			return nil
		})
		add(t, c, "0 0 * * * *", j)
		c.Start()
		pass(time.Hour + time.Minute)
		go func() {
			time.Sleep(30 * time.Second)
			j.Run()
			f.log.want(t, slog.LevelInfo, "skipped: its context has ended")
		}()
		// Two Stops at once: the first that returns does not open the door for the second's.
		both := make(chan error, 1)
		go func() { both <- stopWithin(time.Second, c) }()
		if err := stopWithin(2*time.Minute, c); err != nil {
			t.Errorf("Stop: %v", err)
		}
		if err := <-both; !errors.Is(err, errLate) {
			t.Errorf("the other Stop: %v", err)
		}
		if ran.Load() != 1 {
			t.Errorf("%d runs", ran.Load())
		}
		j.Run()
		if ran.Load() != 2 {
			t.Error("after Stop it cannot be run by hand")
		}
		synctest.Wait() // cron's own goroutine of the other Stop may not be used to another Start
		c.Start()
		pass(time.Hour)
		stop(t, c)
		if ran.Load() != 3 {
			t.Errorf("after Start: %d runs", ran.Load())
		}
	})
}

// Stop finds our jobs through our own wrappers, each once, also one that was added twice.
func TestStopFindsJobsThroughWrappers(t *testing.T) {
	for name, chain := range map[string][]cron.JobWrapper{
		"none": nil,
		"ours": {cronwrap.SkipIfStillRunning(cron.DiscardLogger)},
		"New":  {cronwrap.New(runnerFunc(allowing), device, cronwrap.WithName("outer")), cronwrap.SkipIfStillRunning(cron.DiscardLogger)},
		"cron": {cron.Recover(cron.DiscardLogger), cron.SkipIfStillRunning(cron.DiscardLogger)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, c := newFixture(t), newCron(t, cron.WithChain(chain...))
				release := make(chan struct{})
				j := f.job(func(ctx context.Context) error {
					<-ctx.Done()
					<-release
					return nil
				}, cronwrap.WithName("inner"))
				add(t, c, "0 0 * * * *", j)
				add(t, c, "0 30 * * * *", j)
				c.Start()
				pass(time.Hour + time.Minute)
				err := stopWithin(time.Second, c)
				want := 1
				if name == "New" {
					want = 2
				}
				if err == nil || strings.Count(err.Error(), "inner") != 1 || strings.Count(err.Error(), `"`) != 2*want {
					t.Errorf("err = %v", err)
				}
				close(release)
				stop(t, c)
			})
		})
	}
}

// allowing is a Runner that allows everything.
func allowing(ctx context.Context, _ string, fn func(context.Context) error) error { return fn(ctx) }

// A Cron that was never started, and none at all.
func TestStopOfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c := newFixture(t), newCron(t)
		j := f.job(obey, cronwrap.WithName("report"))
		add(t, c, "0 0 * * * *", j)
		go j.Run() // by hand, the only way here
		synctest.Wait()
		if err := stopWithin(time.Second, c); err != nil {
			t.Errorf("Stop: %v", err)
		}
		if err := cronwrap.Stop(t.Context(), nil); err == nil {
			t.Error("Stop(nil): no error")
		}
	})
}

// An end of its context that has come before does not hide that everything has ended.
func TestStopThatComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c, release := newFixture(t), newCron(t), make(chan struct{})
		add(t, c, "0 0 * * * *", f.job(func(context.Context) error { <-release; return nil }, cronwrap.WithName("report")))
		c.Start()
		pass(time.Hour + time.Minute)
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errLate)
		if err := cronwrap.Stop(ctx, c); !errors.Is(err, errLate) || !strings.Contains(err.Error(), "report") {
			t.Errorf("err = %v", err)
		}
		close(release)
		stop(t, c)
	})
}

// A denial that comes while Stop waits is one all the same, and is not caught up.
func TestDenialDuringStop(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		f, c, seen := newFixture(t), newCron(t), &runs{}
		add(t, c, "0 0 * * * *", k.job(f, func(ctx context.Context) error {
			seen.note(ctx)
			<-ctx.Done()
			time.Sleep(time.Minute)
			f.deny(t, guard.CodeDeviceRevoked)
			return nil
		}, cronwrap.WithCatchUp()))
		c.Start()
		pass(time.Hour + time.Minute)
		if err := stopWithin(time.Hour, c); err != nil {
			t.Errorf("Stop: %v", err)
		}
		f.log.want(t, slog.LevelWarn, "denied while it ran: stopped", "code", "DEVICE_REVOKED")
		if seen.count() != 1 || len(f.log.find("")) != 1 {
			t.Errorf("%d runs, logged: %v", seen.count(), f.log.find(""))
		}
	})
}
