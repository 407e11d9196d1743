package authority

import (
	"cmp"
	"context"
	"slices"
)

// The bounds are those that MachineID publishes. Each batch is one Update of the store: nobody
// sees half of it, and no register slips into the middle of a revocation of everything.
const (
	maxBatch  = 500 // valid ids, after doubles are gone
	maxSample = 25  // ids that name what a scope has restored

	statusInvalid = "invalid"

	scopeAllActive  = "all_active"
	scopeAllRevoked = "all_revoked"
)

// RevokeBatch revokes up to 500 devices as one step. Ids that are unknown or invalid are
// reported item by item; ids that come twice count once. More than 500 valid ids, or none at
// all, are an *Error and change nothing.
func (o *Organisation) RevokeBatch(ctx context.Context, deviceIDs []string) (RevokeResult, error) {
	res := RevokeResult{Status: statusOK, Handler: "devices/revoke_batch"}
	items, usage, err := o.batch(ctx, deviceIDs, batch{
		change: (*Record).revoke, done: statusRevoked, already: "already_revoked",
	})
	if err != nil {
		return RevokeResult{}, err
	}
	res.Results, res.Usage, res.RevokedCount = items, usage, count(items, statusRevoked)
	return res, nil
}

// UnrevokeBatch restores up to 500 devices as one step, in the order they are given and as
// many as the plan has room for; the rest is "blocked" item by item. For the rest it is like
// RevokeBatch.
func (o *Organisation) UnrevokeBatch(ctx context.Context, deviceIDs []string) (UnrevokeResult, error) {
	res := UnrevokeResult{Status: statusOK, Handler: "devices/unrevoke_batch"}
	items, usage, err := o.batch(ctx, deviceIDs, batch{
		change: (*Record).unrevoke, done: "unrevoked", already: "already_active",
	})
	if err != nil {
		return UnrevokeResult{}, err
	}
	res.Results, res.Usage, res.UnrevokedCount = items, usage, count(items, "unrevoked")
	return res, nil
}

// RevokeAllActive revokes every active device as one step, however many there are. Those of
// one call count as revoked in the order of their ids.
func (o *Organisation) RevokeAllActive(ctx context.Context) (RevokeResult, error) {
	var res RevokeResult
	err := o.update(ctx, func(r *Record) []string {
		ids := r.ids(statusActive, func(a, b Device) int { return cmp.Compare(a.ID, b.ID) })
		for _, id := range ids {
			r.revoke(id)
		}
		res = RevokeResult{
			Status: statusOK, Handler: "devices/revoke_batch", Scope: scopeAllActive,
			RevokedCount: len(ids), Usage: r.usage(),
		}
		return all(ids)
	})
	if err != nil {
		return RevokeResult{}, err
	}
	return res, nil
}

// UnrevokeAllRevoked restores revoked devices as one step, the newest revoked first and as
// many as the plan has room for. Where none was restored, Reason says why.
func (o *Organisation) UnrevokeAllRevoked(ctx context.Context) (UnrevokeResult, error) {
	var res UnrevokeResult
	err := o.update(ctx, func(r *Record) []string {
		ids := r.ids(statusRevoked, func(a, b Device) int { return cmp.Compare(b.Revocation, a.Revocation) })
		reason := ""
		if len(ids) == 0 { // said first: at the cap with nobody revoked, the cap holds nobody back
			reason = "none_revoked"
		} else if r.full() {
			reason = "at_cap"
		}
		ids = ids[:min(len(ids), max(0, r.Plan.Limit()-r.active()))]
		for _, id := range ids {
			r.unrevoke(id)
		}
		res = UnrevokeResult{
			Status: statusOK, Handler: "devices/unrevoke_batch", Scope: scopeAllRevoked, UnrevokedCount: len(ids),
			UnrevokedSample: ids[:min(len(ids), maxSample)], Reason: reason, Usage: r.usage(),
		}
		return all(ids)
	})
	if err != nil {
		return UnrevokeResult{}, err
	}
	return res, nil
}

// batch is what a change means for a list of ids: done and already are the words for an item
// that was changed, and for one that had nothing to change.
type batch struct {
	change        func(r *Record, id string) outcome
	done, already string
}

// batch applies b to each different id in one update. The items are cloned for each attempt,
// because a store may run the change again after a conflict.
func (o *Organisation) batch(ctx context.Context, deviceIDs []string, b batch) ([]Item, Usage, error) {
	blank, refused := distinct(deviceIDs)
	if refused != "" {
		return nil, Usage{}, o.refuse(ctx, refused)
	}
	var items []Item
	var usage Usage
	err := o.update(ctx, func(r *Record) []string {
		var concerned []string
		items = slices.Clone(blank)
		for i := range items {
			if items[i].Status == "" && b.apply(r, &items[i]) {
				concerned = append(concerned, items[i].DeviceID)
			}
		}
		usage = r.usage()
		return concerned
	})
	return items, usage, err
}

// apply fills in the outcome of one item and tells whether the device changed.
func (b batch) apply(r *Record, it *Item) (changed bool) {
	out := b.change(r, it.DeviceID)
	it.Status, it.Error = out.status, out.reason
	switch {
	case out.changed:
		it.Status = b.done
	case out.status == statusOK:
		it.Status = b.already
	}
	return out.changed
}

// distinct makes an item of each different id: the invalid ones are decided, the others wait.
// Invalid ids are told apart by all they hold and not by what is sent back of them, since a
// long one may begin like a device that is meant as well.
// refused is why there is nothing to apply, or "".
func distinct(deviceIDs []string) (items []Item, refused string) {
	if len(deviceIDs) == 0 {
		return nil, codeMissingParams
	}
	seen, valid := make(map[string]bool), 0
	for _, asked := range deviceIDs {
		it := Item{DeviceID: asked}
		if id, ok := canonical(asked); ok {
			it.DeviceID = id
		} else {
			it.Status, it.Error = statusInvalid, codeInvalidDeviceID
		}
		if seen[it.DeviceID] {
			continue
		}
		seen[it.DeviceID] = true
		if it.Status == statusInvalid {
			it.DeviceID = truncate(asked)
		} else {
			valid++
		}
		items = append(items, it)
	}
	if valid > maxBatch {
		return nil, codeTooManyDevices
	}
	return items, ""
}

// truncate keeps an answer from growing with what somebody sent as an id. The mark keeps what
// is left of it from being some other device's id.
func truncate(id string) string {
	runes := 0
	for i := range id {
		if runes++; runes > maxID {
			return id[:i] + "…"
		}
	}
	return id
}

// ids lists the devices of one status in the order of compare.
func (r *Record) ids(status string, compare func(a, b Device) int) []string {
	var devices []Device
	for _, d := range r.Devices {
		if d.Status == status {
			devices = append(devices, d)
		}
	}
	slices.SortFunc(devices, compare)
	ids := make([]string, len(devices))
	for i, d := range devices {
		ids[i] = d.ID
	}
	return ids
}

// all is the hint for a change of whole scope: one for every device, or none.
func all(ids []string) []string {
	if len(ids) == 0 {
		return nil
	}
	return []string{everyDevice}
}

// count tells how many items ended in a status.
func count(items []Item, status string) int {
	n := 0
	for _, it := range items {
		if it.Status == status {
			n++
		}
	}
	return n
}
