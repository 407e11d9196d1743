package guardtest

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/execguard/execguard/guard/authority"
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
	client       *http.Client
	plain        bool
	papers       *papers

	front *network // where the authority is
	other *network // the host that redirects lead to
	live  *live
}

// live is what changes while a server runs. It stands behind a pointer, so that a Server may be
// copied, and printed while it works.
type live struct {
	visits  ledger[Request]
	strays  ledger[Request]
	holding sync.WaitGroup // connections kept in the middle of nowhere

	changing sync.Mutex // held while one episode becomes another

	mu       sync.Mutex
	now      *episode
	resolver *resolver // while names are not found, otherwise nil
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
	s := &Server{t: t, key: func() string { return key }, plain: c.plain, live: &live{now: newEpisode(row{})}}
	must(t, s.found(c))
	must(t, s.start())
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

// start opens the two hosts: the one that the URL names and the one that redirects lead to.
func (s *Server) start() (err error) {
	if s.papers, err = newPapers(); err != nil {
		return err
	}
	// The other host is beyond reproach: it must be the client's own rule that keeps it away.
	always := func() certificate { return certGood }
	if s.other, err = newNetwork(s.serveStray, s.encrypt(always), nil); err != nil {
		return err
	}
	if s.front, err = newNetwork(s.serve, s.guarded, s.mark); err != nil {
		s.other.close()
		return err
	}
	s.client = &http.Client{Transport: &http.Transport{DialContext: s.dial, TLSClientConfig: s.papers.client()}}
	s.other.start()
	s.front.start()
	return nil
}

// guarded is the front's listener: the gate of the faults, and TLS behind it.
func (s *Server) guarded(l net.Listener) net.Listener {
	shown := func() certificate { return s.current().cert }
	return s.encrypt(shown)(gate{Listener: l, current: s.current, holding: &s.live.holding})
}

// encrypt puts TLS over a listener, or nothing where the server is to be plain.
func (s *Server) encrypt(shown func() certificate) func(net.Listener) net.Listener {
	return func(l net.Listener) net.Listener {
		if s.plain {
			return l
		}
		return tls.NewListener(l, s.papers.server(shown))
	}
}

// close ends the server, its connections and every wait of a fault, and returns when nothing of
// it runs any more. The fault goes first, so that what hangs on it is let go.
func (s *Server) close() {
	if err := s.change(row{}); err != nil {
		s.t.Errorf("guardtest: at the server's end: %v", err)
	}
	s.client.CloseIdleConnections() // and dials that nobody waits for
	s.front.close()
	s.other.close()
	s.live.holding.Wait()
}

// Format prints the address and nothing else, whatever the verb. Without it, a verb that does
// not fit a field (%s on a pointer, say) would print what lies behind the pointer.
func (s Server) Format(f fmt.State, _ rune) { //nolint:recvcheck // it must hold for a copy too
	_, _ = io.WriteString(f, "guardtest.Server("+s.URL()+")")
}

// URL returns the address, without a path: https://127.0.0.1 and a port.
func (s Server) URL() string { return s.at(s.front.address) }

func (s Server) at(address string) string {
	if s.plain {
		return "http://" + address
	}
	return "https://" + address
}

// Key returns the organisation's key. It is made for this server and good for nothing else.
func (s *Server) Key() string { return s.key() }

// Client returns a client that trusts the server's certificate and suffers from faults of name
// resolution, always the same one. It follows redirects and has no time-out, as http.Client
// does: what a client makes of those is what is tested.
func (s *Server) Client() *http.Client { return s.client }

// dial connects to whatever address the client wants, while names can be resolved.
func (s *Server) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if resolver := s.asking(); resolver != nil {
		defer resolver.askers.Done()
		return resolver.dial(ctx)
	}
	return (&net.Dialer{}).DialContext(ctx, network, address)
}

// asking returns the resolver that a dial has to ask, counted, or nil.
func (s *Server) asking() *resolver {
	s.live.mu.Lock()
	defer s.live.mu.Unlock()
	if s.live.resolver != nil {
		s.live.resolver.askers.Add(1)
	}
	return s.live.resolver
}
