package guard

import (
	"context"
	"slices"
	"time"
)

// question is asked of the authority about one device, on behalf of everyone who wanted to know
// before it was sent. It is device.next until it is sent, then flying; a try that failed and is
// to be repeated makes it next again. Guarded by the device's lock.
//
//	           join                    send                     answered
//	(nothing) ------> next ---------------------------> flying ----------> (gone)
//	                  ^  \ no caller left, or refused     |   \ no caller left: cancelled,
//	                  |   `-----------> (gone)            |    `-> no answer
//	                  `-----------------------------------' could not ask, and may retry
type question struct {
	waiters []*waiter // who came for the answer, in that order
	callers int       // how many of them still wait
	starts  int       // how many of those want it now; the others are Keeps that wait for their turn
	watch   bool      // it is the watch's own: «could not ask» ends the runs in flight
	hint    bool      // it was asked for by a hint, on behalf of all who are about the device
	ahead   bool      // it renews a permission in demand

	turn       time.Duration // when it is sent where nobody wants it now
	backingOff bool          // a try has failed: it is sent at turn, and who comes now waits with it
	backOff    BackOff       // made for this question alone (R4)
	retryUntil time.Duration // the end of the budget; 0: nothing has failed yet
}

// waiter is one caller on his way through questions to an answer. Guarded by the device's lock, but for
// what done publishes.
type waiter struct {
	question *question     // the one that he waits for now
	since    time.Duration // since when, or since when it waits for a slot
	patient  bool          // a Keep that waits for its turn
	left     bool

	done chan struct{} // closed when the rest is written
	*verdict
	seq  uint64 // the request's place in the order of things
	asOf uint64 // the answer's
}

// wanted tells a question that somebody still waits for from one that nobody does.
func (d *device) wanted(q *question) bool {
	if d.guard.shut.Load() {
		return false
	}
	return q.callers > 0 || q.ahead || q.hint && d.minded() || q.watch && d.running()
}

// eager tells whether somebody wants the answer now.
func (d *device) eager(q *question) bool {
	return q.starts > 0 || q.ahead || (q.watch || q.hint) && d.running()
}

// sendAt is when the next question may be sent. A Keep, or a hint on behalf of one, heeds the
// authority's RetryAfter; those who want to start, and what runs, do not wait for it.
func (d *device) sendAt(q *question) time.Duration {
	switch {
	case q.backingOff:
		return q.turn
	case d.eager(q):
		return 0
	default:
		return max(q.turn, d.floor)
	}
}

// join returns the question that will be sent next, so that whoever joins it gets an answer to
// a request that was sent after he came (S1, L1).
func (d *device) join() *question {
	if d.next == nil {
		d.next = &question{turn: never}
	}
	return d.next
}

// joinAt joins the next question, to be sent at a time if nobody wants it before.
func (d *device) joinAt(turn time.Duration) *question {
	q := d.join()
	if !q.backingOff {
		q.turn = min(q.turn, turn)
	}
	return q
}

// add adds a caller.
func (q *question) add(now time.Duration, patient bool) *waiter {
	w := &waiter{question: q, since: now, patient: patient, done: make(chan struct{})}
	q.waiters = append(q.waiters, w)
	q.count(w, 1)
	return w
}

func (q *question) count(w *waiter, n int) {
	q.callers += n
	if !w.patient {
		q.starts += n
	}
}

// leave takes back a caller who waits no longer: he has his answer, or has given up, or both.
func (w *waiter) leave() {
	if w.left {
		return
	}
	w.left = true
	q := w.question
	q.count(w, -1)
	if len(q.waiters) > 2*q.callers+8 { // now and then, so that leaving costs little
		q.waiters = slices.DeleteFunc(q.waiters, func(w *waiter) bool { return w.left })
	}
}

// answer hands the verdict to all who wait.
func (d *device) answer(q *question, v *verdict, seq uint64) {
	asOf := d.guard.seq.Load()
	for _, w := range q.waiters {
		if !w.left {
			q.answerOne(w, v, seq, asOf)
		}
	}
	q.waiters = nil
	if v.Allowed && d.next != nil {
		// Keeps wait for the device to be allowed, whoever has asked.
		d.next.answerSome(v, seq, asOf, func(w *waiter) bool { return w.patient })
	}
}

// answerSome hands the verdict to those who wait and are meant.
func (q *question) answerSome(v *verdict, seq, asOf uint64, meant func(*waiter) bool) {
	q.waiters = slices.DeleteFunc(q.waiters, func(w *waiter) bool {
		if w.left || !meant(w) {
			return w.left
		}
		q.answerOne(w, v, seq, asOf)
		return true
	})
}

func (q *question) answerOne(w *waiter, v *verdict, seq, asOf uint64) {
	w.left = true
	q.count(w, -1)
	w.verdict, w.seq, w.asOf = v, seq, asOf
	close(w.done)
}

// merge joins other to q, which has been tried and waits for its next try: both are the one
// that is sent next.
func (q *question) merge(other *question) {
	for _, w := range other.waiters {
		w.question = q
	}
	q.waiters = append(q.waiters, other.waiters...)
	q.callers += other.callers
	q.starts += other.starts
	q.watch = q.watch || other.watch
	q.hint = q.hint || other.hint
	q.ahead = q.ahead || other.ahead
}

// wait blocks until w is answered (nil), ctx ends or the guard closes.
func (g *Guard) wait(ctx context.Context, w *waiter) error {
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		return startCause(ctx)
	case <-g.closing:
		return ErrClosed
	}
}

// dropUnwanted drops the question that nobody waits for any more, or cancels its call (L3).
func (d *device) dropUnwanted() {
	if d.next != nil && !d.wanted(d.next) {
		d.unqueue()
		d.next = nil
	}
	if c := d.flying; c != nil && !c.unwanted && !d.wanted(c.question) {
		c.unwanted = true
		c.cancel(errUnwanted)
	}
}

// resolve makes the verdict of a question known, to the device and to those who asked.
func (d *device) resolve(q *question, v *verdict, seq uint64, now time.Duration) {
	switch {
	case v.Allowed:
	case v.Code != CodeSystemUnavailable, q.watch && d.running():
		d.deny(v.deniedError(d.id), now)
	default:
		d.unasked(v)
		if d.running() && (d.next == nil || !d.next.watch) {
			d.planWatch(now) // the watch may have counted on this renewal
		}
	}
	d.answer(q, v, seq)
}

// retry makes q the next question again after a wait, if another try fits into the budget (R2,
// R3). A negative wait is the back-off's word that there is none.
func (d *device) retry(q *question, v *verdict, wait, now time.Duration) bool {
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
	q.turn, q.backingOff = now+wait, true
	d.next = q
	return true
}
