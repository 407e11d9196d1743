package httpmw_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/execguard/execguard/guard"
)

// polite is a connection that says farewell, as one of TLS does, which a client that does not read can hold up; what
// is beneath it does not.
type polite struct {
	net.Conn

	closed *[]string
}

func (p polite) Close() error {
	*p.closed = append(*p.closed, "with a farewell")
	return nil
}

func (p polite) NetConn() net.Conn { return abrupt(p) }

type abrupt struct {
	net.Conn

	closed *[]string
}

func (a abrupt) Close() error {
	*a.closed = append(*a.closed, "abruptly")
	return a.Conn.Close()
}

// A denial closes a hijacked connection without waiting for a farewell, also where another guard is outside.
func TestDenialSaysNoFarewell(t *testing.T) {
	for name, nested := range map[string]bool{"one guard": false, "two": true} {
		t.Run(name, func(t *testing.T) {
			inner, v := newGuard(t)
			outer, _ := newGuard(t)
			ours, theirs := net.Pipe()
			t.Cleanup(func() { _ = theirs.Close() })
			var closed []string
			h := guarded(inner, func(w http.ResponseWriter, _ *http.Request) {
				c, _, err := w.(http.Hijacker).Hijack()
				if err != nil {
					t.Fatal(err)
				}
				revoke(t, inner, v)
				_, err = c.Read(make([]byte, 1))
				wantDenied(t, err, guard.CodeDeviceRevoked)
			})
			if nested {
				h = guarded(outer, h.ServeHTTP)
			}
			h.ServeHTTP(hijackFunc{httptest.NewRecorder(), func() (net.Conn, *bufio.ReadWriter, error) {
				return polite{ours, &closed}, nil, nil
			}}, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
			if i := slices.Index(closed, "abruptly"); i != 0 {
				t.Errorf("closed %q", closed)
			}
		})
	}
}

// Announcements that a client does not read block, from the first on, and are released.
func TestDeniedWhileAnAnnouncementBlocks(t *testing.T) {
	g, v := newGuard(t)
	begun, over := make(chan struct{}), make(chan struct{})
	url, _ := serve(t, protocols()[0], guarded(g, func(w http.ResponseWriter, r *http.Request) {
		defer close(over)
		w.Header().Set("Link", strings.Repeat("x", 16<<20))
		close(begun)
		for r.Context().Err() == nil {
			w.WriteHeader(http.StatusEarlyHints)
		}
	}))
	fmt.Fprint(dial(t, url), "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	await(t, "the handler", begun)
	revoke(t, g, v)
	await(t, "the end of the handler", over)
}
