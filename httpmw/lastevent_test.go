package httpmw_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/execguard/execguard/httpmw"
)

// slowFlush has delivered everything when it is still inside FlushError.
type slowFlush struct {
	*httptest.ResponseRecorder
	inside, resume chan struct{}
	released       chan time.Time // the deadlines that were set
	flushes        int
}

func (s *slowFlush) FlushError() error {
	if s.flushes++; s.flushes == 1 {
		close(s.inside)
		<-s.resume
	}
	return nil // all was written
}

func (s *slowFlush) Flush() { _ = s.FlushError() }

func (s *slowFlush) SetWriteDeadline(at time.Time) error {
	select {
	case s.released <- at:
	default:
	}
	return nil
}

// A client that has read an event and is revoked at once finds the handler in the flush of that very
// event: it is not half an event that a last one would follow.
func TestLastEventAfterAFlushThatSucceededDuringTheDenial(t *testing.T) {
	g, v := newGuard(t)
	h := guarded(g, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: one\n\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}, httpmw.WithLastEvent(func(p httpmw.Problem) []byte { return []byte("data: " + p.Code + "\n\n") }))
	w := &slowFlush{
		ResponseRecorder: httptest.NewRecorder(),
		inside:           make(chan struct{}), resume: make(chan struct{}), released: make(chan time.Time, 1),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { _ = recover() }() // http.ErrAbortHandler
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	}()
	await(t, "the flush", w.inside)
	revoke(t, g, v)
	if at := await(t, "the release", w.released); time.Until(at) <= 0 || time.Until(at) > time.Second {
		t.Errorf("the flush was given until %v", at)
	}
	close(w.resume)
	await(t, "the handler", done)
	if !strings.HasSuffix(w.Body.String(), "data: DEVICE_REVOKED\n\n") {
		t.Errorf("no last event: %q", w.Body)
	}
}
