package guard_test

import (
	"errors"
	"flag"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
)

// The tests TestRealTime_* hold the guard to its bounds on the machine's own clock, over real
// sockets, and with its process stopped and continued, where the others have fake time. Each makes
// 50 tries; a thousand, with the figures printed, are
//
//	go test ./guard -run RealTime -v -guard.tries 1000
//
// What is measured is how long after the instant that the contract names a function is told to
// stop. For each such instant there is a goroutine in the same process that waits for a bare context
// with that deadline, and a pulse sees when the process had no processor: what these are late by, the
// machine is, and not the guard.
var realTries = flag.Int("guard.tries", 50, "how many tries each of the TestRealTime tests makes")

const (
	// tolerance is how late, beyond what the machine is, a function may be told to stop.
	tolerance = 50 * time.Millisecond
	// patience is how long a try waits for what should take a fraction of a second.
	patience = 10 * time.Second
	// startPatience is how long it waits for its runs to start.
	startPatience = 3 * time.Second
	// retryWait is the constant back-off of the guards that retry.
	retryWait = time.Millisecond
)

// pace is what the stop bound is made of.
type pace struct{ interval, timeout, budget time.Duration }

func (p pace) bound() time.Duration { return p.interval + p.timeout + p.budget }

func (p pace) options() []guard.Option {
	opts := []guard.Option{guard.WithInterval(p.interval), guard.WithTimeout(p.timeout)}
	if p.budget > 0 {
		opts = append(opts, retries(retryWait, p.budget))
	}
	return opts
}

// errTooBusy says why a try came to nothing. Where that is so more often than not there is too
// little of what the tests want to see, and they fail.
var errTooBusy = errors.New("the machine was too busy for an authority in good health to answer in time")

// findings are what tries have brought.
type findings struct {
	problems []string
	void     int             // tries that came to nothing: see errTooBusy
	late     []time.Duration // functions told to stop by the clock, after the instant for it
	machine  []time.Duration // what the machine was late by, likewise
	byLine   int             // how many of those instants were stop lines
	resumed  []time.Duration // of late, those for which the process was stopped at the instant, after it was continued
	across   int             // how many lines passed while the process was stopped
	anew     int             // starts that were called right after the process was continued
}

func (f *findings) complainf(format string, args ...any) {
	f.problems = append(f.problems, fmt.Sprintf(format, args...))
}

// of names what the problems are about.
func (f findings) of(what string) findings {
	for i := range f.problems {
		f.problems[i] = what + ": " + f.problems[i]
	}
	return f
}

func (f *findings) add(other findings) {
	f.problems = append(f.problems, other.problems...)
	f.void += other.void
	f.late = append(f.late, other.late...)
	f.machine = append(f.machine, other.machine...)
	f.byLine += other.byLine
	f.resumed = append(f.resumed, other.resumed...)
	f.across += other.across
	f.anew += other.anew
}

// report fails the test over the problems, and prints the figures.
func (f *findings) report(t *testing.T) {
	t.Helper()
	for i, problem := range f.problems {
		if i == 10 {
			t.Errorf("and %d more", len(f.problems)-i)
			break
		}
		t.Error(problem)
	}
	if f.void > 0 {
		t.Logf("%d tries came to nothing: %v", f.void, errTooBusy)
	}
	beyond := slices.Clone(f.late)
	for i := range beyond {
		beyond[i] -= f.machine[i]
	}
	t.Logf("%d runs told to stop by the clock, %d of them at their line: late by %s; the machine by %s; beyond that %s",
		len(f.late), f.byLine, spread(f.late), spread(f.machine), spread(beyond))
	if over := slices.DeleteFunc(slices.Clone(f.late), func(d time.Duration) bool { return d <= tolerance }); len(over) > 0 {
		t.Logf("%d of them by more than %v, while the machine kept the process, or a thread of it, from running", len(over), tolerance)
	}
}

// spread prints a distribution.
func spread(ds []time.Duration) string {
	if len(ds) == 0 {
		return "nothing"
	}
	ds = slices.Sorted(slices.Values(ds))
	at := func(percent int) float64 { return ds[(len(ds)-1)*percent/100].Seconds() * 1000 }
	return fmt.Sprintf("p50 %.2f, p99 %.2f, max %.2f ms", at(50), at(99), at(100))
}

// share has the tries made by workers, each with its own means, and gathers what they find.
func share[W any](workers []W, try func(worker W, n int) findings) *findings {
	var all findings
	var mu sync.Mutex
	var working sync.WaitGroup
	numbers := make(chan int)
	for _, w := range workers {
		working.Go(func() {
			for n := range numbers {
				found := try(w, n)
				mu.Lock()
				all.add(found)
				mu.Unlock()
			}
		})
	}
	for n := range *realTries {
		numbers <- n
	}
	close(numbers)
	working.Wait()
	return &all
}

// pauseFor waits, unless what it waits beside is over before.
func pauseFor(d time.Duration, over <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-over:
	}
}
