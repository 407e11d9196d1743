package asynqmw

import (
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

// WithInspector has a held task put back when its own deadline comes, where asynq archives it
// whatever happens: RunTask makes it pending again about an interval later. i must belong to the
// Redis that the server works on, and stay open until its tasks are back, an interval or two longer than the
// server. The default is none: such a task stays in the archive, is logged by its id, and handed to the ErrorHandler.
//
// With its first task a process also looks for what others have parked, and puts back what they have not,
// an interval or two after it was due.
func WithInspector(i *asynq.Inspector) Option {
	if i == nil {
		mistake("WithInspector: the Inspector is nil")
	}
	return optionFunc(func(c *config) { c.inspector = i })
}

// WithMaxHeld gives up a held task's place when n are held already, so that they do not take all of
// the server's workers: asynq archives a further one, and it is put back about an interval later, as
// at its deadline. That needs WithInspector: without, the task stays in the archive, of which asynq keeps 10,000. At
// most a hundred tasks of a process are in the archive so at a time; a further one waits for a place there. The
// default is no bound, 0 holds none. WithMaxHeld panics if n is negative.
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
