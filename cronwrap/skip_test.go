package cronwrap_test

import (
	"bytes"
	"context"
	"errors"
	"log"
	"log/slog"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/execguard/execguard/cronwrap"
)

// Pitfall 3: «SkipIfStillRunning keeps its token through a panic, which cron's own does not», and through Goexit.
func TestSkipKeepsItsToken(t *testing.T) {
	for name, end := range map[string]func(){"panic": func() { panic("boom") }, "Goexit": runtime.Goexit} {
		for whose, skip := range map[string]func(cron.Logger) cron.JobWrapper{"ours": cronwrap.SkipIfStillRunning, "cron's": cron.SkipIfStillRunning} {
			t.Run(whose+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c, ran := newCron(t, cron.WithChain(cron.Recover(cron.DiscardLogger), skip(cron.DiscardLogger))), new(atomic.Int64)
					addBare(t, c, "0 * * * * *", cron.FuncJob(func() {
						ran.Add(1)
						end()
					}))
					c.Start()
					pass(10*time.Minute + time.Second)
					<-c.Stop().Done()
					want := int64(10)
					if whose != "ours" {
						want = 1 // as long as this is so, there is a reason for ours
					}
					if ran.Load() != want {
						t.Errorf("%d runs in ten minutes, want %d", ran.Load(), want)
					}
				})
			})
		}
	}
}

// It skips, and says so at Info, as cron's own; each entry is on its own.
func TestSkip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &journal{}
		skip := cronwrap.SkipIfStillRunning(cronwrap.Logger(slog.New(log)))
		c, ran := newCron(t, cron.WithChain(skip)), new(atomic.Int64)
		long := cron.FuncJob(func() {
			ran.Add(1)
			time.Sleep(150 * time.Second)
		})
		addBare(t, c, "0 * * * * *", long)
		addBare(t, c, "0 * * * * *", long)
		c.Start()
		pass(6*time.Minute + 30*time.Second)
		<-c.Stop().Done()
		if n := len(log.find("skip")); ran.Load() != 4 || n != 8 {
			t.Errorf("%d runs, %d skips", ran.Load(), n)
		}
		for _, r := range log.find("skip") {
			if r.level != slog.LevelInfo {
				t.Errorf("logged at %v", r.level)
			}
		}
	})
}

// A skip tells the name of a job of ours that has one, under the key that the job logs it with; of others it tells
// what cron's own tells.
func TestSkipNamesItsJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, plain := newFixture(t), cron.FuncJob(func() { time.Sleep(90 * time.Minute) })
		long := func(context.Context) error { plain(); return nil }
		for want, j := range map[string]cron.Job{
			"report": f.job(long, cronwrap.WithName("report")),
			"around": f.wrap(cronwrap.WithName("around"))(f.job(long, cronwrap.WithName("inside"))),
			"inside": f.wrap()(f.job(long, cronwrap.WithName("inside"))),
			"":       f.job(long),
			"none":   plain,
		} {
			log := &journal{}
			c := newCron(t, cron.WithChain(cronwrap.SkipIfStillRunning(cronwrap.Logger(slog.New(log)))))
			add(t, c, "0 0 * * * *", j)
			c.Start()
			pass(2*time.Hour + time.Minute)
			if err := stopWithin(time.Hour, c); err != nil {
				t.Errorf("Stop: %v", err)
			}
			got, named := log.want(t, slog.LevelInfo, "skip").attrs["job"]
			if want == "none" {
				want = ""
			}
			if got != want || named != (want != "") {
				t.Errorf("job=%q (%t), want %q", got, named, want)
			}
		}
	})
}

// A job that was denied leaves the token too.
func TestSkipAroundARefusedJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, seen := newFixture(t), &runs{}
		c := newCron(t, cron.WithChain(cronwrap.SkipIfStillRunning(cron.DiscardLogger)))
		add(t, c, "0 * * * * *", f.job(func(ctx context.Context) error {
			seen.note(ctx)
			panic("boom")
		}))
		f.script.Deny(device, "SOMETHING")
		c.Start()
		pass(3*time.Minute + time.Second)
		f.allow()
		pass(3 * time.Minute)
		stop(t, c)
		wantTimes(t, seen.scheduled(), day(0, 4, 0), day(0, 5, 0), day(0, 6, 0))
	})
}

// Pitfall 12: cron's own logger drops what it tells as Info, and with it every skip; this does not.
func TestLogger(t *testing.T) {
	kept, text := &journal{}, &bytes.Buffer{}
	for _, l := range []cron.Logger{cronwrap.Logger(slog.New(kept)), cron.PrintfLogger(log.New(text, "", 0))} {
		l.Info("skip", "entry", 7)
		l.Error(errors.New("boom"), "panic", "stack", "...")
	}
	kept.want(t, slog.LevelInfo, "skip", "entry", "7")
	kept.want(t, slog.LevelError, "panic", "error", "boom", "stack", "...")
	if bytes.Contains(text.Bytes(), []byte("skip")) {
		t.Error("cron's own logger drops skips no longer")
	}
}

// A Cron logs to it.
func TestLoggerOfACron(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept := &journal{}
		c := newCron(t, cron.WithLogger(cronwrap.Logger(slog.New(kept))), cron.WithChain(cron.Recover(cronwrap.Logger(slog.New(kept)))))
		addBare(t, c, "0 * * * * *", cron.FuncJob(func() { panic("boom") }))
		c.Start()
		pass(90 * time.Second)
		<-c.Stop().Done()
		kept.want(t, slog.LevelInfo, "run", "entry", "1")
		kept.want(t, slog.LevelError, "panic", "error", "boom")
	})
}
