package guard

import (
	"sync"
	"sync/atomic"
	"time"
)

// device is all that the guard knows about one device. Times are the guard's clock's.
//
// Locks: mu is taken by lock and left by unlock, with no other lock of the guard held; under it
// only those of the registry, the slots, the schedule, the events and the clock are taken, each
// for a few steps. No lock is held while anybody's code is called (authority, function, observer,
// back-off, the caller's context), or while anyone waits.
//
// Invariants, whenever mu is free:
//   - live is not empty only while perm is there;
//   - at most one question is flying, and at most one more is next (L1);
//   - every question that is there is wanted by somebody;
//   - the device stands in the schedule for the earliest time at which it has something to do.
type device struct {
	guard *Guard
	id    string
	line  atomic.Int64 // perm's stop line, 0 without one; written under mu, read by Checkpoint

	mu       sync.Mutex
	gone     bool          // forgotten: look it up again
	held     int           // Runs, Keeps and Validates that are about it
	perm     *permission   // nil: none
	denial   *denial       // the latest that was learnt about it
	wideSeq  uint64        // the latest about the organisation that was applied
	live     runs          // in flight, permitted
	stopped  runs          // in flight, told to stop
	flying   *call         // the request in flight
	next     *question     // what is asked when flying has come back
	queued   bool          // next waits for a slot
	urgent   bool          // among those with work in flight
	queuedAt time.Duration // since when
	hung     int           // calls that were given up and have not returned
	drained  []func()      // told when no run is in flight any more, for Shutdown

	due      time.Duration // the next question of the watch, or ahead of demand; keeps its phase
	demand   bool          // the permission was reused since the last question
	latency  time.Duration // of the last call
	sent     time.Duration // when the last request was sent
	floor    time.Duration // the authority does not want to hear from Keeps before (RetryAfter)
	hintSeq  uint64        // permissions asked for before it are not reused
	hintedAt time.Duration // when a hint last made a question
	hintDue  time.Duration // when hints that came since make theirs; 0: none came
	overrun  time.Duration // when functions that were told to stop are reported; 0: not

	wakeAt  time.Duration // what the schedule was told
	watched bool          // likewise

	place place // in slots, guarded by its lock
	entry entry // in the schedule, guarded by its lock
}

// permission is what an ALLOW gives. It is never changed.
type permission struct {
	decision Decision
	seq      uint64        // the place of its request in the order of things sent and denied
	sent     time.Duration // when the request was sent
	line     time.Duration // the stop line
	expires  bool          // the authority's ExpiresAt, not the stop bound, makes the line
}

// denial is a denial and its place in the same order: a permission is good only if its request
// was sent after the latest denial was learnt (S5).
type denial struct {
	seq uint64
	err *DeniedError
}

// permitted tells whether there is a permission that is live, and whose request was sent no
// earlier than seq.
func (d *device) permitted(now time.Duration, seq uint64) bool {
	return d.perm != nil && now < d.perm.line && d.perm.seq >= seq && d.overtaking(d.perm.seq) == nil
}

// reusable tells whether a run may start without a question of its own.
func (d *device) reusable(now time.Duration) bool {
	return d.guard.maxAge > 0 && !d.guard.closed() && d.permitted(now, d.hintSeq) && now-d.perm.sent <= d.guard.maxAge
}

// overtaking returns the denial that was learnt after the request seq was sent, nil where there
// was none.
func (d *device) overtaking(seq uint64) *DeniedError {
	if d.denial != nil && d.denial.seq > seq {
		return d.denial.about(d.id)
	}
	if wide := d.guard.orgDenial.Load(); wide != nil && wide.seq > seq {
		return wide.about(d.id)
	}
	return nil
}

// about is the denial as it concerns one device; an organisation's was learnt from another.
func (n *denial) about(id string) *DeniedError {
	err := *n.err
	if err.DeviceID != id {
		err.DeviceID, err.Decision.DeviceID = id, ""
	}
	return &err
}

