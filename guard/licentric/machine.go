package licentric

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/execguard/execguard/guard/internal/strictjson"
)

// Machine is a machine that a licence is activated on. What the service does not tell is zero.
type Machine struct {
	ID              string
	LicenseID       string
	Fingerprint     string
	Name            string
	Platform        string
	Hostname        string
	Cores           int
	HeartbeatStatus string // the service's word; its words are not documented
	LastHeartbeatAt time.Time
	CreatedAt       time.Time
	UpdatedAt       time.Time
	DeletedAt       time.Time
	Metadata        json.RawMessage // as it came; nil where there is none
}

// Activation is what Activate tells of a machine. All but the Fingerprint may be left out.
type Activation struct {
	Fingerprint string         `json:"fingerprint"`        // 8 to 256 characters
	Name        string         `json:"name,omitempty"`     // at most 255 characters
	Platform    string         `json:"platform,omitempty"` // macos, windows, linux, docker or kubernetes
	Hostname    string         `json:"hostname,omitempty"`
	Cores       int            `json:"cores,omitempty"`
	Metadata    map[string]any `json:"metadata,omitempty"`
}

// Activate makes a machine one of the licence's. A machine with that fingerprint that is there
// already is an *Error with Status 409, the licence's limit of machines one with 422. It is sent
// once: whether a call without an answer was heeded, Validate tells. The service takes ten
// activations a minute from one address. It needs no API key.
func (c *Client) Activate(ctx context.Context, licenseKey string, a Activation) (Machine, error) {
	q, fail := c.licensed(opActivate, licenseKey)
	if fail != nil {
		return Machine{}, fail
	}
	if err := checkFingerprint(a.Fingerprint, q.secrets); err != nil {
		return Machine{}, unasked(opActivate, wordInvalid, err.Error())
	}
	for _, said := range []string{a.Name, a.Platform, a.Hostname} {
		if !utf8.ValidString(said) {
			return Machine{}, unasked(opActivate, wordInvalid, "name, platform or host name is not valid UTF-8")
		}
	}
	if q.body, fail = encode(opActivate, a); fail != nil {
		return Machine{}, fail
	}
	r, fail := c.ask(ctx, q)
	if fail != nil {
		return Machine{}, fail
	}
	m, err := r.machine()
	if err == nil && m.Fingerprint != a.Fingerprint {
		err = errOther
	}
	return r.believed(m, err)
}

// Deactivate takes the machine from the licence. Its next validation finds it gone. machineID is
// Machine.ID of Activate's or Validate's answer, not the fingerprint. It needs no API key.
func (c *Client) Deactivate(ctx context.Context, licenseKey, machineID string) error {
	q, fail := c.licensed(opDeactivate, licenseKey)
	if fail == nil {
		q.id, fail = checkID(opDeactivate, machineID)
	}
	if fail != nil {
		return fail
	}
	r, fail := c.ask(ctx, q)
	if fail == nil {
		// How it says that it did is not documented; where it shows a machine, it must be that one.
		if id := text(below(r.object, "data"), "id"); id != "" && !strings.EqualFold(id, machineID) {
			fail = r.undecided(errOther.Error())
		}
	}
	return fail.orNil()
}

// Heartbeat tells the service that the machine is alive, and returns the machine as the service
// knows it then. It never means that the machine may do anything. A validator made by
// Client.Validator sends heartbeats by itself. machineID is Machine.ID of Activate's or Validate's
// answer, not the fingerprint. It needs no API key.
func (c *Client) Heartbeat(ctx context.Context, licenseKey, machineID string) (Machine, error) {
	q, fail := c.licensed(opHeartbeat, licenseKey)
	if fail != nil {
		return Machine{}, fail
	}
	m, fail := c.heartbeat(ctx, q, machineID)
	return m, fail.orNil()
}

