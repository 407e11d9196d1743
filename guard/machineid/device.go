package machineid

import (
	"context"
	"net/http"
	"strings"

	"github.com/execguard/execguard/guard/internal/strictjson"
)

// Registration is the outcome of Register, with the state of the plan where the service tells it.
type Registration struct {
	Status   string // "ok": new; "exists": there already and active; beside an error "blocked" or "revoked"
	DeviceID string // as the service repeats it
	Usage
}

// Change is the outcome of Revoke, Unrevoke or Remove.
type Change struct {
	Status   string // the service's word; it publishes none but "blocked", beside an error
	DeviceID string // as the service repeats it
	Answer
}

// Device is one entry of List.
type Device struct {
	DeviceID string
	Status   string // "active" or "revoked"
}

// Devices is the answer of List.
type Devices struct {
	Devices []Device // active and revoked, in the service's order
	Answer
}

// Register makes the device known. It is idempotent, so it may stand at the start of every
// program, and does not restore a revoked device. A success is «ok» or «exists» and nothing
// else: at the plan's limit the error's Code is "device_limit_reached", and the Registration
// beside it says what the service said. Register never means that the device may execute.
func (c *Client) Register(ctx context.Context, deviceID string) (Registration, error) {
	r, err := c.askAbout(ctx, opRegister, deviceID)
	result := Registration{Status: r.word("status"), DeviceID: text(r.object, "deviceId"), Usage: r.usage()}
	if err == nil && result.Status != "ok" && result.Status != "exists" {
		return result, r.refused(opRegister, "not registered")
	}
	return result, err
}

// Revoke takes the device's permission; it counts from the next Validate.
func (c *Client) Revoke(ctx context.Context, deviceID string) (Change, error) {
	return c.change(ctx, opRevoke, deviceID)
}

// Unrevoke gives a revoked device its permission back; there is no other way. At the plan's
// limit the error's Code is "device_limit_reached".
func (c *Client) Unrevoke(ctx context.Context, deviceID string) (Change, error) {
	return c.change(ctx, opUnrevoke, deviceID)
}

// Remove deletes the device for good. It is then as if it had never been registered.
func (c *Client) Remove(ctx context.Context, deviceID string) (Change, error) {
	return c.change(ctx, opRemove, deviceID)
}

func (c *Client) change(ctx context.Context, o op, deviceID string) (Change, error) {
	r, err := c.askAbout(ctx, o, deviceID)
	return Change{Status: r.word("status"), DeviceID: text(r.object, "deviceId"), Answer: r.answer()}, err
}

// List returns all devices of the organisation. The service does not publish the form of this
// answer: where no list of devices is found in it, that is an error, and Raw has what came.
func (c *Client) List(ctx context.Context) (Devices, error) {
	r, err := c.ask(ctx, opList, nil)
	result := Devices{Answer: r.answer()}
	if err != nil {
		return result, err
	}
	entries, ok := r.object.Objects("devices", "deviceId", "status")
	if !ok {
		return result, r.undecided(opList, "no list of devices in the answer")
	}
	for _, entry := range entries {
		result.Devices = append(result.Devices, Device{
			DeviceID: text(entry, "deviceId", "id"),
			Status:   deviceStatus(entry),
		})
	}
	return result, nil
}

// deviceStatus reads a device's status, or the older boolean.
func deviceStatus(entry strictjson.Object) string {
	if revoked, ok := entry.Bool("revoked"); ok && entry.Raw("status") == nil {
		if revoked {
			return "revoked"
		}
		return "active"
	}
	return text(entry, "status")
}

// askAbout sends a call that names one device. An answer that names another is no answer.
func (c *Client) askAbout(ctx context.Context, o op, deviceID string) (*reply, error) {
	id, err := c.deviceID(deviceID)
	if err != nil {
		return &reply{}, badDeviceID(o, err)
	}
	r, err := c.ask(ctx, o, textBody("deviceId", id))
	if _, other := r.about(id, false); err == nil && other {
		return r, r.undecided(o, "the answer is about another device")
	}
	return r, err
}

// ask sends a call whose answer is no decision, and finds the service's refusals: by status, by
// the member error, and by a status word, for they are not documented to come in one way. The
// reply is never nil.
func (c *Client) ask(ctx context.Context, o op, body []byte) (*reply, error) {
	r, fail := c.call(ctx, o, body)
	if fail != nil {
		return r, fail
	}
	if r.status >= http.StatusBadRequest || r.word("error") != "" || refusal(r.word("status")) {
		return r, r.refused(o, r.word("reason", "message"))
	}
	return r, nil
}

// refusal tells whether a status word says that nothing was done.
func refusal(status string) bool {
	switch strings.ToLower(status) {
	case "blocked", "not_found", "invalid", "error", "failed":
		return true
	}
	return false
}
