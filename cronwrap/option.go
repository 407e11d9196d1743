package cronwrap

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"strings"
	"time"

	"github.com/execguard/execguard/guard"
)

// Option changes one setting of New or Job. WithErrorHandler has an effect with Job only.
type Option interface{ apply(c *config) }

type optionFunc func(c *config)

func (f optionFunc) apply(c *config) { f(c) }

type config struct {
	runner   guard.Runner
	exact    *guard.Guard // the runner, if it is just that, and nothing that embeds one, whose own Run is to be called
	device   string
	interval time.Duration   // the runner's
	base     context.Context //nolint:containedctx // WithContext's, which Run has no parameter for
	tied     bool            // base can end, and so keeps those that are to end with it
	logger   *slog.Logger    // nil: slog's default
	onError  func(error)     // nil: errors are logged
	catchUp  bool
	name     string
}

// WithContext gives the runs a parent: they have its values, and when it ends they end, what waits to be caught up
// is given up, and ticks are skipped from then on. The default is context.Background().
func WithContext(ctx context.Context) Option {
	if ctx == nil {
		mistake("WithContext: the context is nil")
	}
	if _, ok := Scheduled(ctx); ok {
		ctx = scheduled.With(ctx, time.Time{}) // another job's
	}
	return optionFunc(func(c *config) { c.base = ctx })
}

// WithLogger has the job log to l. At Warn: a tick or run that was refused or stopped, because the device was denied, the
// guard is closed or nobody could be asked, and a tick that is skipped because a missed run waits (WithCatchUp). At Info:
// what Stop or the end of WithContext's context has skipped or ended, and that a missed run is caught up. At Error: the
// job's own errors and panics. The keys are device, job (WithName), scheduled (Add), code, request_id, error, panic and
// stack, where there is something to say. The default is slog.Default, at the time of logging.
func WithLogger(l *slog.Logger) Option {
	if l == nil {
		mistake("WithLogger: the slog.Logger is nil")
	}
	return optionFunc(func(c *config) { c.logger = l })
}

// WithErrorHandler has handle called with every error of the job's own, the very same, in the place of the log; and with
// its panics, which are logged besides. Denials are no errors of the job's. What the job returns when Stop or the end of
// WithContext's context has ended it is one: after Stop, errors.Is finds context.Canceled in it if the job has returned its
// context's error or cause. handle is called on the job's goroutine, after the run, for several runs at once; a
// panic of its own is logged. The default is the log, at Error.
func WithErrorHandler(handle func(err error)) Option {
	if handle == nil {
		mistake("WithErrorHandler: the function is nil")
	}
	return optionFunc(func(c *config) { c.onError = handle })
}

// WithCatchUp has one run follow when the device is allowed again, where ticks were refused or a run was stopped: one,
// however many ticks were missed. The first of them waits for that on the goroutine on which cron has started
// it; those that come meanwhile are skipped. While it waits it asks as guard.Keep does, or where r is no
// *guard.Guard once in one to one and a half of its intervals (its method Interval, else 10 s). A run of a Job
// that was stopped is caught up; a plain job (New) that was denied while it ran is not, as it has run to its end, nor
// is a run by hand. The default is that a refused tick is skipped.
//
// The wait ends without a run at Stop, when WithContext's context ends, when the guard is closed, and if the device's
// id is invalid. Until then cron's own Stop waits for it; and removing the entry does not end it. Where a wrapper that is
// not of this package is outside of New, Stop does not end it either: end WithContext's context before Stop.
func WithCatchUp() Option {
	return optionFunc(func(c *config) { c.catchUp = true })
}

// WithName names the job in the log and in Stop's error: cron does not tell a job its entry. The default is no name.
func WithName(name string) Option {
	if strings.TrimSpace(name) == "" {
		mistake("WithName: the name is blank")
	}
	return optionFunc(func(c *config) { c.name = name })
}

func newConfig(who string, r guard.Runner, deviceID string, opts []Option) config {
	if isNil(r) {
		mistake(who + ": the Runner is nil")
	}
	exact, _ := r.(*guard.Guard)
	c := config{runner: r, exact: exact, device: deviceID, interval: intervalOf(r), base: context.Background()}
	for _, o := range opts {
		if isNil(o) {
			mistake(who + ": an Option is nil")
		}
		o.apply(&c)
	}
	c.tied = c.base.Done() != nil
	return c
}

// defaultInterval is a guard's own, for a Runner that does not tell its interval.
const defaultInterval = 10 * time.Second

// intervalOf is the time between two questions of r.
func intervalOf(r guard.Runner) time.Duration {
	if i, ok := r.(interface{ Interval() time.Duration }); ok {
		if d := i.Interval(); d > 0 {
			return min(d, longest)
		}
	}
	return defaultInterval
}

// isNil finds a nil pointer in the interface too, such as the Guard of a New whose error was not looked at.
func isNil(v any) bool {
	r := reflect.ValueOf(v)
	return v == nil || (r.Kind() == reflect.Pointer || r.Kind() == reflect.Func) && r.IsNil()
}

// mistake reports an argument with which nothing can be guarded, as net/http does for a nil handler:
// when the program starts, where it cannot be overlooked.
func mistake(what string) {
	panic(errors.New("cronwrap: " + what)) //nolint:forbidigo // cron's own types have no error to return
}
