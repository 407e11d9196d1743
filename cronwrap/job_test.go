package cronwrap_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/execguard/execguard/contextx"
	"github.com/execguard/execguard/cronwrap"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

// Every code that a guard knows, and one that it does not.
var everyCode = []guard.Code{
	guard.CodeOrgDisabled, guard.CodeSystemUnavailable, guard.CodePlanFrozen, guard.CodePlanNotActive,
	guard.CodeEntitlementExpired, guard.CodeDeviceRevoked, guard.CodeDeviceNotFound, guard.CodeOrgNotFound,
	guard.CodeInvalidOrgKey, guard.CodeInvalidDeviceID, "MOON_IN_THE_WRONG_PHASE",
}

// «Job has what cron's own interface lacks: a context and an error».
func TestJobRunsOnEveryTickThatIsAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c, seen := newFixture(t), newCron(t), &runs{}
		addBare(t, c, "0 * * * * *", f.job(func(ctx context.Context) error {
			if err := guard.Checkpoint(ctx); err != nil {
				t.Errorf("Checkpoint: %v", err)
			}
			if d, ok := guard.DecisionFrom(ctx); !ok || d.Code != guard.CodeAllow {
				t.Errorf("DecisionFrom: %+v, %t", d, ok)
			}
			return seen.do(ctx)
		}))
		c.Start()
		pass(10*time.Minute + time.Second)
		stop(t, c)
		if n := seen.count(); n != 10 {
			t.Errorf("%d runs in ten minutes", n)
		}
		if n := len(f.script.Calls()); n != 10 {
			t.Errorf("%d questions for ten runs", n)
		}
		f.log.wantEmpty(t)
	})
}

// «A refused tick is logged with code and request id and skipped.» Every constant of guard's code.go.
func TestEveryCodeBeforeTheStart(t *testing.T) {
	for _, code := range everyCode {
		for _, catchUp := range []bool{false, true} {
			t.Run(fmt.Sprint(code, catchUp), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f, c, seen := newFixture(t), newCron(t), &runs{}
					f.script.Deny(device, code)
					opts := []cronwrap.Option{cronwrap.WithName("report")}
					then := "skipped"
					if catchUp {
						opts = append(opts, cronwrap.WithCatchUp())
						then = "to be caught up"
						if code == guard.CodeInvalidDeviceID {
							then = "skipped" // no authority will ever allow that
						}
					}
					add(t, c, "0 0 * * * *", f.exact(seen.do, opts...))
					c.Start()
					pass(time.Hour + time.Millisecond)
					f.log.want(t, slog.LevelWarn, "denied: "+then, "job", "report", "device", device, "code", string(code),
						"request_id", "script-1", "scheduled", day(1, 0, 0).String())
					stop(t, c)
					if seen.count() != 0 {
						t.Error("the job has run")
					}
				})
			})
		}
	}
}

// «Run's context is cancelled with the cause»: every constant, in mid-run. B1.
func TestEveryCodeWhileItRuns(t *testing.T) {
	for _, code := range everyCode {
		t.Run(string(code), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, c := newFixture(t), newCron(t)
				handled := new(atomic.Int64)
				var cause error
				var ended time.Time
				add(t, c, "0 0 * * * *", f.job(func(ctx context.Context) error {
					err := obey(ctx)
					cause, ended = context.Cause(ctx), time.Now()
					return err
				}, cronwrap.WithErrorHandler(func(error) { handled.Add(1) })))
				c.Start()
				pass(time.Hour + 30*time.Second)
				f.script.Deny(device, code)
				revoked := time.Now()
				pass(f.StopBound())
				if ended.IsZero() || ended.Sub(revoked) > f.StopBound() {
					t.Fatalf("revoked at %v, stopped at %v", revoked, ended)
				}
				denied := wantDenial(t, cause, code)
				if !denied.InFlight || !errors.Is(cause, context.Canceled) {
					t.Errorf("cause = %v", cause)
				}
				f.log.want(t, slog.LevelWarn, "denied while it ran: stopped", "code", string(code), "request_id", denied.Decision.RequestID, "device", device,
					"scheduled", day(1, 0, 0).String())
				if handled.Load() != 0 {
					t.Error("the error handler was told of a denial, which is no error of the job's")
				}
				stop(t, c)
			})
		})
	}
}

