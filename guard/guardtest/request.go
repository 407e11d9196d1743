package guardtest

import (
	"context"
	"time"

	"github.com/execguard/execguard/internal/faulty"
)

// Request is what reached a host of the server. Where a fault strikes before there is a request
// (a refused connection, a bad certificate), there is none.
type Request struct {
	Arrived  time.Time
	Method   string
	Path     string
	DeviceID string // as named in the body; "" where it names none
	WithKey  bool   // the organisation's key came with it, in whatever place
}

// Requests returns what reached the authority, in the order in which it came, under faults too.
func (s *Server) Requests() []Request { return requests(s.host.Requests()) }

// Strays returns what reached the host that redirects lead to, which would answer anything with
// an ALLOW. A correct client never goes there; one that goes there WithKey has given the key to
// a stranger.
func (s *Server) Strays() []Request { return requests(s.host.Strays()) }

// Wait blocks until n requests have reached the authority, counted from the first ever, or
// until ctx ends, whose cause it then returns. They need not have been answered. It returns the
// requests so far.
func (s *Server) Wait(ctx context.Context, n int) ([]Request, error) {
	seen, err := s.host.Wait(ctx, n)
	return requests(seen), err
}

// requests leaves out what is no part of MachineID's API.
func requests(seen []faulty.Request) []Request {
	var all []Request
	for _, r := range seen {
		all = append(all, Request{Arrived: r.Arrived, Method: r.Method, Path: r.Path, DeviceID: r.DeviceID, WithKey: r.WithKey})
	}
	return all
}
