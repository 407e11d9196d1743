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
	hint    bool // it was asked for by a hint, on behalf of all who are about the device
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
	if d.guard.shut.Load() {
		return false
	}
	return q.callers > 0 || q.ahead || q.hint && d.held > 0 || q.watch && d.live.n > 0
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
