package asynqmw

import (
	"context"
	"errors"
	"reflect"
	"time"

	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/guard"
)

// defaultInterval is a guard's own, for a Runner that does not tell its interval.
const defaultInterval = 10 * time.Second

// Option changes one setting of New.
type Option interface{ apply(c *config) }

type optionFunc func(c *config)

func (f optionFunc) apply(c *config) { f(c) }

type config struct {
	runner    guard.Runner
	device    DeviceFunc
	inspector *asynq.Inspector
	maxHeld   int64 // negative: no bound
}

// WithInspector has a held task put back whose own end comes near, at which asynq archives it
// whatever happens: it is parked in the archive, and RunTask makes it pending again about an interval later. i must belong to the
// Redis that the server works on. The default is none: such a task stays in the archive, is logged by its id, and
// handed to the ErrorHandler.
//
// A process that ends leaves what it has parked to others, and so does one that closes i early, though it logs that. New and, where
// that fails, the first task look for what is parked, and have put back what is not an interval or two after it was due.
// The default slog.Logger hears of that. An Inspector of another Redis is reported only where that does not know the queue.
func WithInspector(i *asynq.Inspector) Option {
	if i == nil {
		mistake("WithInspector: the Inspector is nil")
	}
	return optionFunc(func(c *config) { c.inspector = i })
}

// WithMaxHeld gives up a held task's place when n are held already, so that they do not take all of
// the server's workers: a further one is parked in the archive at once, and put back after Retry-After or the
// interval. At most a hundred tasks of a process are parked for that; a further one keeps its worker until there is room. That
// needs WithInspector: without, a task for which there is no place stays in the archive, of which asynq keeps 10,000. Where
// the server's Config has not passed Configure, tasks with retries left are held all the same.
// The default is no bound, 0 holds none. WithMaxHeld panics if n is negative.
func WithMaxHeld(n int) Option {
	if n < 0 {
		mistake("WithMaxHeld: the number is negative")
	}
	return optionFunc(func(c *config) { c.maxHeld = int64(n) })
}

func newGate(r guard.Runner, device DeviceFunc, opts []Option) *gate {
	switch {
	case isNil(r):
		mistake("New: the Runner is nil")
	case device == nil:
		mistake("New: the DeviceFunc is nil")
	}
	g := &gate{config: config{runner: r, device: device, maxHeld: -1}, interval: intervalOf(r)}
	for _, o := range opts {
		if o == nil {
			mistake("New: an Option is nil")
		}
		o.apply(&g.config)
	}
	if own, ok := r.(*guard.Guard); ok { // and nothing that embeds one, whose own Run is to be called
		g.keep = own.Keep
	}
	g.returns = newReturns(g.inspector, g.interval)
	g.returns.begin(context.Background())
	return g
}

// intervalOf is the time between two questions of r, so that refused tasks need not come any sooner.
func intervalOf(r guard.Runner) time.Duration {
	if i, ok := r.(interface{ Interval() time.Duration }); ok && i.Interval() > 0 {
		return i.Interval()
	}
	return defaultInterval
}

// isNil finds a nil pointer in the interface too, such as the Guard of a New whose error was not looked at.
func isNil(v any) bool {
	r := reflect.ValueOf(v)
	return v == nil || (r.Kind() == reflect.Pointer || r.Kind() == reflect.Func) && r.IsNil()
}

// mistake reports an argument with which nothing can be guarded, as asynq does for a nil handler:
// when the program starts, where it cannot be overlooked.
func mistake(what string) {
	panic(errors.New("asynqmw: " + what)) //nolint:forbidigo // the framework's own type has no error to return
}
