package guard_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/execguard/execguard/guard"
)

// modelDue is a reason for a run to stop, and the instant by which its context has to end.
type modelDue struct {
	at   time.Duration
	why  string // the sentence of the contract
	of   string
	ours bool // the guard's, and not the caller's
}

// stop holds the end of a function's context to S3, S4, S6, S7, S10, B1 and B2: it comes when there
// is a reason, and only then.
func (j *modelJudge) stop(x *modelRun) {
	for _, due := range j.dues(x) {
		if x.returned.came() && x.returned.at <= due.at {
			continue
		}
		if !x.work.quiet && (!x.ended.came() || x.ended.at > due.at) {
			j.sayf(due.why, "to stop by %v %s: %v", due.at, due.of, x)
		}
		for _, p := range x.polls {
			if p.at > due.at && p.err == nil {
				j.sayf(due.why, "to stop by %v %s, its context was live at %v: %v", due.at, due.of, p.at, x)
			}
		}
		if x.left == nil && x.returned.came() {
			j.sayf(due.why, "to stop by %v %s, its context was live at its return: %v", due.at, due.of, x)
		}
	}
	if x.ended.came() {
		j.ended(x)
	}
}

// dues are the reasons for a run to stop.
func (j *modelJudge) dues(x *modelRun) []modelDue {
	c := j.byID[x.decision.RequestID]
	if c == nil {
		return nil
	}
	dues := []modelDue{{at: j.covered(x, c), why: "S4, B2 the stop line", ours: true}}
	for _, d := range j.denials {
		if d.concerns(x.device) && j.sure(d) && d.returned.n > c.sent.n && d.returned.at >= x.started.at {
			dues = append(dues, modelDue{at: d.returned.at, why: "S3", of: d.id, ours: true})
		}
	}
	for _, q := range j.of[x.device] {
		if j.ofWatch(q, x) && j.failed(q) {
			dues = append(dues, modelDue{at: q.outcome().at, why: "R1, S3 the watch could not ask", of: q.id, ours: true})
		}
	}
	for _, e := range j.ends {
		switch {
		case e.do == doClose && e.begun.at >= x.started.at:
			dues = append(dues, modelDue{at: e.begun.at, why: "S7 Close", ours: true})
		case e.do == doShutdown && e.err != nil && e.done.at >= x.started.at:
			dues = append(dues, modelDue{at: e.done.at, why: "S7 the limit of Shutdown", ours: true})
		}
	}
	if k := x.caller; k.cancelled.came() && k.cancelled.at >= x.started.at {
		dues = append(dues, modelDue{at: k.cancelled.at, why: "the caller's context"})
	}
	if o := x.caller.outer; o != nil && o.ended.came() {
		dues = append(dues, modelDue{at: o.ended.at, why: "the outer run's context"})
	}
	return append(dues, j.revoked(x)...)
}

// covered is how long ALLOWs carry a run that has started on c.
func (j *modelJudge) covered(x *modelRun, c *modelCall) time.Duration {
	until := j.line(c, x)
	for _, a := range j.allows(x.device) {
		switch {
		case a.returned.n <= c.returned.n || a.returned.at > until:
		case j.sure(a) && !j.mayBeDead(a, a.returned):
			until = j.line(a, x)
		default:
			until = max(until, j.line(a, x))
		}
	}
	return until
}

// failed tells whether a call has surely ended in «could not ask».
func (j *modelJudge) failed(c *modelCall) bool {
	return c.timedOut() || j.sure(c) && c.verdict() == modelUnavailable
}

// ofWatch tells whether a call can only have been the watch's own question, asked while x ran:
// nobody else wanted an answer. Where there are retries or renewals the model does not look.
func (j *modelJudge) ofWatch(c *modelCall, x *modelRun) bool {
	if j.budget != 0 || j.maxAge != 0 || x.started.n > c.sent.n || x.returned.n < c.sent.n || j.hinted(c) {
		return false
	}
	return !slices.ContainsFunc(j.wanted[c.device], func(k *modelCaller) bool { return k.mayWait(c.sent.at) })
}

// hinted tells whether a call may have been asked because of a hint.
func (j *modelJudge) hinted(c *modelCall) bool {
	for _, h := range j.hints {
		if late := c.sent.at - h.begun.at; (h.device == "" || h.device == c.device) && late >= 0 && late <= 2*j.interval+j.timeout {
			return true
		}
	}
	return false
}

