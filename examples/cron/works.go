package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/execguard/execguard/cronwrap"
	"github.com/execguard/execguard/guard"
)

// works is what is done on a schedule.
type works struct {
	log  *slog.Logger
	tell func(job, format string, args ...any)
}

// schedule is all that a program with a schedule needs: a tick runs only while the device may execute, is cut
// when it no longer may, and with WithCatchUp is made up for.
func (w *works) schedule(g guard.Runner) (*cron.Cron, error) {
	c := cron.New(cron.WithLocation(time.UTC), cron.WithChain(cronwrap.SkipIfStillRunning(cronwrap.Logger(w.log))))
	backup := cronwrap.Job(g, device, w.backup, cronwrap.WithName("backup"), cronwrap.WithLogger(w.log))
	report := cronwrap.Job(g, device, w.report, cronwrap.WithName("report"), cronwrap.WithLogger(w.log), cronwrap.WithCatchUp())
	if _, err := cronwrap.Add(c, "@every 2s", backup); err != nil {
		return nil, err
	}
	if _, err := cronwrap.Add(c, "@every 1s", report); err != nil {
		return nil, err
	}
	return c, nil // to be ended by cronwrap.Stop
}

// files is how many there are to copy.
const files = 9

// backup copies one file after the other. It knows nothing of guards: its context ends when it is to stop.
func (w *works) backup(ctx context.Context) error {
	w.tell("backup", "begins")
	for n := range files {
		select {
		case <-time.After(120 * time.Millisecond):
		case <-ctx.Done():
			w.tell("backup", "is cut after %d files of %d: %v", n, files, context.Cause(ctx))
			return context.Cause(ctx)
		}
	}
	w.tell("backup", "has copied %d files", files)
	return nil
}

// report is about the second that its tick ends, and not about when it happens to run.
func (w *works) report(ctx context.Context) error {
	at, _ := cronwrap.Scheduled(ctx)
	w.tell("report", "is written for %s", at.Format(time.TimeOnly))
	return nil
}
