package guard_test

import (
	"slices"
	"time"

	"github.com/execguard/execguard/guard"
)

// alive holds the guard to doing its work: one that refused all and stopped everything would be
// safe. That nothing is refused or stopped without a reason is judged elsewhere.
func (j *modelJudge) alive() {
	for _, x := range j.runs {
		j.watched(x)
		j.stoppedUnasked(x)
	}
	for _, h := range j.hints {
		j.heeded(h)
	}
	for _, k := range j.callers {
		switch k.do {
		case doKeep:
			j.restarted(k)
		case doRun:
			j.reused(k)
		}
	}
}

// watched looks for a question at least once an interval while a run is in flight (L2, B1).
func (j *modelJudge) watched(x *modelRun) {
	from, to := x.started.at, x.returned.at
	if x.ended.came() {
		to = x.ended.at
	}
	if j.budget != 0 || x.work.quiet || j.crowded(from-j.interval, to) {
		return
	}
	last := time.Duration(0)
	for _, c := range j.of[x.device] {
		switch gap := max(j.interval, j.timeout) + j.slop(); {
		case c.sent.at > to:
		case c.sent.at > from && c.sent.at-last > gap:
			j.sayf("L2, a watched device", "asked about at %v and not before %v: %v", last, c.sent.at, x)
			fallthrough
		default:
			last = c.sent.at
		}
	}
	if gap := max(j.interval, j.timeout) + j.slop(); to-last > gap {
		j.sayf("L2, a watched device", "not asked about after %v: %v", last, x)
	}
}

// stoppedUnasked looks for a question about a run that was stopped at its line. There is room for
// one, however late in its permission's life the run began.
func (j *modelJudge) stoppedUnasked(x *modelRun) {
	denied, c := j.ownDenial(x, x.why), j.byID[x.decision.RequestID]
	if denied == nil || denied.Decision.Code != guard.CodeSystemUnavailable || c == nil || c.answer.expires != 0 ||
		len(j.jumps) != 0 || j.crowded(c.sent.at, x.ended.at) || j.flying(x.device, x.started.at, x.ended.at) {
		return
	}
	j.sayf("L2, a watched device", "stopped at its line, and the authority was not asked: %v", x)
}

// heeded looks for the question that a hint asks for where something runs (B3).
func (j *modelJudge) heeded(h *modelHint) {
	for _, x := range j.runs {
		from, by := h.begun.at, h.begun.at+j.interval/10+j.slop()
		if h.device != "" && h.device != x.device || x.work.quiet || j.budget != 0 {
			continue
		}
		if j.flying(x.device, from, by) {
			by += j.timeout
		}
		if x.started.at >= from || x.outlasted(by) || j.crowded(from-j.interval, by) || j.deaf(x.device, from, by) {
			continue
		}
		if !slices.ContainsFunc(j.of[x.device], func(c *modelCall) bool { return c.sent.n > h.begun.n && c.sent.at <= by }) {
			j.sayf("B3", "a hint at %v was not heeded by %v: %v", from, by, x)
		}
	}
}

// outlasted tells whether a run has not been live until an instant.
func (x *modelRun) outlasted(at time.Duration) bool {
	return x.returned.at <= at || x.ended.came() && x.ended.at <= at
}

// flying tells whether a request about the device was in flight.
func (j *modelJudge) flying(device string, from, to time.Duration) bool {
	return slices.ContainsFunc(j.of[device], func(c *modelCall) bool {
		return c.sent.at <= to && (!c.returned.came() || c.returned.at >= from)
	})
}

// deaf tells whether calls about the device had been given up and not returned: where there are two,
// nothing more is asked (L4).
func (j *modelJudge) deaf(device string, from, to time.Duration) bool {
	return slices.ContainsFunc(j.of[device], func(c *modelCall) bool {
		return c.ended.came() && c.ended.at <= to && (!c.returned.came() || c.returned.at >= from && c.returned.at > c.ended.at)
	})
}

