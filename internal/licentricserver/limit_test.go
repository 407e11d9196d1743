package licentricserver_test

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/internal/licentricserver"
)

// The documented limits, in a minute that begins with the first request.
func TestRateLimits(t *testing.T) {
	for name, test := range map[licentricserver.Call]int{
		licentricserver.CallValidate: 60, licentricserver.CallActivate: 10, licentricserver.CallHeartbeat: 120,
		licentricserver.CallMachines: 120, licentricserver.CallCheckout: 120,
	} {
		t.Run(string(name), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newService(t, licentricserver.WithRateLimits())
				m := addMachine(t, s, fingerprint)
				c := every(s, m.ID)[name]
				for round := range 2 {
					reset := strconv.FormatInt(time.Now().Add(time.Minute).Unix(), 10)
					for i := range test {
						a := c.ask(s)
						if a.status == http.StatusTooManyRequests || a.header.Get("X-Ratelimit-Limit") != strconv.Itoa(test) ||
							a.header.Get("X-Ratelimit-Remaining") != strconv.Itoa(test-1-i) || a.header.Get("X-Ratelimit-Reset") != reset {
							t.Fatalf("round %d, request %d: %d %v", round, i+1, a.status, a.header)
						}
					}
					time.Sleep(30*time.Second - 1)
					refused(t, s, c, http.StatusTooManyRequests, "RATE_LIMITED")
					if a := c.ask(s); a.header.Get("Retry-After") != "31" || a.header.Get("X-Ratelimit-Remaining") != "0" {
						t.Errorf("refused with %v", a.header)
					}
					time.Sleep(30*time.Second + 1)
				}
			})
		})
	}
}

// Validate and activate are counted by address, the others by key; what one has used up is there
// for another.
func TestRateLimitsAreCountedApart(t *testing.T) {
	s := newService(t, licentricserver.WithRateLimits())
	m := addMachine(t, s, fingerprint)
	for range 60 {
		validate("").ask(s)
	}
	refused(t, s, validate(""), http.StatusTooManyRequests, "RATE_LIMITED")
	elsewhere := httptest.NewRequestWithContext(t.Context(), http.MethodPost, validate("").path, strings.NewReader(validate("").body))
	elsewhere.Header.Set("Content-Type", "application/json")
	elsewhere.RemoteAddr = "198.51.100.7:1234"
	w := httptest.NewRecorder()
	s.ServeHTTP(w, elsewhere)
	if w.Code != http.StatusOK {
		t.Errorf("another address: %d %s", w.Code, w.Body)
	}
	for range 120 {
		list(s, "").ask(s)
	}
	refused(t, s, get(s, m.ID), http.StatusTooManyRequests, "RATE_LIMITED")
	c := get(s, m.ID)
	c.auth = "Bearer " + s.AddAPIKey(licentricserver.ScopeMachines)
	done(t, s, c, http.StatusOK)
	done(t, s, heartbeat(m.ID), http.StatusOK)
}

// Without the option nothing is limited, and nothing is said about limits.
func TestNoRateLimits(t *testing.T) {
	s := newService(t)
	for range 200 {
		says(t, s, validate(""), "VALID")
	}
	if a := validate("").ask(s); a.header.Get("X-Ratelimit-Limit") != "" {
		t.Errorf("headers %v", a.header)
	}
}

// One call fails while the others work, in both forms of an error.
func TestFail(t *testing.T) {
	for _, old := range []bool{false, true} {
		var opts []licentricserver.Option
		if old {
			opts = append(opts, licentricserver.WithOldErrors())
		}
		s := newService(t, opts...)
		m := addMachine(t, s, fingerprint)
		all := every(s, m.ID)
		for name := range all {
			for status, code := range map[int]string{
				400: "VALIDATION_ERROR", 401: noKey, 403: "FORBIDDEN", 404: "NOT_FOUND", 409: "CONFLICT",
				422: "MACHINE_LIMIT_EXCEEDED", 429: "RATE_LIMITED", 500: "INTERNAL_ERROR", 502: "INTERNAL_ERROR", 503: "SERVICE_UNAVAILABLE",
			} {
				before := s.Calls(name)
				s.Fail(name, status, 1500*time.Millisecond)
				f := refused(t, s, all[name], status, code)
				if old && (f.RequestID != "" || f.Status != status) || !old && (len(f.RequestID) != 36 || f.Status != 0) {
					t.Errorf("old %t: %+v", old, f)
				}
				a := all[name].ask(s)
				if a.header.Get("Retry-After") != "2" || (a.header.Get("X-Ratelimit-Remaining") == "0") != (status == 429) {
					t.Errorf("%s %d: headers %v", name, status, a.header)
				}
				if got := s.Calls(name) - before; got != 2 {
					t.Errorf("%s: %d calls counted of 2", name, got)
				}
			}
			s.Fail(name, http.StatusTooManyRequests, 0)
			if a := all[name].ask(s); a.status != http.StatusTooManyRequests || a.header["Retry-After"] != nil {
				t.Errorf("%s: %d %v", name, a.status, a.header)
			}
			for other, c := range all {
				if a := c.ask(s); (a.status == http.StatusTooManyRequests) != (other == name) {
					t.Errorf("%s fails, and %s answers %d", name, other, a.status)
				}
			}
			s.Mend(name)
		}
		says(t, s, all[licentricserver.CallValidate], "VALID")
	}
}

// Keys that nobody has fill the memory for a minute and no longer.
func TestRateLimitsForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t, licentricserver.WithRateLimits())
		for i := range 100 {
			c := list(s, "")
			c.auth = "Bearer " + strconv.Itoa(i)
			refused(t, s, c, http.StatusUnauthorized, noKey)
		}
		if n := s.Windows(); n != 100 {
			t.Errorf("%d are counted", n)
		}
		time.Sleep(time.Minute)
		list(s, "").ask(s)
		if n := s.Windows(); n != 1 {
			t.Errorf("%d are counted after a minute", n)
		}
	})
}
