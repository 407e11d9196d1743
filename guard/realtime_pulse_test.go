package guard_test

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// pulse notes what the machine does not do for this process because others have the processors, or
// because it stands still. A deadline that the process sleeps through is not the guard's to keep, nor
// is one that passes while the very thread that sees to it has no processor.
type pulse struct {
	stop func() // ends it

	mu    sync.Mutex
	looks []look
}

// look is what was seen at an instant: how long each thread has waited for a processor so far,
// nothing where the system does not say.
type look struct {
	At     time.Time
	Waited map[string]time.Duration
}

const (
	lookEvery = 5 * time.Millisecond // twice that between two looks is a time in which nothing was done
	lookBack  = 1 << 13              // how many looks are kept: half of them last longer than any try
)

func newPulse() *pulse {
	p := &pulse{}
	over, ended := make(chan struct{}), make(chan struct{})
	p.stop = sync.OnceFunc(func() {
		close(over)
		<-ended
	})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(lookEvery)
		defer ticker.Stop()
		for {
			p.look()
			select {
			case <-ticker.C:
			case <-over:
				return
			}
		}
	}()
	return p
}

func (p *pulse) look() {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := look{At: time.Now(), Waited: waitedSoFar()}
	if len(p.looks) == lookBack {
		p.looks = slices.Delete(p.looks, 0, lookBack/2)
	}
	p.looks = append(p.looks, l)
}

// since returns the looks from the last one before an instant.
func (p *pulse) since(from time.Time) []look {
	p.look() // to have one after all that has happened
	p.mu.Lock()
	defer p.mu.Unlock()
	first, _ := slices.BinarySearchFunc(p.looks, from, func(l look, from time.Time) int { return l.At.Compare(from) })
	return slices.Clone(p.looks[max(0, first-1):])
}

// waitedSoFar reads what Linux accounts for each thread.
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

// missing is how much of the time between two instants, at most, the process or one thread of it was
// kept from running. One is enough: where that thread has just been woken to look for work, the
// runtime lets no other look after its timers.
func missing(looks []look, from, to time.Time) time.Duration {
	var stood time.Duration
	waited := map[string]time.Duration{}
	for i := 1; i < len(looks); i++ {
		a, b := looks[i-1], looks[i]
		if b.At.Sub(a.At) > 2*lookEvery {
			stood += overlap(a.At, b.At, from, to)
		}
		for thread, soFar := range b.Waited {
			// The system adds a wait when it is over.
			waited[thread] += overlap(b.At.Add(a.Waited[thread]-soFar), b.At, from, to)
		}
	}
	longest := time.Duration(0)
	for _, d := range waited {
		longest = max(longest, d)
	}
	return min(stood+longest, max(0, to.Sub(from))) // the two may be the same in part
}

// overlap is how long both of two stretches of time are.
func overlap(begin, end, from, to time.Time) time.Duration {
	if end.After(to) {
		end = to
	}
	return max(0, end.Sub(later(begin, from)))
}
