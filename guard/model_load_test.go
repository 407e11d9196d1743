package guard_test

import (
	"slices"
	"time"
)

// served is when a caller has what he waits for: his function's start, or a no.
func (k *modelCaller) served() moment {
	if len(k.runs) > 0 {
		return k.runs[0].started
	}
	return k.returned
}

// mayWait tells whether a caller may wait for an answer in some instant: a Keep does so between
// its functions too.
func (k *modelCaller) mayWait(at time.Duration) bool {
	if at < k.called.at || k.returned.came() && at > k.returned.at {
		return false
	}
	return !slices.ContainsFunc(k.runs, func(x *modelRun) bool { return x.busy(at) })
}

// busy tells whether a function ran before an instant, and after it.
func (x *modelRun) busy(at time.Duration) bool {
	return x.started.at < at && (!x.returned.came() || at < x.returned.at)
}

// mayBeWatched tells whether a run may have been one in flight in an instant. One whose caller's
// context has ended is, until it returns; one that was told to stop is not.
func (j *modelJudge) mayBeWatched(x *modelRun, at time.Duration) bool {
	end := x.returned
	if x.ended.came() && !j.inherited(x, x.why) {
		end = x.ended
	}
	return x.started.at <= at && (!end.came() || at <= end.at)
}

// watchedAt tells so of a device.
func (j *modelJudge) watchedAt(device string, at time.Duration) bool {
	return slices.ContainsFunc(j.ran[device], func(x *modelRun) bool { return j.mayBeWatched(x, at) })
}

// load holds one request to L1, L2 and L4.
func (j *modelJudge) load(c *modelCall) {
	if n := j.inFlight(c); n > j.requests {
		j.sayf("L4", "%d requests in flight: %v", n, c)
	}
	hung := 0
	for _, o := range j.of[c.device] {
		switch {
		case o.sent.n >= c.sent.n || o.returned.came() && o.returned.n < c.sent.n:
		case o.ended.came() && o.ended.at <= c.sent.at:
			hung++
		default:
			j.sayf("L1", "%v and %v are in flight", o, c)
		}
	}
	if hung > 1 {
		j.sayf("L4", "%d calls have not returned that were given up: %v", hung, c)
	}
	if c.device == modelDevice(blankDevice) {
		j.sayf("S2", "a blank id: %v", c)
	}
	if j.closing.came() && slices.ContainsFunc(j.ends, func(e *modelEnd) bool {
		return e.do == doClose && e.begun.at < c.sent.at
	}) {
		j.sayf("S7", "asked after Close: %v", c)
	}
}

// unasked holds every request to somebody who wanted it (L2, R1, B3): each start may cost one, each
// hint one, and a watch, or the Keeps that wait, one an interval.
func (j *modelJudge) unasked() {
	for device, calls := range j.of {
		var own *modelCall // the latest that the guard asked by itself
		for i, c := range calls {
			var before *modelCall
			if i > 0 {
				before = calls[i-1]
			}
			if j.newcomer(c, before) || j.byHint(c, before) || j.retried(c, before) {
				continue
			}
			if why := j.tooSoon(device, c, own); why != "" {
				j.sayf("L2", "%s: %v", why, c)
			}
			j.heeds(c)
			own = c
		}
	}
}

// newcomer tells whether somebody waits for the answer who has come since the last request was
// sent: that one answers all who had come before it (L1).
func (j *modelJudge) newcomer(c, before *modelCall) bool {
	return slices.ContainsFunc(j.wanted[c.device], func(k *modelCaller) bool {
		return k.called.n < c.sent.n && (before == nil || k.called.at >= before.sent.at) &&
			(!k.served().came() || k.served().at >= c.sent.at)
	})
}

// byHint tells whether a hint that came since the last request was sent, or just before, may
// have asked.
func (j *modelJudge) byHint(c, before *modelCall) bool {
	from := time.Duration(0)
	if before != nil {
		from = before.sent.at - j.interval/10
	}
	return slices.ContainsFunc(j.hints, func(h *modelHint) bool {
		return (h.device == "" || h.device == c.device) && h.begun.n < c.sent.n && h.begun.at >= from
	})
}

// retried tells whether the request may be another try of one that failed (R1, R2).
func (j *modelJudge) retried(c, before *modelCall) bool {
	if j.budget == 0 || before == nil || before.outcome().at+j.budget+j.slop() < c.sent.at {
		return false
	}
	return j.mayFail(before)
}

