package guard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// Option changes one setting of a Guard. New refuses options that contradict each other, and
// durations below a millisecond or above a day; to have none of a thing, leave its option out.
type Option interface{ apply(c *config) }

type optionFunc func(c *config)

func (f optionFunc) apply(c *config) { f(c) }

type config struct {
	interval    time.Duration
	timeout     time.Duration
	budget      time.Duration
	newBackOff  func() BackOff // nil: no retry
	maxAge      time.Duration  // 0: no reuse
	maxRequests int
	observers   []func(context.Context, Event)
	problems    []error // settings that were refused as they were given
}

// The longest duration an option takes, and the shortest: beyond a day nobody would call it
// a stop bound, below a millisecond it is a unit forgotten.
const (
	longest  = 24 * time.Hour
	shortest = time.Millisecond
)

// WithInterval sets the time between two revalidations of a device that has work in flight.
// It is the largest part of the stop bound, and should be no shorter than the timeout: a device
// has one request in flight, so slow answers would keep its questions further apart. The default
// is 10 s.
func WithInterval(d time.Duration) Option {
	return optionFunc(func(c *config) { c.interval = c.duration("WithInterval", d) })
}

// WithTimeout sets the most that one call to the authority may take. The default is 3 s.
func WithTimeout(d time.Duration) Option {
	return optionFunc(func(c *config) { c.timeout = c.duration("WithTimeout", d) })
}

// BackOff says how long to wait before the next try; a negative wait means that there is none.
// Every major version of cenkalti/backoff has it.
type BackOff interface {
	NextBackOff() time.Duration
	Reset()
}

// WithRetry gives up that the first failure to ask is a denial: while the authority cannot be
// asked, work goes on and starts wait for up to budget longer, and the stop bound grows by it.
// Only SYSTEM_UNAVAILABLE is retried, never a denial. newBackOff is called once for each
// question, and its NextBackOff before each try, on several goroutines at once and as a part of
// the timeout; nil means the exponential back-off of cenkalti/backoff/v4. A RetryAfter of the
// authority is a floor under each wait, and a wait that does not fit the budget ends the
// retrying at once. The default is no retry.
func WithRetry(newBackOff func() BackOff, budget time.Duration) Option {
	if newBackOff == nil {
		newBackOff = func() BackOff { return backoff.NewExponentialBackOff(backoff.WithMaxElapsedTime(0)) }
	}
	return optionFunc(func(c *config) {
		c.newBackOff, c.budget = newBackOff, c.duration("WithRetry's budget", budget)
	})
}

// WithReuse gives up that every start is backed by a request sent after Run was called: an
// ALLOW may start work until maxAge after its request was sent. In return a device that is
// asked for again and again is validated ahead of time, and no Run of it waits. maxAge is at
// most the interval. The default is no reuse.
func WithReuse(maxAge time.Duration) Option {
	return optionFunc(func(c *config) { c.maxAge = c.duration("WithReuse", maxAge) })
}

// WithMaxRequests bounds the calls to the authority that are in flight at once, over all
// devices, 1 to 65536. A quarter of them is kept for the revalidation of work that runs; a start
// that gets none of the others within an interval is refused SYSTEM_UNAVAILABLE. The default is 64.
func WithMaxRequests(n int) Option {
	return optionFunc(func(c *config) {
		c.maxRequests = n
		if n < 1 || n > 1<<16 {
			c.refuse(fmt.Errorf("guard: WithMaxRequests(%d): it must be between 1 and %d", n, 1<<16))
		}
	})
}

// WithObserver has f told of what happens: Event says what, and on which goroutine. f is called
// from several goroutines at once. Its context has the values of the caller's where the event is
// told on the caller's goroutine, none otherwise, and ends after the guard's timeout. Given more
// than once, each is told. An observer that panics or blocks weakens no promise of the guard: a
// panic is swallowed, and blocking delays the call it is told on, or loses queued events. The
// default is none.
func WithObserver(f func(ctx context.Context, e Event)) Option {
	return optionFunc(func(c *config) {
		if f == nil {
			c.refuse(errors.New("guard: WithObserver(nil): the function is nil"))
			return
		}
		c.observers = append(c.observers, f)
	})
}

// WithLogger logs one record a fact: refusals and stops, answers with which the authority did not
// decide, and those that Fallback's offline gave in its place or could not keep, as warnings, overruns
// as errors and the rest for debugging, with the keys device, code, request_id, phase and took, and
// where there is something to say after, error and reason. phase is the Kind of the Event.
//
// So that an outage does not fill a disk, repeated warnings are held back: the refusal of a device that an
// authority has decided is logged at once, and again when its code is another, the device was
// allowed in between, or an hour has begun; refusals without a decision, and answers that are warned of, are logged ten
// times a minute and code for the whole Guard. What was held back is told, code by code, with the first event of a later minute,
// with the phase suppressed and the key count. Stops, overruns and what is for debugging are never held back.
// Each device counts for itself: where strangers choose the ids, as with a header that no proxy sets, each id has a record.
// The default is that nothing is logged.
func WithLogger(l *slog.Logger) Option {
	if l == nil {
		return optionFunc(func(c *config) { c.refuse(errors.New("guard: WithLogger(nil): the logger is nil")) })
	}
	return WithObserver(logTo(l))
}

func (c *config) refuse(err error) { c.problems = append(c.problems, err) }

func (c *config) duration(name string, d time.Duration) time.Duration {
	if d < shortest || d > longest {
		c.refuse(fmt.Errorf("guard: %s is %v: it must be between %v and %v", name, d, shortest, longest))
	}
	return d
}

func newConfig(opts []Option) (config, error) {
	c := config{interval: 10 * time.Second, timeout: 3 * time.Second, maxRequests: 64}
	for _, o := range opts {
		if o == nil {
			return c, errors.New("guard: an Option is nil")
		}
		o.apply(&c)
	}
	if c.maxAge > c.interval {
		c.refuse(fmt.Errorf("guard: WithReuse(%v) is longer than WithInterval(%v)", c.maxAge, c.interval))
	}
	return c, errors.Join(c.problems...)
}
