package httpmw_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/httpmw"
)

// A proxy copies an answer from a guarded transport to a guarded writer. The transport's device is stopped because
// the connection to the authority broke, which net/http calls io.EOF: the copy must not look finished.
func TestCopyOfAStoppedAnswer(t *testing.T) {
	var broken atomic.Bool
	outer, err := guard.New(guard.ValidatorFunc(func(context.Context, string) (guard.Decision, error) {
		return guard.Decision{Allowed: true, Code: guard.CodeAllow, RequestID: "1"}, nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer outer.Close()
	inner, err := guard.New(guard.ValidatorFunc(func(context.Context, string) (guard.Decision, error) {
		if broken.Load() {
			return guard.Decision{}, fmt.Errorf("Post \"https://authority/devices/validate\": %w", io.EOF)
		}
		return guard.Decision{Allowed: true, Code: guard.CodeAllow, RequestID: "2"}, nil
	}), guard.WithInterval(100*time.Millisecond), guard.WithTimeout(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		broken.Store(true)
		<-r.Context().Done() // the answer never comes
	}))
	defer backend.Close()
	client := &http.Client{Transport: httpmw.Transport(inner, httpmw.Fixed("backend"), nil)}
	copied := make(chan error, 1)
	proxy := httptest.NewServer(httpmw.New(outer, httpmw.Fixed("proxy"))(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q, _ := http.NewRequestWithContext(r.Context(), http.MethodGet, backend.URL, http.NoBody)
		answer, err := client.Do(q)
		if err != nil {
			copied <- err
			return
		}
		defer answer.Body.Close()
		_, err = io.Copy(w, answer.Body)
		copied <- err
	})))
	defer proxy.Close()
	q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, proxy.URL, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(q)
	if err == nil {
		answer.Body.Close()
	}
	if err := <-copied; !errors.Is(err, guard.ErrDenied) {
		t.Errorf("the copy of an answer that was cut short returned %v", err)
	}
}

// cutShort is a source that breaks off, which is an io.EOF to whoever looks inside its error and to nobody else.
type cutShort struct{}

func (cutShort) Read([]byte) (int, error) { return 0, fmt.Errorf("half a record: %w", io.EOF) }

// What breaks off in the handler's own source is no good end of the answer either.
func TestCopyOfASourceThatBreaksOff(t *testing.T) {
	g, err := guard.New(guard.ValidatorFunc(func(context.Context, string) (guard.Decision, error) {
		return guard.Decision{Allowed: true, Code: guard.CodeAllow, RequestID: "1"}, nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	copied := make(chan error, 1)
	srv := httptest.NewServer(httpmw.New(g, httpmw.Fixed("d"))(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, err := io.Copy(w, cutShort{})
		copied <- err
	})))
	defer srv.Close()
	q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if err := <-copied; err == nil {
		t.Error("the copy of a source that breaks off looks finished")
	}
}
