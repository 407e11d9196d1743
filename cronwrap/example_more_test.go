package cronwrap_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/execguard/execguard/cronwrap"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

// A job that is stopped in its middle. It is run by hand here, as Entry.Job.Run would.
func ExampleJob() {
	authority := guardtest.NewValidator("worker:demo:01")
	g, err := guard.New(authority)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()
	backup := cronwrap.Job(g, "worker:demo:01", func(ctx context.Context) error {
		fmt.Println("backing up")
		authority.Deny("worker:demo:01", guard.CodeDeviceRevoked)
		g.Hint("worker:demo:01") // or within the stop bound, by itself
		<-ctx.Done()
		return ctx.Err()
	}, cronwrap.WithName("backup"), cronwrap.WithLogger(plainLogger()))

	backup.Run()
	backup.Run()
	// Output:
	// backing up
	// level=WARN msg="cronwrap: denied while it ran: stopped" job=backup code=DEVICE_REVOKED
	// level=WARN msg="cronwrap: denied: skipped" job=backup code=DEVICE_REVOKED
}

// A job that is there already, and knows no context: it is only not begun. New is the last in the chain, so that
// ticks which are skipped anyway ask nobody.
func ExampleNew() {
	authority := guardtest.NewValidator("worker:demo:01")
	g, err := guard.New(authority)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()
	gate := cronwrap.New(g, "worker:demo:01", cronwrap.WithName("tidy"), cronwrap.WithLogger(plainLogger()))
	tidy := cron.NewChain(cron.SkipIfStillRunning(cron.DiscardLogger), gate).Then(cron.FuncJob(func() { fmt.Println("tidying") }))
	tidy.Run()
	authority.Deny("worker:demo:01", guard.CodeDeviceRevoked)
	tidy.Run()
	// Output:
	// tidying
	// level=WARN msg="cronwrap: denied: skipped" job=tidy code=DEVICE_REVOKED
}

// A Cron is ended, and what runs is cancelled and waited for. A job that obeys its context is over at once.
func ExampleStop() {
	g, err := guard.New(guardtest.NewValidator("worker:demo:01"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()
	running := make(chan struct{}, 10)
	sync := cronwrap.Job(g, "worker:demo:01", func(ctx context.Context) error {
		running <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}, cronwrap.WithErrorHandler(func(err error) { fmt.Println("stopped:", errors.Is(err, context.Canceled)) }))
	c := cron.New(cron.WithLocation(time.UTC), cron.WithChain(cronwrap.SkipIfStillRunning(cron.DiscardLogger)))
	if _, err := cronwrap.Add(c, "@every 1s", sync); err != nil {
		fmt.Println(err)
		return
	}
	c.Start()
	<-running

	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second) // not the signal's, which has ended
	defer cancel()
	fmt.Println(cronwrap.Stop(ctx, c))
	// Output:
	// stopped: true
	// <nil>
}

// A spec that does not parse is Add's error, before anything runs.
func ExampleAdd() {
	g, err := guard.New(guardtest.NewValidator("worker:demo:01"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()
	c := cron.New(cron.WithLocation(time.UTC))
	job := cronwrap.Job(g, "worker:demo:01", func(context.Context) error { return nil })
	_, err = cronwrap.Add(c, "30 2 * *", job)
	fmt.Println(err)
	_, err = cronwrap.Add(c, "30 2 * * *", job)
	fmt.Println(err, len(c.Entries()))
	// Output:
	// expected exactly 5 fields, found 4: [30 2 * *]
	// <nil> 1
}

// cron's own messages in the program's log, skipped ticks above all.
func ExampleLogger() {
	log := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	cronwrap.Logger(log).Info("skip")
	cronwrap.Logger(log).Error(errors.New("disk full"), "job failed", "entry", 7)
	// Output:
	// level=INFO msg=skip
	// level=ERROR msg="job failed" error="disk full" entry=7
}

// A tick that falls into a denial is made up for, once.
func ExampleWithCatchUp() {
	authority := guardtest.NewValidator() // nothing is allowed yet
	refused := make(chan struct{}, 10)
	g, err := guard.New(authority, guard.WithInterval(50*time.Millisecond), guard.WithObserver(func(_ context.Context, e guard.Event) {
		if e.Kind == guard.EventRefused {
			refused <- struct{}{}
		}
	}))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()
	done := make(chan struct{}, 10)
	report := cronwrap.Job(g, "worker:demo:01", func(context.Context) error {
		fmt.Println("the report of the tick that was missed")
		done <- struct{}{}
		return nil
	}, cronwrap.WithCatchUp(), cronwrap.WithLogger(slog.New(slog.DiscardHandler)))
	c := cron.New(cron.WithLocation(time.UTC))
	if _, err := cronwrap.Add(c, "@every 1s", report); err != nil {
		fmt.Println(err)
		return
	}
	c.Start()
	<-refused
	authority.Allow("worker:demo:01")
	<-done
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := cronwrap.Stop(ctx, c); err != nil {
		fmt.Println(err)
	}
	// Output: the report of the tick that was missed
}

// A job that has panicked runs again at the next tick, which with cron's own wrapper of that name it does not.
func ExampleSkipIfStillRunning() {
	runs := 0
	chain := cron.NewChain(cron.Recover(cron.DiscardLogger), cronwrap.SkipIfStillRunning(cron.DiscardLogger))
	job := chain.Then(cron.FuncJob(func() {
		if runs++; runs == 1 {
			panic("out of paper")
		}
		fmt.Println("run", runs)
	}))
	job.Run()
	job.Run()
	// Output: run 2
}