// tooSoon says why the guard may not have asked by itself.
func (j *modelJudge) tooSoon(device string, c, own *modelCall) string {
	live := j.watchedAt(device, c.sent.at)
	kept := slices.ContainsFunc(j.wanted[device], func(k *modelCaller) bool {
		return k.do == doKeep && k.mayWait(c.sent.at)
	})
	reused := j.maxAge != 0 && slices.ContainsFunc(j.ran[device], func(x *modelRun) bool {
		return x.started.at <= c.sent.at && x.started.at+2*j.maxAge+2*j.stopBound() >= c.sent.at
	})
	switch {
	case !live && !kept && !reused:
		return "nobody wanted it"
	case own == nil || j.maxAge != 0 || !j.held(device, own.sent.at, c.sent.at) || j.jumped(own.sent, c.sent):
		return ""
	case j.leftAlone(device, c.sent.at), j.newlyWatched(device, own.sent.at-j.interval, c.sent.at):
		return "" // its turns may have been moved
	case c.sent.at-j.turnOf(own) < j.interval:
		return "less than an interval after " + own.String()
	}
	return ""
}

// newlyWatched tells whether a watch began: its first question falls at a random point.
func (j *modelJudge) newlyWatched(device string, from, to time.Duration) bool {
	return slices.ContainsFunc(j.ran[device], func(x *modelRun) bool {
		return x.started.at > from && x.started.at <= to && !slices.ContainsFunc(j.ran[device], func(y *modelRun) bool {
			return y.started.at < x.started.at && j.mayBeWatched(y, x.started.at+1)
		})
	})
}

// turnOf is the earliest that a question may have been due: it waits while others are in flight or
// for a slot, and a jump of the wall clock leaps over it, and none of that moves the next.
func (j *modelJudge) turnOf(c *modelCall) time.Duration {
	turn := c.sent.at
	for _, o := range slices.Backward(j.of[c.device]) {
		if o.sent.n < c.sent.n && (o.ended.at == turn || o.returned.at == turn || o.deadline == turn) {
			turn = o.sent.at
		}
	}
	if from := turn - j.interval; j.crowded(from, c.sent.at) || slices.ContainsFunc(j.jumps, func(m modelJump) bool {
		return m.at >= from && m.n < c.sent.n
	}) {
		return from
	}
	return turn
}

// held tells whether from one instant to another somebody was about the device all the time, so
// that it was not forgotten.
func (j *modelJudge) held(device string, from, to time.Duration) bool {
	for at := from; at < to; {
		next := at
		for _, k := range j.wanted[device] {
			if (k.called.at < at || at == from && k.called.at == at) && (!k.returned.came() || k.returned.at > next) {
				next = k.returned.at
				if !k.returned.came() {
					next = to
				}
			}
		}
		if next == at {
			return false
		}
		at = next
	}
	return true
}

// leave is how long the authority wants to be left alone, where it came to say so.
func (c *modelCall) leave() time.Duration {
	if c.cut || c.answer.fault != "" || c.timedOut() && c.verdict() != modelDenial {
		return 0
	}
	return c.answer.retryAfter
}

// leftAlone tells whether the authority has asked to be left alone about the device.
func (j *modelJudge) leftAlone(device string, until time.Duration) bool {
	return slices.ContainsFunc(j.of[device], func(c *modelCall) bool {
		return c.answer.retryAfter != 0 && c.returned.came() && c.returned.at <= until
	})
}

// heeds holds a question that only Keeps want to the authority's RetryAfter (R3).
func (j *modelJudge) heeds(c *modelCall) {
	if j.maxAge != 0 || j.watchedAt(c.device, c.sent.at) {
		return
	}
	for i, o := range j.of[c.device] {
		if o.sent.n >= c.sent.n {
			break
		}
		floor := o.returned.at + o.leave() - j.slop()
		if o.returned.n > c.sent.n || !j.sure(o) || o.verdict() == modelAllow || floor <= c.sent.at || j.jumped(o.returned, c.sent) {
			continue
		}
		forgiven := slices.ContainsFunc(j.of[c.device][i:], func(a *modelCall) bool {
			return a.verdict() == modelAllow && a.answered() && a.returned.n > o.returned.n && a.returned.n < c.sent.n
		})
		if !forgiven && j.held(c.device, o.sent.at, c.sent.at) {
			j.sayf("R3", "asked for a Keep before %v, of %v: %v", floor, o, c)
		}
	}
}

