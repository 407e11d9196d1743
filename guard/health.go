package guard

import (
	"fmt"
	"time"
)

// Health is what a Guard knows about itself at one moment, in totals: it names no device and holds
// no secret. In JSON durations are nanoseconds. Devices come and go while it is taken, so that
// totals may differ by those that did.
type Health struct {
	At        time.Time     `json:"at"`
	Closed    bool          `json:"closed"` // Close or Shutdown has begun: nothing starts any more
	StopBound time.Duration `json:"stop_bound_ns"`

	Authority AuthorityHealth `json:"authority"`

	Devices  int `json:"devices"`  // known: with a run, a caller, a permission to reuse or a call that is not over
	Watched  int `json:"watched"`  // those with runs in flight
	Runs     int `json:"runs"`     // in flight, and not told to stop
	Stopping int `json:"stopping"` // told to stop, and their functions have not returned

	// OldestPermission is how long ago the request was sent of the oldest permission with runs in
	// flight; 0 where there is none. It comes near StopBound only where the authority is not answering.
	OldestPermission time.Duration `json:"oldest_permission_ns"`

	// Refused counts the devices that are denied as far as is known, by what they are denied with.
	// A device is counted while somebody is about it: a Keep that waits to be allowed again, a run
	// that was told to stop and goes on, a caller on his way to a first answer. A device that was
	// refused and left alone is forgotten, and in no count. Every code that the guard does not know counts
	// as CodeOther, so that the map has no more keys than there are constants. Never nil.
	Refused map[Code]int `json:"refused"`

	// OrganisationDenied is the organisation-wide code that holds: no device has been allowed
	// since it was learnt. "" where none does.
	OrganisationDenied    Code   `json:"organisation_denied,omitempty"`
	OrganisationRequestID string `json:"organisation_request_id,omitempty"` // the request id of that decision

	Behind        time.Duration `json:"behind_ns"`      // how late the guard's own timer is; 0 but for moments
	EventsDropped uint64        `json:"events_dropped"` // as Event.Dropped
}

// CodeOther stands for every code that the guard does not know, where what is told has to be bounded: in
// [Health], and in what WithLogger tells of records that were held back. It is not of type Code, because it is no
// answer of an authority.
const CodeOther = "OTHER"

// AuthorityHealth is how the questions to the authority went. A question counts when it was
// answered, or given up at its timeout; one that all its callers left does not.
type AuthorityHealth struct {
	// Answering is whether the last question brought a decision, a denial too, and true where none was asked yet. What
	// a validator has others answer counts as its answer: behind Fallback it is true while the offline validator allows.
	Answering bool `json:"answering"`

	LastAnswer   time.Time `json:"last_answer,omitzero"`   // when one last brought a decision; zero: none has
	LastFailure  time.Time `json:"last_failure,omitzero"`  // when one last did not; zero: all did
	FailingSince time.Time `json:"failing_since,omitzero"` // the first that did not since then; zero while Answering

	InFlight int `json:"in_flight"` // questions that were sent and are waited for
	Waiting  int `json:"waiting"`   // questions that wait for a slot (WithMaxRequests)
	Hung     int `json:"hung"`      // calls that ignored that they were given up, and keep their slots
	Slots    int `json:"slots"`     // what WithMaxRequests leaves to starts

	Stuck bool `json:"stuck"` // so many hang that nothing can start until one of them returns
}

// Health tells how the guard is doing. It asks nobody, stops nothing, and waits for no function: it lists
// some of the devices under each lock, and looks at a few of them under each. It is cheap enough for every few seconds.
func (g *Guard) Health() Health {
	now := g.clock.now()
	h := Health{
		At: time.Now().Round(0), Closed: g.closed.Load(), StopBound: g.StopBound(), Refused: map[Code]int{},
		Behind: g.schedule.behind(now), EventsDropped: g.events.lost(),
	}
	h.Authority = g.authorityHealth(h.At, now)
	if wide := g.orgDenial.Load(); wide != nil && !wide.lifted.Load() {
		h.OrganisationDenied, h.OrganisationRequestID = wide.err.Decision.Code, wide.err.Decision.RequestID
	}
	for ds := range g.registry.chunks() {
		h.look(ds, now)
	}
	return h
}

