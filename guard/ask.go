package guard

import (
	"errors"
	"time"
)

// Why a question is not asked.
var (
	errHung   = errors.New("guard: two calls about this device were given up and have not returned")
	errLate   = errors.New("guard: the retry budget ended before a try could be sent")
	errNoSlot = errors.New("guard: no request to the authority became free within the interval")
)

// askNext sends the next question as soon as it may be.
func (d *device) askNext(now time.Duration) {
	q := d.next
	if q == nil || d.flying != nil || now < d.sendAt(q) {
		return
	}
	urgent := (q.watch || q.hint) && d.live.n > 0 // starts must not take the place of what runs
	switch slots := &d.guard.slots; {
	case d.hung >= maxHung:
		d.refuse(now, errHung)
	case q.late(now):
		d.refuse(now, errLate)
	case d.queued:
		if urgent && slots.promote(d) {
			d.send(q, true)
		}
	case slots.take(d, urgent, d.mayQueue(q, now)):
		d.send(q, urgent)
	case d.mayQueue(q, now):
		d.enqueue(now)
	default:
		d.refuse(now, errNoSlot)
	}
}

// mayQueue tells whether the question may wait for a slot. While the authority does not answer,
// a Keep that waits loses its turn instead: they must not all be there when the outage ends (L5).
func (d *device) mayQueue(q *question, now time.Duration) bool {
	silent := now-time.Duration(d.guard.answered.Load()) > d.guard.timeout
	return d.eager(q) || q.hint || !silent
}

// granted is called with a slot that d had waited for, and tells whether it was taken.
func (d *device) granted(urgent bool) bool {
	now := d.lock()
	defer d.unlock(now)
	d.dropUnwanted()
	sent := d.queued
	d.unqueue() // it may have left the queue meanwhile, and even have come back
	switch {
	case !sent:
	case d.next.late(now):
		d.refuse(now, errLate)
		sent = false
	default:
		d.send(d.next, urgent)
	}
	return sent
}

// enqueue has the next question wait for a slot, and those who wait for it count from now.
func (d *device) enqueue(now time.Duration) {
	d.queued = true
	for _, w := range d.next.waiters {
		w.since = now
	}
}

func (d *device) unqueue() {
	if d.queued {
		d.guard.slots.leave(d)
		d.queued = false
	}
}

// refuse answers the next question without asking it.
func (d *device) refuse(now time.Duration, reason error) {
	q := d.next
	d.unqueue()
	d.next = nil
	d.resolve(q, unavailable(Decision{}, reason, reason.Error()), 0, now)
}

// late tells whether the budget for another try is used up.
func (q *question) late(now time.Duration) bool {
	return q.retryUntil != 0 && now >= q.retryUntil
}

// refuseStarts refuses those who have waited an interval for a slot. Runs in flight go on
// waiting for theirs until their stop line.
func (d *device) refuseStarts(now time.Duration) {
	v := unavailable(Decision{}, errNoSlot, errNoSlot.Error())
	d.next.answerSome(v, 0, d.guard.seq.Load(), func(w *waiter) bool { return now >= w.since+d.guard.interval })
}
