package guard

import (
	"sync/atomic"
	"time"
)

// batch is the runs of one device that share one fate: it collects those that are in flight, and
// when they are told to stop the device takes a new one. So telling them is one store, however
// many they are, and whoever wants to know whether a run may go on looks here.
//
// Invariant: until stop is there, the runs are guarded by the device's lock; from then on they
// belong to the goroutine that tells them, and leave without touching it.
type batch struct {
	device *device
	stop   atomic.Pointer[stop] // why they have to stop; nil: they may go on. Written once
	runs   []*run               // in no order; each knows its index
}

// stop is why and when a batch was told to stop.
type stop struct {
	err stopError
	why *cause // err, as a context's cause
	at  time.Duration

	telling bool          // somebody has begun to tell the runs; guarded by the device's lock
	told    chan struct{} // closed when all are told
}

func (b *batch) add(r *run) {
	r.index = int32(len(b.runs)) //nolint:gosec // so many goroutines do not fit into any memory
	b.runs = append(b.runs, r)
}

func (b *batch) remove(r *run) {
	last := len(b.runs) - 1
	moved := b.runs[last]
	b.runs[r.index], moved.index = moved, r.index
	b.runs[last] = nil
	b.runs = b.runs[:last]
	if last == 0 && cap(b.runs) > 1024 {
		b.runs = nil // a crowd is over
	}
}

// tell ends the context of every run of a batch that was stopped. No lock is held: the runs that
// are told can return meanwhile. Walking a list is four times faster than cancelling a tree of
// contexts, and holds no parent's lock.
func (b *batch) tell() {
	s := b.stop.Load()
	for _, r := range b.runs {
		r.cancel(s.why)
	}
	b.runs = nil // a context that somebody keeps must not keep its neighbours
	close(s.told)
}
