package httpmw_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
	"github.com/execguard/execguard/httpmw"
)

// A server that is about to end is alive as long as something runs in it, and not ready any more.
func ExampleLive() {
	g, err := guard.New(guardtest.NewValidator("api:prod:eu-1"))
	if err != nil {
		fmt.Println(err)
		return
	}
	mux := http.NewServeMux()
	mux.Handle("GET /livez", httpmw.Live(g))
	mux.Handle("GET /readyz", httpmw.Ready(g))
	look := func(when string) {
		for _, path := range []string{"/livez", "/readyz"} {
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, httptest.NewRequestWithContext(context.Background(), http.MethodGet, path, http.NoBody))
			fmt.Println(when, path, w.Code)
		}
	}
	_ = g.Run(context.Background(), "api:prod:eu-1", func(context.Context) error {
		look("at work")
		_ = g.Close() // or Shutdown, which lets what runs come to its end
		look("closed")
		return nil
	})
	look("over")
	// Output:
	// at work /livez 200
	// at work /readyz 200
	// closed /livez 200
	// closed /readyz 503
	// over /livez 503
	// over /readyz 503
}

// A guard from inside, for operators: which devices it knows, and why one is denied. Put it behind a door.
func ExampleDebug() {
	authority := guardtest.NewValidator("worker:prod:mailer:01")
	g, err := guard.New(authority)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()
	debug := httpmw.Debug(g)

	_ = g.Run(context.Background(), "worker:prod:mailer:01", func(ctx context.Context) error {
		w := httptest.NewRecorder()
		debug.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/debug/guard?limit=10", http.NoBody))
		var page struct {
			Health  guard.Health
			Devices []guard.DeviceHealth
		}
		if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil {
			return err
		}
		fmt.Println("runs:", page.Health.Runs, "by:", page.Devices[0].RequestID)
		return nil
	})
	// Output: runs: 1 by: script-1
}

// A header that a proxy in front sets, and lets nobody else set.
func ExampleFromHeader() {
	from := httpmw.FromHeader("X-Device-Id")
	r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/", http.NoBody)
	_, err := from(r)
	fmt.Println(err)
	r.Header.Set("X-Device-Id", "agent:prod:7")
	fmt.Println(from(r))
	// Output:
	// httpmw: no identity: there must be exactly one header X-Device-Id
	// agent:prod:7 <nil>
}

// The device is who the client's certificate says: its SPIFFE id, for one.
func ExampleFromTLS() {
	id, err := url.Parse("spiffe://example.org/agent/7")
	if err != nil {
		fmt.Println(err)
		return
	}
	leaf := &x509.Certificate{URIs: []*url.URL{id}}
	r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/", http.NoBody)
	from := httpmw.FromTLS()
	_, err = from(r)
	fmt.Println(err)
	r.TLS = &tls.ConnectionState{ // as crypto/tls leaves it after it has verified the client
		PeerCertificates: []*x509.Certificate{leaf}, VerifiedChains: [][]*x509.Certificate{{leaf}},
	}
	fmt.Println(from(r))
	// Output:
	// httpmw: no identity: there is no verified client certificate
	// spiffe://example.org/agent/7 <nil>
}
