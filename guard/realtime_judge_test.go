package guard_test

import (
	"testing"
	"time"
)

// halt is the time in which the process under test was stopped; zero where it was not.
type halt struct{ stopped, continued time.Time }

// lifts moves an instant on to the end of the halt, if the halt may have kept what was due then
// from being done in time.
func (h halt) lifts(due time.Time) time.Time {
	if h.stopped.IsZero() || h.stopped.After(due.Add(tolerance)) {
		return due
	}
	return later(due, h.continued)
}

// spans tells whether the process was stopped at that instant.
func (h halt) spans(at time.Time) bool { return h.stopped.Before(at) && at.Before(h.continued) }

// reckoning is when a run has to be told to stop, told from the calls about its device.
type reckoning struct {
	line   time.Time // the stop line: the bound after the last ALLOW was sent that came before the line then
	latest time.Time // the line or, without retries, the end of the first question that was not answered
	bare   alarm     // the alarm for latest

	// No false alarm: with the authority silent at the worst, permission lasts until then.
	earliest time.Time
}

// reckon goes through the calls about a device, from the one that the run started on. They are
// all of the watch: nobody else asks about that device.
func reckon(p pace, calls []seenCall, began time.Time) reckoning {
	var r reckoning
	var unanswered time.Time // since when the guard knows that it could not ask; zero: it could
	for _, c := range since(calls, began) {
		inTime := c.Allowed && (r.line.IsZero() || c.Returned.Before(r.line))
		switch {
		case inTime:
			r.line, r.latest, r.bare = c.Sent.Add(p.bound()), c.Sent.Add(p.bound()), c.Line
		case p.budget == 0 && c.Deadline.Before(r.latest):
			r.latest, r.bare = c.Deadline, c.GiveUp
		}
		switch {
		case c.Accepted:
			r.earliest, unanswered = c.Deadline.Add(p.bound()-p.timeout), time.Time{}
		case unanswered.IsZero():
			unanswered = c.Deadline
			if !c.Returned.IsZero() && c.Returned.Before(unanswered) {
				unanswered = c.Returned
			}
		}
	}
	if p.budget > 0 && !unanswered.IsZero() {
		unanswered = unanswered.Add(p.budget - retryWait) // a wait that does not fit ends the retrying
	}
	if !unanswered.IsZero() && unanswered.Before(r.earliest) {
		r.earliest = unanswered
	}
	return r
}

// since returns the calls from the ALLOW on which a run started that began then.
func since(calls []seenCall, began time.Time) []seenCall {
	first := 0
	for i, c := range calls {
		if c.Allowed && !c.Returned.After(began) {
			first = i
		}
	}
	return calls[first:]
}

// about returns the calls about a device, and whether they are all that the guard knows of: one
// that was given up before its goroutine ran is seen by the guard alone.
func (s sightings) about(device string) (calls []seenCall, complete bool) {
	undecided := 0
	for _, c := range s.Calls {
		if c.Device != device {
			continue
		}
		calls = append(calls, c)
		if !c.Accepted {
			undecided++
		}
	}
	return calls, s.Observed && s.Undecided[device] <= undecided
}

// judge holds one run to the contract.
func (s sightings) judge(p pace, w seenRun, h halt) (found findings) {
	calls, complete := s.about(w.Device)
	r := reckon(p, calls, w.Began)
	due, told := h.lifts(r.latest), w.Told
	if told.IsZero() {
		told = w.Left // it could have been told so far
	}
	late := told.Sub(due)
	machine := max(0, r.bare.Rang.Sub(due), missing(s.Looks, due, told))
	machine = min(machine, patience/2) // beyond that it is the guard that leaves nobody a processor
	switch {
	case w.Told.IsZero() && !w.listens():
	case late > tolerance+machine:
		found.complainf("%s: told to stop %v late, if at all (the machine: %v): S4, B2", w, late, machine)
	case complete && !w.Told.IsZero() && told.Before(r.earliest.Add(-slack)):
		found.complainf("%s: told to stop %v early: its permission was live and nobody had denied it", w, r.earliest.Sub(told))
	}
	if !w.LastYes.Before(r.line) {
		found.complainf("%s: Checkpoint said yes %v past the line: S6", w, w.LastYes.Sub(r.line))
	}
	if stopped := !w.Told.IsZero() || !w.Left.Before(r.line); stopped && !w.Denied {
		found.complainf("%s: stopped, or back %v after the line, and Run returned %q: S6", w, w.Left.Sub(r.line), w.Err)
	}
	if h.spans(r.line) {
		found.across++
	}
	if w.listens() && !w.Told.IsZero() && late > -slack {
		found.measure(max(0, late), machine, r, h)
	}
	return found
}

