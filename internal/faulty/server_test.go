package faulty_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/execguard/execguard/internal/faulty"
)

func TestInjectRefusesWhatItCannotShow(t *testing.T) {
	srv := start(t, faulty.Config{Plain: true})
	inject(t, srv, "empty body")
	for name, want := range map[string]string{
		"thunder":                 `unknown fault "thunder", the known ones are ["connection refused"`,
		"":                        `unknown fault ""`,
		"TLS certificate expired": `fault "TLS certificate expired" needs a server with TLS`,
		"TLS handshake stalled":   "needs a server with TLS",
	} {
		if err := srv.Inject(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Inject(%q): %v, want %q", name, err, want)
		}
		if a := get(t.Context(), srv, "/machines/m-1"); a.err != nil || a.status != http.StatusOK || a.body != "" {
			t.Errorf("after it: %d %q, %v", a.status, a.body, a.err)
		}
	}
	if !strings.HasPrefix(srv.URL(), "http://127.0.0.1:") {
		t.Errorf("URL %s", srv.URL())
	}
}

func TestServersFaultsAreItsDialects(t *testing.T) {
	d := dialect(faulty.Answer{Name: "one of mine", Body: faulty.Always("{}")})
	srv := start(t, faulty.Config{Dialect: d})
	got, want := srv.Faults(), d.Faults()
	if len(got) != len(want) {
		t.Fatalf("%d faults, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("got %+v, want %+v", got[i], want[i])
		}
	}
}

// TestHeldAnswersAreWhole: what the service said of an answer besides its body arrives with it.
func TestHeldAnswersAreWhole(t *testing.T) {
	answers := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trace-Id", "t-1")
		switch r.URL.Path {
		case "/gone":
			w.WriteHeader(http.StatusNoContent)
			w.WriteHeader(http.StatusTeapot) // too late
		case "/refused":
			w.Header().Set("Content-Type", "application/problem+json")
			w.Header().Set("Retry-After", "3")
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte(`{"a":`))
			_, _ = w.Write([]byte(`1}`))
		default:
			_, _ = w.Write([]byte("<html>"))
		}
	}
	srv := start(t, faulty.Config{Handler: http.HandlerFunc(answers)})
	for path, want := range map[string]answer{
		"/gone":    {status: http.StatusNoContent},
		"/refused": {status: http.StatusForbidden, body: `{"a":1}`},
		"/":        {status: http.StatusOK, body: "<html>"},
	} {
		at := get(t.Context(), srv, path)
		held := answer{}
		under(t, srv, "answer late", func(ctx context.Context) { held = get(ctx, srv, path) }, func() { heal(t, srv) })
		if held.err != nil || held.status != want.status || held.body != want.body || at.status != want.status || at.body != want.body {
			t.Errorf("%s: held %d %q, %v, at once %d %q", path, held.status, held.body, held.err, at.status, at.body)
		}
		for _, name := range []string{"Trace-Id", "Retry-After", "Content-Type"} {
			if got, want := held.header.Get(name), at.header.Get(name); got != want {
				t.Errorf("%s: %s is %q, and %q without the fault", path, name, got, want)
			}
		}
	}
}

// under injects an endless fault, has a client ask, calls do when the question is there, and
// waits for the client.
func under(t *testing.T, srv *faulty.Server, fault string, ask func(context.Context), do func()) {
	t.Helper()
	before := len(srv.Requests())
	inject(t, srv, fault)
	done := make(chan struct{})
	ctx, cancel := context.WithTimeout(t.Context(), aWhile)
	defer cancel()
	go func() {
		defer close(done)
		ask(ctx)
	}()
	if _, err := srv.Wait(ctx, before+1); err != nil {
		t.Error(err)
	}
	do()
	<-done
	if n := len(srv.Requests()); n != before+1 { // net/http asks again where a connection broke unanswered
		t.Errorf("%d requests arrived, want one", n-before)
	}
}

// TestCloseEndsWhatIsEndless closes under each endless fault, and twice; goleak sees the rest.
func TestCloseEndsWhatIsEndless(t *testing.T) {
	for _, fault := range dialect().Faults() {
		if !fault.Endless || fault.NeedsTLS || fault.Name == "DNS silent" { // those are never heard of
			continue
		}
		t.Run(fault.Name, func(t *testing.T) {
			srv := start(t, faulty.Config{})
			closing := func() {
				if err := srv.Close(); err != nil {
					t.Error(err)
				}
			}
			a := answer{}
			under(t, srv, fault.Name, func(ctx context.Context) { a = get(ctx, srv, "/machines/m-1") }, closing)
			if errors.Is(a.err, context.DeadlineExceeded) {
				t.Error("the client had to leave by itself")
			}
			if again := get(t.Context(), srv, "/machines/m-1"); again.err == nil {
				t.Errorf("a closed server answers %d %q", again.status, again.body)
			}
		})
	}
}

// TestFaultsAfterCloseStartNothing: what a late helper of a test does must not open a socket, nor
// fail a test that is over. A name server that it started would be goleak's to find.
func TestFaultsAfterCloseStartNothing(t *testing.T) {
	srv := start(t, faulty.Config{Plain: true})
	if err := srv.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"connection refused", "500", "DNS silent"} {
		heal(t, srv)
		inject(t, srv, name)
		if a := get(t.Context(), srv, "/machines/m-1"); !errors.Is(a.err, syscall.ECONNREFUSED) {
			t.Errorf("%s: a closed server answers %d %q, %v", name, a.status, a.body, a.err)
		}
	}
}

// TestHoldsAndQuiet watches a connection that is kept in the middle of nowhere come and go.
func TestHoldsAndQuiet(t *testing.T) {
	srv := start(t, faulty.Config{})
	inject(t, srv, "TLS handshake stalled")
	over := errors.New("over")
	short, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, over)
	defer cancel()
	if err := srv.Holds(short); !errors.Is(err, over) {
		t.Errorf("nobody is there, and Holds says %v", err)
	}
	if err := srv.Quiet(t.Context()); err != nil {
		t.Errorf("nobody is there, and Quiet says %v", err)
	}
	long, leave := context.WithTimeout(t.Context(), aWhile)
	defer leave()
	done := make(chan answer, 1)
	asked, stop := context.WithCancel(t.Context())
	go func() { done <- get(asked, srv, "/machines/m-1") }()
	if err := srv.Holds(long); err != nil {
		t.Error(err)
	}
	again, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, over)
	defer cancel()
	if err := srv.Quiet(again); !errors.Is(err, over) {
		t.Errorf("somebody is there, and Quiet says %v", err)
	}
	stop()
	<-done
	srv.Client().CloseIdleConnections() // dials in the background go on otherwise
	if err := srv.Quiet(long); err != nil {
		t.Error(err)
	}
}
