package guard

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// leapingWall is a wall clock that leaps at one look at it, whichever that is.
type leapingWall struct {
	looks, at int64
	by        time.Duration
	ahead     atomic.Int64
	leapt     time.Time // written before ahead, read after it
}

func (w *leapingWall) nanos(t time.Time) int64 {
	if atomic.AddInt64(&w.looks, 1) == w.at {
		w.leapt = time.Now()
		w.ahead.Store(int64(w.by))
	}
	return w.now(t)
}

// now is the time that it shows, without a look that counts.
func (w *leapingWall) now(t time.Time) int64 { return t.UnixNano() + w.ahead.Load() }

// A clock may leap between any two looks that the guard takes, also between the two that belong to
// one decision. Of a life that begins with an ALLOW and goes on in silence, each look is one at
// which it leaps, ahead or back: no permission outlives what either clock says.
func TestS6_ALeapAtAnyLook(t *testing.T) {
	for _, by := range []time.Duration{time.Hour, -time.Hour, 12 * time.Second, 2 * time.Millisecond} {
		at, leapt := int64(1), true
		for ; leapt && !t.Failed(); at++ {
			synctest.Test(t, func(t *testing.T) { leapt = leap(t, at, by) })
		}
		if at < 20 {
			t.Errorf("a life of %d looks: nothing was tested", at)
		}
	}
}

// leap tells whether there was a look for the clock to leap at.
func leap(t *testing.T, at int64, by time.Duration) bool {
	wall := &leapingWall{at: at, by: by}
	var sent time.Time
	var sentWall, sentAhead, asked int64
	g, err := New(ValidatorFunc(func(ctx context.Context, _ string) (Decision, error) {
		if asked++; asked > 1 {
			return silent(ctx)
		}
		sent, sentWall, sentAhead = time.Now(), wall.now(time.Now()), wall.ahead.Load()
		return Decision{Allowed: true, Code: CodeAllow}, nil
	}), WithReuse(5*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	g.clock.wall = wall.nanos
	age := func() time.Duration { return max(time.Since(sent), time.Duration(wall.now(time.Now())-sentWall)) }
	err = g.Run(t.Context(), "d", func(ctx context.Context) error {
		for ctx.Err() == nil {
			before := age() // a leap at the very look that Checkpoint takes is none before it
			if Checkpoint(ctx) == nil && before >= g.StopBound() {
				t.Errorf("leap at look %d by %v: Checkpoint is nil on a permission that is %v old", at, by, before)
			}
			time.Sleep(250 * time.Millisecond)
		}
		line := sent.Add(g.StopBound())
		if shown := line.Add(-by); by > 0 && wall.ahead.Load() > sentAhead { // at which the wall clock says so
			line = shown
			if wall.leapt.After(line) {
				line = wall.leapt
			}
			line = line.Add(time.Second) // in which contexts follow
		}
		if late := time.Since(line); late > 250*time.Millisecond {
			t.Errorf("leap at look %d by %v: a context was live %v too long", at, by, late)
		}
		return nil
	})
	if err == nil {
		t.Errorf("leap at look %d by %v: a run that came to its line returned nil", at, by)
	}
	return atomic.LoadInt64(&wall.looks) >= at
}
