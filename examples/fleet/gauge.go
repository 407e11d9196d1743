package main

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"time"
)

// tick is how often the gauge looks whether the machine is in time.
const tick = 10 * time.Millisecond

// sample is what the process has used by the beginning of a second.
type sample struct {
	processor  time.Duration // since it began, on all cores together
	memory     uint64        // bytes that the system has given it
	goroutines int
}

// gauge takes a sample a second, and notes how late its own timer was: on a machine with other work everything is late
// by as much, requests too, and that is not the guard's.
type gauge struct {
	begun time.Time

	mu      sync.Mutex
	samples []sample
	late    []time.Duration // the most in each second
}

// run runs until ctx ends.
func (g *gauge) run(ctx context.Context) {
	for next := g.begun; ; next = g.after(next) {
		if wait(ctx, next) != nil {
			return
		}
		g.note(next, time.Now())
	}
}

// after is the tick after one, or where several have been missed the next one to come.
func (g *gauge) after(last time.Time) time.Time {
	return last.Add(time.Since(last).Truncate(tick) + tick)
}

func (g *gauge) note(due, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for bin := int(now.Sub(g.begun) / second); len(g.samples) <= bin; {
		g.samples = append(g.samples, takeSample())
		g.late = append(g.late, 0)
	}
	for bin := int(due.Sub(g.begun) / second); bin <= int(now.Sub(g.begun)/second); bin++ {
		g.late[bin] = max(g.late[bin], now.Sub(due))
	}
}

// taken returns the samples up to now, and how late the timer was in each second.
func (g *gauge) taken() ([]sample, []time.Duration) {
	now := time.Now()
	g.note(now, now) // its own turn may be late
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.samples), slices.Clone(g.late)
}

func takeSample() sample {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return sample{processor: processorTime(), memory: m.Sys - m.HeapReleased, goroutines: runtime.NumGoroutine()}
}

// held is how much memory is in use once the rubbish is gone.
func held() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// wait returns nil at a time, and why ctx has ended where that comes first.
func wait(ctx context.Context, at time.Time) error {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
