package licentricserver

import (
	"maps"
	"net/http"
	"strconv"
	"time"
)

// window counts the requests of one address, or one key, in one minute.
type window struct {
	ends time.Time
	used int
}

// rate is how many requests a minute a question's limit leaves, and what it counts by.
func (q *question) rate() (most int, by string) {
	switch q.route.call {
	case CallValidate:
		return 60, "validate " + q.address
	case CallActivate:
		return 10, "activate " + q.address
	case CallDeactivate, CallHeartbeat, CallCheckout, CallMachines, CallMachine:
	}
	return 120, "key"
}

// limit counts a question and answers it where there are too many, or where Fail said so. It must
// be called with the lock held.
func (s *Service) limit(q *question) (http.Header, *apiError) {
	header := make(http.Header)
	if told := s.failing[q.route.call]; told != nil {
		if told.status == http.StatusTooManyRequests {
			most, _ := q.rate()
			showLimit(header, most, 0, time.Now().Add(told.retryAfter))
		}
		return header, told
	}
	if !s.limits {
		return header, nil
	}
	most, by := q.rate()
	if by == "key" && len(q.authorization) > 0 {
		by += " " + q.authorization[0]
	}
	w := s.window(by)
	w.used++
	showLimit(header, most, max(0, most-w.used), w.ends)
	if w.used <= most {
		return header, nil
	}
	err := refuse(http.StatusTooManyRequests, "too many requests")
	err.retryAfter = time.Until(w.ends)
	return header, err
}

// window is the minute that is running, or a new one. Those that are over are forgotten then, so
// that keys nobody has cannot fill the memory for longer than a minute.
func (s *Service) window(by string) *window {
	now := time.Now()
	if w := s.windows[by]; w != nil && now.Before(w.ends) {
		return w
	}
	maps.DeleteFunc(s.windows, func(_ string, w *window) bool { return !now.Before(w.ends) })
	w := &window{ends: now.Add(time.Minute)}
	s.windows[by] = w
	return w
}

// showLimit says how much is left. When the reset is, in which unit, is not documented; seconds
// since 1970 are what most services send.
func showLimit(header http.Header, most, left int, reset time.Time) {
	header.Set("X-Ratelimit-Limit", strconv.Itoa(most))
	header.Set("X-Ratelimit-Remaining", strconv.Itoa(left))
	header.Set("X-Ratelimit-Reset", strconv.FormatInt(reset.Unix(), 10))
}

// seconds rounds up, so that who waits that long has waited long enough.
func seconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}

// Fail answers one call with an error from now on, whoever makes it: 429 and 5xx, but any error
// status will do. With a retryAfter above 0 the answer says so, in whole seconds, rounded up. It
// is how one call fails while others work; Server.Inject strikes them all.
func (s *Service) Fail(call Call, status int, retryAfter time.Duration) {
	told := refuse(status, "as a test asked for")
	told.retryAfter = retryAfter
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failing[call] = told
}

// Mend takes back what Fail did to one call.
func (s *Service) Mend(call Call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.failing, call)
}

// Calls returns how many requests for a call have come so far, in process or not, whatever they
// were answered.
func (s *Service) Calls(call Call) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[call]
}
