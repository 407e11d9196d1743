package httpmw_test

import (
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
)

// Over HTTP/1.1 with TLS a write to a client that does not read is released as soon as any other: on the
// write's error net/http closes the connection inside Write, and tls.Conn.Close then gives itself
// five seconds to send its farewell.
func TestABlockedWriteOverTLSIsReleasedAtOnce(t *testing.T) {
	for range 20 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			var progress atomic.Int64
			blocked := make(chan error, 1)
			s := newStand(t, protocols()[1], func(w http.ResponseWriter, _ *http.Request) {
				_, err := io.Copy(w, counting{zeros{}, &progress})
				blocked <- err
			})
			released := make(chan struct{})
			got := s.ask(t, http.MethodGet, nil, released)
			standstill(t, &progress)
			s.revoke(t)
			select {
			case err := <-blocked:
				wantDenied(t, err, guard.CodeDeviceRevoked)
			case <-time.After(3 * time.Second):
				t.Error("the write is still blocked after 3s")
			}
			close(released)
			wantCut(t, <-got)
		})
	}
}

// In HTTP/1.1 closing the request's body reads up to 256 KB of what is left of it, and blocks in
// that, until a denial releases it.
func TestClosingTheBodyIsReleased(t *testing.T) {
	g, v := newGuard(t)
	closing, closed := make(chan struct{}), make(chan error, 1)
	url, _ := serve(t, protocols()[0], guarded(g, func(_ http.ResponseWriter, r *http.Request) {
		close(closing)
		closed <- r.Body.Close()
	}))
	c := dial(t, url)
	fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf")
	await(t, "the handler", closing)
	select {
	case err := <-closed:
		t.Fatalf("it does not block: %v", err)
	case <-time.After(30 * time.Millisecond):
	}
	revoke(t, g, v)
	wantDenied(t, await(t, "the close", closed), guard.CodeDeviceRevoked)
	_ = c.Close()
}
