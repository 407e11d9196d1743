package main

import (
	"context"
	"sync"
	"time"
)

// job is the work: it goes on for ever, a step every few milliseconds, and knows nothing of authorities.
type job struct {
	mu       sync.Mutex
	steps    int
	underWay chan struct{} // closed once a few steps are done
}

func newJob() *job { return &job{underWay: make(chan struct{})} }

// enough is how many steps a job does before something happens to it.
const enough = 3

// work does steps until its context ends.
func (j *job) work(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			j.step()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (j *job) step() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.steps++; j.steps == enough {
		close(j.underWay)
	}
}

func (j *job) done() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.steps
}
