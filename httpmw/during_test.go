package httpmw_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/httpmw"
)

// during is a timed writer during whose calls something happens.
type during struct {
	*timed

	header, write func()
}

func (w during) WriteHeader(status int) {
	w.header()
	w.timed.WriteHeader(status)
}

func (w during) Write(p []byte) (int, error) {
	w.write()
	return w.timed.Write(p)
}

// A header may block as a write does, where the writer is not net/http's of HTTP/1.1: it is released.
func TestBlockedWriteHeaderIsReleased(t *testing.T) {
	g, v := newGuard(t)
	w := during{timed: newTimed(), write: func() {}}
	w.header = func() {
		revoke(t, g, v)
		if what := await(t, "the release", w.set); what != "write" {
			t.Errorf("released by the deadline of the %ss", what)
		}
	}
	defer func() {
		if p := recover(); p != http.ErrAbortHandler {
			t.Errorf("panicked with %v", p)
		}
	}()
	guarded(g, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK)
	}).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
}

// A read that comes out with something after the denial hands nothing on, also where no deadline has released it.
func TestReadThatComesOutAfterTheDenial(t *testing.T) {
	g, v := newGuard(t)
	body := readerFunc(func(p []byte) (int, error) {
		revoke(t, g, v)
		return copy(p, "late"), nil
	})
	guarded(g, func(_ http.ResponseWriter, r *http.Request) {
		n, err := r.Body.Read(make([]byte, 10))
		if n != 0 {
			t.Errorf("%d bytes were handed on", n)
		}
		wantDenied(t, err, guard.CodeDeviceRevoked)
	}).ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", body))
}

// An event that is on its way when the denial comes has its second, however often what blocks is released again.
func TestAnEventOnItsWayHasItsSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, v := newGuard(t)
		w := during{timed: newTimed(), header: func() {}}
		var denied time.Time
		w.write = func() {
			if denied.IsZero() {
				denied = time.Now()
				revoke(t, g, v)
				time.Sleep(time.Second - time.Millisecond)
				for _, at := range w.deadlines() {
					if at.Sub(denied) != time.Second {
						t.Errorf("it was given until %v after the denial", at.Sub(denied))
					}
				}
			}
		}
		defer func() {
			if p := recover(); p != http.ErrAbortHandler {
				t.Errorf("panicked with %v", p)
			}
			if got := w.recorder.Body.String(); got != "data: one\n\ndata: DEVICE_REVOKED\n\n" {
				t.Errorf("answer = %q", got)
			}
			_ = g.Close()
			time.Sleep(2 * time.Second) // what releases looks once more, and finds nothing
		}()
		guarded(g, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(w, "data: one\n\n")
		}, withLastEvent()).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	})
}

// around is a middleware's writer, whose type says nothing of what it can do.
type around struct{ http.ResponseWriter }

func (a around) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// What a writer can do that unwraps to another is looked at each time: one type may stand around several.
func TestWriterOfOneTypeAroundOthers(t *testing.T) {
	g, _ := newGuard(t)
	for _, hijacks := range []bool{true, false, true} {
		w := around{httptest.NewRecorder()}
		if hijacks {
			w = around{newAble()}
		}
		inside(t, g, w, func(w http.ResponseWriter, _ *http.Request) {
			if _, ok := w.(http.Hijacker); ok != hijacks {
				t.Errorf("it hijacks: %t, want %t", ok, hijacks)
			}
		})
	}
}

// The body of a request is closed once, however often a transport does.
func TestTransport_UploadIsClosedOnce(t *testing.T) {
	g, _ := newGuard(t)
	n := new(atomic.Int32)
	rt := httpmw.Transport(g, httpmw.Fixed(device), rtFunc(func(r *http.Request) (*http.Response, error) {
		_, _ = r.Body.Close(), r.Body.Close()
		return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
	}))
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://a/", closeCounter{strings.NewReader("much"), n})
	if resp, err := rt.RoundTrip(r); err != nil || resp.Body.Close() != nil {
		t.Errorf("%v, %v", resp, err)
	}
	if n.Load() != 1 {
		t.Errorf("it was closed %d times", n.Load())
	}
}
