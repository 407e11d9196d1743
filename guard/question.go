package guard

import (
	"context"
	"time"
)

// question is asked of the authority about one device, on behalf of everyone who wanted to know
// before it was sent. It is device.next until it is sent, then flying; a try that failed and is
// to be repeated makes it next again. Guarded by device.mu, but for what done publishes.
//
//	           join                    send                     answered
//	(nothing) ------> next ---------------------------> flying ----------> (gone)
//	                  ^  \ no caller left, or refused     |   \ no caller left: cancelled,
//	                  |   `-----------> (gone)            |    `-> no answer
//	                  `-----------------------------------' could not ask, and may retry
type question struct {
	callers int  // who waits for the answer
	watch   bool // it is the watch's own: «could not ask» ends the runs in flight
	hint    bool // it was asked for by a hint, on behalf of the runs in flight
	ahead   bool // it renews a permission in demand

	notBefore  time.Duration // when it may be sent
	floor      time.Duration // what the authority asked for (RetryAfter): no hint goes below it
	backingOff bool          // a try has failed: who comes now waits with it
	backOff    BackOff       // made for this question alone (R4)
	retryUntil time.Duration // the end of the budget; 0: nothing has failed yet

	done chan struct{} // closed when the rest is written
	into *question     // it was joined to that one, which will be answered
	verdict
	seq uint64 // the request's place in the order of things
}

// wanted tells a question that somebody still waits for from one that nobody does.
func (d *device) wanted(q *question) bool {
	return q.callers > 0 || q.ahead || (q.watch || q.hint) && d.live.n > 0
}

// join returns the question that will be sent next, so that whoever joins it gets an answer to
// a request that was sent after he came (S1, L1). It is brought forward to at, but for a try
// that waits out its back-off.
func (d *device) join(at time.Duration) *question {
	if d.next == nil {
		d.next = &question{notBefore: at, done: make(chan struct{})}
	}
	if q := d.next; !q.backingOff {
		q.notBefore = min(q.notBefore, at)
	}
	return d.next
}

// leave takes back one caller of q, wherever q has gone meanwhile.
func (q *question) leave() {
	for q.into != nil {
		q = q.into
	}
	q.callers--
}

// answer hands the verdict to all who wait.
func (q *question) answer(v verdict, seq uint64) {
	q.verdict, q.seq = v, seq
	close(q.done)
}

// merge joins other to q, which has been tried and waits for its next try: both are the one
// that is sent next.
func (q *question) merge(other *question) {
	q.callers += other.callers
	q.watch = q.watch || other.watch
	q.hint = q.hint || other.hint
	q.ahead = q.ahead || other.ahead
	other.into = q
	close(other.done)
}

// wait blocks until q is answered (nil), ctx ends or the guard closes.
func (g *Guard) wait(ctx context.Context, q *question) error {
	for {
		select {
		case <-q.done:
			if q.into == nil {
				return nil
			}
			q = q.into
		case <-ctx.Done():
			return startCause(ctx)
		case <-g.closing:
			return ErrClosed
		}
	}
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

// askHinted asks because of a hint. Where nothing runs it asks for the Keeps that wait, and for
// them no sooner than the authority wants to hear from them.
func (d *device) askHinted(now time.Duration) {
	d.hintDue = 0
	at := now
	switch {
	case d.live.n > 0 || d.demand:
	case d.next != nil:
		at = max(at, d.next.floor)
	default:
		return
	}
	d.hintedAt = now
	q := d.join(at)
	q.hint = true
	q.ahead = q.ahead || d.demand
}

// dropUnwanted drops the question that nobody waits for any more, or cancels its call (L3).
func (d *device) dropUnwanted() {
	if d.next != nil && !d.wanted(d.next) {
		d.unqueue()
		d.next = nil
	}
	if d.flying != nil && !d.wanted(d.flying.question) {
		d.flying.unwanted = true
		d.flying.cancel(errUnwanted)
	}
}

// askNext sends the next question as soon as it may be.
func (d *device) askNext(now time.Duration) {
	q := d.next
	if q == nil || d.flying != nil || now < q.notBefore {
		return
	}
	urgent := q.watch || q.hint
	switch slots := &d.guard.slots; {
	case d.hung >= maxHung:
		d.refuse(now, "two calls about this device have not returned")
	case q.retryUntil != 0 && now >= q.retryUntil:
		d.refuse(now, "no try came through within the budget")
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
	d.expire(now)
	d.dropUnwanted()
	waits := d.slotBy != 0
	d.unqueue() // it may have left the queue meanwhile, and even have come back
	if waits {
		d.send(d.next)
	}
	d.settle(now)
	return waits
}

func (d *device) unqueue() {
	if d.slotBy != 0 {
		d.guard.slots.leave(d)
		d.slotBy = 0
	}
}

// refuse answers the next question without asking it.
func (d *device) refuse(now time.Duration, reason string) {
	q := d.next
	d.unqueue()
	d.next = nil
	d.resolve(q, unavailable(Decision{}, nil, reason), 0, now)
}

// refuseStarts refuses those that have waited an interval for a slot. Runs in flight go on
// waiting for theirs until their stop line.
func (d *device) refuseStarts(now time.Duration) {
	q := d.next
	v := unavailable(Decision{}, nil, "no request to the authority became free within the interval")
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

// resolve makes the verdict of a try known: to the device, and where it is the last to those
// who asked. The call may be retried after wait, if that is not negative.
func (d *device) resolve(q *question, v verdict, seq uint64, now time.Duration) {
	switch {
	case v.Allowed:
	case v.Code != CodeSystemUnavailable, q.watch && d.live.n > 0:
		d.deny(v.deniedError(d.id), now)
	}
	q.answer(v, seq)
}

// retry makes q the next question again, if another try fits into the budget (R2, R3).
func (d *device) retry(q *question, v verdict, wait, now time.Duration) bool {
	if wait < 0 || v.Code != CodeSystemUnavailable || !d.wanted(q) {
		return false
	}
	if q.retryUntil == 0 {
		q.retryUntil = now + d.guard.budget
	}
	wait = max(wait, v.RetryAfter)
	if wait >= q.retryUntil-now {
		return false
	}
	if d.next != nil {
		q.merge(d.next)
	}
	q.notBefore, q.backingOff = now+wait, true
	d.next = q
	return true
}