// Run's error is the very same.
func TestErrorsOfTheJobsOwn(t *testing.T) {
	own := errors.New("the disk is full")
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		var handled []error
		f.job(func(context.Context) error { return own }, cronwrap.WithErrorHandler(func(err error) { handled = append(handled, err) })).Run()
		if len(handled) != 1 || handled[0] != own {
			t.Errorf("handled %v", handled)
		}
		f.log.wantEmpty(t) // the handler stands in the place of the log
		f.job(func(context.Context) error { return own }, cronwrap.WithName("backup")).Run()
		f.log.want(t, slog.LevelError, "failed", "job", "backup", "error", own.Error())
	})
}

// An error that cannot be compared is the job's own too.
func TestErrorThatCannotBeCompared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		handled := new(atomic.Int64)
		f.job(func(context.Context) error { return odd{"x"} }, cronwrap.WithErrorHandler(func(err error) {
			if _, ok := err.(odd); ok {
				handled.Add(1)
			}
		})).Run()
		if handled.Load() != 1 {
			t.Errorf("handled %d times", handled.Load())
		}
	})
}

type odd []string

func (odd) Error() string { return "odd" }

// A job that does not heed its context, or makes light of it, was stopped all the same: its nil does not count.
func TestDenialCountsWhateverTheJobReturns(t *testing.T) {
	for name, returned := range map[string]error{"nil": nil, "an error": errors.New("half done"), "Canceled": context.Canceled} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.job(func(context.Context) error {
					f.deny(t, guard.CodeDeviceRevoked)
					return returned
				}, cronwrap.WithErrorHandler(func(err error) { t.Errorf("handled %v", err) })).Run()
				r := f.log.want(t, slog.LevelWarn, "denied while it ran: stopped", "code", "DEVICE_REVOKED")
				if name == "an error" && !strings.Contains(r.attrs["error"], "half done") {
					t.Errorf("error=%q: what the job returned is lost", r.attrs["error"])
				}
			})
		})
	}
}

// «ErrClosed … cronwrap skips the tick».
func TestClosedGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c, seen := newFixture(t), newCron(t), &runs{}
		add(t, c, "0 * * * * *", f.exact(func(ctx context.Context) error {
			seen.note(ctx)
			return obey(ctx)
		}, cronwrap.WithCatchUp()))
		c.Start()
		pass(90 * time.Second)
		_ = f.Close() // in mid-run
		synctest.Wait()
		f.log.want(t, slog.LevelWarn, "guard closed while it ran: stopped", "device", device)
		pass(time.Minute)
		f.log.want(t, slog.LevelWarn, "guard closed: skipped", "scheduled", day(0, 2, 0).String())
		if seen.count() != 1 {
			t.Errorf("%d runs", seen.count())
		}
		select { // nothing waits to be caught up: cron's own Stop has nothing to wait for
		case <-c.Stop().Done():
		case <-time.After(time.Millisecond):
			t.Error("a run goes on")
		}
	})
}

// A run that waits to be caught up ends when the guard is closed.
func TestClosedGuardEndsTheWait(t *testing.T) {
	for name, job := range map[string]func(f fixture, fn func(context.Context) error, opts ...cronwrap.Option) cron.Job{
		"a Guard": fixture.exact, "another Runner": fixture.job,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, c, seen := newFixture(t), newCron(t), &runs{}
				f.script.Deny(device, guard.CodeDeviceRevoked)
				add(t, c, "0 0 * * * *", job(f, seen.do, cronwrap.WithCatchUp()))
				c.Start()
				pass(time.Hour + time.Minute)
				_ = f.Close()
				pass(20 * time.Second)
				f.log.want(t, slog.LevelWarn, "guard closed: skipped")
				select {
				case <-c.Stop().Done():
				case <-time.After(time.Millisecond):
					t.Error("it still waits")
				}
			})
		})
	}
}

var colour = contextx.NewKey[string]("colour")

