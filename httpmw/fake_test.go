package httpmw_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
	"github.com/execguard/execguard/httpmw"
)

// device is who the tests speak of.
const device = "worker:test:01"

// patience bounds what a test waits for; nothing that works takes so long.
const patience = 10 * time.Second

// newGuard makes a guard and the scripted authority that it asks, which allows the devices named.
func newGuard(t testing.TB, opts ...guard.Option) (*guard.Guard, *guardtest.Validator) {
	t.Helper()
	v := guardtest.NewValidator(device)
	g, err := guard.New(v, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	return g, v
}

// learn has the guard learn what the authority says now: it returns when every context that is to
// be cancelled for it has been.
func learn(t testing.TB, g *guard.Guard) {
	t.Helper()
	_, _ = g.Validate(context.Background(), device)
}

// revoke revokes the device and has the guard learn of it.
func revoke(t testing.TB, g *guard.Guard, v *guardtest.Validator) {
	t.Helper()
	v.Deny(device, guard.CodeDeviceRevoked)
	learn(t, g)
}

// protocol is one way to speak HTTP over a real socket.
type protocol struct {
	name  string
	major int
	start func(s *httptest.Server)
}

// protocols are all of them.
func protocols() []protocol {
	return []protocol{
		{"http1", 1, (*httptest.Server).Start},
		{"https1", 1, (*httptest.Server).StartTLS},
		{"h2", 2, func(s *httptest.Server) {
			s.EnableHTTP2 = true
			s.StartTLS()
		}},
		{"h2c", 2, func(s *httptest.Server) {
			s.Config.Protocols = new(http.Protocols)
			s.Config.Protocols.SetUnencryptedHTTP2(true)
			s.Start()
		}},
	}
}

// eachProtocol runs a test over every protocol.
func eachProtocol(t *testing.T, test func(t *testing.T, p protocol)) {
	t.Helper()
	for _, p := range protocols() {
		t.Run(p.name, func(t *testing.T) { test(t, p) })
	}
}

// serve serves h over p until the test ends, and returns its address and a client of its own.
func serve(t testing.TB, p protocol, h http.Handler) (url string, c *http.Client) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	p.start(s)
	c = s.Client()
	if p.name == "h2c" {
		tr := &http.Transport{Protocols: new(http.Protocols)}
		tr.Protocols.SetUnencryptedHTTP2(true)
		c = &http.Client{Transport: tr}
	}
	t.Cleanup(func() {
		c.CloseIdleConnections()
		s.CloseClientConnections()
		s.Close()
	})
	return s.URL, c
}

// guarded is h under g, for the device.
func guarded(g *guard.Guard, h http.HandlerFunc, opts ...httpmw.Option) http.Handler {
	return httpmw.New(g, httpmw.Fixed(device), opts...)(h)
}

// get asks for url.
func get(t testing.TB, c *http.Client, url string) *http.Response {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

// problem reads the answer to a request that was refused or stopped.
func problem(t testing.TB, resp *http.Response, status int, code string) httpmw.Problem {
	t.Helper()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("reading the answer: %v", err)
	}
	if resp.StatusCode != status {
		t.Errorf("status = %d, want %d: %s", resp.StatusCode, status, text)
	}
	if kind := resp.Header.Get("Content-Type"); kind != "application/problem+json" {
		t.Errorf("Content-Type = %q", kind)
	}
	if cache := resp.Header.Get("Cache-Control"); cache != "no-store" {
		t.Errorf("Cache-Control = %q", cache)
	}
	var p httpmw.Problem
	if err := json.Unmarshal(text, &p); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if p.Status != status || string(p.Code) != code || p.Title == "" || p.Type == "" {
		t.Errorf("problem = %+v, want status %d and code %s", p, status, code)
	}
	return p
}

// await waits until c is closed or has something.
func await[T any](t testing.TB, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("%s: not within %v", what, patience)
		return v
	}
}

// wantDenied wants the denial of the device, with the code.
func wantDenied(t testing.TB, err error, code guard.Code) {
	t.Helper()
	var denied *guard.DeniedError
	if !errors.As(err, &denied) || denied.Decision.Code != code || denied.DeviceID != device {
		t.Errorf("err = %v, want a denial with %s", err, code)
	}
}

// dial opens a bare connection to a server.
func dial(t testing.TB, url string) net.Conn {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", url[len("http://"):])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}
