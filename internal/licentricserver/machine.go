package licentricserver

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Machine is one machine that a licence is active on.
type Machine struct {
	ID            string // a UUID
	LicenseID     string
	Fingerprint   string
	Name          string
	Platform      string
	Hostname      string
	Cores         int
	LastHeartbeat time.Time // zero: none yet
	Created       time.Time
	Updated       time.Time
}

// machine is a machine as the service keeps it.
type machine struct {
	Machine

	number   int // counts activations, so that a list has an order that outlives deletions
	metadata json.RawMessage
}

// AddMachine activates a licence on a machine, as activate does, but for the machine limit and
// the licence's status, which it overlooks. A fingerprint that is active already is an error.
func (s *Service) AddMachine(licenseID, fingerprint string) (Machine, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID(licenseID) == nil {
		return Machine{}, fmt.Errorf("licentricserver: no licence %q", licenseID)
	}
	if s.machine(licenseID, fingerprint) != nil {
		return Machine{}, fmt.Errorf("licentricserver: fingerprint %q is active already", fingerprint)
	}
	return s.addMachine(Machine{LicenseID: licenseID, Fingerprint: fingerprint}, nil).Machine, nil
}

// RemoveMachine deactivates a machine, as deactivate does.
func (s *Service) RemoveMachine(licenseID, fingerprint string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.machine(licenseID, fingerprint)
	if m == nil {
		return noMachine(fingerprint)
	}
	s.dropMachine(m)
	return nil
}

// SetHeartbeat says when a machine sent its last heartbeat; the zero time is never.
func (s *Service) SetHeartbeat(licenseID, fingerprint string, at time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.machine(licenseID, fingerprint)
	if m == nil {
		return noMachine(fingerprint)
	}
	m.LastHeartbeat = at
	return nil
}

func noMachine(fingerprint string) error {
	return fmt.Errorf("licentricserver: no machine with the fingerprint %q", fingerprint)
}

// Machines returns a licence's machines in the order in which they were activated.
func (s *Service) Machines(licenseID string) []Machine {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Machine
	for _, m := range s.machines {
		if m.LicenseID == licenseID {
			all = append(all, m.Machine)
		}
	}
	return all
}

// addMachine must be called with the lock held, as must everything below.
func (s *Service) addMachine(told Machine, metadata json.RawMessage) *machine {
	s.sequence++
	m := &machine{Machine: told, number: s.sequence, metadata: metadata}
	m.ID, m.Created = newID(), time.Now()
	m.Updated = m.Created
	s.machines = append(s.machines, m)
	return m
}

func (s *Service) dropMachine(m *machine) {
	s.machines = slices.DeleteFunc(s.machines, func(other *machine) bool { return other == m })
}

// machine finds by fingerprint: two licences may be active on one machine.
func (s *Service) machine(licenseID, fingerprint string) *machine {
	return s.oneMachine(func(m *machine) bool { return m.LicenseID == licenseID && m.Fingerprint == fingerprint })
}

func (s *Service) machineByID(id string) *machine {
	return s.oneMachine(func(m *machine) bool { return m.ID == id })
}

func (s *Service) oneMachine(is func(*machine) bool) *machine {
	if i := slices.IndexFunc(s.machines, is); i >= 0 {
		return s.machines[i]
	}
	return nil
}

// count is how many machines a licence is active on.
func (s *Service) count(licenseID string) (n int) {
	for _, m := range s.machines {
		if m.LicenseID == licenseID {
			n++
		}
	}
	return n
}

// alive tells whether the last heartbeat is young enough, where the licence asks for any. Without
// one it is older than any period: since the zero time, the longest Duration has gone by.
func (m *machine) alive(l *license) bool {
	return l.Heartbeats == 0 || time.Since(m.LastHeartbeat) <= l.Heartbeats
}
