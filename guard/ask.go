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
	if q == nil || d.flying != nil || now < q.notBefore {
		return
	}
	urgent := q.watch || q.hint
	switch slots := &d.guard.slots; {
	case d.hung >= maxHung:
		d.refuse(now, errHung)
	case q.late(now):
		d.refuse(now, errLate)
	case d.slotBy != 0:
		if urgent && slots.promote(d) {
			d.send(q)
		}
	case slots.take(d, urgent):
		d.send(q)
	default:
		d.slotBy = now + d.guard.interval
	}
}

// granted is called with a slot that d had waited for, and tells whether it was taken.
func (d *device) granted() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.guard.clock.now()
	d.update(now)
	d.dropUnwanted()
	sent := d.slotBy != 0
	d.unqueue() // it may have left the queue meanwhile, and even have come back
	switch {
	case !sent:
	case d.next.late(now):
		d.refuse(now, errLate)
		sent = false
	default:
		d.send(d.next)
	}
	d.settle(now)
	return sent
}

func (d *device) unqueue() {
	if d.slotBy != 0 {
		d.guard.slots.leave(d)
		d.slotBy = 0
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

// refuseStarts refuses those that have waited an interval for a slot. Runs in flight go on
// waiting for theirs until their stop line.
func (d *device) refuseStarts(now time.Duration) {
	q := d.next
	v := unavailable(Decision{}, errNoSlot, errNoSlot.Error())
	if d.live.n > 0 && (q.watch || q.hint) {
		rest := *q
		rest.callers, rest.done = 0, make(chan struct{})
		d.next, d.slotBy = &rest, now+d.guard.interval
	} else {
		d.unqueue()
		d.next = nil
	}
	q.answer(v, 0)
}