// revoked is B1: the authority said no from some instant on, and answered in time.
func (j *modelJudge) revoked(x *modelRun) []modelDue {
	var dues []modelDue
	for i, t := range j.turns {
		by := t.at + j.interval + j.timeout
		if t.device != "" && t.device != x.device || t.at < x.started.at || !j.deniesFrom(i, x.device, by) {
			continue
		}
		if (j.budget == 0 || j.timeout <= j.interval) && j.undisturbed(x.device, t.at-j.stopBound(), by) {
			dues = append(dues, modelDue{at: by + j.slop(), why: "B1", ours: true})
		}
	}
	return dues
}

// deniesFrom tells whether the authority denies the device from its i-th turn on until by.
func (j *modelJudge) deniesFrom(i int, device string, by time.Duration) bool {
	for n, t := range j.turns[i:] {
		if n > 0 && t.at > by {
			break
		}
		c := modelCall{answer: t.answer}
		if t.device != "" && t.device != device {
			continue
		}
		if c.verdict() != modelDenial || t.answer.takes < 0 || t.answer.takes >= j.timeout {
			return false
		}
	}
	return true
}

// undisturbed tells whether nothing failed that was asked about the device, and there was a slot
// for everything.
func (j *modelJudge) undisturbed(device string, from, to time.Duration) bool {
	for _, c := range j.of[device] {
		at := c.outcome().at
		if at >= from && c.sent.at <= to && (c.ended.came() || j.mayFail(c)) {
			return false
		}
	}
	return !j.crowded(from, to)
}

// crowded tells whether somebody may have waited for a slot (L4).
func (j *modelJudge) crowded(from, to time.Duration) bool {
	for _, c := range j.calls {
		if c.sent.at <= to && (!c.returned.came() || c.returned.at >= from) && j.inFlight(c) >= j.startSlots() {
			return true
		}
	}
	return false
}

// startSlots is how many calls starts may have: a quarter is for watches.
func (j *modelJudge) startSlots() int { return max(1, min(j.requests-j.requests/4, j.requests-1)) }

// inFlight counts the calls that had not returned when c had been sent.
func (j *modelJudge) inFlight(c *modelCall) int {
	n := 0
	for _, o := range j.calls {
		if o.sent.n <= c.sent.n && (!o.returned.came() || o.returned.n > c.sent.n) {
			n++
		}
	}
	return n
}

// ended holds the cause with which a context has ended to the record.
func (j *modelJudge) ended(x *modelRun) {
	denied := j.ownDenial(x, x.why)
	switch {
	case j.inherited(x, x.why):
	case !errors.Is(x.why, context.Canceled):
		j.sayf("the cause matches Canceled", "%v", x)
	case errors.Is(x.why, guard.ErrClosed):
		if !j.closedAt(x.ended.at) {
			j.sayf("S7", "closed without a Close: %v", x)
		}
	case denied == nil:
		j.sayf("S3", "ended without a reason: %v", x)
	case !denied.InFlight:
		j.sayf("S3", "the denial is not InFlight: %v", x)
	default:
		if why := j.unfounded(denied, x.device, x.ended, x.ended, x); why != "" {
			j.sayf("a run is stopped for a reason", "%s: %v", why, x)
		}
	}
}

// inherited tells whether a cause is the caller's context's.
func (j *modelJudge) inherited(x *modelRun, cause error) bool {
	k := x.caller
	if o := k.outer; o != nil {
		return o.ended.came() && o.why == cause || o.left == cause && cause != nil
	}
	return k.cancelled.came() && k.reason == cause
}

// closedAt tells whether the guard was closed in that instant.
func (j *modelJudge) closedAt(at time.Duration) bool {
	for _, e := range j.ends {
		if e.do == doClose && e.begun.at == at || e.do == doShutdown && e.err != nil && e.done.at == at {
			return true
		}
	}
	return false
}

// unfounded says why nothing in the record, between two moments, makes the denial true; "" where
// something does. x is the run that it has stopped, nil for a start that was refused.
func (j *modelJudge) unfounded(e *guard.DeniedError, device string, from, to moment, x *modelRun) string {
	d := e.Decision
	switch unavailable := d.Code == guard.CodeSystemUnavailable; {
	case e.DeviceID != device || d.Allowed || d.Code == "" || d.Code == guard.CodeAllow:
		return fmt.Sprintf("no denial of %s: %+v", device, e)
	case !errors.Is(e, guard.ErrDenied) || errors.Is(e, guard.ErrUnavailable) != (unavailable || x != nil && errors.Is(x.own, guard.ErrUnavailable)):
		return "it matches ErrUnavailable or does not match ErrDenied"
	case unavailable && d.Reason == "":
		return "SYSTEM_UNAVAILABLE without a Reason"
	case !unavailable:
		return j.unsaid(d, device, from, to)
	case d.RequestID != "":
		return j.unfailed(d, device, from, to, x)
	case j.silent(device, from, to, x), j.ranOut(device, from, to), j.hung(device, to), j.crowded(from.at, to.at),
		j.leaptOver(device, to):
		return ""
	}
	return "SYSTEM_UNAVAILABLE, and nothing has failed"
}

