package chaos

import (
	"fmt"
	"slices"
	"time"
)

// start judges the start of a run (S1), and returns the ALLOW that it stands on; nil: on none.
func (c *checker) start(w *Run) *Call {
	terms := c.Guards[w.Guard]
	backing := c.backing(w)
	if backing == nil {
		c.complainf(w, "S1: started on the request %q, which brought no ALLOW for this device%s", w.RequestID, c.seen(w.RequestID))
		return nil
	}
	most := terms.MaxAge
	if w.Again {
		most += c.excuse(backing.Sent, w.Called, nil) // the guard knew of the denial a moment before it was seen to tell
	}
	if age := w.Called.Sub(backing.Sent); age > most {
		c.complainf(w, "S1: started on a permission that was %v old, at most %v is allowed", age, most)
	}
	if line := terms.Line(*backing); w.Began.Sub(line) > c.excuse(line, w.Began, backing) {
		late := w.Began.Sub(line)
		c.complainf(w, "S1: started %v after its permission had ended", late)
	}
	v, decided := c.verdicts[w.RequestID]
	switch {
	case !decided || !v.Allowed || v.Device != w.Device:
		c.complainf(w, "S1: started on the request %q, which the authority has not allowed for this device", w.RequestID)
	case v.Asked.Before(backing.Sent) || v.Asked.After(backing.Returned):
		c.complainf(w, "S1: started on a verdict from %s, which is not the answer to the request of %s", clock(v.Asked), clock(backing.Sent))
	case !c.allowedWithin(w.Device, backing.Sent, w.Began):
		c.complainf(w, "S1: started at %s though the device was denied all the time since %s", clock(w.Began), clock(backing.Sent))
	}
	c.overtaken(w, backing)
	return backing
}

// backing finds the ALLOW that a run says it stands on.
func (c *checker) backing(w *Run) *Call {
	for _, call := range c.calls[subject{w.Guard, w.Device}] {
		if call.allows() && call.Decision.RequestID == w.RequestID && w.RequestID != "" && !call.Returned.After(w.Began) {
			return call
		}
	}
	return nil
}

// seen says what is known of a request.
func (c *checker) seen(requestID string) string {
	for _, call := range c.Calls {
		if call.Decision.RequestID == requestID && requestID != "" {
			return fmt.Sprintf(" (%s asked about %s at %s, until %s, answered at %s: %+v, given up %t, failed %t)", call.Guard, call.Device,
				clock(call.Sent), clock(call.Deadline), clock(call.Returned), call.Decision, call.GivenUp, call.Failed)
		}
	}
	return ""
}

// handOver is how long an answer may take from where it is recorded to the guard, which learns it then.
const handOver = 5 * time.Millisecond

// overtaken judges whether the ALLOW still counted: not where a denial had been learnt since its request
// was sent, and before it came, or before Run was called (S3, S5).
func (c *checker) overtaken(w *Run, backing *Call) {
	for _, denial := range c.denialsOf(w) {
		learnt := denial.Returned
		since := latest(backing.Returned, w.Called).Sub(learnt)
		overtaken := since > handOver+c.machine(learnt, learnt.Add(since), nil)
		late := w.Began.Sub(learnt)
		if learnt.After(backing.Sent) && (overtaken || late > c.excuse(learnt, w.Began, nil)) {
			c.complainf(w, "S5: started on an ALLOW asked for at %s, %v after %s was learnt",
				clock(backing.Sent), late, denial.Decision.Code)
			return
		}
	}
}

// denialsOf returns what the guard has learnt about the device of a run, or about all devices.
func (c *checker) denialsOf(w *Run) []*Call {
	all := slices.Clone(c.denials[w.Guard])
	for _, call := range c.calls[subject{w.Guard, w.Device}] {
		if call.denies() && !call.Decision.Code.OrganisationWide() {
			all = append(all, call)
		}
	}
	return all
}

// excuse is how late something may be that was due at one instant and was done at another: the
// tolerance, and what the machine was late by. Beyond some seconds it is the guard that leaves
// nobody a processor.
func (c *checker) excuse(due, done time.Time, line *Call) time.Duration {
	return c.Tolerance + c.machine(due, done, line)
}

func (c *checker) machine(due, done time.Time, line *Call) time.Duration {
	late := c.Machine.Late(due, done)
	if line != nil && !line.LineRang.IsZero() && line.LineRang.After(due) {
		late = max(late, line.LineRang.Sub(due))
	}
	return min(late, 5*time.Second, max(0, done.Sub(due)))
}

// allowedWithin tells whether the authority's state may have allowed a device at some instant
// between two.
func (c *checker) allowedWithin(device string, from, to time.Time) bool {
	for _, its := range c.allowed(device) {
		for _, everybodys := range c.allowed("") {
			first, last := latest(from, its.From, everybodys.From), earliest(to, its.To, everybodys.To)
			if !last.Before(first) {
				return true
			}
		}
	}
	return false
}

// allowed returns the stretches in which a device, or the organisation, may have been allowed: while a
// change takes effect, both is possible. Before its first change, which is that it was registered, a
// device is denied, and the organisation is not.
func (c *checker) allowed(device string) (stretches []Stretch) {
	var changes []Change
	for _, change := range c.Changes {
		if change.Device == device {
			changes = append(changes, change)
		}
	}
	slices.SortFunc(changes, func(a, b Change) int { return a.From.Compare(b.From) })
	now, open := Stretch{To: forever()}, device == ""
	for _, change := range changes {
		switch {
		case change.Allowed && !open:
			now, open = Stretch{From: change.From, To: forever()}, true
		case !change.Allowed && open:
			now.To = change.To
			stretches, open = append(stretches, now), false
		}
	}
	if open {
		stretches = append(stretches, now)
	}
	return stretches
}

// forever is later than anything that is recorded.
func forever() time.Time { return time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC) }

func latest(first time.Time, others ...time.Time) time.Time {
	for _, t := range others {
		if t.After(first) {
			first = t
		}
	}
	return first
}

func earliest(first time.Time, others ...time.Time) time.Time {
	for _, t := range others {
		if t.Before(first) {
			first = t
		}
	}
	return first
}
