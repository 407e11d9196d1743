package licentricserver

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Status is what has been done to a licence.
type Status string

// The statuses. An active licence whose end has come is shown as StatusExpired.
const (
	StatusActive    Status = "ACTIVE"
	StatusSuspended Status = "SUSPENDED"
	StatusRevoked   Status = "REVOKED"
	StatusBanned    Status = "BANNED"
	StatusExpired   Status = "EXPIRED"
)

// License is one licence and the policy that it stands under. The zero value of each field but
// the first five means «no such rule»; those five are made up where they are empty.
type License struct {
	ID        string // a UUID
	Key       string // what a customer is given; a secret
	Name      string
	ProductID string
	PolicyID  string

	Status       Status    // the default is StatusActive; StatusExpired is Expire's to set
	ExpiresAt    time.Time // zero: never
	AllowExpired bool      // the policy ALLOW_ACCESS: valid with the code EXPIRED
	Entitlements []string
	MaxMachines  int           // the most that may be active at a time
	Heartbeats   time.Duration // how often a machine has to send one
	Uses         int
	MaxUses      int // at which uses are used up
}

// license is a licence as the service keeps it.
type license struct {
	License

	ended   time.Time // what Expire has set, otherwise zero
	created time.Time
	updated time.Time
}

// AddLicense adds a licence and returns it with what was empty made up. An id or a key that is
// taken, and a status that is not one of the first four, is an error.
func (s *Service) AddLicense(l License) (License, error) {
	l = l.completed()
	l.Entitlements = slices.Clone(l.Entitlements)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !settable(l.Status) {
		return License{}, fmt.Errorf("licentricserver: AddLicense: status %q", l.Status)
	}
	if s.byID(l.ID) != nil || s.byKey(l.Key) != nil {
		return License{}, errors.New("licentricserver: AddLicense: the id or the key is taken")
	}
	now := time.Now()
	s.licenses = append(s.licenses, &license{License: l, created: now, updated: now})
	return l.copied(), nil
}

func (l License) completed() License {
	for field, value := range map[*string]string{
		&l.ID: newID(), &l.Key: "LIC-" + rand.Text(), &l.Name: "a licence",
		&l.ProductID: newID(), &l.PolicyID: newID(),
	} {
		if *field == "" {
			*field = value
		}
	}
	if l.Status == "" {
		l.Status = StatusActive
	}
	return l
}

func (l License) copied() License {
	l.Entitlements = slices.Clone(l.Entitlements)
	return l
}

func settable(status Status) bool {
	return slices.Contains([]Status{StatusActive, StatusSuspended, StatusRevoked, StatusBanned}, status)
}

// RemoveLicense makes a licence, and its machines, unknown: NOT_FOUND.
func (s *Service) RemoveLicense(id string) error {
	return s.change(id, func(l *license) {
		s.licenses = slices.DeleteFunc(s.licenses, func(other *license) bool { return other == l })
		s.machines = slices.DeleteFunc(s.machines, func(m *machine) bool { return m.LicenseID == id })
	})
}

// SetStatus is what Suspend, Revoke, Ban and Reinstate do.
func (s *Service) SetStatus(id string, status Status) error {
	if !settable(status) {
		return fmt.Errorf("licentricserver: SetStatus: %q", status)
	}
	return s.change(id, func(l *license) { l.Status = status })
}

// Suspend makes a licence SUSPENDED.
func (s *Service) Suspend(id string) error { return s.SetStatus(id, StatusSuspended) }

// Revoke makes a licence REVOKED.
func (s *Service) Revoke(id string) error { return s.SetStatus(id, StatusRevoked) }

// Ban makes a licence BANNED.
func (s *Service) Ban(id string) error { return s.SetStatus(id, StatusBanned) }

// Expire ends a licence now. With allowAccess its policy is ALLOW_ACCESS: it stays valid, with
// the code EXPIRED.
func (s *Service) Expire(id string, allowAccess bool) error {
	return s.change(id, func(l *license) { l.ended, l.AllowExpired = time.Now(), allowAccess })
}

// Reinstate makes a licence active again and takes back what Expire did. An end that it was added
// with stays, and so do its uses.
func (s *Service) Reinstate(id string) error {
	return s.change(id, func(l *license) { l.Status, l.ended = StatusActive, time.Time{} })
}

// SetMaxMachines changes how many machines may be active at a time; 0 is any number. Those that
// are too many stay, and validate says MACHINE_LIMIT_EXCEEDED for each.
func (s *Service) SetMaxMachines(id string, most int) error {
	return s.change(id, func(l *license) { l.MaxMachines = most })
}

// RequireHeartbeats changes how often a machine has to send one; 0 is never.
func (s *Service) RequireHeartbeats(id string, period time.Duration) error {
	return s.change(id, func(l *license) { l.Heartbeats = period })
}

// SetUses changes how often a licence has been used, and the number at which its uses are used
// up; 0 is never. No call of the API counts a use.
func (s *Service) SetUses(id string, uses, most int) error {
	return s.change(id, func(l *license) { l.Uses, l.MaxUses = uses, most })
}

// SetEntitlements changes what a licence entitles to.
func (s *Service) SetEntitlements(id string, entitlements ...string) error {
	return s.change(id, func(l *license) { l.Entitlements = slices.Clone(entitlements) })
}

// change applies a change to one licence.
func (s *Service) change(id string, apply func(*license)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.byID(id)
	if l == nil {
		return fmt.Errorf("licentricserver: no licence %q", id)
	}
	apply(l)
	l.updated = time.Now()
	return nil
}

// byID must be called with the lock held, and so must byKey. There are few licences.
func (s *Service) byID(id string) *license {
	return s.oneLicense(func(l *license) bool { return l.ID == id })
}

func (s *Service) byKey(key string) *license {
	return s.oneLicense(func(l *license) bool { return l.Key == key })
}

func (s *Service) oneLicense(is func(*license) bool) *license {
	if i := slices.IndexFunc(s.licenses, is); i >= 0 {
		return s.licenses[i]
	}
	return nil
}

// end is when the licence expires; zero is never.
func (l *license) end() time.Time {
	if l.ended.IsZero() || !l.ExpiresAt.IsZero() && l.ExpiresAt.Before(l.ended) {
		return l.ExpiresAt
	}
	return l.ended
}

func (l *license) expired() bool {
	end := l.end()
	return !end.IsZero() && !time.Now().Before(end)
}

// status is what answers show.
func (l *license) status() Status {
	if l.Status == StatusActive && l.expired() {
		return StatusExpired
	}
	return l.Status
}
