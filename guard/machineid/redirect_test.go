package machineid_test

import (
	"net/http"
	"net/http/cookiejar"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/execguard/execguard/guard/machineid"
)

// No redirect is followed, to no host, by no call, with our own HTTP client or the user's: net/http
// would hand the key to whoever the answer names.
func TestNoRedirectIsFollowed(t *testing.T) {
	var reached atomic.Int64
	thief := serve(t, func(w http.ResponseWriter, r *http.Request) {
		reached.Add(1)
		answer(200, allow)(w, r)
	})
	eager := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return nil }}
	t.Cleanup(eager.CloseIdleConnections)
	for _, status := range []int{300, 301, 302, 303, 304, 305, 307, 308} {
		for _, target := range []string{thief + "/api/v1/devices/validate", "/stolen", "", "://", "http://[::1", "javascript:alert(1)"} {
			t.Run(strconv.Itoa(status)+" "+target, func(t *testing.T) {
				var asked atomic.Int64
				base := serve(t, func(w http.ResponseWriter, r *http.Request) {
					asked.Add(1)
					answer(status, redirectBody(status), "Location", target)(w, r)
				})
				for _, opts := range [][]machineid.Option{nil, {machineid.WithHTTPClient(eager)}} {
					asked.Store(0)
					client := newClient(t, base, opts...)
					d, err := client.Validate(t.Context(), device)
					checkUndecided(t, d, err)
					if _, err := client.Usage(t.Context()); err == nil {
						t.Error("usage of a redirect")
					}
					if _, err := client.Register(t.Context(), device); err == nil {
						t.Error("registered by a redirect")
					}
					if n := asked.Load(); n != 3 {
						t.Errorf("%d requests, want 3", n)
					}
				}
			})
		}
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("the other host was reached %d times", n)
	}
}

// redirectBody allows everything, where the status may have a body.
func redirectBody(status int) string {
	if status == http.StatusNotModified {
		return ""
	}
	return allow
}

// The user's HTTP client is used as it is and left as it was.
func TestHTTPClientIsNotChanged(t *testing.T) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	var through atomic.Int64
	theirs := &http.Client{
		Transport: transport(func(r *http.Request) (*http.Response, error) {
			through.Add(1)
			resp, err := canned(302, nil).RoundTrip(r)
			resp.Header.Set("Location", "https://192.0.2.1/")
			resp.Header.Set("Set-Cookie", "a=b")
			return resp, err
		}),
		Jar: jar,
	}
	client := newClient(t, "https://authority.example", machineid.WithHTTPClient(theirs))
	for range 2 {
		d, err := client.Validate(t.Context(), device)
		checkUndecided(t, d, err)
	}
	if theirs.CheckRedirect != nil || theirs.Timeout != 0 || through.Load() != 2 {
		t.Errorf("CheckRedirect set: %v, timeout %v, %d requests", theirs.CheckRedirect != nil, theirs.Timeout, through.Load())
	}
}

// A careless transport that writes into the request's header reaches no other request.
func TestHeaderIsEachRequestsOwn(t *testing.T) {
	var seen []string
	client := offline(t, transport(func(r *http.Request) (*http.Response, error) {
		seen = append(seen, strings.Join(r.Header.Values("X-Trace"), ","), r.Header.Get("X-Org-Key"))
		r.Header.Add("X-Trace", "1")
		r.Header.Set("X-Org-Key", "changed")
		r.Header.Del("Content-Type")
		return canned(200, []byte(allow)).RoundTrip(r)
	}))
	for range 2 {
		if _, err := client.Validate(t.Context(), device); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []string{"", key, "", key} {
		if seen[i] != want {
			t.Errorf("%d: %q, want %q", i, seen[i], want)
		}
	}
}
