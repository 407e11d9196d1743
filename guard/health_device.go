package guard

import (
	"iter"
	"time"
)

// DeviceHealth is what a Guard knows about one device at one moment. It holds no secret, but
// the device's id, which may be nobody else's business. In JSON durations are nanoseconds.
type DeviceHealth struct {
	DeviceID string `json:"device"`

	Runs     int `json:"runs"`     // in flight, and not told to stop
	Stopping int `json:"stopping"` // told to stop, and their functions have not returned
	Waiting  int `json:"waiting"`  // callers who wait for an answer: starts, Validates, and Keeps that wait to be allowed again

	PermissionAge time.Duration `json:"permission_age_ns,omitzero"` // since its request was sent; 0: there is none
	StopLine      time.Time     `json:"stop_line,omitzero"`         // when work stops unless a newer ALLOW moves it; zero: no permission
	RequestID     string        `json:"request_id,omitempty"`       // of the ALLOW behind the permission

	// The latest denial, as long as the device was not allowed since.
	DenialCode      Code   `json:"denial_code,omitempty"`
	DenialRequestID string `json:"denial_request_id,omitempty"`
	DenialReason    string `json:"denial_reason,omitempty"`

	InFlight bool `json:"in_flight"`      // a question about it was sent and is waited for
	Queued   bool `json:"queued"`         // a question about it waits for a slot
	Hung     int  `json:"hung,omitempty"` // calls about it that ignored that they were given up
}

// Devices yields the devices that the guard knows, in no order: those with a run, a caller, a permission to
// reuse or a call that is not over. It is for looking into a guard that is at work, by hand or
// by expvar.Func, not for decisions: what it yields may be over by then. No lock is held while the
// caller has a device, and no more than one part of the devices is kept at a time, so that who
// stops early has paid for little.
func (g *Guard) Devices() iter.Seq[DeviceHealth] {
	return func(yield func(DeviceHealth) bool) {
		var seen []DeviceHealth
		for ds := range g.registry.chunks() {
			seen = describe(seen[:0], ds)
			for _, d := range seen {
				if !yield(d) {
					return
				}
			}
		}
	}
}

// describe adds a few devices of one stripe to seen.
func describe(seen []DeviceHealth, ds []*device) []DeviceHealth {
	g, mu := ds[0].guard, &ds[0].stripe.mu
	mu.Lock()
	defer mu.Unlock()
	at, now := time.Now(), g.clock.now()
	for _, d := range ds {
		if !d.gone {
			seen = append(seen, d.describe(at, now))
		}
	}
	return seen
}

func (d *device) describe(at time.Time, now time.Duration) DeviceHealth {
	h := DeviceHealth{
		DeviceID: d.id, Runs: len(d.live.runs), Stopping: int(d.leaving.Load()), Waiting: d.waiting(),
		InFlight: d.flying != nil, Queued: d.queued, Hung: int(d.hung),
	}
	if d.perm != nil {
		h.PermissionAge, h.RequestID = max(now-d.perm.sent, 1), d.perm.decision.RequestID
		h.StopLine = at.Add(d.perm.line - now).Round(0)
	}
	if denied := d.deniedBy(); denied != nil {
		h.DenialCode, h.DenialRequestID, h.DenialReason = denied.Code, denied.RequestID, denied.Reason
	}
	return h
}

// waiting is how many callers wait for an answer.
func (d *device) waiting() int {
	n := 0
	if d.flying != nil {
		n += d.flying.question.callers
	}
	if d.next != nil {
		n += d.next.callers
	}
	return n
}
