package httpmw_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/execguard/execguard/httpmw"
)

// countedConn counts what it is written.
type countedConn struct {
	net.Conn

	writes *atomic.Int32
}

func (c countedConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// A small request in memory goes out in one piece, as it does without a guard: net/http sees what it is.
func TestTransportSendsASmallRequestInOnePiece(t *testing.T) {
	g, _ := newGuard(t)
	url, _ := serve(t, protocols()[0], http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	for name, guardIt := range map[string]func(http.RoundTripper) http.RoundTripper{
		"bare":    func(base http.RoundTripper) http.RoundTripper { return base },
		"guarded": func(base http.RoundTripper) http.RoundTripper { return httpmw.Transport(g, httpmw.Fixed(device), base) },
	} {
		t.Run(name, func(t *testing.T) {
			var writes atomic.Int32
			tr := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				c, err := new(net.Dialer).DialContext(ctx, network, address)
				return countedConn{c, &writes}, err
			}}
			defer tr.CloseIdleConnections()
			resp, err := guardIt(tr).RoundTrip(asking(t, http.MethodPost, url, strings.NewReader("small")))
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if n := writes.Load(); n != 1 {
				t.Errorf("%d writes", n)
			}
		})
	}
}
