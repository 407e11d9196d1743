package guardtest

// Inject makes the server show the fault from now on, in place of any other, until Heal, the
// next Inject or the end of the test. Requests that have arrived are answered as they would
// have been, unless they are part of a fault that ends by this. A name that Faults does not
// list, and a fault of TLS on a server without, fail the test and change nothing.
func (s *Server) Inject(f Fault) {
	s.t.Helper()
	r, ok := find(f)
	switch {
	case !ok:
		s.t.Errorf("%v", unknown(f))
	case s.plain && f.NeedsTLS():
		s.t.Errorf("guardtest: fault %q needs a server with TLS", f)
	default:
		if err := s.change(r); err != nil {
			s.t.Errorf("guardtest: Inject(%q): %v", f, err)
		}
	}
}

// Heal ends the fault: the next question gets the authority's answer. Connections in the middle
// of the fault are cut; answers that «answer late» and «answers out of order» hold are sent,
// and say what was true when their requests came.
func (s *Server) Heal() {
	s.t.Helper()
	if err := s.change(row{}); err != nil {
		s.t.Errorf("guardtest: Heal: %v", err)
	}
}

// change ends one episode and begins the next. Nothing of the old one is left when it returns,
// but for answers that are on their way.
func (s *Server) change(r row) error {
	s.live.changing.Lock()
	defer s.live.changing.Unlock()
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
	s.live.mu.Lock()
	defer s.live.mu.Unlock()
	before, namesBefore = s.live.now, s.live.resolver
	s.live.now, s.live.resolver = newEpisode(r), names
	return before, namesBefore
}

func (s *Server) current() *episode {
	s.live.mu.Lock()
	defer s.live.mu.Unlock()
	return s.live.now
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
