package guardtest_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/execguard/execguard/guard/guardtest"
)

// onTheWire says for every fault what a plain client sees of it: that it is really there.
func onTheWire() map[guardtest.Fault]func(t *testing.T, srv *guardtest.Server, a answer) {
	type see = func(t *testing.T, srv *guardtest.Server, a answer)
	says := func(status int, body string) see {
		return func(t *testing.T, _ *guardtest.Server, a answer) {
			t.Helper()
			if a.err != nil || a.status != status || a.body != body {
				t.Errorf("got %d %q, %v; want %d %q", a.status, a.body, a.err, status, body)
			}
		}
	}
	holds := func(status int, contentType string, parts ...string) see {
		return func(t *testing.T, _ *guardtest.Server, a answer) {
			t.Helper()
			if a.err != nil || a.status != status || !strings.HasPrefix(a.header.Get("Content-Type"), contentType) {
				t.Errorf("got %d %q, %v; want %d %s", a.status, a.header, a.err, status, contentType)
			}
			for _, part := range parts {
				if !strings.Contains(a.body, part) {
					t.Errorf("body %q lacks %q", a.body, part)
				}
			}
		}
	}
	const yes = `"allowed":true,"code":"ALLOW"`
	return map[guardtest.Fault]see{
		"connection refused":              fails(func(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }),
		"connection reset mid-body":       fails(func(err error) bool { return errors.Is(err, syscall.ECONNRESET) }),
		"accepted and silent":             timesOut(1),
		"one byte a second":               trickles,
		"half a body":                     endsInTheMiddle,
		"empty body":                      says(200, ""),
		"HTML with 200":                   holds(200, "text/html", "<html>", yes),
		"JSON array":                      holds(200, "application/json", `[{`+yes, `}]`),
		"JSON number":                     says(200, `1`),
		"JSON null":                       says(200, `null`),
		"64 MiB body":                     is64MiB,
		"duplicate keys":                  says(200, `{"allowed":false,"allowed":true,"code":"DEVICE_REVOKED","code":"ALLOW"}`),
		"keys in another case":            says(200, `{"Allowed":true,"CODE":"ALLOW"}`),
		"second document after the first": twoDocuments,
		"allowed as a string":             says(200, `{"allowed":"true","code":"ALLOW"}`),
		"allowed as 1":                    says(200, `{"allowed":1,"code":"ALLOW"}`),
		"allowed as null":                 says(200, `{"allowed":null,"code":"ALLOW"}`),
		"allowed missing":                 says(200, `{"code":"ALLOW"}`),
		"code missing":                    says(200, `{"allowed":true}`),
		"allowed with a deny code":        says(200, `{"allowed":true,"code":"DEVICE_REVOKED"}`),
		"denied with the code ALLOW":      says(200, `{"allowed":false,"code":"ALLOW"}`),
		"unknown code, allowed":           says(200, `{"allowed":true,"code":"QUOTA_EXHAUSTED"}`),
		"unknown code, denied":            says(200, `{"allowed":false,"code":"QUOTA_EXHAUSTED"}`),
		"ALLOW with 201":                  holds(201, "application/json", yes),
		"ALLOW with 403":                  holds(403, "application/json", yes),
		"ALLOW with 500":                  holds(500, "application/json", yes),
		"redirect 301":                    redirects(301),
		"redirect 302":                    redirects(302),
		"redirect 307":                    redirects(307),
		"redirect 308":                    redirects(308),
		"429 without Retry-After":         asksToWait(""),
		"429 with Retry-After in seconds": asksToWait("7"),
		"429 with Retry-After as a date":  asksToWait("date"),
		"500":                             holds(500, "application/json", "error"),
		"502":                             holds(502, "text/html", "<html>"),
		"503":                             holds(503, "application/json", "SYSTEM_UNAVAILABLE"),
		"TLS certificate for another name": fails(func(err error) bool {
			as := x509.HostnameError{}
			return errors.As(err, &as)
		}),
		"TLS certificate expired": fails(func(err error) bool {
			as := x509.CertificateInvalidError{}
			return errors.As(err, &as) && as.Reason == x509.Expired
		}),
		"TLS certificate self-signed": fails(func(err error) bool {
			as := x509.UnknownAuthorityError{}
			return errors.As(err, &as)
		}),
		"DNS failure": fails(func(err error) bool {
			as := (*net.DNSError)(nil)
			return errors.As(err, &as) && as.IsNotFound
		}),
		"DNS silent":                timesOut(0),
		"TLS handshake stalled":     timesOut(0),
		"answer for another device": holds(200, "application/json", yes, `"deviceId":"not-`+device+`"`),
		"answer late":               timesOut(1),
		"answers out of order":      timesOut(1),
		"flapping":                  holds(503, "application/json", "error"),
	}
}

// endless lists the faults that last until somebody leaves.
func endless() []guardtest.Fault {
	return []guardtest.Fault{
		"accepted and silent", "one byte a second", "DNS silent", "TLS handshake stalled", "answer late", "answers out of order",
	}
}

