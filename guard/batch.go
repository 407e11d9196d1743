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
	before  *stop         // those of the device that were still being told then
}

// wait waits until all are told, and all who were told to stop before. It waits for nobody's code.
func (s *stop) wait() {
	for ; s != nil; s = s.before {
		<-s.told
	}
}

// untold is the stop of b, if it or one before it is still being told.
func (b *batch) untold() *stop {
	if b == nil {
		return nil
	}
	last := b.stop.Load()
	for s := last; s != nil; s = s.before {
		select {
		case <-s.told:
		default:
			return last
		}
	}
	return nil
}

func (b *batch) add(r *run) {
	r.index = int32(len(b.runs)) //nolint:gosec // so many goroutines do not fit into any memory
	b.runs = append(b.runs, r)
}

func (b *batch) remove(r *run) {
	b.runs = without(b.runs, r)
}

// without takes r out of runs that know their index.
func without(runs []*run, r *run) []*run {
	last := len(runs) - 1
	moved := runs[last]
	runs[r.index], moved.index = moved, r.index
	runs[last] = nil
	runs = runs[:last]
	if c := cap(runs); c > 1024 && last < c/4 {
		runs = append(make([]*run, 0, c/2), runs...) // the crowd is over
	}
	return runs
}

// tell ends the context of every run of a batch that was stopped. No lock is held: the runs that
// are told can return meanwhile. Walking a list is four times faster than cancelling a tree of
// contexts, which holds the lock of its root throughout.
func (b *batch) tell() {
	s := b.stop.Load()
	for _, r := range b.runs {
		r.cancel(s.why)
		r.callHooks()
	}
	b.runs = nil // a context that somebody keeps must not keep its neighbours
	close(s.told)
}
