package chaos

import (
	"slices"
	"strings"
	"time"

	"github.com/execguard/execguard/guard"
)

// due is when a run had to be told to stop, at the latest.
type due struct {
	at   time.Time
	why  string
	line *Call // the ALLOW whose line it is; nil: it is no line
}

// stop judges until when the context of a run was live (S3, S4, B2).
func (c *checker) stop(w *Run, backing *Call) {
	told := w.Told
	if told.IsZero() {
		told = w.Left // it could have been told so far
	}
	d := c.due(w, backing)
	if guards := !w.Told.IsZero() && !w.Own && (w.Cause.Denied || w.Cause.Closed); guards {
		c.found.Stopped++
	}
	if over := w.Left.Sub(told); c.Obedient && !w.Own && over > c.excuse(told, w.Left, nil) {
		c.complainf(w, "its function went on for %v after the context had ended: it was given another one", over)
	}
	if d.line != nil && !told.Before(d.at) {
		c.found.ByLine++
	}
	lifted := c.lifted(d.at)
	late := told.Sub(lifted)
	if !w.Told.IsZero() && !w.Own && c.Machine.Late(lifted, lifted.Add(3*c.Tolerance)) <= c.Tolerance {
		c.found.Strict++ // had it been live for three times the tolerance, it would have been said
	}
	if late <= 0 {
		return
	}
	machine := c.machine(lifted, told, d.line)
	if !w.Told.IsZero() {
		c.found.Late, c.found.LateByItself = append(c.found.Late, late), append(c.found.LateByItself, max(0, late-machine))
	}
	if late > c.Tolerance+machine {
		c.complainf(w, "S4: its context was live %v after %s, which was at %s (the machine was late by %v)", late, d.why, clock(d.at), machine)
	}
}

// due goes through what the guard was told about the device since the ALLOW that a run started on.
func (c *checker) due(w *Run, backing *Call) due {
	terms := c.Guards[w.Guard]
	line := backing
	for _, call := range c.calls[subject{w.Guard, w.Device}] {
		at := terms.Line(*line)
		if call.allows() && c.genuine(call) && call.Sent.After(line.Sent) && call.Returned.Before(at) {
			line = call
		}
	}
	d := due{terms.Line(*line), "the stop line", line}
	for _, denial := range c.denialsOf(w) {
		// Since its ALLOW was asked for, and not since it began: what is learnt in between comes too late to
		// refuse it, and has to stop it at once.
		if at := latest(denial.Returned, w.Began); denial.Returned.After(backing.Sent) && at.Before(d.at) {
			d = due{at, string(denial.Decision.Code) + " was learnt", nil}
		}
	}
	if w.Alone && terms.Budget == 0 {
		d = c.unanswered(w, d)
	}
	return d
}

// genuine tells whether an ALLOW is the authority's, and not something that looks like one.
func (c *checker) genuine(call *Call) bool {
	v := c.verdicts[call.Decision.RequestID]
	return v.Allowed && v.Device == call.Device
}

// unanswered takes in the first question of a watch that brought no decision, of a run that nobody
// asks beside. Its end is its deadline, or an error before that.
func (c *checker) unanswered(w *Run, d due) due {
	calls, until := c.calls[subject{w.Guard, w.Device}], w.Left
	if !w.Told.IsZero() {
		until = w.Told
	}
	first, _ := slices.BinarySearchFunc(calls, w.Began, func(call *Call, t time.Time) int { return call.Sent.Compare(t) })
	for _, call := range calls[first:] {
		if call.allows() || call.denies() || call.Deadline.IsZero() || c.hinted(call) {
			continue
		}
		end := call.Deadline
		if !call.Returned.IsZero() {
			end = earliest(end, call.Returned)
		}
		if end.Before(d.at) && call.Sent.Before(until) {
			return due{end, "a question of its watch brought nothing", nil}
		}
	}
	return d
}

// hinted tells whether a hint may have brought a question forward: at once, after the one in flight, or
// at the end of a tenth of the interval.
func (c *checker) hinted(call *Call) bool {
	terms := c.Guards[call.Guard]
	return slices.ContainsFunc(c.Hints, func(hint Hint) bool {
		after := call.Sent.Sub(hint.At)
		return hint.Device == call.Device && after >= 0 && after <= terms.Interval/10+terms.Timeout+c.Tolerance
	})
}

// lifted moves an instant on to the end of a halt, if that may have kept what was due then from being
// done in time.
func (c *checker) lifted(at time.Time) time.Time {
	for _, halt := range c.Halts {
		if !halt.Stopped.After(at.Add(c.Tolerance)) {
			at = latest(at, halt.Continued)
		}
	}
	return at
}

