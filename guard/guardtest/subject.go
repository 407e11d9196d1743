package guardtest

import (
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/authority"
)

// Subject puts a client of this server on trial, for TestValidator, with every handle that there
// is. It registers two devices, and expects the client to use the server's URL, Key and Client.
func (s *Server) Subject(client guard.Validator) Subject {
	s.t.Helper()
	const one, another = "guardtest:device:01", "guardtest:device:02"
	s.Register(one, another)
	return Subject{
		Validator: client,
		Device:    one,
		Other:     another,
		Stranger:  "guardtest:stranger:03",
		Revoke: func(deviceID string) func() {
			s.Revoke(deviceID)
			return func() { s.Unrevoke(deviceID) }
		},
		SwitchOff: func() func() {
			s.SetState(authority.StateDisabled)
			return func() { s.SetState(authority.StateActive) }
		},
		Outage:  s.injecting("connection refused"),
		Silence: s.injecting("accepted and silent"),
		Secrets: []string{s.Key()},
	}
}

// injecting makes a handle that injects a fault and gives back what heals it.
func (s *Server) injecting(f Fault) func() func() {
	return func() func() {
		s.Inject(f)
		return s.Heal
	}
}
