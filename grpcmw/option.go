package grpcmw

import (
	"context"
	"errors"
	"reflect"

	"github.com/execguard/execguard/guard"
)

// Option changes one setting of an interceptor. WithPanicReport has an effect with StreamServer only.
type Option interface{ apply(c *config) }

type optionFunc func(c *config)

func (f optionFunc) apply(c *config) { f(c) }

type config struct {
	runner      guard.Runner
	device      DeviceFunc
	reportPanic panicReport
}

type panicReport func(ctx context.Context, fullMethod string, value any, stack []byte)

// WithPanicReport has report told of every panic of a handler that StreamServer guards, with the
// stack that it had. It is called before anything else comes of the panic: while the interceptor waits
// for the handler, the panic is raised again on the interceptor's goroutine with the same value,
// for a recovery interceptor to find, but with that goroutine's stack; when the interceptor has
// returned, nobody else hears of it. ctx is the stream's; report is called from several goroutines at
// once, and a panic of its own is swallowed. The default is an error in grpc's log, with the
// stack, and with the value only where it is one of the runtime's own: others might hold a secret.
func WithPanicReport(report func(ctx context.Context, fullMethod string, value any, stack []byte)) Option {
	if report == nil {
		mistake("WithPanicReport: the function is nil")
	}
	return optionFunc(func(c *config) { c.reportPanic = report })
}

func newConfig(who string, r guard.Runner, device DeviceFunc, opts []Option) config {
	switch {
	case isNil(r):
		mistake(who + ": the Runner is nil")
	case device == nil:
		mistake(who + ": the DeviceFunc is nil")
	}
	c := config{runner: r, device: device, reportPanic: logPanic}
	for _, o := range opts {
		if o == nil {
			mistake(who + ": an Option is nil")
		}
		o.apply(&c)
	}
	return c
}

// isNil finds a nil pointer in the interface too, such as the Guard of a New whose error was not looked at.
func isNil(r guard.Runner) bool {
	v := reflect.ValueOf(r)
	return r == nil || (v.Kind() == reflect.Pointer || v.Kind() == reflect.Func) && v.IsNil()
}

// mistake reports an argument with which nothing can be guarded, as net/http does for a nil handler:
// when the program starts, where it cannot be overlooked.
func mistake(what string) {
	panic(errors.New("grpcmw: " + what)) //nolint:forbidigo // the framework's own type has no error to return
}