func TestEveryFaultIsOnTheWire(t *testing.T) {
	seen := onTheWire()
	for _, fault := range guardtest.Faults() {
		t.Run(fault.String(), func(t *testing.T) {
			t.Parallel()
			see, ok := seen[fault]
			if !ok {
				t.Fatal("this fault has no test")
			}
			srv := newServer(t)
			wantAllow(t, srv) // on a connection that the fault finds open
			srv.Inject(fault)
			ctx, cancel := context.WithTimeout(t.Context(), patience(fault))
			defer cancel()
			see(t, srv, post(ctx, unfollowing(srv), srv, device))
			srv.Heal()
			wantAllow(t, srv)
		})
	}
	if len(seen) != len(guardtest.Faults()) {
		t.Errorf("%d faults are tested and %d are there", len(seen), len(guardtest.Faults()))
	}
}

// fails wants a request that fails as the function says, and that never reached the authority
// unless there was an answer.
func fails(as func(error) bool) func(*testing.T, *guardtest.Server, answer) {
	return func(t *testing.T, srv *guardtest.Server, a answer) {
		t.Helper()
		if !as(a.err) {
			t.Errorf("got error %v, and %d %q", a.err, a.status, a.body)
		}
		if n := len(srv.Requests()); a.status == 0 && n != 1 {
			t.Errorf("%d requests reached the authority, want the one before the fault", n)
		}
	}
}

// timesOut wants no answer in time, and no more requests to have arrived under the fault. Fewer
// may have, where the machine is busy; TestHealEndsWhatIsEndless waits for them.
func timesOut(arrived int) func(*testing.T, *guardtest.Server, answer) {
	return func(t *testing.T, srv *guardtest.Server, a answer) {
		t.Helper()
		if !errors.Is(a.err, context.DeadlineExceeded) || a.status != 0 {
			t.Errorf("got %d %q, %v", a.status, a.body, a.err)
		}
		if n := len(srv.Requests()) - 1; n > arrived {
			t.Errorf("%d requests arrived, want at most %d", n, arrived)
		}
	}
}

// trickles wants the beginning of an answer and no end of it; TestTrickleKeepsItsPace looks at
// the clock.
func trickles(t *testing.T, _ *guardtest.Server, a answer) {
	t.Helper()
	const beginning = `{"allowed":true`
	if !errors.Is(a.err, context.DeadlineExceeded) || !strings.HasPrefix(beginning, a.body) {
		t.Errorf("got %d %q, %v", a.status, a.body, a.err)
	}
}

func endsInTheMiddle(t *testing.T, _ *guardtest.Server, a answer) {
	t.Helper()
	if a.status != http.StatusOK || !errors.Is(a.err, io.ErrUnexpectedEOF) || !strings.HasPrefix(a.body, `{"allowed":true`) {
		t.Errorf("got %d %q, %v", a.status, a.body, a.err)
	}
}

func is64MiB(t *testing.T, _ *guardtest.Server, a answer) {
	t.Helper()
	head, _, _ := strings.Cut(a.body, `,"padding":"aaa`)
	if a.err != nil || a.size < 64<<20 || !(answer{body: head + "}"}).saysAllow() {
		t.Errorf("got %d bytes, %v, which begin with %.200q", a.size, a.err, a.body)
	}
}

func twoDocuments(t *testing.T, _ *guardtest.Server, a answer) {
	t.Helper()
	documents := json.NewDecoder(strings.NewReader(a.body))
	var first, second struct{ Allowed bool }
	if err := errors.Join(documents.Decode(&first), documents.Decode(&second)); err != nil || !first.Allowed || second.Allowed {
		t.Errorf("got %q, %v", a.body, err)
	}
}

// redirects wants another host name and another port.
func redirects(status int) func(*testing.T, *guardtest.Server, answer) {
	return func(t *testing.T, srv *guardtest.Server, a answer) {
		t.Helper()
		from, _ := url.Parse(srv.URL())
		to, err := url.Parse(a.header.Get("Location"))
		if err != nil || a.status != status || to.Hostname() == from.Hostname() || to.Port() == from.Port() ||
			to.Path != "/api/v1/devices/validate" || !a.saysAllow() {
			t.Errorf("got %d %q to %v, %v", a.status, a.body, to, err)
		}
		if n := len(srv.Strays()); n != 0 {
			t.Errorf("%d requests to the other host by a client that follows nothing", n)
		}
	}
}

func asksToWait(form string) func(*testing.T, *guardtest.Server, answer) {
	return func(t *testing.T, _ *guardtest.Server, a answer) {
		t.Helper()
		got := a.header.Get("Retry-After")
		if date, err := http.ParseTime(got); err == nil {
			if wait := time.Until(date); wait < 4*time.Second || wait > 7*time.Second {
				t.Errorf("Retry-After is %v away", wait)
			}
			got = "date"
		}
		if a.err != nil || a.status != http.StatusTooManyRequests || got != form {
			t.Errorf("got %d, Retry-After %q, %v; want %q", a.status, got, a.err, form)
		}
	}
}