// measure takes one run into the figures.
func (f *findings) measure(late, machine time.Duration, r reckoning, h halt) {
	f.late, f.machine = append(f.late, late), append(f.machine, machine)
	if r.latest.Equal(r.line) {
		f.byLine++
	}
	if h.spans(r.latest) {
		f.resumed = append(f.resumed, late)
	}
}

// judgeStart holds one start to S1: not on a permission that was older than maxAge, or without
// reuse any older at all, when Run was called.
func (s sightings) judgeStart(w seenStart, maxAge time.Duration) (found findings) {
	for _, c := range s.Calls {
		if c.RequestID != w.RequestID || !c.Allowed {
			continue
		}
		if age := w.Called.Sub(c.Sent); age > maxAge {
			found.complainf("a run started on a permission that was %v old, %v are allowed: S1, S6", age, maxAge)
		}
		return found
	}
	found.complainf("a run started on the request %q, which was not allowed", w.RequestID)
	return found
}

// slack is what an instant may be early by: the guard follows the faster one of two clocks.
const slack = time.Millisecond

// judged is the pace of the runs that the judge is tried with.
var judged = pace{interval: 40 * time.Millisecond, timeout: 30 * time.Millisecond}

// judgedCall is a call about "dev", allowed if it has an id.
func judgedCall(began time.Time, sent, returned time.Duration, id string) seenCall {
	c := seenCall{
		Device: "dev", Sent: began.Add(sent), Deadline: began.Add(sent + judged.timeout), Returned: began.Add(returned),
		RequestID: id, Allowed: id != "", Accepted: id != "",
	}
	c.GiveUp.Rang, c.Line.Rang = c.Deadline, c.Sent.Add(judged.bound())
	return c
}

