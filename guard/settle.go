package guard

import "time"

// settle brings the device to rest after a change: it drops what nobody wants, asks what may be
// asked, and goes back to the schedule or is forgotten. It is the last thing done under the lock.
func (d *device) settle(now time.Duration) {
	if d.gone {
		return
	}
	if d.next != nil || d.flying != nil {
		d.dropUnwanted()
		d.askNext(now)
	}
	if !d.running() {
		d.settleIdle(now)
		if d.gone {
			return
		}
	}
	// Later than it is woken already is not worth a call: woken early, it finds nothing to do
	// and says when to come again. So it is when nothing is in flight any more. But where a clock has
	// leapt, towards that time or over it, the timer does not know.
	at, watched := d.nextWake(), d.running()
	if at < d.wakeAt || d.wakeAt <= now || watched && !d.watched || d.wakeAt == never && d.watched || d.guard.schedule.leapt() {
		d.wakeAt, d.watched = at, watched
		d.guard.schedule.wake(d, now, at, watched)
	}
}

// settleIdle is settle's part where no run goes on: it drops a permission that nobody can use, and
// forgets the device if nothing would be lost by that (L4).
func (d *device) settleIdle(now time.Duration) {
	if d.held == 0 && d.perm != nil && !d.reusable(now) {
		d.stop(nil, now)
	}
	if d.leaving.Load() > 0 {
		return
	}
	if d.draining {
		d.draining = false
		d.guard.drain.empty()
	}
	if d.held == 0 && d.perm == nil && d.flying == nil && d.next == nil && d.hung == 0 {
		d.gone = true
		delete(d.stripe.devices, d.id)
		d.guard.schedule.wake(d, now, never, false)
	}
}

// lock begins a section under the lock. What has happened elsewhere is applied first, so that no
// run outlives the denial that it has earned because a newer permission came before it. Only who
// changes nothing but held, or looks up who is there, takes the lock without that.
func (d *device) lock() (now time.Duration) {
	d.stripe.mu.Lock()
	now = d.guard.clock.now()
	d.update(now)
	return now
}

// lockAt is lock at a time that was read just before. Every run does this at its start and at its
// end, and others on the same device need not wait while it looks at the clocks.
func (d *device) lockAt(now time.Duration) {
	d.stripe.mu.Lock()
	d.update(now)
}

// unlock ends a section under the lock with the invariants restored, and then tells the runs
// that were stopped in it.
func (d *device) unlock(now time.Duration) {
	d.settle(now)
	b := d.stopped
	if b == nil || b.stop.Load().telling {
		d.stripe.mu.Unlock()
		return
	}
	b.stop.Load().telling = true
	d.stripe.mu.Unlock()
	b.tell()
}

// awaitTold waits until all that were told to stop up to now have been, so that who hears of a
// denial finds no context live. It waits for nobody's code.
func (d *device) awaitTold() {
	now := d.lock()
	s := d.stopped.untold()
	d.unlock(now)
	s.wait()
}

// steady tells whether a run more or less changes nothing that there is to settle: the device is
// in demand, so that it is watched and asked about whether runs are in flight or not, it will be
// woken, nobody asks on behalf of runs, and nobody waits for their end.
func (d *device) steady(now time.Duration) bool {
	return d.demand && d.watched && now < d.wakeAt && d.flying == nil && d.next == nil && !d.draining
}

// unlockRun is unlock where nothing but a run has come or gone.
func (d *device) unlockRun(now time.Duration, steady bool) {
	if steady {
		d.stripe.mu.Unlock()
		return
	}
	d.unlock(now)
}
