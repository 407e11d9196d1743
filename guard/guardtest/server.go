package guardtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/execguard/execguard/guard/authority"
	"github.com/execguard/execguard/internal/faulty"
)

// Server is an authority with one organisation on a loopback socket, and every fault that it
// can be given. It is made by NewServer; the zero value is of no use. It speaks MachineID's API
// over HTTPS, or over HTTP with WithPlainHTTP. Its methods are safe for concurrent use; one that
// cannot do as it is told fails the test.
//
// What a test does through Register, Revoke and their like happens in process: no fault stands
// in its way, it is in effect when the method returns, and it is not among the Requests.
type Server struct {
	t            testing.TB
	key          func() string // in a closure, so that no fmt verb shows it
	authority    *authority.Authority
	organisation *authority.Organisation
	host         *faulty.Server
}

// NewServer starts a server that ends with the test. Its organisation has no device. Options
// that the authority refuses end the test at once.
//
// What t's other clean-ups do is done before the server ends, if they were registered after
// this call: a guard or a client that is closed there still finds its authority.
func NewServer(t testing.TB, opts ...Option) *Server {
	t.Helper()
	c := config{plan: authority.PlanMax}
	for i, o := range opts {
		if o == nil {
			t.Fatalf("guardtest: option %d is nil", i+1)
		}
		o.apply(&c)
	}
	key := "org_" + rand.Text()
	s := &Server{t: t, key: func() string { return key }}
	must(t, s.found(c))
	must(t, s.start(c))
	t.Cleanup(s.close)
	return s
}

// must ends the test where the kit itself cannot go on.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("guardtest: %v", err)
	}
}

// found makes the authority and its organisation.
func (s *Server) found(c config) (err error) {
	if s.authority, err = authority.New(c.authority...); err != nil {
		return err
	}
	s.organisation, err = s.authority.AddOrganisation(context.Background(), s.key(), c.plan)
	return err
}

// start puts the authority on a socket.
func (s *Server) start(c config) (err error) {
	s.host, err = faulty.Start(faulty.Config{
		Handler: s.authority,
		Dialect: dialect(),
		Plain:   c.plain,
		Secrets: func() []string { return []string{s.key()} },
	})
	return err
}

// close ends the server, its connections and every wait of a fault, and returns when nothing of
// it runs any more.
func (s *Server) close() {
	if err := s.host.Close(); err != nil {
		s.t.Errorf("guardtest: at the server's end: %v", err)
	}
}

// Format prints the address and nothing else, whatever the verb. Without it, a verb that does
// not fit a field (%s on a pointer, say) would print what lies behind the pointer.
func (s Server) Format(f fmt.State, _ rune) { //nolint:recvcheck // it must hold for a copy too
	_, _ = io.WriteString(f, "guardtest.Server("+s.URL()+")")
}

// URL returns the address, without a path: https://127.0.0.1 and a port.
func (s Server) URL() string { return s.host.URL() }

// Key returns the organisation's key. It is made for this server and good for nothing else.
func (s *Server) Key() string { return s.key() }

// Client returns a client that trusts the server's certificate and suffers from faults of name
// resolution, always the same one. It follows redirects and has no time-out, as http.Client
// does: what a client makes of those is what is tested.
func (s *Server) Client() *http.Client { return s.host.Client() }
