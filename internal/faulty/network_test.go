package faulty

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func newTestNetwork(t *testing.T, handler http.HandlerFunc) *network {
	t.Helper()
	n, err := newNetwork(handler, func(l net.Listener) net.Listener { return l }, nil)
	if err != nil {
		t.Fatal(err)
	}
	n.start()
	return n
}

// say sends one request over a connection of its own.
func say(ctx context.Context, n *network, path string) error {
	transport := &http.Transport{DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.address+path, http.NoBody)
	if err != nil {
		return err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

// TestNetworkMayBeToldTwice: refusing what is refused, and listening where one listens, change
// nothing.
func TestNetworkMayBeToldTwice(t *testing.T) {
	n := newTestNetwork(t, func(http.ResponseWriter, *http.Request) {})
	defer n.close()
	for range 3 {
		for range 2 {
			if err := n.listen(); err != nil {
				t.Fatal(err)
			}
			if err := say(t.Context(), n, "/"); err != nil {
				t.Errorf("while it listens: %v", err)
			}
		}
		for range 2 {
			n.refuse()
			if err := say(t.Context(), n, "/"); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("while it does not: %v", err)
			}
		}
	}
}

// TestPortIsKeptWhileNobodyListens asks the system for the very port, on a server that has never
// had a connection. Without the one that keeps it, it would be free.
func TestPortIsKeptWhileNobodyListens(t *testing.T) {
	n := newTestNetwork(t, func(http.ResponseWriter, *http.Request) {})
	defer n.close()
	elsewhere := newTestNetwork(t, func(http.ResponseWriter, *http.Request) {})
	defer elsewhere.close()
	n.refuse()
	port, err := net.ResolveTCPAddr("tcp", n.address)
	if err != nil {
		t.Fatal(err)
	}
	c, err := (&net.Dialer{LocalAddr: port}).DialContext(t.Context(), "tcp", elsewhere.address)
	if err == nil {
		c.Close()
		t.Error("the port was free for others")
	} else if !errors.Is(err, syscall.EADDRINUSE) {
		t.Error(err)
	}
}

// TestNetworkSaysWhenItCannotListen has somebody else on the address, as only a system that
// shares ports could have it.
func TestNetworkSaysWhenItCannotListen(t *testing.T) {
	n := newTestNetwork(t, func(http.ResponseWriter, *http.Request) {})
	defer n.close()
	n.refuse()
	thief, err := new(net.ListenConfig).Listen(t.Context(), "tcp", n.address)
	if err != nil {
		t.Fatal(err)
	}
	defer thief.Close()
	if err := n.listen(); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("listen: %v", err)
	}
}

// TestNetworkClosesUnderLoad closes while clients connect, ask and are answered. When close has
// returned, no handler may run.
func TestNetworkClosesUnderLoad(t *testing.T) {
	for range 20 {
		var mu sync.Mutex
		running, closed := 0, false
		count := func(by int) {
			mu.Lock()
			defer mu.Unlock()
			running += by
			if closed {
				t.Error("a handler runs after the end")
			}
		}
		entered := make(chan struct{}, 1000)
		n := newTestNetwork(t, func(w http.ResponseWriter, r *http.Request) {
			count(1)
			defer count(-1)
			entered <- struct{}{}
			_, _ = io.WriteString(w, r.RemoteAddr)
			if r.URL.Path == "/stay" {
				<-r.Context().Done()
				for range 1000 { // in no hurry to go
					runtime.Gosched()
				}
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		var clients sync.WaitGroup
		for range 4 {
			clients.Go(func() {
				for ctx.Err() == nil && say(ctx, n, "/") == nil { //nolint:revive // the condition does the work
				}
			})
		}
		clients.Go(func() { _ = say(ctx, n, "/stay") })
		for range 10 {
			<-entered
		}
		n.close()
		mu.Lock()
		if running != 0 {
			t.Errorf("%d handlers run after the end", running)
		}
		closed = true
		mu.Unlock()
		cancel()
		clients.Wait()
	}
}
