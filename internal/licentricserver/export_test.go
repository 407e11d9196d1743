package licentricserver

// Windows is how many addresses and keys are being counted.
func (s *Service) Windows() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.windows)
}
