package licentricserver

import (
	"encoding/json"
	"time"
)

// verdict is the answer to validate.
type verdict struct {
	Valid        bool         `json:"valid"`
	Code         string       `json:"code"`
	License      *licenseBody `json:"license"`
	Machine      *machineBody `json:"machine"`
	Entitlements []any        `json:"entitlements"`
}

// licenseBody is a licence in an answer.
type licenseBody struct {
	ID           string  `json:"id"`
	Key          string  `json:"key"`
	Name         string  `json:"name"`
	Status       Status  `json:"status"`
	ProductID    string  `json:"productId"`
	PolicyID     string  `json:"policyId"`
	ExpiresAt    *string `json:"expiresAt"`
	MachineCount int     `json:"machineCount"`
	MaxMachines  *int    `json:"maxMachines"`
	Uses         int     `json:"uses"`
	MaxUses      *int    `json:"maxUses"`
	Entitlements []any   `json:"entitlements"`
	CreatedAt    *string `json:"createdAt"`
	UpdatedAt    *string `json:"updatedAt"`
}

// machineBody is a machine in an answer.
type machineBody struct {
	ID              string          `json:"id"`
	LicenseID       string          `json:"licenseId"`
	Fingerprint     string          `json:"fingerprint"`
	Name            *string         `json:"name"`
	Platform        *string         `json:"platform"`
	Hostname        *string         `json:"hostname"`
	Cores           *int            `json:"cores"`
	HeartbeatStatus *string         `json:"heartbeatStatus"` // null where nobody asks for heartbeats
	LastHeartbeatAt *string         `json:"lastHeartbeatAt"`
	CreatedAt       *string         `json:"createdAt"`
	UpdatedAt       *string         `json:"updatedAt"`
	DeletedAt       *string         `json:"deletedAt"`
	Metadata        json.RawMessage `json:"metadata"`
}

// entitlement is one in the other variant.
type entitlement struct {
	Code string `json:"code"`
	Name string `json:"name"`
}

// shapeOf must be called with the lock held.
func (s *Service) shapeOf(l *license) *licenseBody {
	return &licenseBody{
		ID: l.ID, Key: l.Key, Name: l.Name, Status: l.status(), ProductID: l.ProductID, PolicyID: l.PolicyID,
		ExpiresAt: stamp(l.end()), MachineCount: s.count(l.ID), MaxMachines: orNull(l.MaxMachines),
		Uses: l.Uses, MaxUses: orNull(l.MaxUses), Entitlements: s.entitlements(l),
		CreatedAt: stamp(l.created), UpdatedAt: stamp(l.updated),
	}
}

func (s *Service) entitlements(l *license) []any {
	all := []any{} // [] and not null
	for _, code := range l.Entitlements {
		if s.objects {
			all = append(all, entitlement{Code: code, Name: code})
		} else {
			all = append(all, code)
		}
	}
	return all
}

// shape is the machine under its licence.
func (m *machine) shape(l *license) *machineBody {
	return &machineBody{
		ID: m.ID, LicenseID: m.LicenseID, Fingerprint: m.Fingerprint,
		Name: orNull(m.Name), Platform: orNull(m.Platform), Hostname: orNull(m.Hostname), Cores: orNull(m.Cores),
		HeartbeatStatus: orNull(m.pulse(l)), LastHeartbeatAt: stamp(m.LastHeartbeat),
		CreatedAt: stamp(m.Created), UpdatedAt: stamp(m.Updated), Metadata: m.metadata,
	}
}

// pulse is the heartbeat status, whose words are not documented.
func (m *machine) pulse(l *license) string {
	switch {
	case l.Heartbeats == 0:
		return ""
	case m.LastHeartbeat.IsZero():
		return "NOT_STARTED"
	case m.alive(l):
		return "ALIVE"
	}
	return "DEAD"
}

// orNull has an empty value shown as null.
func orNull[T comparable](value T) *T {
	var zero T
	if value == zero {
		return nil
	}
	return &value
}

// stampLayout is ISO 8601 in UTC, always with milliseconds.
const stampLayout = "2006-01-02T15:04:05.000Z"

// stamp has the zero time shown as null.
func stamp(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	return orNull(t.UTC().Format(stampLayout))
}