// WithContext: the runs have its values, end with it, and do not begin after it.
func TestBaseContext(t *testing.T) {
	over := errors.New("the service ends")
	synctest.Test(t, func(t *testing.T) {
		f, c := newFixture(t), newCron(t)
		base, end := context.WithCancelCause(colour.With(t.Context(), "blue"))
		ran := new(atomic.Int64)
		var cause error
		addBare(t, c, "0 * * * * *", f.job(func(ctx context.Context) error {
			ran.Add(1)
			if v, _ := colour.From(ctx); v != "blue" {
				t.Errorf("colour = %q", v)
			}
			err := obey(ctx)
			cause = context.Cause(ctx)
			return err
		}, cronwrap.WithContext(base)))
		c.Start()
		pass(90 * time.Second)
		end(over)
		synctest.Wait()
		if cause != over {
			t.Errorf("cause = %v", cause)
		}
		f.log.want(t, slog.LevelInfo, "ended with its context", "error", "context canceled")
		pass(time.Minute)
		f.log.want(t, slog.LevelInfo, "skipped: its context has ended", "error", over.Error())
		if ran.Load() != 1 || len(f.script.Calls()) > 5 {
			t.Errorf("%d runs, %d questions", ran.Load(), len(f.script.Calls()))
		}
		stop(t, c)
		c.Start() // does not bring back what has ended
		pass(time.Minute)
		if ran.Load() != 1 {
			t.Errorf("%d runs", ran.Load())
		}
		stop(t, c)
	})
}

// An error that has nothing to do with the end of the context is one, also then.
func TestErrorAtTheEndOfTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		base, end := context.WithCancel(t.Context())
		own := errors.New("the disk is full")
		f.job(func(context.Context) error { end(); return own }, cronwrap.WithContext(base)).Run()
		f.log.want(t, slog.LevelError, "failed", "error", own.Error())
	})
}

// «Panics are caught, reported with their stack, and cannot stop the job for ever».
func TestPanics(t *testing.T) {
	inner := errors.New("index out of order")
	for name, value := range map[string]any{
		"an error": inner, "a string": "boom", "a number": 7, "a struct": struct{ secret string }{"hush"}, "nil": nil,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, c := newFixture(t), newCron(t)
				ran := new(atomic.Int64)
				seen := &errorsSeen{}
				add(t, c, "0 * * * * *", f.job(func(context.Context) error {
					ran.Add(1)
					panic(value)
				}, cronwrap.WithErrorHandler(seen.handle)))
				c.Start()
				pass(time.Minute + time.Second)
				r := f.log.want(t, slog.LevelError, "panicked", "scheduled", day(0, 1, 0).String())
				if !strings.Contains(r.attrs["stack"], "job_test.go") || strings.Contains(fmt.Sprint(r.attrs), "hush") {
					t.Errorf("logged: %v", r.attrs)
				}
				handled := seen.list()
				if len(handled) != 1 || errors.Is(handled[0], inner) != (value == inner) || !strings.Contains(r.attrs["error"], handled[0].Error()) {
					t.Errorf("handled %v, logged %q", handled, r.attrs["error"])
				}
				if strings.Contains(fmt.Sprintf("%v %+v %#v", handled, handled, handled[0]), "hush") {
					t.Error("the value's fields are printed")
				}
				pass(9 * time.Minute)
				stop(t, c)
				if ran.Load() != 10 {
					t.Errorf("%d runs in ten minutes", ran.Load())
				}
			})
		})
	}
}

// A panic is reported once, with and without a handler, also in a run that was stopped; then the denial is too.
func TestPanicOfARunThatWasStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.job(func(ctx context.Context) error {
			f.deny(t, guard.CodeDeviceRevoked)
			<-ctx.Done()
			panic("boom")
		}).Run()
		f.log.want(t, slog.LevelError, "panicked", "error", `cronwrap: the job panicked: "boom"`)
		f.log.want(t, slog.LevelWarn, "denied while it ran: stopped", "code", "DEVICE_REVOKED")
		if n := len(f.log.find("")); n != 2 {
			t.Errorf("%d records", n)
		}
		wantIdle(t, f)
	})
}

// A panic of the error handler itself must not stop the job for ever either.
func TestPanicOfTheErrorHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c := newFixture(t), newCron(t)
		ran := new(atomic.Int64)
		add(t, c, "0 * * * * *", f.job(func(context.Context) error {
			if ran.Add(1)%2 == 0 {
				panic("boom")
			}
			return errors.New("own")
		}, cronwrap.WithErrorHandler(func(error) { panic("the handler") })))
		c.Start()
		pass(4*time.Minute + time.Second)
		stop(t, c)
		if n := len(f.log.find("the error handler panicked")); ran.Load() != 4 || n != 4 {
			t.Errorf("%d runs, %d records", ran.Load(), n)
		}
		if n := len(f.log.find("the job panicked")); n != 2 {
			t.Errorf("%d panics of the job were logged", n)
		}
	})
}

