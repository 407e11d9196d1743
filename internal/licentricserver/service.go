package licentricserver

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"io"
	"sync"
)

// Service is the state of a local Licentric and the http.Handler that serves it. It is made by
// New, opens no socket and starts no goroutine, so that it can be called in process, in a
// synctest bubble too: all its times are time.Now's. Its methods are safe for concurrent use.
type Service struct {
	config

	routes []route

	mu       sync.Mutex // over everything below
	licenses []*license // in the order in which they were added
	machines []*machine // in the order in which they were activated
	sequence int        // of the last machine
	keys     map[string][]Scope
	ownKey   string               // with every scope
	signers  []ed25519.PrivateKey // of licence files, the one in use last
	failing  map[Call]*apiError
	calls    map[Call]int
	windows  map[string]*window
}

// New returns a service with no licence.
func New(opts ...Option) (*Service, error) {
	c, err := configure(opts)
	if err != nil {
		return nil, err
	}
	routes, err := c.paths.routes()
	if err != nil {
		return nil, err
	}
	s := &Service{
		config:  c,
		routes:  routes,
		keys:    make(map[string][]Scope),
		failing: make(map[Call]*apiError),
		calls:   make(map[Call]int),
		windows: make(map[string]*window),
	}
	s.ownKey = s.AddAPIKey(ScopeMachines, ScopeCheckout)
	if c.signer == nil {
		s.RotateKey()
	} else {
		s.signers = append(s.signers, c.signer)
	}
	return s, nil
}

// Format prints the type's name and nothing else, whatever the verb: behind the pointers are
// keys, and a test that fails prints what it holds.
func (s *Service) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "licentricserver.Service") }

// newID makes a UUID of version 4, as every id of the service is (RFC 9562, section 5.4).
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the program instead
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}