// waiting holds how long a caller waited to L1, R1, R2, R3 and S7.
func (j *modelJudge) waiting(k *modelCaller) {
	served := k.served()
	if !served.came() {
		return
	}
	if k.cancelled.came() && served.n > k.cancelled.n && served.at > k.cancelled.at {
		j.sayf("table, the caller's context ended", "at %v, served %v: %v", k.cancelled.at, served.at, k)
	}
	if j.closing.came() && served.at > max(j.closing.at, k.called.at) {
		j.sayf("S7", "closing began %v, served %v: %v", j.closing.at, served.at, k)
	}
	if k.do == doKeep {
		return
	}
	if most := 2*j.timeout + j.budget + j.interval + j.slop(); served.at-k.called.at > most {
		j.sayf("L1", "served %v, after %v: %v", served.at, served.at-k.called.at, k)
	}
	c := j.next(k)
	if c == nil || !c.outcome().came() || c.unwanted() {
		return
	}
	by := c.outcome().at
	failed := j.mayFail(c)
	if failed && (c.timedOut() || c.leave() < j.budget+j.slop()) || !c.timedOut() && !j.sure(c) {
		by += j.budget + j.slop()
	}
	if served.at > by {
		j.sayf("R1, R2", "served %v, though the question was answered %v: %v, %v", served.at, c.outcome().at, k, c)
	}
	if failed && served.at > c.outcome().at {
		j.pauses(k, c)
	}
}

// next is the request that answers a caller at the latest: the first that was sent after he came,
// or, where that may have been for somebody else in the same instant, the first after that.
func (j *modelJudge) next(k *modelCaller) *modelCall {
	missed := len(j.jumps) > 0 || j.watchedAt(k.device, k.called.at) || slices.ContainsFunc(j.wanted[k.device], func(o *modelCaller) bool {
		return o != k && o.mayWait(k.called.at)
	}) || slices.ContainsFunc(j.hints, func(h *modelHint) bool { return h.begun.at == k.called.at })
	for _, c := range j.of[k.device] {
		if c.sent.n > k.called.n && (c.sent.at > k.called.at || !missed) {
			return c
		}
	}
	return nil
}

// pauses holds the try after one that failed to the back-off and to RetryAfter (R3): a caller who
// is not refused waits for it, and so does everybody who comes meanwhile.
func (j *modelJudge) pauses(k *modelCaller, c *modelCall) {
	pause := j.pause
	if !c.timedOut() {
		pause = max(pause, c.leave())
	}
	for _, again := range j.of[k.device] {
		if again.sent.n < c.sent.n || again == c || again.sent.n > k.served().n {
			continue
		}
		if early := c.outcome().at + pause - j.slop(); again.sent.at < early && !j.jumped(c.outcome(), again.sent) {
			j.sayf("R3", "tried again %v, before %v: %v after %v", again.sent.at, early, again, c)
		}
		return
	}
}

// givenUp holds a call that was given up because nobody wanted it to L3, and one that was not to
// somebody who did.
func (j *modelJudge) givenUp(c *modelCall) {
	if c.unwanted() && !j.busyEnd(c.ended.at) {
		for _, k := range j.wanted[c.device] {
			if k.do != doKeep && k.called.at < c.sent.at && k.served().at > c.ended.at && j.next(k) == c {
				j.sayf("L3", "%v was given up, but wanted by %v", c, k)
			}
		}
	}
	if j.maxAge != 0 || j.hinted(c) {
		return
	}
	for _, k := range j.wanted[c.device] {
		left := k.served().at
		if left < c.sent.at || left >= c.outcome().at || !k.served().came() || !c.outcome().came() {
			continue
		}
		if !j.wantedAfter(c.device, left) {
			j.sayf("L3", "%v is in flight after %v, and nobody wants it", c, left)
		}
	}
}

func (j *modelJudge) busyEnd(at time.Duration) bool {
	return slices.ContainsFunc(j.ends, func(e *modelEnd) bool { return e.begun.at == at || e.done.at == at })
}

// wantedAfter tells whether anybody may want an answer just after an instant.
func (j *modelJudge) wantedAfter(device string, at time.Duration) bool {
	return slices.ContainsFunc(j.wanted[device], func(k *modelCaller) bool { return k.mayWait(at + 1) }) ||
		j.watchedAt(device, at+1)
}
