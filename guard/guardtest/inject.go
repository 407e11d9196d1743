package guardtest

// Inject makes the server show the fault from now on, in place of any other, until Heal, the
// next Inject or the end of the test. Requests that have arrived are answered as they would
// have been, unless they are part of a fault that ends by this. A name that Faults does not
// list, and a fault of TLS on a server without, fail the test and change nothing.
func (s *Server) Inject(f Fault) {
	s.t.Helper()
	if err := s.host.Inject(string(f)); err != nil {
		s.t.Errorf("guardtest: %v", err)
	}
}

// Heal ends the fault: the next question gets the authority's answer. Connections in the middle
// of the fault are cut; answers that «answer late» and «answers out of order» hold are sent,
// and say what was true when their requests came.
func (s *Server) Heal() {
	s.t.Helper()
	if err := s.host.Heal(); err != nil {
		s.t.Errorf("guardtest: %v", err)
	}
}
