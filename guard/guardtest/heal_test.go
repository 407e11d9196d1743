package guardtest_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

// aWhile is far more than anything here takes, and less than the test's own time-out.
const aWhile = 20 * time.Second

// asking has a plain client without time-out ask under an endless fault, and returns when the
// question is on its way.
func asking(t *testing.T, srv *guardtest.Server, fault guardtest.Fault, ctx context.Context) <-chan answer {
	t.Helper()
	srv.Inject(fault)
	done := make(chan answer, 1)
	go func() { done <- post(ctx, srv.Client(), srv, device) }()
	switch { // some strike before there is a request
	case fault == "DNS silent":
		return done
	case fault.NeedsTLS():
		if !srv.Holds(aWhile) {
			t.Fatal("the server holds no connection")
		}
		return done
	}
	if _, err := srv.Wait(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	return done
}

func within(t *testing.T, done <-chan answer) answer {
	t.Helper()
	select {
	case a := <-done:
		return a
	case <-time.After(aWhile):
		t.Fatal("the client still waits")
		return answer{}
	}
}

func TestHealEndsWhatIsEndless(t *testing.T) {
	for _, fault := range endless() {
		t.Run(fault.String(), func(t *testing.T) {
			srv := newServer(t)
			done := asking(t, srv, fault, t.Context())
			srv.Heal()
			a := within(t, done)
			if held := fault == "answer late" || fault == "answers out of order"; held != a.saysAllow() && fault != "TLS handshake stalled" && fault != "DNS silent" {
				t.Errorf("got %d %q, %v; want the answer that was held: %t", a.status, a.body, a.err, held)
			}
			wantAllow(t, srv)
		})
	}
}

func TestAnotherFaultEndsWhatIsEndless(t *testing.T) {
	for _, fault := range endless() {
		t.Run(fault.String(), func(t *testing.T) {
			srv := newServer(t)
			done := asking(t, srv, fault, t.Context())
			srv.Inject("connection refused")
			within(t, done)
			srv.Heal()
			wantAllow(t, srv)
		})
	}
}

// TestEndOfTheTestEndsWhatIsEndless has clients that never leave: the server's end must be
// theirs.
func TestEndOfTheTestEndsWhatIsEndless(t *testing.T) {
	for _, fault := range append(endless(), "64 MiB body") {
		t.Run(fault.String(), func(t *testing.T) {
			var done <-chan answer
			r := guardtest.Run(t, func(r *guardtest.Recorder) {
				srv := guardtest.NewServer(r)
				done = asking(t, srv, fault, context.WithoutCancel(t.Context()))
			})
			within(t, done)
			if errs := r.Errors(); len(errs) > 0 {
				t.Error(errs)
			}
		})
	}
}

// TestClientThatLeavesEndsWhatIsEndless looks at the other side: nothing is kept for it.
func TestClientThatLeavesEndsWhatIsEndless(t *testing.T) {
	for _, fault := range append(endless(), "64 MiB body") {
		t.Run(fault.String(), func(t *testing.T) {
			srv := newServer(t)
			ctx, leave := context.WithCancel(t.Context())
			done := asking(t, srv, fault, ctx)
			leave()
			if a := within(t, done); fault != "64 MiB body" && !errors.Is(a.err, context.Canceled) {
				t.Errorf("got %d, %v", a.status, a.err)
			}
			srv.Client().CloseIdleConnections() // dials in the background go on otherwise
			if !srv.Quiet(aWhile) {
				t.Error("the server still works for a client that has left")
			}
		})
	}
}

// TestUnreadBodyDoesNotOutliveTheFault has a client that takes the headers and reads nothing.
func TestUnreadBodyDoesNotOutliveTheFault(t *testing.T) {
	srv := newServer(t)
	srv.Inject("64 MiB body")
	response := get(t, srv)
	defer response.Body.Close()
	srv.Heal()
	if n, err := io.Copy(io.Discard, response.Body); err == nil || n >= 64<<20 {
		t.Errorf("read %d bytes to a clean end, want the connection cut", n)
	}
	wantAllow(t, srv)
}

func TestTrickleKeepsItsPace(t *testing.T) {
	srv := newServer(t)
	srv.Inject("one byte a second")
	sent := time.Now()
	response := get(t, srv)
	defer response.Body.Close()
	text := make([]byte, 3)
	if _, err := io.ReadFull(response.Body, text); err != nil || string(text) != `{"a` {
		t.Errorf("read %q, %v", text, err)
	}
	if took := time.Since(sent); took < 2*time.Second {
		t.Errorf("three bytes took %v", took)
	}
}

// TestLateAnswerIsTheOldOne revokes between the decision and its arrival.
func TestLateAnswerIsTheOldOne(t *testing.T) {
	srv := newServer(t)
	late := asking(t, srv, "answer late", t.Context())
	srv.Revoke(device)
	srv.Heal()
	if a := within(t, late); !a.saysAllow() {
		t.Errorf("the late answer says %q, %v, want what was true when its request came", a.body, a.err)
	}
	if got := code(t, srv, device); got != guard.CodeDeviceRevoked {
		t.Errorf("the next answer is %s", got)
	}
}

// TestAnswersOvertakeEachOther gets the second answer before the first.
func TestAnswersOvertakeEachOther(t *testing.T) {
	srv := newServer(t)
	for pair := range 3 {
		first := make(chan answer, 1)
		if pair == 0 {
			srv.Inject("answers out of order")
		}
		go func() { first <- post(t.Context(), srv.Client(), srv, device) }()
		if _, err := srv.Wait(t.Context(), 2*pair+1); err != nil {
			t.Fatal(err)
		}
		select {
		case a := <-first:
			t.Fatalf("the first was answered by itself: %d, %v", a.status, a.err)
		default:
		}
		srv.Revoke(device)
		if got := code(t, srv, device); got != guard.CodeDeviceRevoked {
			t.Errorf("pair %d: the second says %s", pair, got)
		}
		if a := within(t, first); !a.saysAllow() {
			t.Errorf("pair %d: the first says %q, %v", pair, a.body, a.err)
		}
		srv.Unrevoke(device)
	}
}

func TestFlappingAlternates(t *testing.T) {
	srv := newServer(t)
	srv.Inject("flapping")
	for range 3 {
		if a := post(t.Context(), srv.Client(), srv, device); a.status != http.StatusServiceUnavailable {
			t.Errorf("the odd one: %d %q, %v", a.status, a.body, a.err)
		}
		wantAllow(t, srv)
	}
}

// TestFaultsOfTheNetworkReachOpenConnections uses a client that the server knows nothing of and
// that holds on to its connection. It must not get an answer over it.
func TestFaultsOfTheNetworkReachOpenConnections(t *testing.T) {
	for _, fault := range []guardtest.Fault{"connection refused", "DNS failure", "DNS silent", "TLS certificate expired", "TLS handshake stalled"} {
		t.Run(fault.String(), func(t *testing.T) {
			srv := newServer(t)
			own := &http.Client{Transport: &http.Transport{
				TLSClientConfig: srv.Client().Transport.(*http.Transport).TLSClientConfig.Clone(),
			}}
			defer own.CloseIdleConnections()
			if a := post(t.Context(), own, srv, device); !a.saysAllow() {
				t.Fatalf("before: %d %q, %v", a.status, a.body, a.err)
			}
			srv.Inject(fault)
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			if a := post(ctx, own, srv, device); a.err == nil || a.status != 0 {
				t.Errorf("under it: %d %q", a.status, a.body)
			}
			srv.Heal()
			if a := post(t.Context(), own, srv, device); !a.saysAllow() {
				t.Errorf("after: %d %q, %v", a.status, a.body, a.err)
			}
		})
	}
}

// TestConnectionInUseDoesNotCarryOver has a request in flight when the network goes wrong: it
// is answered, and the connection is good for nothing more.
func TestConnectionInUseDoesNotCarryOver(t *testing.T) {
	srv := newServer(t, guardtest.WithPlainHTTP())
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(srv.URL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	// The first half of a request makes the connection one that is in use.
	if _, err := io.WriteString(conn, "GET /api/v1/usage HTTP/1.1\r\n"); err != nil {
		t.Fatal(err)
	}
	srv.Inject("connection refused")
	_, _ = io.WriteString(conn, "Host: x\r\nx-org-key: "+srv.Key()+"\r\n\r\n") // may be cut already
	if text, err := io.ReadAll(conn); len(text) > 0 {
		t.Errorf("got %q, %v", text, err)
	}
	if n := len(srv.Requests()); n != 0 {
		t.Errorf("%d requests arrived", n)
	}
}

// TestConnectionsAreKept shows that a fault of what is said costs no connection: a client's
// reuse of connections can be tested under faults.
func TestConnectionsAreKept(t *testing.T) {
	srv := newServer(t)
	transport := srv.Client().Transport.(*http.Transport)
	var mu sync.Mutex
	dials, dial := 0, transport.DialContext
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		dials++
		return dial(ctx, network, address)
	}
	for _, fault := range []guardtest.Fault{"500", "JSON array", "flapping", "redirect 307"} {
		srv.Inject(fault)
		post(t.Context(), unfollowing(srv), srv, device)
		srv.Heal()
		wantAllow(t, srv)
	}
	if dials != 1 {
		t.Errorf("%d connections, want one", dials)
	}
}

// TestFaultsChangeWhileClientsAsk is for the race detector, and for the one promise that holds
// all the time: a device that is not allowed is allowed by nobody.
func TestFaultsChangeWhileClientsAsk(t *testing.T) {
	srv := guardtest.NewServer(t)
	srv.Register(device)
	client := newClient(t, srv)
	ctx, cancel := context.WithCancel(t.Context())
	var askers sync.WaitGroup
	for range 4 {
		askers.Go(func() {
			for ctx.Err() == nil {
				soon, done := context.WithTimeout(ctx, 20*time.Millisecond)
				if d, err := client.Validate(soon, "stranger"); d.Allowed {
					t.Errorf("a stranger is allowed: %+v, %v", d, err)
				}
				done()
			}
		})
	}
	for _, fault := range guardtest.Faults() {
		srv.Inject(fault)
		if _, err := client.Validate(ctx, " "); err != nil {
			t.Error(err)
		}
		srv.Heal()
	}
	cancel()
	askers.Wait()
	wantAllow(t, srv)
}