func (g *Guard) authorityHealth(at time.Time, now time.Duration) AuthorityHealth {
	wall := func(elapsed int64) time.Time {
		if elapsed == 0 {
			return time.Time{}
		}
		return at.Add(time.Duration(elapsed) - now)
	}
	a := AuthorityHealth{Answering: !g.failing.Load(), Slots: g.slots.starting, Stuck: g.slots.stuck()}
	a.LastAnswer, a.LastFailure = wall(g.answered.Load()), wall(g.failed.Load())
	if !a.Answering {
		a.FailingSince = wall(g.since.Load())
	}
	return a
}

// note keeps when the authority last decided, and when it last did not. Zero stands for never.
func (g *Guard) note(v *verdict, now time.Duration) {
	at := max(int64(now), 1)
	if v.Code != CodeSystemUnavailable {
		g.failing.Store(false)
		g.answered.Store(at)
		return
	}
	if !g.failing.Load() {
		g.since.Store(at)
	}
	g.failed.Store(at)
	g.failing.Store(true) // last: whoever sees it finds the times
}

// look counts a few devices of one stripe.
func (h *Health) look(ds []*device, now time.Duration) {
	mu := &ds[0].stripe.mu
	mu.Lock()
	defer mu.Unlock()
	for _, d := range ds {
		if !d.gone {
			h.count(d, now)
		}
	}
}

func (h *Health) count(d *device, now time.Duration) {
	h.Devices++
	if d.running() {
		h.Watched++
		h.Runs += len(d.live.runs)
		h.OldestPermission = max(h.OldestPermission, now-d.perm.sent)
	}
	h.Stopping += int(d.leaving.Load())
	if d.flying != nil {
		h.Authority.InFlight++
	}
	if d.queued {
		h.Authority.Waiting++
	}
	h.Authority.Hung += int(d.hung)
	if d.perm == nil && (d.held > 0 || d.leaving.Load() > 0) {
		if denied := d.deniedBy(); denied != nil {
			h.Refused[denied.Code.orOther()]++
		}
	}
}

// deniedBy is the latest denial that is known about the device, nil where there is none, or where it
// was allowed since. An organisation's that holds goes before a failure to ask.
func (d *device) deniedBy() *Decision {
	n := d.denial
	if wide := d.guard.orgDenial.Load(); wide != nil && !wide.lifted.Load() && (n == nil || n.seq <= wide.seq) {
		return &wide.err.Decision
	}
	switch {
	case n == nil || n.lifted.Load():
		return nil
	case n.latest != nil:
		return n.latest
	default:
		return &n.err.Decision
	}
}

// orOther is c, or CodeOther where the guard does not know it: what stands for a code in what has to be bounded. No code stays none.
func (c Code) orOther() Code {
	switch c {
	case "", CodeAllow, CodeSystemUnavailable, CodeDeviceRevoked, CodeDeviceNotFound, CodeInvalidDeviceID:
		return c
	default:
		if c.OrganisationWide() {
			return c
		}
		return CodeOther
	}
}

// Live returns nil unless the guard is of no use any more, so that only a new process helps: it is
// closed and its last function has returned (an error that matches ErrClosed), or what its timer should
// have done is overdue by a whole StopBound. An authority that does not answer is no such reason.
func (h Health) Live() error {
	switch {
	case h.Closed && h.Runs == 0 && h.Stopping == 0:
		return fmt.Errorf("%w, and nothing is in flight any more", ErrClosed)
	case h.Behind > h.StopBound:
		return fmt.Errorf("guard: its timer is %v late", h.Behind.Round(time.Millisecond))
	}
	return nil
}

// Ready returns nil where work that is begun now can be expected to start: the guard is open, and the
// last question to the authority brought a decision, which may be a denial, or none was asked yet.
// Otherwise it returns an error that matches ErrClosed or ErrUnavailable.
//
// A failure counts for one StopBound from the last question that failed: where nobody has asked since, as on a
// server that gets no requests while it is not ready, nothing is known any more, and somebody
// has to come to find out. Where all calls hang that starts may make, nothing can be found out, and
// it counts for as long as they do.
func (h Health) Ready() error {
	a := h.Authority
	switch {
	case h.Closed:
		return ErrClosed
	case a.Stuck:
		return fmt.Errorf("%w: %d calls hang, and no start can be asked about", ErrUnavailable, a.Hung)
	case !a.Answering && h.At.Sub(a.LastFailure) <= h.StopBound:
		return fmt.Errorf("%w for %v", ErrUnavailable, h.At.Sub(a.FailingSince).Round(time.Millisecond))
	}
	return nil
}
