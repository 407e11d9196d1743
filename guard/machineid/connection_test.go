package machineid_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/execguard/execguard/guard/machineid"
)

// countConnections starts a server that counts the connections it accepts.
func countConnections(t *testing.T, h http.HandlerFunc) (base string, accepted *atomic.Int64) {
	t.Helper()
	accepted = new(atomic.Int64)
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			accepted.Add(1)
		}
	}
	srv.Start()
	t.Cleanup(srv.Close)
	return srv.URL, accepted
}

// One connection serves call after call, whatever the answers are, chunked ones and those of no
// use included: each body is read to its end.
func TestConnectionIsKept(t *testing.T) {
	answers := []http.HandlerFunc{
		answer(200, allow),
		answer(200, `{"allowed":false,"code":"DEVICE_REVOKED"}`),
		answer(403, `{"allowed":false,"code":"ORG_DISABLED"}`),
		answer(401, `{"error":"invalid_org_key"}`),
		answer(200, "<html>"+strings.Repeat("<p>", 100_000)),
		answer(302, "moved", "Location", "http://192.0.2.1/"),
		answer(307, strings.Repeat("moved ", 5000), "Location", "/elsewhere"),
		answer(429, `{}`, "Retry-After", "1"),
		answer(500, "oops"),
		answer(503, ""),
		func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, allow)
			_ = http.NewResponseController(w).Flush()
			_, _ = io.WriteString(w, "   ")
		},
	}
	var calls atomic.Int64
	base, accepted := countConnections(t, func(w http.ResponseWriter, r *http.Request) {
		answers[int(calls.Add(1)-1)%len(answers)](w, r)
	})
	client := newClient(t, base)
	for range 3 * len(answers) {
		_, _ = client.Validate(t.Context(), device)
	}
	for range answers {
		_, _ = client.List(t.Context())
		_, _ = client.Revoke(t.Context(), device)
		_, _ = client.RevokeBatch(t.Context(), []string{device})
	}
	// Each kind of answer comes six times, so one that costs the connection shows as six more. One
	// or two can go where the machine is busy: net/http gives a connection up whose writer was not
	// scheduled for 50 ms after the answer.
	if calls, n := calls.Load(), accepted.Load(); n > 3 || calls != int64(6*len(answers)) {
		t.Errorf("%d connections for %d calls, want 1 for %d", n, calls, 6*len(answers))
	}
}

// 64 callers at once, which is what a guard allows itself by default, get along with 64
// connections round after round.
func TestConnectionsOfManyCallers(t *testing.T) {
	const callers, rounds = 64, 5
	base, accepted := countConnections(t, answer(200, allow))
	client := newClient(t, base)
	for range rounds {
		var all sync.WaitGroup
		for range callers {
			all.Go(func() {
				if d, err := client.Validate(t.Context(), device); err != nil || !d.Allowed {
					t.Errorf("%+v, %v", d, err)
				}
			})
		}
		all.Wait()
	}
	if n := accepted.Load(); n > 2*callers { // twice: see above; without enough kept ones it would be near 5 times
		t.Errorf("%d connections for %d callers", n, callers)
	}
}

// A service that closes a kept connection just as a question comes costs a new connection and
// not a run. What is not a mere question is not sent twice.
func TestConnectionClosedMeanwhile(t *testing.T) {
	for name, c := range map[string]struct {
		call     func(context.Context, *machineid.Client) error
		requests int64
		failed   bool
	}{
		"validate": {func(ctx context.Context, c *machineid.Client) error {
			_, err := c.Validate(ctx, device)
			return err
		}, 3, false},
		"usage": {func(ctx context.Context, c *machineid.Client) error {
			_, err := c.Usage(ctx)
			return err
		}, 3, false},
		"remove": {func(ctx context.Context, c *machineid.Client) error {
			_, err := c.Remove(ctx, device)
			return err
		}, 2, true},
	} {
		t.Run(name, func(t *testing.T) {
			var connections, requests atomic.Int64
			addr, _ := rawServer(t, func(conn net.Conn) {
				second := connections.Add(1) > 1
				from := bufio.NewReader(conn)
				for n := 0; readRequest(conn, from); n++ {
					requests.Add(1)
					if n == 1 && !second {
						return // the first connection takes two requests and answers one
					}
					_, _ = io.WriteString(conn, head+"Content-Length: 50\r\n\r\n"+allow)
				}
			})
			client := newClient(t, "http://"+addr)
			if err := c.call(t.Context(), client); err != nil {
				t.Fatal(err)
			}
			err := c.call(t.Context(), client)
			if (err != nil) != c.failed || requests.Load() != c.requests {
				t.Errorf("%v after %d requests, want %d", err, requests.Load(), c.requests)
			}
			checkSecret(t, err)
			client.CloseIdleConnections()
		})
	}
}

// On a fresh connection nothing is sent twice: that would be a retry.
func TestNoRetry(t *testing.T) {
	for name, after := range map[string]func(net.Conn){"closed": hangUp, "reset": reset} {
		t.Run(name, func(t *testing.T) {
			var connections atomic.Int64
			addr, _ := rawServer(t, func(conn net.Conn) {
				connections.Add(1)
				says("", after)(conn)
			})
			d, err := newClient(t, "http://"+addr).Validate(t.Context(), device)
			checkUndecided(t, d, err)
			if n := connections.Load(); n != 1 {
				t.Errorf("%d connections", n)
			}
		})
	}
	for _, status := range []int{408, 425, 429, 500, 502, 503, 504} {
		var requests atomic.Int64
		client := newClient(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
			requests.Add(1)
			answer(status, `{}`, "Retry-After", "0")(w, r)
		}))
		d, err := client.Validate(t.Context(), device)
		checkUndecided(t, d, err)
		if n := requests.Load(); n != 1 {
			t.Errorf("%d: %d requests", status, n)
		}
	}
}