// permit takes a new permission, which moves the stop line of every run in flight.
func (d *device) permit(p *permission) {
	d.perm = p
	d.line.Store(int64(p.line))
}

// deny makes err known: nothing is permitted any more, and every run in flight is told to stop.
// The other devices learn of an organisation-wide code at their next update.
func (d *device) deny(err *DeniedError, now time.Duration) {
	d.denial = &denial{seq: d.guard.seq.Add(1), err: err}
	if err.Decision.Code.organisationWide() {
		d.guard.learnWide(d.denial)
		d.wideSeq = d.denial.seq
	}
	d.stop(err.inFlight(), now)
}

// stop takes the permission away and tells every run in flight to stop.
func (d *device) stop(err stopError, now time.Duration) {
	d.line.Store(0) // first, so that Checkpoint sees it before the walk over the runs is done
	d.perm, d.demand = nil, false
	if d.live.n == 0 {
		return
	}
	s := &stop{err: err, at: now}
	why := &cause{stop: err}
	for r := d.live.first; r != nil; r = r.next {
		r.stop.Store(s)
		r.cancel(why)
	}
	d.stopped.take(&d.live)
	if d.guard.events != nil && d.overrun == 0 {
		d.overrun = now + d.guard.timeout
	}
}

// update applies what has happened elsewhere: the organisation was denied, or time has passed.
func (d *device) update(now time.Duration) {
	if wide := d.guard.orgDenial.Load(); wide != nil && wide.seq > d.wideSeq {
		d.wideSeq = wide.seq
		d.stop(wide.about(d.id).inFlight(), now)
	}
	if d.perm != nil && now >= d.perm.line {
		d.expire(now)
	}
}

// expire ends a permission that has run out.
func (d *device) expire(now time.Duration) {
	if d.live.n == 0 {
		d.stop(nil, now)
		return
	}
	reason := "no ALLOW within the stop bound"
	if d.perm.expires {
		reason = "the authority's ALLOW has expired"
	}
	v := unavailable(Decision{}, nil, reason)
	d.deny(v.deniedError(d.id), now)
}

// settle brings the device to rest after a change: it drops what nobody wants, asks what may be
// asked, and goes back to the schedule or is forgotten. It is the last thing done under mu.
func (d *device) settle(now time.Duration) {
	if d.gone {
		return
	}
	d.dropUnwanted()
	d.askNext(now)
	if d.live.n == 0 && d.held == 0 && d.perm != nil && !d.reusable(now) {
		d.stop(nil, now)
	}
	if d.live.n+d.stopped.n == 0 {
		for _, empty := range d.drained {
			empty()
		}
		d.drained = nil
	}
	if d.idle() {
		d.gone = true
		d.guard.registry.remove(d.id)
		d.guard.schedule.wake(d, never, false)
		return
	}
	// Later than it is woken already is not worth a call: woken early, it finds nothing to do
	// and says when to come again. So it is when nothing is in flight any more.
	at, watched := d.nextWake(), d.live.n > 0
	if at < d.wakeAt || watched && !d.watched || d.wakeAt == never && d.watched {
		d.wakeAt, d.watched = at, watched
		d.guard.schedule.wake(d, at, watched)
	}
}

// idle tells whether nothing would be lost by forgetting the device (L4).
func (d *device) idle() bool {
	return d.held == 0 && d.live.n == 0 && d.stopped.n == 0 && d.perm == nil &&
		d.flying == nil && d.next == nil && d.hung == 0
}

// lock begins every section under mu. What has happened elsewhere is applied first, so that no
// run outlives the denial that it has earned because a newer permission came before it.
func (d *device) lock() (now time.Duration) {
	d.mu.Lock()
	now = d.guard.clock.now()
	d.update(now)
	return now
}

// unlock ends every section under mu with the invariants restored.
func (d *device) unlock(now time.Duration) {
	d.settle(now)
	d.mu.Unlock()
}
