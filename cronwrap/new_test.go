package cronwrap_test

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/execguard/execguard/cronwrap"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

// wrap is New's wrapper with the fixture's guard and log.
func (f fixture) wrap(more ...cronwrap.Option) cron.JobWrapper {
	return cronwrap.New(f.Guard, device, f.options(more...)...)
}

// «New gates the start of a plain cron.Job», for every code.
func TestNewGatesTheStart(t *testing.T) {
	for _, code := range everyCode {
		t.Run(string(code), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				c, ran := newCron(t, cron.WithChain(f.wrap())), new(atomic.Int64)
				id := addBare(t, c, "0 0 * * * *", cron.FuncJob(func() { ran.Add(1) }))
				c.Start()
				pass(time.Hour + time.Minute)
				f.script.Deny(device, code)
				pass(time.Hour)
				if ran.Load() != 1 {
					t.Errorf("%d runs, of two ticks one of which was denied", ran.Load())
				}
				f.log.want(t, slog.LevelWarn, "denied: skipped", "code", string(code), "device", device)
				c.Entry(id).WrappedJob.Run()
				if ran.Load() != 1 {
					t.Error("WrappedJob.Run goes round the guard")
				}
				c.Entry(id).Job.Run() // as New says
				if ran.Load() != 2 {
					t.Error("the plain job itself is guarded: who has done that?")
				}
				stop(t, c)
			})
		})
	}
}

// «… and says that it cannot stop one»: it runs to its end, and that is logged.
func TestNewCannotStopAPlainJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, ended := newFixture(t), false
		f.wrap()(cron.FuncJob(func() {
			f.deny(t, guard.CodeDeviceRevoked)
			time.Sleep(time.Hour)
			ended = true
		})).Run()
		f.log.want(t, slog.LevelWarn, "cronwrap: denied while it ran: a plain job cannot be stopped, and has run to its end", "code", "DEVICE_REVOKED")
		if !ended {
			t.Error("it was stopped")
		}
	})
}

// A panic of a plain job, and Goexit, go on unwinding as they would without us, and the guard has let go.
func TestNewLetsPanicsThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, ran := newFixture(t), new(atomic.Int64)
		j := f.wrap(cronwrap.WithErrorHandler(func(err error) { t.Errorf("handled %v", err) }))(cron.FuncJob(func() {
			ran.Add(1)
			panic("boom")
		}))
		for range 3 {
			func() {
				defer func() {
					if v := recover(); v != "boom" {
						t.Errorf("recovered %v", v)
					}
				}()
				j.Run()
			}()
		}
		exits := make(chan struct{})
		go func() {
			defer close(exits)
			f.wrap()(cron.FuncJob(runtime.Goexit)).Run()
			t.Error("the goroutine goes on")
		}()
		<-exits
		if ran.Load() != 3 {
			t.Errorf("%d runs", ran.Load())
		}
		f.log.wantEmpty(t)
		wantIdle(t, f)
	})
}

// The same for a run that is caught up: the next tick is there.
func TestNewLetsPanicsThroughWhenItCatchesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, ran := newFixture(t), new(atomic.Int64)
		c := newCron(t, cron.WithChain(cron.Recover(cron.DiscardLogger), f.wrap(cronwrap.WithCatchUp())))
		addBare(t, c, "0 0 * * * *", cron.FuncJob(func() {
			ran.Add(1)
			panic("boom")
		}))
		f.script.Deny(device, guard.CodeDeviceRevoked)
		c.Start()
		pass(90 * time.Minute)
		f.allow()
		pass(2 * time.Hour)
		stop(t, c)
		if ran.Load() != 3 {
			t.Errorf("%d runs, one caught up and two ticks", ran.Load())
		}
	})
}

