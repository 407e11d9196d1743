package faulty

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// Config says what a Server is made of.
type Config struct {
	Handler http.Handler // the service; required
	Dialect Dialect      // how it speaks
	Plain   bool         // HTTP without TLS, for clients that cannot be told which certificate to trust

	// Secrets lists what Request.WithKey looks for in a request: keys that no stranger may see. It
	// is called for every request, on many goroutines at once. Nil looks for nothing.
	Secrets func() []string

	// Verbatim keeps the header and the body of every request for as long as the server lives, for
	// tests of what a client sends.
	Verbatim bool
}

// Server is a service on a loopback socket, and every fault that it can be given. It is made by
// Start. Its methods are safe for concurrent use.
type Server struct {
	service  http.Handler
	dialect  Dialect
	plain    bool
	secrets  func() []string
	verbatim bool
	client   *http.Client
	papers   *papers

	front *network // where the service is
	other *network // the host that redirects lead to

	visits  Ledger[Request]
	strays  Ledger[Request]
	holding sync.WaitGroup // connections kept in the middle of nowhere

	changing sync.Mutex // held while one episode becomes another
	closed   bool       // under changing

	mu       sync.Mutex
	now      *episode
	resolver *resolver // while names are not found, otherwise nil
}

// Start starts a server, which runs until Close. It returns an error where the configuration is
// of no use, and where the system gives no socket.
func Start(c Config) (*Server, error) {
	if c.Handler == nil {
		return nil, errors.New("a server needs a handler")
	}
	if err := c.Dialect.flaw(); err != nil {
		return nil, err
	}
	s := &Server{
		service: c.Handler, dialect: c.Dialect, plain: c.Plain, secrets: c.Secrets, verbatim: c.Verbatim,
		now: newEpisode(row{}),
	}
	if err := s.start(); err != nil {
		return nil, err
	}
	return s, nil
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
	return s.encrypt(shown)(gate{Listener: l, current: s.current, holding: &s.holding})
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

// Close ends the server, its connections and every wait of a fault, and returns when nothing of
// it runs any more. What was recorded stays; Inject and Heal change nothing from now on. An error
// says that the last fault could not be ended in good order; the server has ended all the same.
func (s *Server) Close() error {
	err := s.lastChange()           // first, so that what hangs on a fault is let go
	s.client.CloseIdleConnections() // and dials that nobody waits for
	s.front.close()
	s.other.close()
	s.holding.Wait()
	return err
}

// Format prints the address and nothing else, whatever the verb: the service and its secrets lie
// behind the fields.
func (s *Server) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "faulty.Server("+s.URL()+")") }

// URL returns the address, without a path: https://127.0.0.1 and a port.
func (s *Server) URL() string { return s.at(s.front.address) }

func (s *Server) at(address string) string {
	if s.plain {
		return "http://" + address
	}
	return "https://" + address
}

// Faults lists what Inject knows. A plain server cannot show those that need TLS.
func (s *Server) Faults() []Fault { return s.dialect.Faults() }

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
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.resolver != nil {
		s.resolver.askers.Add(1)
	}
	return s.resolver
}

// Quiet waits until the server has no connection left, for tests of what a client leaves behind.
// It returns the context's cause when that ends first; the goroutine that waits then ends with
// the last connection, at Close at the latest.
func (s *Server) Quiet(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.holding.Wait()
		s.front.open.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Holds waits until the fault keeps a connection from being served, for tests that must not go
// on before. It returns the context's cause when that ends first.
func (s *Server) Holds(ctx context.Context) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for e := s.current(); !e.holds(); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
