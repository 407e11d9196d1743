package faulty_test

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/execguard/execguard/internal/faulty"
)

const (
	yes = `{"id":"m-1","active":true}`
	no  = `{"id":"m-1","active":false}`
)

// see judges what a client got under a fault.
type see func(t *testing.T, srv *faulty.Server, a answer)

// says wants exactly this.
func says(status int, contentType, body string) see {
	return func(t *testing.T, _ *faulty.Server, a answer) {
		t.Helper()
		if a.err != nil || a.status != status || a.header.Get("Content-Type") != contentType || a.body != body {
			t.Errorf("got %d %q %q, %v; want %d %q", a.status, a.header, a.body, a.err, status, body)
		}
	}
}

func json200(body string) see { return says(http.StatusOK, "application/json", body) }

// fails wants a request that fails so, without a status.
func fails(as func(error) bool) see {
	return func(t *testing.T, _ *faulty.Server, a answer) {
		t.Helper()
		if a.status != 0 || !as(a.err) {
			t.Errorf("got %d %q, %v", a.status, a.body, a.err)
		}
	}
}

func is[E error](err error) bool {
	as := *new(E)
	return errors.As(err, &as)
}

// leaves is a client's end of what has none.
func leaves(err error) bool { return errors.Is(err, context.DeadlineExceeded) }

// breaksOff wants the beginning of a yes, and then that.
func breaksOff(with func(error) bool) see {
	return func(t *testing.T, _ *faulty.Server, a answer) {
		t.Helper()
		if a.status != 0 && a.status != http.StatusOK || !with(a.err) || !strings.HasPrefix(yes, a.body) || a.body == yes {
			t.Errorf("got %d %q, %v", a.status, a.body, a.err)
		}
	}
}

// redirects wants another host and another port, and the question in the address.
func redirects(status int) see {
	return func(t *testing.T, srv *faulty.Server, a answer) {
		t.Helper()
		from, _ := url.Parse(srv.URL())
		to, err := url.Parse(a.header.Get("Location"))
		if err != nil || to.Hostname() == from.Hostname() || to.Port() == from.Port() || to.Path != "/machines/m-1" || to.RawQuery != "q=1" {
			t.Errorf("it leads to %v, %v", to, err)
		}
		says(status, "application/json", yes)(t, srv, a)
	}
}

func asksToWait(form string) see {
	return func(t *testing.T, srv *faulty.Server, a answer) {
		t.Helper()
		got := a.header.Get("Retry-After")
		if date, err := http.ParseTime(got); err == nil {
			if wait := time.Until(date); wait < 4*time.Second || wait > 7*time.Second {
				t.Errorf("Retry-After is %v away", wait)
			}
			got = "date"
		}
		if got != form {
			t.Errorf("Retry-After is %q, want %q", got, form)
		}
		says(http.StatusTooManyRequests, "application/json", `{"status":429}`)(t, srv, a)
	}
}

// is64MiB wants a yes that is well-formed and long.
func is64MiB(t *testing.T, _ *faulty.Server, a answer) {
	t.Helper()
	if a.err != nil || a.size < 64<<20 || !strings.HasPrefix(a.body, strings.TrimSuffix(yes, "}")+`,"padding":"aaa`) {
		t.Errorf("got %d bytes, %v, which begin with %.200q", a.size, a.err, a.body)
	}
}

// hasYes wants HTML in which a yes stands.
func hasYes(status int) see {
	return func(t *testing.T, _ *faulty.Server, a answer) {
		t.Helper()
		if a.err != nil || a.status != status || !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") || !strings.Contains(a.body, yes) {
			t.Errorf("got %d %q %q, %v", a.status, a.header, a.body, a.err)
		}
	}
}