// outcome judges what became of a run that had started: who was stopped is told so, in the same words, by
// its context and by Run.
func (c *checker) outcome(w *Run) {
	if w.Left.IsZero() {
		c.complainf(w, "its function never returned")
		return
	}
	stopped := !w.Told.IsZero() && !w.Own
	if stopped && w.Cause.Denied {
		c.founded(w, w.Cause, w.Told)
	}
	if w.Calls > 1 {
		c.complainf(w, "its function was called %d times", w.Calls)
	}
	if !w.Kept && w.Loose {
		c.complainf(w, "its context was live when Run had returned")
	}
	switch {
	case stopped && w.Seen.Text != "" && !w.Seen.Denied && !w.Seen.Closed:
		c.complainf(w, "its context ended with %s, and the handler saw %s", w.Cause.Text, w.Seen.Text)
	case stopped && !w.Cause.Denied && !w.Cause.Closed:
		c.complainf(w, "its context ended, and the cause is none of the guard's: %s", w.Cause.Text)
	case stopped && w.Cause.Denied && !w.Cause.InFlight:
		c.complainf(w, "its context ended with a denial that is none in flight: %s", w.Cause.Text)
	case stopped && !w.Cause.Canceled:
		c.complainf(w, "the cause of its context does not match context.Canceled: %s", w.Cause.Text)
	case w.Kept:
	case stopped && w.Cause.Denied && (!w.Result.Denied || !w.Result.InFlight):
		c.complainf(w, "it was stopped, and Run returned no denial in flight: %q", w.Result.Text)
	case stopped && w.Cause.Closed && !w.Result.Closed:
		c.complainf(w, "the guard was closed, and Run did not say so: %q", w.Result.Text)
	case stopped && w.Cause.Denied && w.Cause.Code != w.Result.Code:
		c.complainf(w, "its context says %s, and Run %s", w.Cause.Code, w.Result.Code)
	case w.Lost:
		c.complainf(w, "what the function returned is not found in what Run returned: %s", w.Result.Text)
	case !stopped && w.Result.Denied && w.Result.InFlight && w.Changed:
		c.founded(w, w.Result, w.Back) // the function returned after its line, or when it was about to be told
	case !stopped && w.Changed && !w.Result.Closed:
		c.complainf(w, "nobody has stopped it, and Run did not return what the function returned: %s", w.Result.Text)
	case w.Result.Denied && w.Result.InFlight && w.Result.Canceled:
		c.complainf(w, "a denial that Run returned matches context.Canceled: %s", w.Result.Text)
	}
}

// refused judges what Run returned to who was not let in.
func (c *checker) refused(w *Run) {
	switch {
	case w.Kept:
	case w.Result.Text == "":
		c.complainf(w, "its function was not called, and Run returned nil")
	case !w.Result.Denied && !w.Result.Closed && !w.Own:
		c.complainf(w, "its function was not called, and Run returned neither a denial nor what ended its caller's context: %q", w.Result.Text)
	case w.Result.Denied && w.Result.InFlight:
		c.complainf(w, "its function was not called, and Run returned a denial in flight: %s", w.Result.Text)
	case w.Result.Denied && w.Result.Canceled:
		c.complainf(w, "a denial matches context.Canceled: %s", w.Result.Text)
	}
}

// founded judges whether a denial in flight is one that the guard has learnt (S3): with that code, or where it could
// not ask, with a question that brought nothing, or at the line.
func (c *checker) founded(w *Run, end End, at time.Time) {
	if end.Code != guard.CodeSystemUnavailable {
		for _, denial := range c.denialsOf(w) {
			if denial.Decision.Code == end.Code && denial.Returned.After(w.Called) && !denial.Returned.After(at) {
				return
			}
		}
		c.complainf(w, "S3: it was stopped with %s, which nobody has said", end.Code)
		return
	}
	terms := c.Guards[w.Guard]
	lines, over := 0, false
	for _, call := range c.calls[subject{w.Guard, w.Device}] {
		switch {
		case call.TimedOut && call.Sent.After(w.Called) && call.Deadline.Before(at.Add(handOver)):
			return // whatever it said afterwards
		case call.allows() && c.hardly(call):
			return
		case call.allows():
			if line := terms.Line(*call); call.Returned.Before(at) {
				lines, over = lines+1, !at.Before(line.Add(-2*time.Millisecond)) // the clock that ends it is the guard's
			}
		case call.denies():
		case call.Sent.Before(at) && call.Sent.After(at.Add(-2*terms.Bound()-c.Tolerance-c.machine(w.Began, at, nil))):
			return
		}
	}
	if c.Machine.Late(at.Add(-terms.Bound()), at) > terms.Timeout/2 {
		return // a question may have been given up before its goroutine had a processor: nobody has seen it
	}
	if lines == 0 || !over {
		c.complainf(w, "S3: it was stopped because the authority could not be asked, at %s, when it had been asked%s", clock(at), c.asked(w, at))
	}
}

// asked lists the questions about the device of a run that were under way while it was.
func (c *checker) asked(w *Run, until time.Time) string {
	var text strings.Builder
	for _, call := range c.calls[subject{w.Guard, w.Device}] {
		if !call.Returned.Before(w.Called) && call.Sent.Before(until) {
			text.WriteString(c.seen(call.Decision.RequestID))
		}
	}
	return text.String()
}

// hardly tells whether an answer came so shortly before its deadline that the guard may have given the question up
// when it got there.
func (c *checker) hardly(call *Call) bool {
	late := handOver + c.machine(call.Returned, call.Returned.Add(c.Tolerance), nil)
	return !call.Deadline.IsZero() && call.Returned.Add(late).After(call.Deadline)
}
