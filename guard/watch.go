package guard

import (
	"math/rand/v2"
	"time"
)

// plan sets due to a point of the device's phase after a time, but no later than another. A
// device without a phase, or with one that comes too late, gets a random one, so that devices
// that were started together are not asked about together for ever (L4).
func (d *device) plan(now, after, latest time.Duration) {
	if !d.planned(after, latest) {
		d.due, d.early = between(now, latest), 0
	}
}

// planned moves due on to the first point of the device's phase after a time, and tells whether there
// is one no later than another.
func (d *device) planned(after, latest time.Duration) bool {
	if d.due != 0 && d.due <= after {
		d.due, d.early = d.following(after), 0
	}
	return d.due != 0 && d.due <= latest
}

// following is the first point of the device's phase after a time, which is no earlier than due.
func (d *device) following(after time.Duration) time.Duration {
	interval := d.guard.interval
	return after + interval - (after-d.due+interval-d.gap())%interval
}

// gap is the time from the watch's question at due to the one after it.
func (d *device) gap() time.Duration {
	if d.early == 0 {
		return d.guard.interval
	}
	return d.guard.interval / 256 * time.Duration(d.early)
}

// between is a random time of those that are left until the latest one.
func between(now, latest time.Duration) time.Duration {
	if latest <= now {
		return max(now, 1)
	}
	return max(now, 1) + rand.N(latest-now)
}

// demanded notes that the permission is in demand: it will be renewed ahead of its end (L6).
func (d *device) demanded(now time.Duration) {
	if d.demand {
		return
	}
	d.demand = true
	// From the last request, answered or not: a renewal that fails is tried once a period. But where
	// that failed and work is in flight on an older ALLOW, the watch's turn comes first.
	latest := d.sent + d.fresh()
	if d.running() {
		latest = min(latest, d.perm.sent+d.guard.interval)
	}
	d.plan(now, d.sent, latest)
}

// planWatch plans the watch's next question, an interval after the request of the permission
// that is there, or of its renewal, which nobody can leave.
//
// A new phase is drawn from all of the interval. Where its point has passed while the answer was
// awaited, a question somewhere in what is left comes before it, and the phase begins with the second.
// Drawn from what was left, no phase would lie in what the answers took: many that were started at once
// would leave a gap there for ever, and crowd beside it (L4).
func (d *device) planWatch(now time.Duration) {
	sent := d.perm.sent
	if d.flying != nil && d.flying.question.ahead {
		sent = d.flying.at.elapsed
	}
	interval := d.guard.interval
	if d.planned(sent, sent+interval) {
		return
	}
	if d.due, d.early = between(sent, sent+interval), 0; d.due <= now {
		point := d.due
		d.due = between(now, sent+interval)
		gap := interval - (d.due-point)%interval
		d.early = uint8(min(max(1, 256*float64(gap)/float64(interval)), 255))
	}
}

// fresh is how long after its request a permission in demand is renewed: early enough for the
// answer to be there before maxAge is over. It goes in steps, so that a latency that wavers a
// little does not move the phase.
func (d *device) fresh() time.Duration {
	maxAge := d.guard.maxAge
	lead := maxAge / 16
	for lead < 2*d.latency && lead < maxAge/2 {
		lead *= 2
	}
	return maxAge - lead
}

// askDue asks the watch's own question, or renews a permission in demand, and sets the next.
func (d *device) askDue(now time.Duration) {
	q := d.join()
	q.watch = q.watch || d.running()
	q.ahead = q.ahead || d.demand
	period := d.gap()
	if d.demand {
		period = d.fresh()
	}
	d.demand, d.early = false, 0
	if d.due += period; d.due <= now {
		d.due = now + period
	}
}

// hint ends reuse and brings a question forward, where there is anybody to ask it for; those
// that come within a tenth of an interval are asked once, at its end (B3).
func (d *device) hint(now time.Duration) {
	d.hintSeq = d.guard.seq.Add(1)
	switch again := d.hintedAt + d.guard.interval/10; {
	case now < again:
		d.hintDue = again
	default:
		d.askHinted(now)
	}
}

// askHinted asks because of a hint: for the runs in flight, for those that are about to start on
// an answer older than the hint, and for the Keeps that wait, but for these no sooner than the
// authority wants to hear from them.
func (d *device) askHinted(now time.Duration) {
	d.hintDue = 0
	if !d.minded() && !d.demand {
		return
	}
	d.hintedAt = now
	var q *question
	if now < d.floor && !d.running() {
		q = d.joinPatiently(now) // its turn after that, like everybody's
	} else {
		q = d.joinAt(now)
	}
	q.hint = true
	q.ahead = q.ahead || d.demand
}

// nextWake is the earliest time at which there is something to do.
func (d *device) nextWake() time.Duration {
	at := never
	if d.perm != nil {
		at = d.perm.line
		if !d.running() && d.held == 0 {
			at = min(at, d.perm.sent+d.guard.maxAge+1)
		}
	}
	if d.running() || d.demand {
		at = min(at, d.due)
	}
	if d.hintDue != 0 {
		at = min(at, d.hintDue)
	}
	if d.late != nil && d.late.look != 0 {
		at = min(at, d.late.look)
	}
	if d.flying != nil {
		return min(at, d.flying.deadline)
	}
	if d.next != nil {
		return min(at, d.nextSend())
	}
	return at
}

// nextSend is when the next question may be sent, or while it waits for a slot, when the first of
// those who wait with it gives up.
func (d *device) nextSend() time.Duration {
	q := d.next
	if !d.queued {
		return d.sendAt(q)
	}
	at := never
	if q.ahead || q.hint && !d.running() {
		at = d.queuedAt + d.guard.interval
	}
	if len(q.waiters) > 0 {
		at = min(at, q.waiters[0].since+d.guard.interval)
	}
	if q.retryUntil != 0 {
		at = min(at, q.retryUntil)
	}
	return at
}

// wake does what is due. It runs on the schedule's goroutine and must not block.
func (d *device) wake() {
	now := d.lock()
	defer d.unlock(now)
	if d.gone {
		return
	}
	d.wakeAt = never // the schedule has let go of it
	if d.flying != nil && now >= d.flying.deadline {
		d.giveUp(now)
	}
	if d.queued {
		d.refuseStarts(now)
	}
	if d.hintDue != 0 && now >= d.hintDue {
		d.askHinted(now)
	}
	if now >= d.due && (d.running() || d.demand) {
		d.askDue(now)
	}
	d.reportOverruns(now)
}