// onTheWire says for every fault what a plain client sees of it: that it is there, and made of
// the dialect's answer to this very question.
func onTheWire() map[string]see {
	return map[string]see{
		"connection refused":               fails(func(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }),
		"connection reset mid-body":        breaksOff(func(err error) bool { return errors.Is(err, syscall.ECONNRESET) }),
		"accepted and silent":              fails(leaves),
		"one byte a second":                breaksOff(leaves),
		"half a body":                      breaksOff(func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }),
		"empty body":                       json200(""),
		"HTML with 200":                    hasYes(http.StatusOK),
		"JSON array":                       json200(`[` + yes + `]`),
		"JSON number":                      json200(`1`),
		"JSON null":                        json200(`null`),
		"64 MiB body":                      is64MiB,
		"duplicate keys":                   json200(`{"id":"m-1","active":true,"id":"m-1","active":true}`),
		"keys in another case":             json200(`{"ID":"m-1","ACTIVE":true}`),
		"second document after the first":  json200(yes + "\n" + no),
		"active as a string":               says(http.StatusOK, "application/json", `{"id":"m-1","active":"true"}`),
		"told off":                         toldOff,
		"ALLOW with 201":                   says(http.StatusCreated, "application/json", yes),
		"ALLOW with 403":                   says(http.StatusForbidden, "application/json", `{"error":"bad key"}`), // the dialect's own
		"ALLOW with 500":                   says(http.StatusInternalServerError, "application/json", yes),
		"redirect 301":                     redirects(http.StatusMovedPermanently),
		"redirect 302":                     redirects(http.StatusFound),
		"redirect 307":                     redirects(http.StatusTemporaryRedirect),
		"redirect 308":                     redirects(http.StatusPermanentRedirect),
		"429 without Retry-After":          asksToWait(""),
		"429 with Retry-After in seconds":  asksToWait("7"),
		"429 with Retry-After as a date":   asksToWait("date"),
		"500":                              says(http.StatusInternalServerError, "application/json", `{"status":500}`),
		"502":                              hasYes(http.StatusBadGateway),
		"503":                              says(http.StatusServiceUnavailable, "application/json", `{"status":503}`),
		"TLS certificate for another name": fails(is[x509.HostnameError]),
		"TLS certificate expired":          fails(is[x509.CertificateInvalidError]),
		"TLS certificate self-signed":      fails(is[x509.UnknownAuthorityError]),
		"DNS failure":                      fails(is[*net.DNSError]),
		"DNS silent":                       fails(leaves),
		"TLS handshake stalled":            fails(leaves),
		"answer for another device":        json200(`{"id":"not-m-1","active":true}`),
		"answer late":                      fails(leaves),
		"answers out of order":             fails(leaves),
		"flapping":                         says(http.StatusServiceUnavailable, "application/json", `{"status":503}`),
	}
}

// toldOff wants all of an answer of the dialect's: status, header and body.
func toldOff(t *testing.T, srv *faulty.Server, a answer) {
	t.Helper()
	if got := a.header.Values("X-Limit"); len(got) != 2 || got[0] != "1" || a.header.Get("Retry-After") != "3" {
		t.Errorf("header %q", a.header)
	}
	says(http.StatusTeapot, "text/plain", "m-1 GET /machines/m-1 q=1")(t, srv, a)
}

// ownFaults are of all kinds: a body alone, everything, and one in place of a common fault.
func ownFaults() []faulty.Answer {
	return []faulty.Answer{
		{Name: "active as a string", Body: func(q faulty.Question) string { return `{"id":"` + q.DeviceID + `","active":"true"}` }},
		{
			Name:       "told off",
			Status:     http.StatusTeapot,
			RetryAfter: 3 * time.Second,
			Header:     http.Header{"content-type": {"text/plain"}, "X-Limit": {"1", "2"}, "Retry-After": {"3"}},
			Body:       func(q faulty.Question) string { return q.DeviceID + " " + q.Method + " " + q.Path + " " + q.Query },
		},
		{
			Name: "ALLOW with 403", Status: http.StatusForbidden, Code: "INVALID_ORG_KEY",
			Body: faulty.Always(`{"error":"bad key"}`),
		},
	}
}

func TestEveryFaultIsOnTheWire(t *testing.T) {
	seen := onTheWire()
	d := dialect(ownFaults()...)
	for _, fault := range d.Faults() {
		t.Run(fault.Name, func(t *testing.T) {
			t.Parallel()
			see, ok := seen[fault.Name]
			if !ok {
				t.Fatal("this fault has no test")
			}
			srv := start(t, faulty.Config{Dialect: d})
			wantHonest(t, srv) // on a connection that the fault finds open
			inject(t, srv, fault.Name)
			patience := aWhile
			if fault.Endless {
				patience = 100 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			see(t, srv, get(ctx, srv, "/machines/m-1?q=1"))
			heal(t, srv)
			wantHonest(t, srv)
			if n := len(srv.Strays()); n != 0 {
				t.Errorf("%d requests to the other host by a client that follows nothing", n)
			}
		})
	}
	if len(seen) != len(d.Faults()) {
		t.Errorf("%d faults are tested and %d are there", len(seen), len(d.Faults()))
	}
}

// TestFailureHasADefault is for services whose form of an error does not matter.
func TestFailureHasADefault(t *testing.T) {
	d := dialect()
	d.Failure, d.DeviceID = nil, nil
	srv := start(t, faulty.Config{Dialect: d, Plain: true})
	inject(t, srv, "503")
	says(http.StatusServiceUnavailable, "application/json", `{"error":"service unavailable"}`)(t, srv, get(t.Context(), srv, "/machines/m-1"))
	inject(t, srv, "ALLOW with 201")
	says(http.StatusCreated, "application/json", `{"id":"","active":true}`)(t, srv, get(t.Context(), srv, "/machines/m-1"))
}
