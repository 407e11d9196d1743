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
	wall func(time.Time) int64 // nanoseconds since 1970; a field so that tests can step it

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
	c := &clock{wall: time.Time.UnixNano}
	now := time.Now()
	c.base.Store(&reading{at: now, wall: c.wall(now)})
	return c
}

// now returns the time since the guard was made.
func (c *clock) now() time.Duration { return c.read().elapsed }

// read looks at both clocks.
func (c *clock) read() reading {
	base := c.base.Load()
	r := reading{at: time.Now()}
	r.wall = c.wall(r.at)
	monotonic, wall := r.at.Sub(base.at), time.Duration(r.wall-base.wall)
	ahead := wall - monotonic
	if ahead < -step || ahead > step || c.base.Load() != base {
		return c.set() // a base that was replaced meanwhile knows of leaps that this one does not
	}
	r.elapsed = base.elapsed + max(monotonic, wall)
	return r
}

// set takes a new base, so that a clock set back now cannot hide a leap ahead later.
func (c *clock) set() reading {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, base := time.Now(), c.base.Load()
	r := &reading{at: at, wall: c.wall(at)}
	r.elapsed = base.elapsed + max(at.Sub(base.at), time.Duration(r.wall-base.wall))
	c.base.Store(r)
	return *r
}

// until returns how long it is from r to a time of the wall clock.
func (r reading) until(wall time.Time) time.Duration {
	return wall.Sub(time.Unix(0, r.wall))
}
