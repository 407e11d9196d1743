package chaos

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Findings are what Check makes of a history.
type Findings struct {
	Problems []string // what the contract does not allow

	Started, Refused   int // runs
	Stopped            int // by the guard, while the function ran
	ByLine             int // of those, after which the next thing due was the stop line itself
	Answered, Unasked  int // questions that were decided, and those that brought nothing
	Strict             int // of those that were stopped, where the machine excuses no more than the tolerance
	Late, LateByItself Spread
	Machine            time.Duration // the longest stretch in which the process did nothing
}

// Spread is a set of durations.
type Spread []time.Duration

// String prints the middle, the 99th in a hundred and the largest.
func (s Spread) String() string {
	if len(s) == 0 {
		return "nothing"
	}
	sorted := slices.Sorted(slices.Values(s))
	at := func(percent int) float64 { return sorted[(len(sorted)-1)*percent/100].Seconds() * 1000 }
	return fmt.Sprintf("p50 %.2f, p99 %.2f, max %.2f ms", at(50), at(99), at(100))
}

// Add takes in what another history has shown.
func (f *Findings) Add(g Findings) {
	f.Problems = append(f.Problems, g.Problems...)
	f.Started, f.Refused, f.Stopped, f.ByLine = f.Started+g.Started, f.Refused+g.Refused, f.Stopped+g.Stopped, f.ByLine+g.ByLine
	f.Answered, f.Unasked = f.Answered+g.Answered, f.Unasked+g.Unasked
	f.Strict += g.Strict
	f.Late, f.LateByItself = append(f.Late, g.Late...), append(f.LateByItself, g.LateByItself...)
	f.Machine = max(f.Machine, g.Machine)
}

// String prints the figures, not the problems. Late is what contexts ended after the instant for
// it; «by itself» is what remains of that without what the machine was late by.
func (f Findings) String() string {
	return fmt.Sprintf("%d runs started, %d refused, %d stopped (%d at a stop line); %d questions decided, %d not; "+
		"%d of the stops judged strictly; contexts ended late by %v; by itself by %v; the machine stood for %v at worst",
		f.Started, f.Refused, f.Stopped, f.ByLine, f.Answered, f.Unasked, f.Strict, f.Late, f.LateByItself, f.Machine.Round(10*time.Microsecond))
}

// Check judges a history by the guard's contract. It changes nothing and looks at nothing else.
func Check(h History) Findings {
	c := newChecker(h)
	for i := range h.Runs {
		c.run(&h.Runs[i])
	}
	for _, calls := range c.calls {
		c.oneAtATime(calls)
	}
	c.secrets()
	c.found.Machine = h.Machine.Worst()
	return c.found
}

// checker is a history that things can be found in.
type checker struct {
	History

	calls    map[subject][]*Call // in the order of their sending
	denials  map[string][]*Call  // by guard, in the order of their answers: those that stop every device
	verdicts map[string]Verdict  // by request id
	found    Findings
}

// subject is what a watch is about.
type subject struct{ guard, device string }

func newChecker(h History) *checker {
	c := &checker{History: h, calls: map[subject][]*Call{}, denials: map[string][]*Call{}, verdicts: map[string]Verdict{}}
	for i := range h.Calls {
		call := &h.Calls[i]
		about := subject{call.Guard, call.Device}
		c.calls[about] = append(c.calls[about], call)
		if call.denies() && call.Decision.Code.OrganisationWide() {
			c.denials[call.Guard] = append(c.denials[call.Guard], call)
		}
		if call.allows() || call.denies() {
			c.found.Answered++
		} else {
			c.found.Unasked++
		}
	}
	for _, calls := range c.calls {
		slices.SortFunc(calls, func(a, b *Call) int { return a.Sent.Compare(b.Sent) })
	}
	for _, calls := range c.denials {
		slices.SortFunc(calls, func(a, b *Call) int { return a.Returned.Compare(b.Returned) })
	}
	for _, v := range h.Verdicts {
		c.verdicts[v.RequestID] = v
	}
	return c
}

func (c *checker) complainf(w *Run, format string, args ...any) {
	c.found.Problems = append(c.found.Problems, fmt.Sprintf("%s, %s of %s, called at %s: ", w.Lane, w.Device, w.Guard, clock(w.Called))+
		fmt.Sprintf(format, args...))
}

// clock prints an instant so that a problem can be found in a log.
func clock(t time.Time) string { return t.Format("15:04:05.000000") }

// run judges one run.
func (c *checker) run(w *Run) {
	if w.Back.IsZero() {
		c.complainf(w, "it never came back")
		return
	}
	if w.Began.IsZero() {
		c.found.Refused++
		c.refused(w)
		return
	}
	c.found.Started++
	if backing := c.start(w); backing != nil {
		c.stop(w, backing)
	}
	c.outcome(w)
}

// oneAtATime judges the questions about one device (L1). One that was given up may go on beside the
// one that comes after it, and may even be seen only then, where its goroutine had no processor.
func (c *checker) oneAtATime(calls []*Call) {
	for i, before := 1, (*Call)(nil); i < len(calls); i++ {
		after := calls[i]
		if b := calls[i-1]; before == nil || !b.stale(before) {
			before = b
		}
		over := before.Returned
		if over.IsZero() || before.GivenUp && !before.Deadline.IsZero() && before.Deadline.Before(over) {
			over = before.Deadline
		}
		given := before.GivenUp && !before.TimedOut // by its callers, at a time that is not known
		if before.TimedOut {
			over = over.Add(-time.Millisecond) // the deadline is the guard's clock's
		}
		if !given && !after.stale(before) && after.Sent.Before(over) {
			c.found.Problems = append(c.found.Problems, fmt.Sprintf(
				"L1: %s asked about %s at %s, until %s, while a question from %s was in flight, which was answered at %s",
				after.Guard, after.Device, clock(after.Sent), clock(after.Deadline), clock(before.Sent), clock(before.Returned)))
		}
	}
}

// stale tells whether a call had been given up before another was sent, and was seen only then.
func (c *Call) stale(before *Call) bool { return c.GivenUp && !c.Deadline.After(before.Sent) }

// secrets looks for them wherever there is a text (S8).
func (c *checker) secrets() {
	look := func(where, text string) {
		for _, secret := range c.Secrets {
			if secret != "" && strings.Contains(text, secret) {
				c.found.Problems = append(c.found.Problems, "S8: a secret in "+where)
			}
		}
	}
	for _, call := range c.Calls {
		look("a validator's error", cmp.Or(call.Text, call.Decision.Reason))
		look("a decision", fmt.Sprintf("%+v", call.Decision))
	}
	for _, w := range c.Runs {
		look("the cause of a context", w.Cause.Text)
		look("what Run returned", w.Result.Text)
	}
}
