package machineid

import (
	"context"
	"slices"
	"strings"
)

// batchSize is how many valid ids the service takes in one request.
const batchSize = 500

// Item is what became of one id of a batch.
type Item struct {
	DeviceID string // without the white space around it
	Status   string // the service's word, such as "revoked", "not_found" or "blocked"; "" when it did not report the id
	// Error is why nothing was done, such as "device_limit_reached"; else "". Two are the
	// client's own: "invalid_device_id" for an id that was not sent, and "not_reported".
	Error string
}

// Batch is the outcome of a call for many devices, joined where it took several requests.
type Batch struct {
	Items   []Item   // of the calls that name ids: one for each different id, those that were not sent first
	Count   int      // of the calls by scope: how many devices were changed
	Sample  []string // of UnrevokeAllRevoked: at most 25 of the restored ids
	Reason  string   // of UnrevokeAllRevoked: why none was restored, "at_cap" or "none_revoked"
	Answers []Answer // one for each request that was answered
}

// RevokeBatch revokes the devices, 500 with each request, each id once. That it returns no error
// means that every request was answered; what became of each id stands in Items, where an
// unknown id is "not_found" and one that breaks the rule for ids "invalid_device_id".
//
// When a request fails, no further one is sent, and the Items of those before come beside the
// error. Ids without an Item may or may not have been revoked: ask again, it is idempotent. No
// ids at all are no request and no error.
func (c *Client) RevokeBatch(ctx context.Context, deviceIDs []string) (Batch, error) {
	return c.batch(ctx, opRevokeBatch, deviceIDs)
}

// UnrevokeBatch restores the devices, as far as the plan's limit allows: at the limit an Item's
// Status is "blocked" and its Error "device_limit_reached". All else is as in RevokeBatch.
func (c *Client) UnrevokeBatch(ctx context.Context, deviceIDs []string) (Batch, error) {
	return c.batch(ctx, opUnrevokeBatch, deviceIDs)
}

// RevokeAllActive revokes every active device of the organisation.
func (c *Client) RevokeAllActive(ctx context.Context) (Batch, error) {
	return c.scope(ctx, opRevokeBatch, "all_active")
}

// UnrevokeAllRevoked restores revoked devices, the most recently revoked first, as many as the
// plan's limit leaves room for. When that is none, Reason says why, and it is no error.
func (c *Client) UnrevokeAllRevoked(ctx context.Context) (Batch, error) {
	return c.scope(ctx, opUnrevokeBatch, "all_revoked")
}

func (c *Client) scope(ctx context.Context, o op, scope string) (Batch, error) {
	r, err := c.ask(ctx, o, textBody("scope", scope))
	if err != nil {
		return Batch{}, err
	}
	result := Batch{Reason: r.word("reason"), Answers: []Answer{r.answer()}}
	counted := "revokedCount"
	if o == opUnrevokeBatch {
		counted = "unrevokedCount"
	}
	result.Count, _ = r.object.Int(counted)
	result.Sample, _ = r.object.Texts("unrevokedSample")
	return result, nil
}

func (c *Client) batch(ctx context.Context, o op, deviceIDs []string) (Batch, error) {
	ids, invalid := c.sift(deviceIDs)
	result := Batch{Items: invalid}
	for chunk := range slices.Chunk(ids, batchSize) {
		r, err := c.ask(ctx, o, textsBody("deviceIds", chunk))
		if err != nil {
			return result, err
		}
		items, ok := r.items(chunk)
		if !ok {
			return result, r.undecided(o, "no list of results in the answer")
		}
		result.Items = append(result.Items, items...)
		result.Answers = append(result.Answers, r.answer())
	}
	return result, nil
}

// sift returns the ids to send, each once, and the items of those that are not sent.
func (c *Client) sift(deviceIDs []string) (ids []string, invalid []Item) {
	seen := make(map[string]struct{}, len(deviceIDs))
	for _, given := range deviceIDs {
		id := strings.TrimSpace(given)
		if _, twice := seen[id]; twice {
			continue
		}
		seen[id] = struct{}{}
		if _, err := c.deviceID(id); err != nil {
			shown := c.secret.Clean(id) // it broke a rule, and may hold anything
			invalid = append(invalid, Item{DeviceID: shown, Status: "invalid", Error: wordInvalidDeviceID})
			continue
		}
		ids = append(ids, id)
	}
	return ids, invalid
}

// items returns what the answer says of each id that was sent, in that order. What it says of
// others is left to Raw.
func (r *reply) items(sent []string) ([]Item, bool) {
	results, ok := r.object.Objects("results", "deviceId", "status", "error")
	if !ok {
		return nil, false
	}
	said := make(map[string]Item, len(results))
	for _, one := range results {
		id := text(one, "deviceId")
		said[id] = Item{DeviceID: id, Status: text(one, "status"), Error: text(one, "error")}
	}
	items := make([]Item, len(sent))
	for i, id := range sent {
		item, ok := said[id]
		if !ok {
			item = Item{DeviceID: id, Error: wordNotReported}
		}
		items[i] = item
	}
	return items, true
}
