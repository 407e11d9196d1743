package guard

import (
	"sync"
	"sync/atomic"
	"time"
)

// step is how far the two clocks may drift apart before the guard's clock is set anew. Slewing
// stays far below it between two ticks; a step or a suspended machine does not.
const step = time.Millisecond

// clock runs at the pace of whichever of the monotonic and the wall clock goes faster (S6), so
// that one number says what both say: a machine that was suspended or a wall clock set ahead
// moves it on, a wall clock set back does not hold it.
//
// Invariant: between two readings it advances by at least what either clock advanced, but for
// steps below [step] that cancel out between two calls of set.
type clock struct {
	wall func(time.Time) int64 // for tests, which step it: nanoseconds since 1970; nil: time.Time's

	base atomic.Pointer[reading]
	mu   sync.Mutex // held to replace base
}

// reading is one look at all three: the monotonic clock (in at), the wall clock and ours.
type reading struct {
	at      time.Time
	wall    int64
	elapsed time.Duration
}

func newClock() *clock {
	c := &clock{}
	now := time.Now()
	c.base.Store(&reading{at: now, wall: now.UnixNano()})
	return c
}

// now returns the time since the guard was made.
func (c *clock) now() time.Duration {
	if elapsed, ok := c.elapsed(time.Now()); ok {
		return elapsed
	}
	return c.set().elapsed
}

// read is now, with what the clocks showed.
func (c *clock) read() reading {
	at := time.Now()
	if elapsed, ok := c.elapsed(at); ok {
		return reading{at: at, wall: c.wallOf(at), elapsed: elapsed}
	}
	return c.set()
}

// elapsed is the guard's time at a look at both clocks; not ok: one of them has leapt.
func (c *clock) elapsed(at time.Time) (elapsed time.Duration, ok bool) {
	base := c.base.Load()
	monotonic, wall := at.Sub(base.at), time.Duration(c.wallOf(at)-base.wall)
	ahead := wall - monotonic
	// A base that was replaced meanwhile knows of leaps that this one does not.
	ok = -step <= ahead && ahead <= step && c.base.Load() == base
	return base.elapsed + max(monotonic, wall), ok
}

// set reads the clocks and takes a new base, so that a clock set back now cannot hide a leap ahead
// later.
func (c *clock) set() reading {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, base := time.Now(), c.base.Load()
	r := &reading{at: at, wall: c.wallOf(at)}
	r.elapsed = base.elapsed + max(at.Sub(base.at), time.Duration(r.wall-base.wall))
	c.base.Store(r)
	return *r
}

func (c *clock) wallOf(at time.Time) int64 {
	if c.wall != nil {
		return c.wall(at)
	}
	return at.UnixNano()
}

// until returns how long it is from r to a time of the wall clock.
func (r reading) until(wall time.Time) time.Duration {
	return wall.Sub(time.Unix(0, r.wall))
}
