package authority

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"
)

const (
	statusActive  = "active"
	statusRevoked = "revoked"

	statusOK       = "ok"
	statusExists   = "exists"
	statusBlocked  = "blocked"
	statusNotFound = "not_found"

	// maxDevices bounds what one organisation can make the store keep: revoked devices take
	// no place under the plan, so register and revoke could otherwise go on for ever.
	maxDevices = 10_000
)

// outcome is what a change did to one device: the words for the answer, and whether there is
// anything to tell the listeners.
type outcome struct {
	status, reason string
	changed        bool
}

// Register adds a device as active. It is idempotent, safe at every start, and does not
// restore a revoked device. Only the statuses "ok" and "exists" mean that the device is
// active; an error is an *Error.
func (o *Organisation) Register(ctx context.Context, deviceID string) (Result, error) {
	return o.device(ctx, "devices/register", deviceID, (*Record).register)
}

// Revoke makes a device's next Validate answer DEVICE_REVOKED and frees its place. A revoked
// device stays revoked: "ok".
func (o *Organisation) Revoke(ctx context.Context, deviceID string) (Result, error) {
	return o.device(ctx, "devices/revoke", deviceID, (*Record).revoke)
}

// Unrevoke makes a revoked device active again, the only way back; at the cap it is "blocked".
// An active device stays active: "ok".
func (o *Organisation) Unrevoke(ctx context.Context, deviceID string) (Result, error) {
	return o.device(ctx, "devices/unrevoke", deviceID, (*Record).unrevoke)
}

// Remove forgets a device for good. It may be registered again as if it were new, also when
// it was revoked before.
func (o *Organisation) Remove(ctx context.Context, deviceID string) (Result, error) {
	return o.device(ctx, "devices/remove", deviceID, (*Record).remove)
}

// List returns all devices, active and revoked.
func (o *Organisation) List(ctx context.Context) (Listing, error) {
	r, err := o.load(ctx)
	if err != nil {
		return Listing{}, err
	}
	devices := slices.SortedFunc(maps.Values(r.Devices), func(a, b Device) int { return cmp.Compare(a.ID, b.ID) })
	if devices == nil {
		devices = []Device{} // JSON: an empty list, never null
	}
	return Listing{Status: statusOK, Handler: "devices/list", Devices: devices, Usage: r.usage()}, nil
}

// Usage returns the plan and how much of it is taken.
func (o *Organisation) Usage(ctx context.Context) (UsageResult, error) {
	r, err := o.load(ctx)
	if err != nil {
		return UsageResult{}, err
	}
	return UsageResult{Status: statusOK, Handler: "usage", Usage: r.usage()}, nil
}

// device applies change to one device and hints it if something changed.
func (o *Organisation) device(ctx context.Context, handler, deviceID string,
	change func(r *Record, id string) outcome,
) (Result, error) {
	id, ok := canonical(deviceID)
	if !ok {
		return Result{}, o.refuse(ctx, codeInvalidDeviceID)
	}
	var res Result
	err := o.update(ctx, func(r *Record) []string {
		out := change(r, id)
		res = Result{Status: out.status, Error: out.reason, Handler: handler, DeviceID: id, Usage: r.usage()}
		if !out.changed {
			return nil
		}
		return []string{id}
	})
	if err != nil {
		return Result{}, err
	}
	return res, nil
}

// The four changes below decide before they touch anything: what is not changed is left as it was.

// register adds a device, if it is new and there is room.
func (r *Record) register(id string) outcome {
	d, known := r.Devices[id]
	switch {
	case known && d.Status == statusActive:
		return outcome{status: statusExists}
	case known:
		return outcome{status: statusRevoked, reason: codeDeviceRevoked}
	case r.full() || len(r.Devices) >= maxDevices:
		return outcome{status: statusBlocked, reason: codeDeviceLimit}
	}
	r.Devices[id] = Device{ID: id, Status: statusActive, RegisteredAt: time.Now().UTC()}
	return outcome{status: statusOK, changed: true}
}

// revoke numbers the revocation and frees the device's place.
func (r *Record) revoke(id string) outcome {
	d, known := r.Devices[id]
	switch {
	case !known:
		return outcome{status: statusNotFound, reason: codeDeviceNotFound}
	case d.Status != statusActive:
		return outcome{status: statusOK}
	}
	r.Revocations++
	d.Status, d.RevokedAt, d.Revocation = statusRevoked, time.Now().UTC(), r.Revocations
	r.Devices[id] = d
	return outcome{status: statusOK, changed: true}
}

// unrevoke leaves no trace of the revocation: a later one counts as new.
func (r *Record) unrevoke(id string) outcome {
	d, known := r.Devices[id]
	switch {
	case !known:
		return outcome{status: statusNotFound, reason: codeDeviceNotFound}
	case d.Status == statusActive:
		return outcome{status: statusOK}
	case r.full():
		return outcome{status: statusBlocked, reason: codeDeviceLimit}
	}
	d.Status, d.RevokedAt, d.Revocation = statusActive, time.Time{}, 0
	r.Devices[id] = d
	return outcome{status: statusOK, changed: true}
}

// remove needs no room and so is never blocked.
func (r *Record) remove(id string) outcome {
	if _, known := r.Devices[id]; !known {
		return outcome{status: statusNotFound, reason: codeDeviceNotFound}
	}
	delete(r.Devices, id)
	return outcome{status: statusOK, changed: true}
}

// active counts the devices that take a place under the plan.
func (r *Record) active() int {
	n := 0
	for _, d := range r.Devices {
		if d.Status == statusActive {
			n++
		}
	}
	return n
}

// full counts with «at least», for after a downgrade there are more than the plan has room for.
func (r *Record) full() bool { return r.active() >= r.Plan.Limit() }

// usage is counted anew for each answer; a counter kept beside the devices could differ from them.
func (r *Record) usage() Usage {
	used, limit := r.active(), r.Plan.Limit()
	return Usage{
		PlanTier: r.Plan, PlanState: r.State, Limit: limit,
		DevicesUsed: used, Remaining: max(0, limit-used), OverLimit: used > limit,
	}
}
