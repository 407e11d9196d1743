package clerkserver

import (
	"cmp"
	"time"
)

// secretJSON is a machine's secret key as it is sent.
type secretJSON struct {
	Object string `json:"object"`
	Secret string `json:"secret"`
}

// getSecretKey answers the key that is good for good, and none of those that it has replaced.
func (s *Service) getSecretKey(c *call) (any, *problem) {
	m, p := s.machine(c.ids[0])
	if p != nil {
		return nil, p
	}
	return secretJSON{"machine_secret_key", m.secret}, nil
}

// rotateSecretKey has no memory: who asks twice because the first answer was lost has two keys
// made, and only the second is the machine's.
func (s *Service) rotateSecretKey(c *call) (any, *problem) {
	m, p := s.machine(c.ids[0])
	if p != nil {
		return nil, p
	}
	if p := cmp.Or(c.form.only("previous_token_ttl"), c.form.required("previous_token_ttl")); p != nil {
		return nil, p
	}
	seconds, p := c.form.integer("previous_token_ttl", 0, 28800, 0)
	if p != nil {
		return nil, p
	}
	m.rotate(time.Duration(seconds) * time.Second)
	return secretJSON{"machine_secret_key", m.secret}, nil
}
