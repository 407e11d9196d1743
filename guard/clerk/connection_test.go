package clerk_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/clerk"
)

// hangUps is a server that reads the second request of each connection and then closes it unanswered,
// as services do that are restarted. It counts requests.
func hangUps(t *testing.T, name string) (base string, requests *atomic.Int32) {
	requests = new(atomic.Int32)
	var mu sync.Mutex
	seen := map[string]int{}
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		mu.Lock()
		seen[r.RemoteAddr]++
		n := seen[r.RemoteAddr]
		mu.Unlock()
		if n > 1 {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, success(name))
	}), requests
}

// What changes something reaches the service once, whatever becomes of the kept connection; what reads
// is sent again by net/http, and the caller sees nothing of it.
func TestKeptConnections(t *testing.T) {
	for name, c := range calls() {
		base, requests := hangUps(t, name)
		client := newClient(t, clerk.WithBaseURL(base))
		if _, err := c.do(t.Context(), client); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_, err := c.do(t.Context(), client)
		if c.reads && (err != nil || requests.Load() != 3) {
			t.Errorf("%s: %v after %d requests, want it sent again", name, err, requests.Load())
		}
		if !c.reads && (!errors.Is(err, guard.ErrUnavailable) || requests.Load() != 2) {
			t.Errorf("%s: %v after %d requests, want it sent once", name, err, requests.Load())
		}
	}
}

// What net/http needs to send a request again: reads have it, and nothing else does, not even for a
// connection on which not a byte was written.
func TestNothingToReplay(t *testing.T) {
	for name, c := range calls() {
		client := offline(t, transport(func(r *http.Request) (*http.Response, error) {
			_, mayRepeat := r.Header["Idempotency-Key"]
			if hasBody := r.Body != nil; hasBody && (mayRepeat != c.reads || (r.GetBody != nil) != c.reads || r.ContentLength <= 0) {
				t.Errorf("%s: %v, GetBody there: %t, length %d", name, r.Header, r.GetBody != nil, r.ContentLength)
			}
			if r.GetBody != nil {
				again, err := r.GetBody()
				if err != nil {
					t.Fatal(err)
				}
				text, err := io.ReadAll(again)
				if string(text) != `{"token":"`+opaque+`"}` || err != nil {
					t.Errorf("%s: %s, %v", name, text, err)
				}
			}
			return reply(r, 200, success(name)), nil
		}))
		if _, err := c.do(t.Context(), client); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// HTTP/2, which services like this one speak, with a request that has a body and cannot be sent again.
func TestHTTP2(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil || r.ProtoMajor != 2 {
			t.Errorf("%s, %v", r.Proto, err)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, success("create"))
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	client := newClient(t, clerk.WithBaseURL(srv.URL), clerk.WithHTTPClient(srv.Client()))
	if _, err := client.Create(t.Context(), clerk.CreateParams{Name: "x"}); err != nil {
		t.Error(err)
	}
}

// WithTimeout ends a silent call, and so does a context that ends sooner.
func TestTimeouts(t *testing.T) {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client := newClient(t, clerk.WithBaseURL("http://"+listener.Addr().String()), clerk.WithTimeout(30*time.Millisecond))
	for name, c := range calls() {
		if _, err := c.do(context.Background(), client); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, guard.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	patient := newClient(t, clerk.WithBaseURL("http://"+listener.Addr().String()), clerk.WithTimeout(10*time.Minute))
	if d, err := patient.Validator().Validate(ctx, theirs); d.Allowed || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%+v, %v", d, err)
	}
}

// A closed client asks nobody, in each of its calls, and leaves no connection open.
func TestClosed(t *testing.T) {
	var open atomic.Int32
	idle := make(chan struct{}, 16)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, aMachine)
	}))
	srv.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed:
			open.Add(-1)
			idle <- struct{}{}
		case http.StateActive, http.StateIdle, http.StateHijacked:
		}
	}
	srv.Start()
	defer srv.Close()
	client := newClient(t, clerk.WithBaseURL(srv.URL))
	if _, err := client.Get(t.Context(), theirs); err != nil || open.Load() != 1 {
		t.Fatalf("%v, %d connections", err, open.Load())
	}
	if err := client.Close(); err != nil {
		t.Error(err)
	}
	<-idle
	for name, c := range calls() {
		_, err := c.do(t.Context(), client)
		if failed := wantError[*clerk.Error](t, err); failed.Status != 0 || !errors.Is(err, guard.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	d, err := client.Validator().Validate(t.Context(), theirs)
	wantUndecided(t, d, err)
	if open.Load() != 0 {
		t.Errorf("%d connections", open.Load())
	}
}

// A read that waits to ask again does not outlive the client.
func TestClosedWhileRetrying(t *testing.T) {
	tries := 0
	var client *clerk.Client
	client = offline(t, transport(func(r *http.Request) (*http.Response, error) {
		if tries++; tries == 2 {
			client.Close()
		}
		return reply(r, 503, "{}"), nil
	}), clerk.WithRetry(stepping(1, 1, 1, 1)))
	if _, err := client.Get(t.Context(), theirs); wantError[*clerk.Error](t, err).Status != 503 || tries != 2 {
		t.Errorf("%v after %d tries", err, tries)
	}
}

// Calls side by side, of one client, each with its own answer; under -race.
func TestSideBySide(t *testing.T) {
	client := offline(t, transport(func(r *http.Request) (*http.Response, error) {
		id := r.URL.Path[len("/v1/machines/"):]
		return reply(r, 200, `{"object":"machine","id":"`+id+`"}`), nil
	}))
	var wg sync.WaitGroup
	for _, id := range numbered(50) {
		wg.Go(func() {
			if m, err := client.Get(t.Context(), id); err != nil || m.ID != id {
				t.Errorf("%+v, %v", m, err)
			}
			if d, err := client.Validator().Validate(t.Context(), id); err != nil || d.DeviceID != id {
				t.Errorf("%+v, %v", d, err)
			}
		})
	}
	wg.Wait()
}