// The judge is just: what is right passes and what is wrong does not.
func TestRealTime_TheJudge(t *testing.T) {
	const ms = time.Millisecond
	p, began := judged, time.Now()
	at := func(d time.Duration) time.Time { return began.Add(d) }
	call := func(sent, returned time.Duration, id string) seenCall { return judgedCall(began, sent, returned, id) }
	allowed, silent := call(-10*ms, -5*ms, "r1"), call(20*ms, 50*ms, "")
	for name, c := range map[string]struct {
		calls []seenCall
		run   seenRun
		halt  halt
		fair  bool
	}{
		"at the line":            {[]seenCall{allowed}, seenRun{Told: at(60 * ms), Denied: true}, halt{}, true},
		"late":                   {[]seenCall{allowed}, seenRun{Told: at(111 * ms), Denied: true}, halt{}, false},
		"early":                  {[]seenCall{allowed}, seenRun{Told: at(50 * ms), Denied: true}, halt{}, false},
		"at the timeout":         {[]seenCall{allowed, silent}, seenRun{Told: at(50 * ms), Denied: true}, halt{}, true},
		"late for the timeout":   {[]seenCall{allowed, silent}, seenRun{Told: at(101 * ms), Denied: true}, halt{}, false},
		"renewed":                {[]seenCall{allowed, call(20*ms, 25*ms, "r2")}, seenRun{Told: at(90 * ms), Denied: true}, halt{}, true},
		"renewed after the line": {[]seenCall{allowed, call(50*ms, 61*ms, "r2")}, seenRun{Told: at(120 * ms), Denied: true}, halt{}, false},
		"never":                  {[]seenCall{allowed}, seenRun{Left: at(111 * ms), Denied: true}, halt{}, false},
		"not any more":           {[]seenCall{allowed}, seenRun{Left: at(61 * ms), Denied: true}, halt{}, true},
		"released":               {[]seenCall{allowed}, seenRun{Left: at(50 * ms)}, halt{}, true},
		"unpunished":             {[]seenCall{allowed}, seenRun{Told: at(60 * ms), Left: at(60 * ms)}, halt{}, false},
		"back late, unpunished":  {[]seenCall{allowed}, seenRun{Part: partReturns, Left: at(61 * ms)}, halt{}, false},
		"yes before the line":    {[]seenCall{allowed}, seenRun{LastYes: at(59 * ms), Told: at(61 * ms), Denied: true}, halt{}, true},
		"yes after the line":     {[]seenCall{allowed}, seenRun{LastYes: at(60 * ms), Told: at(61 * ms), Denied: true}, halt{}, false},
		"after a halt":           {[]seenCall{allowed}, seenRun{Told: at(249 * ms), Denied: true}, halt{at(50 * ms), at(200 * ms)}, true},
		"late after a halt":      {[]seenCall{allowed}, seenRun{Told: at(251 * ms), Denied: true}, halt{at(50 * ms), at(200 * ms)}, false},
		"late before a halt":     {[]seenCall{allowed}, seenRun{Told: at(130 * ms), Denied: true}, halt{at(140 * ms), at(200 * ms)}, false},
	} {
		c.run.Device, c.run.Began = "dev", began
		found := sightings{Calls: c.calls, Observed: true}.judge(p, c.run, c.halt)
		if (len(found.problems) == 0) != c.fair {
			t.Errorf("%s: %q, fair: %v", name, found.problems, c.fair)
		}
	}
	for age, fair := range map[time.Duration]bool{19 * ms: true, 21 * ms: false} {
		found := sightings{Calls: []seenCall{allowed}}.judgeStart(seenStart{Called: allowed.Sent.Add(age), RequestID: "r1"}, 20*ms)
		if (len(found.problems) == 0) != fair {
			t.Errorf("a start %v later: %q", age, found.problems)
		}
	}
	if found := (sightings{Calls: []seenCall{silent}}).judgeStart(seenStart{RequestID: ""}, p.bound()); len(found.problems) == 0 {
		t.Error("a start on nothing passes")
	}
}

// What the machine did not let the process do is nobody's fault, and no more than that is excused.
func TestRealTime_TheJudgeKnowsTheMachine(t *testing.T) {
	const ms = time.Millisecond
	began := time.Now()
	at := func(d time.Duration) time.Time { return began.Add(d) }
	allowed := judgedCall(began, -10*ms, -5*ms, "r1")
	late := seenRun{Device: "dev", Began: began, Told: at(160 * ms), Denied: true} // by 100 ms
	for name, c := range map[string]struct {
		looks []look
		fair  bool
	}{
		"a free machine":       {[]look{{At: at(60 * ms)}, {At: at(65 * ms), Waited: map[string]time.Duration{"1": 4 * ms}}}, false},
		"the process stood":    {[]look{{At: at(50 * ms)}, {At: at(120 * ms)}}, true},
		"it stood before":      {[]look{{At: at(0)}, {At: at(60 * ms)}}, false},
		"it stood too shortly": {[]look{{At: at(60 * ms)}, {At: at(100 * ms)}, {At: at(109 * ms)}}, false},
		"a thread waited":      {[]look{{At: at(150 * ms)}, {At: at(155 * ms), Waited: map[string]time.Duration{"1": 60 * ms}}}, true},
		"several did in turn":  {[]look{{At: at(150 * ms)}, {At: at(155 * ms), Waited: map[string]time.Duration{"1": 30 * ms, "2": 30 * ms}}}, false},
		"stood and waited":     {[]look{{At: at(60 * ms)}, {At: at(90 * ms)}, {At: at(99 * ms), Waited: map[string]time.Duration{"1": 30 * ms}}}, true},
	} {
		found := sightings{Calls: []seenCall{allowed}, Looks: c.looks}.judge(judged, late, halt{})
		if (len(found.problems) == 0) != c.fair {
			t.Errorf("%s: %q, fair: %v", name, found.problems, c.fair)
		}
	}
}
