package guard

import (
	"container/heap"
	"sync"
	"sync/atomic"
	"time"
)

// never is a time that does not come.
const never = time.Duration(1<<63 - 1)

// look is how often both clocks are looked at while runs are in flight (S6).
const look = time.Second

// schedule wakes devices: one heap and one timer for all of them, however many runs there are.
// What a device is woken for is its own affair (device.wake); no call to the authority is ever
// made on the timer's goroutine, so that nothing can hold it up (S4).
//
// Invariant: the timer is set no later than the earliest entry, and while a device with work in
// flight is in the heap no later than one look away, because a timer follows the monotonic
// clock alone.
type schedule struct {
	clock *clock
	timer *time.Timer

	mu      sync.Mutex // only the clock's is taken under it
	entries entries
	watched int           // entries of devices with work in flight
	set     time.Duration // when the timer fires; never: it is stopped

	base atomic.Pointer[reading] // what the clock ran from when the timer was set; written under mu
}

// entry is a device's place in the schedule; guarded by schedule.mu.
type entry struct {
	at      time.Duration
	index   int32 // in the heap, from 1; 0: not there
	watched bool
}

func (s *schedule) init(c *clock) {
	s.clock, s.set = c, never
	s.timer = time.AfterFunc(never, s.fire)
	s.timer.Stop()
}

// wake has the device woken at a time, never for not at all.
func (s *schedule) wake(d *device, now, at time.Duration, watched bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := &d.entry
	if e.watched != watched {
		e.watched = watched
		if watched {
			s.watched++
		} else {
			s.watched--
		}
	}
	switch {
	case at == never && e.index > 0:
		heap.Remove(&s.entries, int(e.index)-1)
	case at == never:
		return
	case e.index == 0:
		e.at = at
		heap.Push(&s.entries, d)
	case e.at != at:
		e.at = at
		heap.Fix(&s.entries, int(e.index)-1)
	}
	s.reset(now)
}

// reset sets the timer for the earliest entry. The caller holds mu.
func (s *schedule) reset(now time.Duration) {
	base := s.clock.base.Load() // before the clock is read: a leap in between is seen next time
	if len(s.entries) == 0 {
		s.timer.Stop()
		s.set = never
		s.base.Store(base)
		return
	}
	at := s.entries[0].entry.at
	if s.watched > 0 {
		at = min(at, now+look)
	}
	// Later is not worth a call into the runtime: the timer fires, finds nothing and is set
	// anew. That also keeps a stream of short runs from putting the look at the clocks off.
	if at < s.set || s.base.Load() != base {
		s.set = at
		s.base.Store(base)
		s.timer.Reset(at - s.clock.now()) // now may be old: who brought it may have waited for the lock
	}
}

// leapt tells whether one of the clocks may have leapt since the timer was set: the timer knows
// nothing of that, and still has all its way to go.
func (s *schedule) leapt() bool { return s.base.Load() != s.clock.base.Load() }

func (s *schedule) fire() {
	now := s.clock.set().elapsed
	for _, d := range s.due(now) {
		d.wake()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reset(now)
}

// due takes out every device whose time has come.
func (s *schedule) due(now time.Duration) []*device {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set = never
	var ds []*device
	for len(s.entries) > 0 && s.entries[0].entry.at <= now {
		ds = append(ds, heap.Pop(&s.entries).(*device))
	}
	return ds
}

// entries is a heap by time for container/heap, each device knowing its index.
type entries []*device

func (h entries) Len() int           { return len(h) }
func (h entries) Less(i, j int) bool { return h[i].entry.at < h[j].entry.at }

func (h entries) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].entry.index, h[j].entry.index = int32(i+1), int32(j+1) //nolint:gosec // no memory holds so many devices
}

// Push is heap.Interface's.
func (h *entries) Push(x any) {
	d := x.(*device)
	*h = append(*h, d)
	d.entry.index = int32(len(*h)) //nolint:gosec // as in Swap
}

// Pop is heap.Interface's.
func (h *entries) Pop() any {
	last := len(*h) - 1
	d := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	d.entry.index = 0
	return d
}

// behind is how long ago something should have been done. While a clock has leapt and the timer does not know, it is 0.
func (s *schedule) behind(now time.Duration) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.entries) == 0 || s.base.Load() != s.clock.base.Load() {
		return 0
	}
	return max(now-s.entries[0].entry.at, 0)
}
