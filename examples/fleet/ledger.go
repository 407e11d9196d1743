package main

import (
	"math"
	"slices"
	"sync"
	"time"
)

// ledger is what has happened to the runs of a fleet.
type ledger struct {
	mu      sync.Mutex
	working int // runs in flight
	started int // how often one was begun
	stops   []stop
	broken  error // why a Keep has returned before it was to
	want    int
	met     chan struct{} // closed when working becomes want; nil: nobody waits
}

// stop is a run that was told to stop and saw it.
type stop struct {
	tenant int
	at     time.Time
}

func (l *ledger) start() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.working++
	l.started++
	l.look()
}

func (l *ledger) stop(s stop) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.working--
	l.stops = append(l.stops, s)
	l.look()
}

func (l *ledger) breakOff(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken == nil {
		l.broken = err
	}
}

// until returns a channel that is closed once n runs are in flight. One may wait at a time.
func (l *ledger) until(n int) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	met := make(chan struct{})
	l.want, l.met = n, met
	l.look()
	return met
}

func (l *ledger) look() {
	if l.met != nil && l.working == l.want {
		close(l.met)
		l.met = nil
	}
}

// now returns how many runs are in flight, how often one was begun, and what has broken.
func (l *ledger) now() (working, started int, broken error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.working, l.started, l.broken
}

// stopped returns how long after a time of its tenant's own each run was stopped, in ascending order.
func (l *ledger) stopped(since func(tenant int) time.Time, until time.Time) []time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []time.Duration
	for _, s := range l.stops {
		if from := since(s.tenant); !s.at.Before(from) && !s.at.After(until) {
			all = append(all, s.at.Sub(from))
		}
	}
	slices.Sort(all)
	return all
}

// percentile is the shortest time within which that share of the runs had stopped; 0 where there are none.
func percentile(sorted []time.Duration, share float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(math.Ceil(share*float64(len(sorted))))-1]
}
