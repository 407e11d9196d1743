package httpmw_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/httpmw"
)

// timed is a recorder with deadlines, of which it keeps those for writes; it cannot flush.
type timed struct {
	recorder *httptest.ResponseRecorder
	set      chan string // has something for each deadline

	mu    sync.Mutex
	write []time.Time
}

func newTimed() *timed {
	return &timed{recorder: httptest.NewRecorder(), set: make(chan string, 100)}
}

func (w *timed) Header() http.Header { return w.recorder.Header() }

func (w *timed) WriteHeader(status int) { w.recorder.WriteHeader(status) }

func (w *timed) Write(p []byte) (int, error) { return w.recorder.Write(p) }

func (w *timed) SetReadDeadline(time.Time) error {
	w.set <- "read"
	return nil
}

func (w *timed) SetWriteDeadline(at time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.write = append(w.write, at)
	w.set <- "write"
	return nil
}

func (w *timed) deadlines() []time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.write
}

// serveTimed has h answer a POST, and returns what it panicked with.
func serveTimed(t *testing.T, w *timed, body io.Reader, h http.Handler) (panicked any) {
	t.Helper()
	defer func() { panicked = recover() }()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", body))
	return nil
}

// withLastEvent ends an event stream with the problem's code.
func withLastEvent() httpmw.Option {
	return httpmw.WithLastEvent(func(p httpmw.Problem) []byte { return []byte("data: " + p.Code + "\n\n") })
}

// The last event follows an event that was written whole, whatever became of the request's body, and of a flush that
// the writer cannot do.
func TestLastEventAfterAnEventThatIsWhole(t *testing.T) {
	for name, before := range map[string]func(t *testing.T, w http.ResponseWriter, r *http.Request){
		"the body was read to its end": func(t *testing.T, _ http.ResponseWriter, r *http.Request) {
			if text, err := io.ReadAll(r.Body); string(text) != "body" || err != nil {
				t.Errorf("read %q, %v", text, err)
			}
		},
		"it cannot flush": func(t *testing.T, w http.ResponseWriter, _ *http.Request) {
			if err := http.NewResponseController(w).Flush(); !errors.Is(err, http.ErrNotSupported) {
				t.Errorf("err = %v", err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			g, v := newGuard(t)
			w := newTimed()
			if p := serveTimed(t, w, strings.NewReader("body"), guarded(g, func(w http.ResponseWriter, r *http.Request) {
				before(t, w, r)
				w.Header().Set("Content-Type", "text/event-stream")
				fmt.Fprint(w, "data: one\n\n")
				revoke(t, g, v)
			}, withLastEvent())); p != http.ErrAbortHandler {
				t.Errorf("panicked with %v", p)
			}
			if got := w.recorder.Body.String(); got != "data: one\n\ndata: DEVICE_REVOKED\n\n" {
				t.Errorf("answer = %q", got)
			}
		})
	}
}

// A read of the body that has to be released twice, because it may be writing, takes the deadline of the writes
// along: the answer gets one of its own, so that it can be sent.
func TestAnswerAfterAReadThatWasReleasedTwice(t *testing.T) {
	g, v := newGuard(t)
	w, begun := newTimed(), make(chan struct{})
	blocked := readerFunc(func([]byte) (int, error) {
		close(begun)
		if first, second := await(t, "a release", w.set), await(t, "another", w.set); first != "read" || second != "write" {
			t.Errorf("released by the %s and the %s deadline", first, second)
		}
		return 0, errors.New("i/o timeout")
	})
	go func() {
		<-begun
		revoke(t, g, v)
	}()
	if p := serveTimed(t, w, blocked, guarded(g, func(_ http.ResponseWriter, r *http.Request) {
		_, err := r.Body.Read(make([]byte, 1))
		wantDenied(t, err, guard.CodeDeviceRevoked)
	})); p != nil {
		t.Errorf("panicked with %v", p)
	}
	if w.recorder.Code != http.StatusForbidden {
		t.Errorf("status = %d", w.recorder.Code)
	}
	if all := w.deadlines(); time.Until(all[0]) > 0 || time.Until(all[len(all)-1]) < time.Second/2 {
		t.Errorf("deadlines %v, the last of which should be to come", all)
	}
}

// A handler's panic has the answer cut only where a denial came first, and something was sent before that: otherwise it
// is for whoever recovers to answer.
func TestPanicsThatCutNothing(t *testing.T) {
	for name, test := range map[string]struct{ write, deny, cut bool }{
		"nothing":        {},
		"something sent": {write: true},
		"denied":         {deny: true},
		"both":           {write: true, deny: true, cut: true},
	} {
		t.Run(name, func(t *testing.T) {
			g, v := newGuard(t)
			w := newTimed()
			if p := serveTimed(t, w, nil, guarded(g, func(w http.ResponseWriter, _ *http.Request) {
				if test.write {
					fmt.Fprint(w, "half")
				}
				if test.deny {
					revoke(t, g, v)
				}
				panic("boom")
			})); p != "boom" {
				t.Errorf("panicked with %v", p)
			}
			if cut := len(w.deadlines()) > 0; cut != test.cut {
				t.Errorf("cut: %t, want %t", cut, test.cut)
			}
		})
	}
}
