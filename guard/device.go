package guard

import (
	"container/list"
	"sync/atomic"
	"time"
)

// device is all that the guard knows about one device. Times are the guard's clock's.
//
// Locks: the lock is the device's stripe's (registry). It is taken and left as settle.go says, with
// no other lock of the guard held; under it only those of the slots, the schedule, the events and
// the clock are taken, each for a few steps. No lock is held while anybody's code is called
// (authority, function, observer, back-off, the caller's context), or while anyone waits.
//
// Invariants, whenever the lock is free:
//   - live is not empty only while perm is there;
//   - at most one question is flying, and at most one more is next (L1);
//   - every question that is there is wanted by somebody;
//   - the device stands in the schedule for the earliest time at which it has something to do.
type device struct {
	// A run on a permission that is there touches the first three lines of the cache, of 64 bytes each.
	guard  *Guard
	stripe *stripe
	perm   *permission // nil: none
	denial *denial     // the latest that was learnt about it
	live   *batch      // the runs in flight, permitted
	flying *call       // the request in flight
	next   *question   // what is asked when flying has come back

	gone     bool  // forgotten: there may be another with the same id
	demand   bool  // the permission was reused since the last question
	queued   bool  // next waits for a slot
	urgent   bool  // among those with work in flight
	watched  bool  // what the schedule was told
	draining bool  // Shutdown waits for it
	hung     int8  // calls that were given up and have not returned
	early    uint8 // 256ths of the interval from due to the watch's next question, where its phase begins with that; otherwise 0

	held    int32         // Runs and Validates on their way to an answer, and Keeps
	leaving atomic.Int32  // runs that were told to stop and have not returned; they count themselves off without the lock
	stopped *batch        // the last that were told to stop; nil: none were
	late    *lingering    // for the observers; nil: none have lingered yet
	wideSeq uint64        // the latest denial of the organisation that was applied
	hintSeq uint64        // permissions asked for before it are not reused
	hintDue time.Duration // when hints that came since hintedAt make a question; 0: none came
	due     time.Duration // the next question of the watch, or ahead of demand; keeps its phase
	wakeAt  time.Duration // what the schedule was told

	line  atomic.Int64 // perm's stop line, 0 without one; written under the lock, read by Checkpoint
	first batch        // live until runs are told to stop
	id    string

	latency  time.Duration // of the last call
	sent     time.Duration // when the last request was sent
	floor    time.Duration // the authority does not want to hear from Keeps before (RetryAfter)
	hintedAt time.Duration // when a hint last made a question
	queuedAt time.Duration // since when next waits for a slot
	place    *list.Element // in slots, guarded by its lock
	entry    entry         // in the schedule, guarded by its lock
}

// permission is what an ALLOW gives. It is never changed.
type permission struct {
	seq      uint64        // the place of its request in the order of things sent and denied
	sent     time.Duration // when the request was sent
	line     time.Duration // the stop line
	expires  bool          // the authority's ExpiresAt, not the stop bound, makes the line
	decision *Decision
}

// denial is a denial and its place in the same order: a permission is good only if its request
// was sent after the latest denial was learnt (S5).
type denial struct {
	seq    uint64
	err    *DeniedError // nil where seq is 0
	latest *Decision    // «could not ask», where that has refused a start since; nil: it has not
	lifted atomic.Bool  // an ALLOW has come that was asked for after it; for Health alone
}

// running tells whether runs are in flight that were not told to stop.
func (d *device) running() bool { return len(d.live.runs) > 0 }

// minded tells whether anybody wants to know when something changes.
func (d *device) minded() bool { return d.held > 0 || d.running() }

// permitted tells whether there is a permission that is live, and whose request was sent no
// earlier than seq.
func (d *device) permitted(now time.Duration, seq uint64) bool {
	return d.perm != nil && now < d.perm.line && d.perm.seq >= seq && d.overtaking(d.perm.seq) == nil
}

// reusable tells whether a run may start without a question of its own.
func (d *device) reusable(now time.Duration) bool {
	return d.guard.maxAge > 0 && !d.guard.closed.Load() && d.permitted(now, d.hintSeq) && now-d.perm.sent <= d.guard.maxAge
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
	if d.denial != nil {
		d.denial.lifted.Store(true)
	}
	if wide := d.guard.orgDenial.Load(); wide != nil && p.seq > wide.seq {
		wide.lifted.Store(true)
	}
}

// unasked notes that a start was refused because nobody could say. That is no denial of the device (S3),
// and changes nothing but what Health tells.
func (d *device) unasked(v *verdict) {
	n := &denial{latest: &v.Decision}
	if d.denial != nil {
		n.seq, n.err = d.denial.seq, d.denial.err
	}
	d.denial = n
}

// deny makes err known: nothing is permitted any more, and every run in flight is told to stop.
// The other devices learn of an organisation-wide code at their next update.
func (d *device) deny(err *DeniedError, now time.Duration) {
	d.denial = &denial{seq: d.guard.seq.Add(1), err: err}
	if err.Decision.Code.OrganisationWide() {
		d.guard.learnWide(d.denial)
		d.wideSeq = d.denial.seq
	}
	d.stop(err.inFlight(), now)
}

// stop takes the permission away and tells every run in flight to stop.
func (d *device) stop(err stopError, now time.Duration) {
	d.line.Store(0) // first, so that Checkpoint sees it before the walk over the runs is done
	d.perm, d.demand = nil, false
	if !d.running() {
		return
	}
	s := &stop{err: err, why: &cause{stop: err}, at: now, told: make(chan struct{}), before: d.stopped.untold()}
	b := d.live
	d.live = &batch{device: d}
	d.leaving.Add(int32(len(b.runs))) //nolint:gosec // so many goroutines do not fit into any memory
	if d.guard.events != nil {
		d.linger(b.runs, now)
	}
	d.stopped = b
	b.stop.Store(s)
}

// update applies what has happened elsewhere: the organisation was denied, or time has passed.
func (d *device) update(now time.Duration) {
	if wide := d.guard.orgDenial.Load(); wide != nil && wide.seq > d.wideSeq {
		d.wideSeq = wide.seq
		asked := d.perm
		d.stop(wide.about(d.id).inFlight(), now)
		if asked != nil && asked.seq > wide.seq {
			d.permit(asked) // it was asked for after the denial had been learnt, and before that was known here (S5)
		}
	}
	if d.perm != nil && now >= d.perm.line {
		d.expire(now)
	}
}

// expire ends a permission that has run out.
func (d *device) expire(now time.Duration) {
	if !d.running() {
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