// unsaid is unfounded for what the authority has said.
func (j *modelJudge) unsaid(d guard.Decision, device string, from, to moment) string {
	c := j.byID[d.RequestID]
	switch {
	case c == nil || c.verdict() != modelDenial || c.answer.code != d.Code || !c.concerns(device):
		return fmt.Sprintf("the authority did not say %+v (%v)", d, c)
	case c.unwanted():
		return fmt.Sprintf("nobody wanted the answer of %v", c)
	case c.returned.at < from.at || c.returned.at > to.at:
		return fmt.Sprintf("%v said so at another time", c)
	}
	return ""
}

// unfailed is unfounded for an answer that made no sense, or came too late.
func (j *modelJudge) unfailed(d guard.Decision, device string, from, to moment, x *modelRun) string {
	c := j.byID[d.RequestID]
	switch {
	case c == nil || c.device != device || !c.answered():
		return fmt.Sprintf("%v is no answer about %s", c, device)
	case c.returned.at < from.at || c.returned.at > to.at:
		return fmt.Sprintf("%v failed at another time", c)
	case j.mayFail(c):
		if x != nil && j.alone(c) {
			return fmt.Sprintf("%v was asked for a start alone", c)
		}
		return ""
	}
	return fmt.Sprintf("%v has not failed", c)
}

// silent tells whether the authority was asked about the device and has not answered, or with no
// decision at all.
func (j *modelJudge) silent(device string, from, to moment, x *modelRun) bool {
	for _, c := range j.of[device] {
		at := c.outcome()
		if at.came() && at.at >= from.at && at.at <= to.at && !c.unwanted() &&
			(c.ended.came() || c.verdict() == modelUnavailable) && (x == nil || !j.alone(c)) {
			return true
		}
	}
	return false
}

// alone tells whether a call can only have been made for starts (S3: «a start that could not ask is
// refused alone»): one came in that instant, and nothing else was going on.
func (j *modelJudge) alone(c *modelCall) bool {
	if j.budget != 0 || j.maxAge != 0 || j.hinted(c) || j.crowded(c.sent.at-j.interval, c.sent.at) {
		return false
	}
	for _, o := range j.of[c.device] {
		if o != c && o.sent.n < c.sent.n && (!o.returned.came() || o.returned.at >= c.sent.at) {
			return false
		}
	}
	for _, k := range j.wanted[c.device] {
		if k.called.at == c.sent.at && k.called.n < c.sent.n {
			return true
		}
	}
	return false
}

// ranOut tells whether the device's permission may have run out between two moments: before a newer
// ALLOW came, or before the latter.
func (j *modelJudge) ranOut(device string, from, to moment) bool {
	var latest *modelCall
	for _, a := range j.allows(device) {
		if a.returned.at > to.at {
			break
		}
		if a.returned.at >= from.at && (j.mayBeDead(a, a.returned) || latest != nil && j.mayBeDead(latest, a.returned)) {
			return true
		}
		latest = a
	}
	return latest != nil && j.mayBeDead(latest, to)
}

// leaptOver tells whether a jump may have ended the budget of a question, so that it was not tried
// again (R2).
func (j *modelJudge) leaptOver(device string, now moment) bool {
	return j.budget != 0 && slices.ContainsFunc(j.of[device], func(c *modelCall) bool {
		failed := c.outcome()
		_, most := j.age(failed, now)
		return failed.came() && failed.n < now.n && j.jumped(failed, now) && most >= j.budget && j.mayFail(c)
	})
}

// mayFail tells whether a call may have ended in «could not ask».
func (j *modelJudge) mayFail(c *modelCall) bool {
	return c.timedOut() || c.answered() &&
		(c.verdict() == modelUnavailable || c.verdict() == modelAllow && j.mayBeDead(c, c.returned))
}

// hung tells whether two calls about the device had been given up and not returned (L4).
func (j *modelJudge) hung(device string, now moment) bool {
	n := 0
	for _, c := range j.of[device] {
		if c.ended.came() && c.ended.at <= now.at && (!c.returned.came() || c.returned.at >= now.at) {
			n++
		}
	}
	return n >= 2
}
