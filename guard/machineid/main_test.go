package machineid_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/machineid"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	key    = "org_5Qz0vW-1kTq3.tail9x"
	device = "worker:test:queue-consumer:07"
	allow  = `{"allowed":true,"code":"ALLOW","request_id":"r-1"}`
)

// newClient makes a client for a server on loopback, whose idle connections go with the test.
func newClient(t testing.TB, base string, opts ...machineid.Option) *machineid.Client {
	t.Helper()
	client, err := machineid.New(key, append([]machineid.Option{machineid.WithBaseURL(base)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	return client
}

// serve starts a server that answers every request with h.
func serve(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

// answer is a handler that always says the same, once it has read the request.
func answer(status int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// transport is an http.RoundTripper without sockets.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// canned is a transport that always gives the same answer.
func canned(status int, body []byte) transport {
	return func(r *http.Request) (*http.Response, error) {
		return &http.Response{
			StatusCode:    status,
			Header:        http.Header{},
			Body:          io.NopCloser(strings.NewReader(string(body))),
			ContentLength: int64(len(body)),
			Request:       r,
		}, nil
	}
}

// offline makes a client whose calls reach no socket.
func offline(t testing.TB, rt http.RoundTripper, opts ...machineid.Option) *machineid.Client {
	t.Helper()
	client, err := machineid.New(key, append([]machineid.Option{machineid.WithHTTPClient(&http.Client{Transport: rt})}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// checkUndecided holds what every fault must come to: no permission, SYSTEM_UNAVAILABLE, an
// *Error that says why, and no key in either.
func checkUndecided(t testing.TB, d guard.Decision, err error) {
	t.Helper()
	if d.Allowed || d.Code != guard.CodeSystemUnavailable || d.Reason == "" || d.DeviceID != "" {
		t.Errorf("decision %+v, want SYSTEM_UNAVAILABLE with a reason", d)
	}
	typed := typedError(t, err)
	if !errors.Is(err, guard.ErrUnavailable) || errors.Is(err, guard.ErrDenied) {
		t.Errorf("error %v: must match ErrUnavailable alone", err)
	}
	if typed.Op != "devices/validate" || d.RequestID != typed.RequestID || d.RetryAfter != typed.RetryAfter {
		t.Errorf("error %#v does not fit decision %+v", typed, d)
	}
	checkSecret(t, d, err)
}

func typedError(t testing.TB, err error) *machineid.Error {
	t.Helper()
	var typed *machineid.Error
	if !errors.As(err, &typed) {
		t.Fatalf("%v (%T) is no *Error", err, err)
	}
	return typed
}

// checkSecret looks for the key in everything that can be printed of the values.
func checkSecret(t testing.TB, values ...any) {
	t.Helper()
	for _, value := range values {
		for _, text := range printed(value) {
			if strings.Contains(text, key) || strings.Contains(text, "tail9x") {
				t.Errorf("the key stands in %s", text)
			}
		}
	}
}

// printed returns value in every form that a log could give it.
func printed(value any) []string {
	if value == nil {
		return nil
	}
	var all []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		all = append(all, fmt.Sprintf(verb, value))
	}
	if text, err := json.Marshal(value); err == nil {
		all = append(all, string(text))
	}
	if inside := reflect.ValueOf(value); inside.Kind() == reflect.Pointer && !inside.IsNil() {
		all = append(all, printed(inside.Elem().Interface())...)
	}
	switch wraps := value.(type) {
	case interface{ Unwrap() error }:
		all = append(all, printed(wraps.Unwrap())...)
	case interface{ Unwrap() []error }:
		for _, err := range wraps.Unwrap() {
			all = append(all, printed(err)...)
		}
	}
	return all
}
