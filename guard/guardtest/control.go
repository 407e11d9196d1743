package guardtest

import (
	"context"

	"github.com/execguard/execguard/guard/authority"
)

// Register makes devices known and allowed. One that is revoked stays revoked, which fails the
// test: use Unrevoke.
func (s *Server) Register(deviceIDs ...string) {
	s.t.Helper()
	s.each("Register", deviceIDs, s.organisation.Register)
}

// Revoke takes the devices' permission: their next validation is denied.
func (s *Server) Revoke(deviceIDs ...string) {
	s.t.Helper()
	s.each("Revoke", deviceIDs, s.organisation.Revoke)
}

// Unrevoke gives revoked devices their permission back, in effect for the next validation.
func (s *Server) Unrevoke(deviceIDs ...string) {
	s.t.Helper()
	s.each("Unrevoke", deviceIDs, s.organisation.Unrevoke)
}

// Remove makes devices unknown: DEVICE_NOT_FOUND. They may be registered again.
func (s *Server) Remove(deviceIDs ...string) {
	s.t.Helper()
	s.each("Remove", deviceIDs, s.organisation.Remove)
}

// SetState switches the organisation: authority.StateDisabled, StateFrozen and the others deny
// every device with the code that is theirs, and StateActive takes it back.
func (s *Server) SetState(state authority.State) {
	s.t.Helper()
	if err := s.organisation.SetState(context.Background(), state); err != nil {
		s.t.Errorf("guardtest: SetState(%q): %v", state, err)
	}
}

// RemoveOrganisation makes the key one that is not known any more: ORG_NOT_FOUND, for good.
func (s *Server) RemoveOrganisation() {
	s.t.Helper()
	if err := s.authority.RemoveOrganisation(context.Background(), s.key()); err != nil {
		s.t.Errorf("guardtest: RemoveOrganisation: %v", err)
	}
}

// Organisation returns the same organisation in process: a guard.Validator that no fault
// reaches, and a source of hints.
func (s *Server) Organisation() *authority.Organisation { return s.organisation }

// each applies a call to devices. «No» is a status of its result: at the cap of its plan, say.
func (s *Server) each(name string, deviceIDs []string, call func(context.Context, string) (authority.Result, error)) {
	s.t.Helper()
	for _, id := range deviceIDs {
		switch result, err := call(context.Background(), id); {
		case err != nil:
			s.t.Errorf("guardtest: %s(%q): %v", name, id, err)
		case result.Status != "ok" && result.Status != "exists":
			s.t.Errorf("guardtest: %s(%q): %s %s", name, id, result.Status, result.Error)
		}
	}
}
