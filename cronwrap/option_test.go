package cronwrap_test

import (
	"context"
	"strings"
	"testing"

	"github.com/robfig/cron/v3"

	"github.com/execguard/execguard/cronwrap"
	"github.com/execguard/execguard/guard"
)

// What cannot be guarded is found out when the program starts, and by its name.
func TestMistakes(t *testing.T) {
	var (
		none  *guard.Guard
		noRun runnerFunc
		noJob cron.FuncJob
		run   = runnerFunc(allowing)
	)
	for want, make := range map[string]func(){
		"New: the Runner is nil":                    func() { cronwrap.New(nil, device) },
		"Job: the Runner is nil":                    func() { cronwrap.Job(none, device, obey) },
		"Job: the Runner is nil ":                   func() { cronwrap.Job(noRun, device, obey) },
		"Job: the function is nil":                  func() { cronwrap.Job(run, device, nil) },
		"Job: an Option is nil":                     func() { cronwrap.Job(run, device, obey, nil) },
		"New: an Option is nil":                     func() { cronwrap.New(run, device, nil) },
		"New: the cron.Job is nil":                  func() { cronwrap.New(run, device)(nil) },
		"New: the cron.Job is nil ":                 func() { cronwrap.New(run, device)(noJob) },
		"WithContext: the context is nil":           func() { cronwrap.WithContext(nil) }, //nolint:staticcheck // what is tested
		"WithLogger: the slog.Logger is nil":        func() { cronwrap.WithLogger(nil) },
		"WithErrorHandler: the function is nil":     func() { cronwrap.WithErrorHandler(nil) },
		"WithName: the name is blank":               func() { cronwrap.WithName(" ") },
		"Logger: the slog.Logger is nil":            func() { cronwrap.Logger(nil) },
		"SkipIfStillRunning: the Logger is nil":     func() { cronwrap.SkipIfStillRunning(nil) },
		"SkipIfStillRunning: the cron.Job is nil":   func() { cronwrap.SkipIfStillRunning(cron.DiscardLogger)(nil) },
		"SkipIfStillRunning: the cron.Job is nil  ": func() { cronwrap.SkipIfStillRunning(cron.DiscardLogger)(noJob) },
	} {
		t.Run(want, func(t *testing.T) {
			defer func() {
				err, _ := recover().(error)
				if err == nil || err.Error() != "cronwrap: "+strings.TrimSpace(want) {
					t.Errorf("panicked with %v", err)
				}
			}()
			make()
		})
	}
}

// The last of an option counts, and none is needed.
func TestOptions(t *testing.T) {
	called := ""
	handle := func(name string) cronwrap.Option {
		return cronwrap.WithErrorHandler(func(error) { called += name })
	}
	cronwrap.Job(runnerFunc(allowing), device, func(context.Context) error { return context.Canceled }, handle("a"), handle("b")).Run()
	if called != "b" {
		t.Errorf("called %q", called)
	}
}
