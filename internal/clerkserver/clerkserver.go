package clerkserver

import (
	"fmt"
	"io"

	"github.com/execguard/execguard/internal/faulty"
)

// Server is a Service on a loopback socket that can be given every fault of package faulty and
// those of Clerk's own answers: URL, Client, Inject, Heal, Faults, Requests and the others are
// there. It is made by Start, and ended by Close. What is done through the Service's methods
// happens in process: no fault stands in its way.
type Server struct {
	*Service
	*faulty.Server
}

// Start starts a server for an instance without machines.
func Start(opts ...Option) (*Server, error) {
	service, err := New(opts...)
	if err != nil {
		return nil, err
	}
	front, err := faulty.Start(faulty.Config{
		Handler: service, Dialect: service.dialect(), Plain: service.plain, Secrets: service.secrets, Verbatim: service.verbatim,
	})
	if err != nil {
		return nil, fmt.Errorf("clerkserver: %w", err)
	}
	return &Server{Service: service, Server: front}, nil
}

// BaseURL returns the address with the path that Clerk's has: what a client's base URL is set
// to. The server does without /v1 as well, so URL will do too.
func (s *Server) BaseURL() string { return s.URL() + "/v1" }

// Format prints the address and nothing else, whatever the verb.
func (s *Server) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "clerkserver.Server("+s.URL()+")")
}

// secrets lists what no stranger may see: every key and every token.
func (s *Service) secrets() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := []string{s.key()}
	for _, m := range s.machines {
		all = append(all, m.secret)
		for _, old := range m.previous {
			all = append(all, old.secret)
		}
	}
	for _, t := range s.tokens {
		all = append(all, t.secret)
	}
	return all
}
