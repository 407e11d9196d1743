package faulty_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/execguard/execguard/internal/faulty"
)

// TestFaultsOfTheNetworkReachOpenConnections uses a client that the server knows nothing of and
// that holds on to its connection. It must not get an answer over it.
func TestFaultsOfTheNetworkReachOpenConnections(t *testing.T) {
	for _, fault := range []string{"connection refused", "DNS failure", "DNS silent", "TLS certificate expired", "TLS handshake stalled"} {
		t.Run(fault, func(t *testing.T) {
			srv := start(t, faulty.Config{})
			tls := srv.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
			own := &http.Client{Transport: &http.Transport{TLSClientConfig: tls}}
			defer own.CloseIdleConnections()
			ask := func(ctx context.Context) error {
				request, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL()+"/machines/m-1", http.NoBody)
				if err != nil {
					return err
				}
				response, err := own.Do(request)
				if err != nil {
					return err
				}
				defer response.Body.Close()
				_, err = io.Copy(io.Discard, response.Body)
				return err
			}
			if err := ask(t.Context()); err != nil {
				t.Fatalf("before: %v", err)
			}
			inject(t, srv, fault)
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			if err := ask(ctx); err == nil {
				t.Error("it was answered")
			}
			heal(t, srv)
			if err := ask(t.Context()); err != nil {
				t.Errorf("after: %v", err)
			}
		})
	}
}

// TestConnectionInUseDoesNotCarryOver has half a request in flight when the network goes wrong:
// the connection is good for nothing more.
func TestConnectionInUseDoesNotCarryOver(t *testing.T) {
	srv := start(t, faulty.Config{Plain: true})
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(srv.URL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(aWhile)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "GET /machines/m-1 HTTP/1.1\r\n"); err != nil {
		t.Fatal(err)
	}
	wantHonest(t, srv) // on a connection that was accepted after this one
	inject(t, srv, "connection refused")
	_, _ = io.WriteString(conn, "Host: x\r\n\r\n") // may be cut already
	if text, err := io.ReadAll(conn); len(text) > 0 {
		t.Errorf("got %q, %v", text, err)
	}
	if n := len(srv.Requests()); n != 1 {
		t.Errorf("%d requests arrived, want that of before", n)
	}
}

// TestUnreadBodyDoesNotOutliveTheFault has a client that takes the headers and reads nothing.
func TestUnreadBodyDoesNotOutliveTheFault(t *testing.T) {
	srv := start(t, faulty.Config{})
	inject(t, srv, "64 MiB body")
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL()+"/machines/m-1", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := srv.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	heal(t, srv)
	if n, err := io.Copy(io.Discard, response.Body); err == nil || n >= 64<<20 {
		t.Errorf("read %d bytes to a clean end, want the connection cut", n)
	}
	wantHonest(t, srv)
}

// TestAnswersOvertakeEachOther gets the second answer before the first.
func TestAnswersOvertakeEachOther(t *testing.T) {
	srv := start(t, faulty.Config{})
	inject(t, srv, "answers out of order")
	first := make(chan answer, 1)
	go func() { first <- get(t.Context(), srv, "/machines/m-1") }()
	if _, err := srv.Wait(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	select {
	case a := <-first:
		t.Fatalf("the first was answered by itself: %d, %v", a.status, a.err)
	default:
	}
	if a := get(t.Context(), srv, "/machines/m-2"); !strings.Contains(a.body, "m-2") {
		t.Errorf("the second says %q, %v", a.body, a.err)
	}
	select {
	case a := <-first:
		if a.body != honest {
			t.Errorf("the first says %q, %v", a.body, a.err)
		}
	case <-time.After(aWhile):
		t.Error("the first still waits")
	}
}

// TestFaultsChangeWhileClientsAsk is for the race detector. A client must see an answer, an error
// or its own end, and never wait for a fault that is over.
func TestFaultsChangeWhileClientsAsk(t *testing.T) {
	srv := start(t, faulty.Config{Verbatim: true, Secrets: func() []string { return []string{secret} }})
	ctx, cancel := context.WithCancel(t.Context())
	var askers sync.WaitGroup
	for range 4 {
		askers.Go(func() {
			for ctx.Err() == nil {
				soon, done := context.WithTimeout(ctx, 20*time.Millisecond)
				if a := get(soon, srv, "/machines/m-1"); a.err == nil && a.status == 0 {
					t.Errorf("neither an answer nor an error: %+v", a)
				}
				done()
			}
		})
	}
	for _, fault := range srv.Faults() {
		before := len(srv.Requests())
		inject(t, srv, fault.Name)
		heal(t, srv)
		if _, err := srv.Wait(ctx, before+1); err != nil {
			t.Error(err)
		}
	}
	cancel()
	askers.Wait()
	wantHonest(t, srv)
}