// heartbeat sends q, which is signed, for a machine. An answer without a body says enough.
func (c *Client) heartbeat(ctx context.Context, q request, machineID string) (Machine, *Error) {
	id, fail := checkID(opHeartbeat, machineID)
	if fail != nil {
		return Machine{}, fail
	}
	q.id = id
	r, fail := c.ask(ctx, q)
	if fail != nil {
		return Machine{}, fail
	}
	if r.raw == nil {
		return Machine{ID: machineID}, nil
	}
	m, err := r.machine()
	if err != nil {
		fail = r.undecided(err.Error())
		fail.taken = true // how the service says so is not documented; that it did, the status tells
		return Machine{}, fail
	}
	if !strings.EqualFold(m.ID, machineID) {
		return Machine{}, r.undecided(errOther.Error())
	}
	return m, nil
}

// Machine returns one machine. It needs an API key.
func (c *Client) Machine(ctx context.Context, machineID string) (Machine, error) {
	q, fail := c.managed(opMachine)
	if fail == nil {
		q.id, fail = checkID(opMachine, machineID)
	}
	if fail != nil {
		return Machine{}, fail
	}
	r, fail := c.ask(ctx, q)
	if fail != nil {
		return Machine{}, fail
	}
	m, err := r.machine()
	if err == nil && !strings.EqualFold(m.ID, machineID) {
		err = errOther
	}
	return r.believed(m, err)
}

// errOther is why an answer is none that names something else than was asked about.
var errOther = errors.New("the answer is about another machine")

// believed returns m, or the error of an answer that is none.
func (r *reply) believed(m Machine, err error) (Machine, error) {
	if err != nil {
		return Machine{}, r.undecided(err.Error())
	}
	return m, nil
}

// machine reads an answer that is one machine, in the documented envelope.
func (r *reply) machine() (Machine, error) {
	if absent(r.object.Raw("data")) {
		return Machine{}, errors.New("no machine in the answer")
	}
	return parseMachine(r.object.Raw("data"))
}

// machineMembers are the names that decide something.
func machineMembers() []string {
	return []string{"id", "licenseId", "fingerprint", "heartbeatStatus", "lastHeartbeatAt"}
}

// parseMachine reads a machine, which must have an id.
func parseMachine(raw []byte) (Machine, error) {
	o, err := strictjson.Parse(raw, machineMembers()...)
	if err != nil {
		return Machine{}, errors.New("the machine is " + err.Error())
	}
	return machineOf(o)
}

func machineOf(o strictjson.Object) (Machine, error) {
	m := Machine{
		ID:              text(o, "id"),
		LicenseID:       text(o, "licenseId"),
		Fingerprint:     text(o, "fingerprint"),
		Name:            text(o, "name"),
		Platform:        text(o, "platform"),
		Hostname:        text(o, "hostname"),
		HeartbeatStatus: text(o, "heartbeatStatus"),
		LastHeartbeatAt: when(o, "lastHeartbeatAt"),
		CreatedAt:       when(o, "createdAt"),
		UpdatedAt:       when(o, "updatedAt"),
		DeletedAt:       when(o, "deletedAt"),
	}
	m.Cores, _ = o.Int("cores")
	if metadata := o.Raw("metadata"); !absent(metadata) {
		m.Metadata = metadata
	}
	if m.ID == "" {
		return m, errors.New("the machine has no id")
	}
	return m, nil
}

// checkID returns an id that may stand in a path: a UUID, as all of the service's are, or at most
// 128 signs that mean themselves there.
func checkID(o op, id string) (string, *Error) {
	for i := range len(id) {
		if !alphanumeric(id[i]) && id[i] != '-' && id[i] != '_' {
			return "", unasked(o, wordInvalid, "the id must consist of A-Za-z0-9_-")
		}
	}
	if id == "" || len(id) > 128 {
		return "", unasked(o, wordInvalid, "the id must have 1 to 128 characters")
	}
	return id, nil
}
