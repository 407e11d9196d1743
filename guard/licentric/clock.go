package licentric

import (
	"sync"
	"time"
)

// clock tells a time that does not go back when the wall clock is set back: the latest of the wall
// clock, of the latest time that is known otherwise, and of the latest time told plus the monotonic
// time since. Set ahead it follows, for it cannot know better.
type clock struct {
	wall func(at time.Time) time.Time // for tests, which set it: the wall clock when at was read; nil: at's own

	mu     sync.Mutex
	at     time.Time // of the last look, with the monotonic reading; under mu
	latest time.Time // told or learnt then; under mu
}

// now returns what the wall clock shows, and what time it is at the earliest.
func (c *clock) now() (wall, latest time.Time) { return c.learn(time.Time{}) }

// learn is now, where it is known from elsewhere that it cannot be earlier than atLeast.
func (c *clock) learn(atLeast time.Time) (wall, latest time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := time.Now()
	wall, latest = at.Round(0).UTC(), atLeast
	if c.wall != nil {
		wall = c.wall(at).Round(0).UTC()
	}
	if wall.After(latest) {
		latest = wall
	}
	if last := c.latest.Add(at.Sub(c.at)); !c.latest.IsZero() && last.After(latest) {
		latest = last
	}
	c.at, c.latest = at, latest
	return wall, latest
}

// behind is how far the wall clock is behind. The two clocks are not read at the very same instant
// and not steered alike, so that less than a millisecond says nothing.
func behind(wall, latest time.Time) time.Duration {
	if by := latest.Sub(wall); by >= time.Millisecond {
		return by
	}
	return 0
}
