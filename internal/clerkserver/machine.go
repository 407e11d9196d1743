package clerkserver

import (
	"crypto/rand"
	"slices"
	"time"
)

const (
	maxScopes  = 150       // of one machine
	defaultTTL = 3600      // seconds
	maxTTL     = 315360000 // seconds
	maxName    = 255       // characters
)

// machine is one machine as the service keeps it; under the service's lock.
type machine struct {
	id, name string
	number   int   // in the order of creation
	ttl      int64 // of its tokens, seconds
	created  time.Time
	updated  time.Time
	scopes   []string // ids, in the order in which they were added

	secret   string
	previous []oldSecret
}

// oldSecret is a secret that was rotated away and is good for a while.
type oldSecret struct {
	secret string
	until  time.Time
}

// machineJSON is a machine as it is sent. A machine that stands among another's scoped_machines
// has none of its own; the secret key is there when the machine has just been made.
type machineJSON struct {
	Object          string        `json:"object"`
	ID              string        `json:"id"`
	Name            string        `json:"name"`
	InstanceID      string        `json:"instance_id"`
	CreatedAt       int64         `json:"created_at"`
	UpdatedAt       int64         `json:"updated_at"`
	DefaultTokenTTL int64         `json:"default_token_ttl"`
	ScopedMachines  []machineJSON `json:"scoped_machines,omitzero"`
	SecretKey       string        `json:"secret_key,omitempty"`
}

// newMachine makes a machine that the service does not know yet.
func (s *Service) newMachine(name string, ttl int64, scopes []string) *machine {
	now := time.Now()
	s.created++
	return &machine{
		id: "mch_" + word(), name: name, number: s.created, ttl: ttl, created: now, updated: now,
		scopes: scopes, secret: "ak_" + rand.Text(),
	}
}

// bare shows a machine without its scopes.
func (s *Service) bare(m *machine) machineJSON {
	return machineJSON{
		Object: "machine", ID: m.id, Name: m.name, InstanceID: s.instance,
		CreatedAt: milliseconds(m.created), UpdatedAt: milliseconds(m.updated), DefaultTokenTTL: m.ttl,
	}
}

// show shows a machine with its scopes. Those that lead to a machine which is not there are left
// out: they come back with it.
func (s *Service) show(m *machine) machineJSON {
	shown := s.bare(m)
	shown.ScopedMachines = []machineJSON{} // an array even when it is empty
	for _, to := range m.scopes {
		if other, ok := s.machines[to]; ok {
			shown.ScopedMachines = append(shown.ScopedMachines, s.bare(other))
		}
	}
	return shown
}

// reach lists the machines that m has access to now.
func (s *Service) reach(m *machine) []string {
	ids := []string{}
	for _, to := range m.scopes {
		if _, ok := s.machines[to]; ok {
			ids = append(ids, to)
		}
	}
	return ids
}

// rotate gives the machine a new secret and lets the one before live for a while, which may be
// none. Those before that one keep the time that they were given.
func (m *machine) rotate(keep time.Duration) {
	now := time.Now()
	m.previous = slices.DeleteFunc(m.previous, func(o oldSecret) bool { return !now.Before(o.until) })
	m.previous = append(m.previous, oldSecret{m.secret, now.Add(keep)})
	m.secret, m.updated = "ak_"+rand.Text(), now
}

// holds tells whether secret is one of the machine's that is good now. It compares as it pleases:
// nobody attacks a test by its timing.
func (m *machine) holds(secret string) bool {
	now := time.Now()
	return m.secret == secret || slices.ContainsFunc(m.previous, func(o oldSecret) bool {
		return o.secret == secret && now.Before(o.until)
	})
}