// A log that panics, too.
func TestPanicOfTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.script.Deny(device, guard.CodeDeviceRevoked)
		j := cronwrap.Job(f, device, obey, cronwrap.WithLogger(slog.New(deaf{})))
		j.Run()
		j.Run()
		f.allow()
		cronwrap.Job(f, device, func(context.Context) error { panic("boom") }, cronwrap.WithLogger(slog.New(deaf{}))).Run()
		wantIdle(t, f)
	})
}

type deaf struct{}

func (deaf) Enabled(context.Context, slog.Level) bool  { return true }
func (deaf) Handle(context.Context, slog.Record) error { panic("the log") }
func (d deaf) WithAttrs([]slog.Attr) slog.Handler      { return d }
func (d deaf) WithGroup(string) slog.Handler           { return d }
func (deaf) String() string                            { return "deaf" }

// runtime.Goexit ends cron's goroutine, and the job is there for the next tick.
func TestGoexit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c := newFixture(t), newCron(t, cron.WithChain(cronwrap.SkipIfStillRunning(cron.DiscardLogger)))
		ran := new(atomic.Int64)
		add(t, c, "0 * * * * *", f.job(func(context.Context) error {
			ran.Add(1)
			runtime.Goexit()
			return nil
		}))
		c.Start()
		pass(10*time.Minute + time.Second)
		stop(t, c)
		if ran.Load() != 10 {
			t.Errorf("%d runs in ten minutes", ran.Load())
		}
		wantIdle(t, f)
	})
}

// wantIdle fails the test unless the guard has let go of every run.
func wantIdle(t testing.TB, f fixture) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if err := f.Shutdown(ctx); err != nil {
		t.Errorf("a run is still in flight: %v", err)
	}
}

// A Runner of somebody's own that does not do what a Runner does: nothing looks finished.
func TestRunnersThatAreNone(t *testing.T) {
	own := errors.New("own")
	for name, test := range map[string]struct {
		run    runnerFunc
		called int
		want   string
		error  string
	}{
		"does not call":       {func(context.Context, string, func(context.Context) error) error { return nil }, 0, "denied: skipped", "without an outcome"},
		"an error of its own": {func(context.Context, string, func(context.Context) error) error { return own }, 0, "denied: skipped", "own"},
		"calls twice": {func(ctx context.Context, _ string, fn func(context.Context) error) error {
			_ = fn(ctx)
			return fn(ctx)
		}, 1, "denied while it ran: stopped", "again"},
		"loses the error": {func(ctx context.Context, _ string, fn func(context.Context) error) error { _ = fn(ctx); return nil }, 1, "denied while it ran: stopped", "without an outcome"},
	} {
		t.Run(name, func(t *testing.T) {
			log := &journal{}
			called := 0
			cronwrap.Job(test.run, device, func(context.Context) error { called++; return own }, cronwrap.WithLogger(slog.New(log)),
				cronwrap.WithErrorHandler(func(err error) { t.Errorf("handled %v", err) })).Run()
			if called != test.called {
				t.Errorf("called %d times", called)
			}
			r := log.want(t, slog.LevelWarn, test.want, "code", "SYSTEM_UNAVAILABLE")
			if !strings.Contains(r.attrs["error"], test.error) {
				t.Errorf("error=%q", r.attrs["error"])
			}
		})
	}
}

// A Runner that calls its function when it has returned: nobody would hear of that run.
func TestRunnerThatCallsLater(t *testing.T) {
	var kept []func(context.Context) error
	ran := new(atomic.Int64)
	j := cronwrap.Job(runnerFunc(func(_ context.Context, _ string, fn func(context.Context) error) error {
		kept = append(kept, fn)
		return nil
	}), device, func(context.Context) error { ran.Add(1); return nil }, cronwrap.WithLogger(slog.New(&journal{})))
	for range 2 {
		j.Run()
		for _, fn := range kept {
			if fn(t.Context()) == nil {
				t.Error("called later: no error")
			}
		}
	}
	if ran.Load() != 0 {
		t.Errorf("%d runs", ran.Load())
	}
}

// A Runner that does not look at its context is not asked when that has ended.
func TestRunnerIsNotAskedAfterTheEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	log := &journal{}
	cronwrap.Job(runnerFunc(allowing), device, func(context.Context) error { t.Error("called"); return nil },
		cronwrap.WithContext(ctx), cronwrap.WithLogger(slog.New(log))).Run()
	log.want(t, slog.LevelInfo, "skipped: its context has ended")
}

