// Package licentricserver is a local Licentric, for tests and examples: every call of the
// service's API on a loopback socket, each answer as its state says, and every fault that the
// network or the service can show in place of an answer. It resembles net/http/httptest.Server
// with a state machine behind it.
//
// It is written from the vendor's documentation and was never compared with the real service.
// What is not documented (some paths, whether an answer to validate stands in an envelope, what
// an entitlement looks like) is a variant that an option picks, so that a client can be tried
// against each. The offline licence file is a format of this project's own, and not the vendor's.
package licentricserver

import (
	"fmt"
	"io"

	"github.com/execguard/execguard/internal/faulty"
)

// Server is a Service on a loopback socket, and every fault that it can be given: both types'
// methods are its own. It is made by Start and ended by Close; the zero value is of no use. Its
// methods are safe for concurrent use.
//
// What is done through the Service's own methods (AddLicense, Suspend, RemoveMachine) happens in
// process: no fault stands in its way, it is in effect when the method returns, and it is not
// among the Requests.
type Server struct {
	*Service
	*faulty.Server
}

// Start starts a server with no licence. It speaks HTTPS, or HTTP with WithPlainHTTP.
func Start(opts ...Option) (*Server, error) {
	service, err := New(opts...)
	if err != nil {
		return nil, err
	}
	front, err := faulty.Start(faulty.Config{
		Handler:  service,
		Dialect:  service.dialect(),
		Plain:    service.plain,
		Secrets:  service.secrets,
		Verbatim: true,
	})
	if err != nil {
		return nil, fmt.Errorf("licentricserver: %w", err)
	}
	return &Server{Service: service, Server: front}, nil
}

// Inject shows the fault of that name from now on, in place of any other, until Heal, the next
// Inject or Close. A name that Faults does not list, and a fault of TLS on a server without, is an
// error and changes nothing.
func (s *Server) Inject(fault string) error { return named(s.Server.Inject(fault)) }

// Heal ends the fault: the next question gets the service's own answer.
func (s *Server) Heal() error { return named(s.Server.Heal()) }

// Close ends the server, its connections and every wait of a fault, and returns when nothing of
// it runs any more.
func (s *Server) Close() error { return named(s.Server.Close()) }

// named says whose server an error is about.
func named(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("licentricserver: %w", err)
}

// Format prints the address and nothing else, whatever the verb.
func (s *Server) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "licentricserver.Server("+s.URL()+")")
}
