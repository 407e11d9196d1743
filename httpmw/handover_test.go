package httpmw_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/httpmw"
)

// An answer that is written in pieces begins once, and a flush that the writer cannot do is told of.
func TestWithAnswerInPieces(t *testing.T) {
	g, v := newGuard(t)
	v.Deny(device, guard.CodeDeviceRevoked)
	var flushed error
	answer := httpmw.WithAnswer(func(w http.ResponseWriter, _ *http.Request, _ httpmw.Problem) {
		_, _ = io.WriteString(w, "one")
		_, _ = io.WriteString(w, "two")
		flushed = http.NewResponseController(w).Flush()
	})
	for name, cannot := range map[string]bool{"it can flush": false, "it cannot": true} {
		a := newAble()
		var w http.ResponseWriter = a
		want := []string{"WriteHeader", "Write", "Write", "Flush"}
		if cannot {
			w, want = struct{ http.ResponseWriter }{a}, want[:3]
		}
		guarded(g, unreached, answer).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
		if asked := a.was(); !slices.Equal(asked, want) || errors.Is(flushed, http.ErrNotSupported) != cannot {
			t.Errorf("%s: asked for %q, want %q; Flush: %v", name, asked, want, flushed)
		}
	}
}

// unreached is a handler that is not called.
func unreached(http.ResponseWriter, *http.Request) {}

// A body that cannot be had again is none: the transport is told why.
func TestTransport_BodyThatCannotBeHadAgain(t *testing.T) {
	g, _ := newGuard(t)
	own := errors.New("the file is gone")
	rt := httpmw.Transport(g, httpmw.Fixed(device), rtFunc(func(r *http.Request) (*http.Response, error) {
		if body, err := r.GetBody(); body != nil || err != own {
			t.Errorf("%v, %v", body, err)
		}
		return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, r.Body.Close()
	}))
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://a/", closeCounter{strings.NewReader("much"), new(atomic.Int32)})
	r.GetBody = func() (io.ReadCloser, error) { return nil, own }
	if resp, err := rt.RoundTrip(r); err != nil || resp.Body.Close() != nil {
		t.Errorf("%v, %v", resp, err)
	}
}
