package faulty

import "fmt"

// Inject makes the server show the fault of that name from now on, in place of any other, until
// Heal, the next Inject or Close. Requests that have arrived are answered as they would have
// been, unless they are part of a fault that ends by this. A name that Faults does not list,
// and a fault of TLS on a plain server, are errors and change nothing.
func (s *Server) Inject(name string) error {
	r, err := s.dialect.find(name)
	if err != nil {
		return err
	}
	if s.plain && r.NeedsTLS {
		return fmt.Errorf("fault %q needs a server with TLS", name)
	}
	if err := s.change(r); err != nil {
		return fmt.Errorf("Inject(%q): %w", name, err)
	}
	return nil
}

// Heal ends the fault: the next question gets the service's answer. Connections in the middle of
// the fault are cut; answers that «answer late» and «answers out of order» hold are sent, and
// say what was true when their requests came.
func (s *Server) Heal() error {
	if err := s.change(row{}); err != nil {
		return fmt.Errorf("Heal: %w", err)
	}
	return nil
}

// change turns to another fault, unless the server is closed.
func (s *Server) change(r row) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	if s.closed {
		return nil
	}
	return s.begin(r)
}

// lastChange ends the fault for good.
func (s *Server) lastChange() error {
	s.changing.Lock()
	defer s.changing.Unlock()
	s.closed = true
	return s.begin(row{})
}

// begin ends one episode and begins the next. Nothing of the old one is left when it returns, but
// for answers that are on their way. The caller holds changing.
func (s *Server) begin(r row) error {
	names, err := r.way.resolver()
	if err != nil {
		return err
	}
	before, namesBefore := s.turnTo(r, names)
	before.end()
	if namesBefore != nil {
		namesBefore.stop()
	}
	if r.onWire() { // the client first, so that it does not pick what is being closed
		s.client.CloseIdleConnections()
		s.front.dropIdle()
	}
	if r.way.refuses() {
		s.front.refuse()
		return nil
	}
	return s.front.listen()
}

// turnTo is the instant at which the fault changes, for requests, handshakes and look-ups alike.
func (s *Server) turnTo(r row, names *resolver) (before *episode, namesBefore *resolver) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, namesBefore = s.now, s.resolver
	s.now, s.resolver = newEpisode(r), names
	return before, namesBefore
}

func (s *Server) current() *episode {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// refuses tells whether nobody listens.
func (w way) refuses() bool { return w == wayRefused || w == wayNameless || w == wayNameserverMute }

// resolver starts the name server of a way that has one; otherwise it is nil.
func (w way) resolver() (*resolver, error) {
	if w != wayNameless && w != wayNameserverMute {
		return nil, nil //nolint:nilnil // none is the usual case
	}
	return newResolver(w == wayNameserverMute)
}