// A Runner that panics harms the job as little as a job that does.
func TestRunnerThatPanics(t *testing.T) {
	log := &journal{}
	var handled []error
	cronwrap.Job(runnerFunc(func(context.Context, string, func(context.Context) error) error { panic("the runner") }), device, obey,
		cronwrap.WithLogger(slog.New(log)), cronwrap.WithErrorHandler(func(err error) { handled = append(handled, err) })).Run()
	log.want(t, slog.LevelError, "panicked")
	if len(handled) != 1 {
		t.Errorf("handled %v", handled)
	}
}

// The default log is slog's, at the time of logging.
func TestDefaultLog(t *testing.T) {
	log := &journal{}
	j := cronwrap.Job(runnerFunc(func(context.Context, string, func(context.Context) error) error { return nil }), device, obey)
	before := slog.Default()
	slog.SetDefault(slog.New(log))
	defer slog.SetDefault(before)
	j.Run()
	log.want(t, slog.LevelWarn, "denied: skipped")
}

// «It is guarded on every path, also when called as Entry.Job.Run()».
func TestRunsByHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, seen := newFixture(t), &runs{}
		c := newCron(t, cron.WithChain(cron.Recover(cron.DiscardLogger), cronwrap.SkipIfStillRunning(cron.DiscardLogger)))
		j := f.job(seen.do)
		id := add(t, c, "0 0 * * * *", j)
		byHand := func() {
			c.Entry(id).Job.Run()
			c.Entry(id).WrappedJob.Run()
			j.Run()
		}
		byHand()
		if seen.count() != 3 || len(f.script.Calls()) != 3 {
			t.Errorf("%d runs, %d questions", seen.count(), len(f.script.Calls()))
		}
		f.script.Deny(device, guard.CodeDeviceRevoked)
		byHand()
		if n := len(f.log.find("denied: skipped")); seen.count() != 3 || n != 3 {
			t.Errorf("%d runs, %d refused", seen.count(), n)
		}
		for _, at := range seen.scheduled() {
			if !at.IsZero() {
				t.Errorf("a run by hand is scheduled for %v", at)
			}
		}
	})
}

// A blank id is denied, unasked (S2).
func TestBlankDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		cronwrap.Job(f, " ", obey, f.options()...).Run()
		f.log.want(t, slog.LevelWarn, "denied: skipped", "code", "INVALID_DEVICE_ID")
		if n := len(f.script.Calls()); n != 0 {
			t.Errorf("%d questions", n)
		}
	})
}

// «Decisions are never asked for on cron's scheduling goroutine»: a validator that hangs delays no other entry.
func TestValidatorThatHangsDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c, slow, quick := newFixture(t), newCron(t), &runs{}, &runs{}
		f.script.Allow("other")
		f.script.Always(device, guardtest.Hang())
		for range 3 {
			add(t, c, "* * * * * *", f.job(slow.do))
		}
		add(t, c, "* * * * * *", cronwrap.Job(f, "other", quick.do))
		c.Start()
		pass(time.Minute + time.Millisecond)
		stop(t, c)
		if slow.count() != 0 {
			t.Error("a job has run that nobody allowed")
		}
		if n := quick.count(); n != 60 {
			t.Errorf("%d runs in a minute", n)
		}
		for i, began := range quick.begun() {
			if at := quick.scheduled()[i]; !began.Equal(at) {
				t.Errorf("due at %v, began at %v", at, began)
			}
		}
	})
}

// Nothing prints what is inside of a job: the Runner may hold a secret (S8).
func TestJobsPrintNothing(t *testing.T) {
	r := runnerFunc(func(context.Context, string, func(context.Context) error) error { return nil })
	base := colour.With(context.Background(), "hush")
	j := cronwrap.Job(r, "hush", obey, cronwrap.WithName("report"), cronwrap.WithContext(base))
	c := newCron(t, cron.WithChain(cronwrap.SkipIfStillRunning(cron.DiscardLogger), cronwrap.New(r, "hush", cronwrap.WithContext(base))))
	add(t, c, "0 0 * * * *", j)
	e := c.Entries()[0]
	text := fmt.Sprintf("%v %+v %#v %v, %v %+v %#v %s", j, j, j, c.Entries(), e, e, e.Job, e.Schedule)
	if strings.Contains(text, "hush") || strings.Count(text, `cronwrap.Job("report")`) < 6 {
		t.Errorf("printed: %s", text)
	}
}