// New around a job of ours: both guards are asked, and either stops it, with its own code.
func TestNewAroundAJob(t *testing.T) {
	for name, around := range map[string]func(cron.Job) cron.Job{
		"directly": func(j cron.Job) cron.Job { return j },
		"a skip":   cronwrap.SkipIfStillRunning(cron.DiscardLogger),
	} {
		for _, who := range []string{"outer", "inner"} {
			t.Run(name+", "+who, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					outer, inner := newFixture(t), newFixture(t)
					denier := map[string]fixture{"outer": outer, "inner": inner}[who]
					var cause, checked error
					ran := new(atomic.Int64)
					base := colour.With(t.Context(), "blue")
					j := outer.wrap(cronwrap.WithName("around"))(around(inner.job(func(ctx context.Context) error {
						ran.Add(1)
						if v, _ := colour.From(ctx); v != "blue" {
							t.Errorf("colour = %q", v)
						}
						denier.deny(t, guard.CodePlanFrozen)
						<-ctx.Done()
						cause, checked = context.Cause(ctx), guard.Checkpoint(ctx)
						return ctx.Err()
					}, cronwrap.WithContext(base), cronwrap.WithErrorHandler(func(err error) { t.Errorf("handled %v", err) }))))
					j.Run()
					wantDenial(t, cause, guard.CodePlanFrozen)
					wantDenial(t, checked, guard.CodePlanFrozen)
					denier.log.want(t, slog.LevelWarn, "denied while it ran: stopped", "code", "PLAN_FROZEN")
					j.Run()
					denier.log.want(t, slog.LevelWarn, "denied: skipped", "code", "PLAN_FROZEN")
					if ran.Load() != 1 {
						t.Errorf("%d runs", ran.Load())
					}
				})
			})
		}
	}
}

// What a job returns that has nothing to do with the outer guard's denial is its own error.
func TestErrorOfANestedJobThatWasStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outer, inner, seen := newFixture(t), newFixture(t), &errorsSeen{}
		own := errors.New("the disk is full")
		outer.wrap()(inner.job(func(context.Context) error {
			outer.deny(t, guard.CodePlanFrozen)
			return own
		}, cronwrap.WithErrorHandler(seen.handle))).Run()
		if all := seen.list(); len(all) != 1 || all[0] != own {
			t.Errorf("handled %v", all)
		}
		outer.log.want(t, slog.LevelWarn, "denied while it ran: stopped", "code", "PLAN_FROZEN")
	})
}

// Stop and the end of either's WithContext reach a job inside of another.
func TestEndsReachANestedJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		over := errors.New("over")
		for _, who := range []int{0, 1, 2} {
			var ctx [2]context.Context
			var end [2]context.CancelCauseFunc
			for i := range ctx {
				ctx[i], end[i] = context.WithCancelCause(t.Context())
			}
			c := newCron(t, cron.WithChain(f.wrap(cronwrap.WithContext(ctx[0]))))
			var cause error
			add(t, c, "0 0 * * * *", f.job(func(ctx context.Context) error {
				<-ctx.Done()
				cause = context.Cause(ctx)
				return nil
			}, cronwrap.WithContext(ctx[1])))
			c.Start()
			pass(time.Hour + time.Minute)
			if who < 2 {
				end[who](over)
				synctest.Wait()
			}
			stop(t, c)
			if cause == nil || (cause == over) != (who < 2) {
				t.Errorf("end %d: cause = %v", who, cause)
			}
			end[0](nil)
			end[1](nil)
		}
	})
}

// Pitfall 2: New goes last in the chain, so that ticks which are skipped anyway ask nobody.
func TestNewGoesLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		c := newCron(t, cron.WithChain(cronwrap.SkipIfStillRunning(cron.DiscardLogger), f.wrap()))
		f.script.Always(device, guardtest.Delay(time.Second, guardtest.Reply(guard.Decision{Allowed: true, Code: guard.CodeAllow}, nil)))
		addBare(t, c, "0 * * * * *", cron.FuncJob(func() { time.Sleep(9*time.Minute + 30*time.Second) }))
		c.Start()
		pass(10*time.Minute + 50*time.Second)
		asked := len(f.script.Calls())
		watch := int((9*time.Minute+30*time.Second)/f.Interval()) + 2
		if asked > 1+watch {
			t.Errorf("%d questions, for one run", asked)
		}
		stop(t, c)
	})
}
