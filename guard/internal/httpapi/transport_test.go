package httpapi_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard/internal/httpapi"
)

// What the clients promise of a transport of their own, and of the time that setting up may take: a
// second longer than the call, and never longer than 11 s.
func TestOwnTransport(t *testing.T) {
	for timeout, setUp := range map[time.Duration]time.Duration{
		time.Millisecond: 1001 * time.Millisecond, 10 * time.Second: 11 * time.Second, time.Minute: 11 * time.Second,
	} {
		own, ok := httpapi.Client(nil, timeout).Transport.(*http.Transport)
		if !ok || own.TLSHandshakeTimeout != setUp {
			t.Errorf("%v: %+v", timeout, own)
		}
	}
	own := httpapi.NewTransport(time.Second)
	if own.MaxIdleConns != 64 || own.MaxIdleConnsPerHost != 64 || own.IdleConnTimeout != 90*time.Second {
		t.Errorf("keeps %d, %d a host, for %v", own.MaxIdleConns, own.MaxIdleConnsPerHost, own.IdleConnTimeout)
	}
	if own.TLSClientConfig.MinVersion != tls.VersionTLS12 || !own.ForceAttemptHTTP2 || own.Proxy == nil {
		t.Errorf("%+v", own)
	}
	if !own.DisableCompression || own.MaxResponseHeaderBytes != 64<<10 {
		t.Errorf("what comes in is not bounded: %+v", own)
	}
}

// S4: a stuck look-up, which outlives the call that wanted it, ends by itself.
func TestSettingUpEnds(t *testing.T) {
	before := net.DefaultResolver
	t.Cleanup(func() { net.DefaultResolver = before })
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		if _, err := httpapi.NewTransport(2*time.Second).DialContext(t.Context(), "tcp", "nowhere.invalid:443"); err == nil {
			t.Error("connected to nowhere")
		}
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("given up after %v, want 2s", took)
		}
	})
}
