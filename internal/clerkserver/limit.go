package clerkserver

import "time"

// window counts the requests of WithRateLimit.
type window struct {
	ends time.Time
	seen int
}

// overLimit counts a request and tells whether it is one too many, and after what time the next
// may be sent; 0 is no word on that.
func (s *Service) overLimit() (wait time.Duration, over bool) {
	if s.limited != 0 {
		return max(s.limited, 0), true
	}
	if !s.rated {
		return 0, false
	}
	now := time.Now()
	if !now.Before(s.window.ends) {
		s.window = window{ends: now.Add(s.per)}
	}
	s.window.seen++
	return s.window.ends.Sub(now), s.window.seen > s.rate
}
