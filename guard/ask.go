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

// askNext sends the next question as soon as it may be, or has it wait for a slot in the queue
// in which it now belongs.
func (d *device) askNext(now time.Duration) {
	q := d.next
	if q == nil || d.flying != nil {
		return
	}
	urgent := (q.watch || q.hint) && d.running() // starts must not take the place of what runs
	switch {
	case now < d.sendAt(q):
		d.unqueue() // who could not wait has left
	case d.hung >= maxHung:
		d.refuse(now, errHung)
	case q.late(now):
		d.refuse(now, errLate)
	case !d.queued || d.urgent != urgent:
		d.takeSlot(now, q, urgent)
	}
}

// takeSlot sends the question, queues it or refuses it.
func (d *device) takeSlot(now time.Duration, q *question, urgent bool) {
	waited, may := d.queued, d.mayQueue(q, now)
	d.unqueue()
	switch {
	case d.guard.slots.take(d, urgent, may):
		d.send(q, urgent)
	case may:
		d.enqueue(now, urgent, waited)
	default:
		d.refuse(now, errNoSlot)
	}
}

// mayQueue tells whether the question may wait for a slot. While the authority does not answer,
// a Keep that waits loses its turn instead: they must not all be there when the outage ends (L5).
func (d *device) mayQueue(q *question, now time.Duration) bool {
	g := d.guard
	silent := g.failing.Load() && now-time.Duration(g.answered.Load()) > g.timeout
	return d.eager(q) || q.hint || !silent
}

// granted is called with a slot from the queue in which d had waited, and tells whether it was
// taken.
func (d *device) granted(urgent bool) bool {
	now := d.lock()
	defer d.unlock(now)
	d.dropUnwanted()
	switch {
	case !d.queued || d.urgent != urgent:
		return false // it has left, or waits elsewhere
	case now < d.sendAt(d.next):
		d.unqueue()
		return false
	case d.next.late(now):
		d.refuse(now, errLate)
		return false
	}
	d.unqueue() // it may have left the queue meanwhile, and even have come back
	d.send(d.next, urgent)
	return true
}

// enqueue notes that the next question waits for a slot. Those who wait for it count from now,
// unless they only change the queue.
func (d *device) enqueue(now time.Duration, urgent, waited bool) {
	d.queued, d.urgent = true, urgent
	if waited {
		return
	}
	d.queuedAt = now
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

// refuseStarts refuses those who have waited an interval for a slot, and gives up what is asked
// ahead of demand or because of a hint. Runs in flight go on waiting for theirs until their stop
// line.
func (d *device) refuseStarts(now time.Duration) {
	if now >= d.queuedAt+d.guard.interval {
		d.next.ahead = false
		d.next.hint = d.next.hint && d.running()
	}
	v := unavailable(Decision{}, errNoSlot, errNoSlot.Error())
	callers := d.next.callers
	d.next.answerSome(v, 0, d.guard.seq.Load(), func(w *waiter) bool { return now >= w.since+d.guard.interval })
	if d.next.callers < callers {
		d.unasked(v)
	}
}