// restarted looks for the start of a Keep whose device was allowed again: within an interval, when
// what the authority said before is over.
func (j *modelJudge) restarted(k *modelCaller) {
	for i, t := range j.turns {
		if t.device != "" && t.device != k.device || t.answer != (modelAnswer{allowed: true, code: "ALLOW"}) {
			continue
		}
		from := max(t.at, k.called.at)
		for _, c := range j.of[k.device] {
			if c.returned.came() && c.sent.at <= from {
				from = max(from, c.returned.at+c.answer.retryAfter)
			}
		}
		by := from + 2*(j.timeout+j.budget) + j.interval + j.slop()
		if j.allowsUntil(i, k.device, by) && j.patient(k, t.at, from, by) && !j.startsBetween(k, from, by) {
			j.sayf("Keep", "the device is allowed since %v, and it did not start by %v: %v", t.at, by, k)
		}
	}
}

// allowsUntil tells whether the authority does not change its mind about the device after its
// i-th turn.
func (j *modelJudge) allowsUntil(i int, device string, by time.Duration) bool {
	return !slices.ContainsFunc(j.turns[i+1:], func(t modelTurn) bool {
		return t.at <= by && (t.device == "" || t.device == device)
	})
}

// patient tells whether a Keep waits from some instant on and nothing but the device's restoration,
// at since, makes a difference to it.
func (j *modelJudge) patient(k *modelCaller, since, from, by time.Duration) bool {
	switch {
	case !k.mayWait(from), k.returned.at <= by, k.cancelled.came() && k.cancelled.at <= by, j.closing.at <= by,
		k.device == modelDevice(blankDevice), j.crowded(since-j.interval, by):
		return false
	}
	for _, c := range j.denials {
		if c.concerns(k.device) && c.returned.at >= since && c.returned.at <= by {
			return false
		}
	}
	return !slices.ContainsFunc(j.of[k.device], func(c *modelCall) bool {
		return c.sent.at <= by && (!c.returned.came() || c.returned.at > from && c.sent.at < from)
	})
}

func (j *modelJudge) startsBetween(k *modelCaller, from, to time.Duration) bool {
	return slices.ContainsFunc(k.runs, func(x *modelRun) bool { return x.started.at >= from && x.started.at <= to })
}

// reused looks for the start at once of a Run that finds a permission to reuse (L6).
func (j *modelJudge) reused(k *modelCaller) {
	if j.maxAge == 0 || j.closing.came() && j.closing.at <= k.called.at || k.served().at == k.called.at {
		return
	}
	var latest *modelCall
	for _, a := range j.allows(k.device) {
		if a.returned.n < k.called.n {
			latest = a
		}
	}
	if latest == nil || !j.sure(latest) || j.mayBeDead(latest, k.called) || j.revokedSince(latest, k) {
		return
	}
	if _, most := j.age(latest.sent, k.called); most < j.maxAge {
		j.sayf("reuse", "%v was there, and it waited: %v", latest, k)
	}
}

// revokedSince tells whether something may have taken the permission away that an ALLOW had given.
func (j *modelJudge) revokedSince(a *modelCall, k *modelCaller) bool {
	return slices.ContainsFunc(j.denials, func(d *modelCall) bool {
		return d.concerns(k.device) && d.returned.at >= a.sent.at && d.returned.at <= k.called.at
	}) || slices.ContainsFunc(j.hints, func(h *modelHint) bool {
		return (h.device == "" || h.device == k.device) && h.begun.at >= a.sent.at && h.begun.at <= k.called.at
	}) || slices.ContainsFunc(j.ran[k.device], func(x *modelRun) bool {
		return x.left != nil && x.returned.at >= a.sent.at && !j.inherited(x, x.left)
	}) || slices.ContainsFunc(j.of[k.device], func(c *modelCall) bool {
		return j.mayFail(c) && c.outcome().at >= a.sent.at && c.outcome().at <= k.called.at
	})
}
