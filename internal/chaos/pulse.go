package chaos

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// pulseEvery is how often a Pulse beats. A beat that is late by as much again counts as lateness.
const pulseEvery = 5 * time.Millisecond

// longestStretch bounds what is excused by one wait.
const longestStretch = 5 * time.Second

// Stretch is a stretch of time.
type Stretch struct{ From, To time.Time }

// overlap is how much of it lies between two instants.
func (s Stretch) overlap(from, to time.Time) time.Duration {
	if s.From.After(from) {
		from = s.From
	}
	if s.To.Before(to) {
		to = s.To
	}
	return max(0, to.Sub(from))
}

// Machine is what a machine kept a process from doing in time.
type Machine struct {
	Gaps  []Stretch            // between two beats of a ticker that came too late
	Waits map[string][]Stretch // by thread: it was ready to run and had no processor, where the system says so
}

// Late is how much of the time between two instants, at most, the process or one thread of it was
// kept from running. One is enough: a thread that was woken to look for work holds up what it finds.
func (m Machine) Late(from, to time.Time) time.Duration {
	if !from.Before(to) {
		return 0
	}
	all, most := sum(m.Gaps, from, to)
	longest := time.Duration(0)
	for _, waits := range m.Waits {
		its, most1 := sum(waits, from, to)
		longest, most = max(longest, its), max(most, most1)
	}
	return min(all+longest, handOns*most, to.Sub(from)) // the two may be the same in part
}

// handOns is how many times one goroutine has to wake another, at most, until what is due is done and seen: a
// timer, who holds the lock, who tells the runs, a context's child, who notes it. Each may wait for as long as
// anything has waited in that time, and not for longer: many short waits are no excuse for a long one.
const handOns = 16

// sum is how much of the time between two instants lies in stretches, which are in the order of their ends. None
// is longer than longestStretch, so that those that end much later need not be looked at.
func sum(stretches []Stretch, from, to time.Time) (all, most time.Duration) {
	first, _ := slices.BinarySearchFunc(stretches, from, func(s Stretch, t time.Time) int { return s.To.Compare(t) })
	for _, s := range stretches[first:] {
		if s.To.Sub(to) > longestStretch {
			break
		}
		o := s.overlap(from, to)
		all, most = all+o, max(most, o)
	}
	return all, most
}

// Worst is the longest stretch in which nothing was done.
func (m Machine) Worst() (worst time.Duration) {
	for _, gap := range m.Gaps {
		worst = max(worst, gap.To.Sub(gap.From))
	}
	return worst
}

// Pulse measures how late a ticker is, and how long threads wait for a processor. It is made by
// NewPulse and runs until Stop.
type Pulse struct {
	stop func()

	mu      sync.Mutex
	last    time.Time
	waited  map[string]time.Duration // so far
	machine Machine
}

// NewPulse starts one.
func NewPulse() *Pulse {
	p := &Pulse{last: time.Now(), waited: waitedSoFar(), machine: Machine{Waits: map[string][]Stretch{}}}
	over, ended := make(chan struct{}), make(chan struct{})
	p.stop = sync.OnceFunc(func() {
		close(over)
		<-ended
	})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(pulseEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				p.beat()
			case <-over:
				return
			}
		}
	}()
	return p
}

// Stop ends the measuring. It may be called again.
func (p *Pulse) Stop() { p.stop() }

// Machine returns what was measured since the start, as a copy.
func (p *Pulse) Machine() Machine {
	p.beat() // to have one after all that has happened
	p.mu.Lock()
	defer p.mu.Unlock()
	m := Machine{Gaps: append([]Stretch(nil), p.machine.Gaps...), Waits: map[string][]Stretch{}}
	for thread, waits := range p.machine.Waits {
		m.Waits[thread] = append([]Stretch(nil), waits...)
	}
	return m
}

// Forget drops what was over before then, for measuring without end.
func (p *Pulse) Forget(before time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	over := func(s Stretch) bool { return s.To.Before(before) }
	p.machine.Gaps = slices.DeleteFunc(p.machine.Gaps, over)
	for thread, waits := range p.machine.Waits {
		if waits = slices.DeleteFunc(waits, over); len(waits) > 0 {
			p.machine.Waits[thread] = slices.Clone(waits) // without the room that the others had
		} else {
			delete(p.machine.Waits, thread)
		}
	}
}

func (p *Pulse) beat() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if now.Sub(p.last) > 2*pulseEvery {
		p.machine.Gaps = append(p.machine.Gaps, Stretch{p.last.Add(pulseEvery), now}) // what it is late by
	}
	p.last = now
	waited := waitedSoFar()
	for thread, soFar := range waited {
		if more := soFar - p.waited[thread]; more > time.Millisecond { // shorter ones hold nobody up
			p.machine.Waits[thread] = append(p.machine.Waits[thread], Stretch{now.Add(-more), now})
		}
	}
	p.waited = waited
}

// waitedSoFar reads what Linux accounts for each thread; elsewhere there is nothing to read.
func waitedSoFar() map[string]time.Duration {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return nil
	}
	waited := map[string]time.Duration{}
	for _, thread := range threads {
		text, err := os.ReadFile(filepath.Join("/proc/self/task", thread.Name(), "schedstat"))
		if fields := strings.Fields(string(text)); err == nil && len(fields) == 3 {
			ns, _ := strconv.ParseInt(fields[1], 10, 64)
			waited[thread.Name()] = time.Duration(ns)
		}
	}
	return waited
}
