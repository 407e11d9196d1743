package guard

import (
	"math/rand/v2"
	"time"
)

// plan sets due to a point of the device's phase after a time, but no later than another. A
// device without a phase, or with one that comes too late, gets a random one, so that devices
// that were started together are not asked about together for ever (L4).
func (d *device) plan(now, after, latest time.Duration) {
	if d.due != 0 && d.due <= after {
		interval := d.guard.interval
		d.due = after + interval - (after-d.due)%interval
	}
	if d.due != 0 && d.due <= latest {
		return
	}
	d.due = max(now, 1)
	if latest > now {
		d.due += rand.N(latest - now)
	}
}

// reuse notes that the permission is in demand: it will be renewed ahead of its end (L6).
func (d *device) reuse(now time.Duration) {
	if !d.demand {
		d.demand = true
		d.plan(now, d.perm.sent, d.perm.sent+d.fresh())
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
	q := d.join(now)
	q.watch = q.watch || d.live.n > 0
	q.ahead = q.ahead || d.demand
	period := d.guard.interval
	if d.demand {
		period = d.fresh()
	}
	d.demand = false
	d.due += period
	if d.due <= now {
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
	if d.held == 0 && !d.demand {
		return
	}
	d.hintedAt = now
	at := now
	if d.live.n == 0 && d.next != nil {
		at = max(at, d.next.floor)
	}
	q := d.join(at)
	q.hint = true
	q.ahead = q.ahead || d.demand
}
