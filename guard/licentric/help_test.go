package licentric_test

import (
	"bytes"
	"context"
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
	"github.com/execguard/execguard/guard/licentric"
	"github.com/execguard/execguard/internal/licentricserver"
)

// The keys have tails of their own, so that a part of one is found too.
const (
	apiKey     = "lk_test_5Qz0vW-1kTq3.tail9x"
	licenseKey = "LIC-7Yp2-0nB5/tail7y"
	device     = "fp:worker:test:07"
	machineID  = "5f0c7a52-9d0e-4c1b-8d1e-3f6a0e2b7c41"
	licenseID  = "0c9be1d7-5b1b-4f0a-9a57-64f1f3b8a2de"

	machineJSON = `{"id":"` + machineID + `","licenseId":"` + licenseID + `","fingerprint":"` + device + `"}`
	valid       = `{"valid":true,"code":"VALID","license":{"id":"` + licenseID + `"},"machine":` + machineJSON + `,"entitlements":["pro","sso"]}`
)

// newClient makes a client for a server on loopback, which is closed with the test.
func newClient(t testing.TB, base string, opts ...licentric.Option) *licentric.Client {
	t.Helper()
	client, err := licentric.New(apiKey, append([]licentric.Option{licentric.WithBaseURL(base)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { checkClosed(t, client) })
	return client
}

func checkClosed(t testing.TB, client *licentric.Client) {
	t.Helper()
	if err := client.Close(); err != nil {
		t.Error(err)
	}
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

// response is an answer to r.
func response(r *http.Request, status int, body []byte) *http.Response {
	return &http.Response{
		StatusCode:    status,
		Header:        http.Header{},
		Body:          io.NopCloser(bytes.NewReader(body)),
		ContentLength: int64(len(body)),
		Request:       r,
	}
}

// canned is a transport that always gives the same answer.
func canned(status int, body []byte) transport {
	return func(r *http.Request) (*http.Response, error) { return response(r, status, body), nil }
}

// handled is a transport that calls a handler in process, as a server would with its own context.
func handled(h http.Handler) transport {
	return func(r *http.Request) (*http.Response, error) {
		if err := r.Context().Err(); err != nil {
			return nil, context.Cause(r.Context())
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r.Clone(context.WithoutCancel(r.Context())))
		return w.Result(), nil
	}
}

// offsocket makes a client whose calls reach no socket.
func offsocket(t testing.TB, key string, rt http.RoundTripper, opts ...licentric.Option) *licentric.Client {
	t.Helper()
	client, err := licentric.New(key, append([]licentric.Option{licentric.WithHTTPClient(&http.Client{Transport: rt})}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// local starts a local service with one licence, active on the device, and a client for it.
func local(t testing.TB, opts ...licentricserver.Option) (*licentricserver.Server, licentricserver.License, *licentric.Client) {
	t.Helper()
	srv, err := licentricserver.Start(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
	})
	license := licensed(t, srv.Service, licentricserver.License{Key: licenseKey}, device)
	client, err := licentric.New(srv.APIKey(), licentric.WithBaseURL(srv.URL()), licentric.WithHTTPClient(srv.Client()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { checkClosed(t, client) })
	return srv, license, client
}

// licensed adds a licence that is active on the devices.
func licensed(t testing.TB, service *licentricserver.Service, l licentricserver.License, devices ...string) licentricserver.License {
	t.Helper()
	license, err := service.AddLicense(l)
	if err != nil {
		t.Fatal(err)
	}
	for _, fingerprint := range devices {
		if _, err := service.AddMachine(license.ID, fingerprint); err != nil {
			t.Fatal(err)
		}
	}
	return license
}

// checkUndecided holds what every fault must come to: no permission, SYSTEM_UNAVAILABLE, an
// *Error that says why, and no key in either.
func checkUndecided(t testing.TB, d guard.Decision, err error) {
	t.Helper()
	if d.Allowed || d.Code != guard.CodeSystemUnavailable || d.Reason == "" || d.DeviceID != "" || !d.ExpiresAt.IsZero() {
		t.Errorf("decision %+v, want SYSTEM_UNAVAILABLE with a reason", d)
	}
	typed := typedError(t, err)
	if !errors.Is(err, guard.ErrUnavailable) || errors.Is(err, guard.ErrDenied) {
		t.Errorf("error %v: must match ErrUnavailable alone", err)
	}
	if typed.Op != "validate" || d.RequestID != typed.RequestID || d.RetryAfter != typed.RetryAfter {
		t.Errorf("error %#v does not fit decision %+v", typed, d)
	}
	checkSecret(t, d, err)
}

func typedError(t testing.TB, err error) *licentric.Error {
	t.Helper()
	var typed *licentric.Error
	if !errors.As(err, &typed) {
		t.Fatalf("%v (%T) is no *Error", err, err)
	}
	return typed
}

// checkSecret looks for the keys in everything that can be printed of the values.
func checkSecret(t testing.TB, values ...any) {
	t.Helper()
	for _, value := range values {
		for _, text := range printed(value) {
			for _, secret := range []string{"tail9x", "tail7y"} {
				if strings.Contains(text, secret) {
					t.Errorf("a key stands in %s", text)
				}
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
	inside := reflect.ValueOf(value)
	if inside.Kind() == reflect.Pointer && !inside.IsNil() {
		all = append(all, printed(inside.Elem().Interface())...)
	}
	if inside.Kind() == reflect.Slice && inside.Type().Elem().Kind() == reflect.Uint8 {
		all = append(all, string(inside.Bytes()))
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

// calls is every call of the client, each giving all that it returns.
var calls = map[string]func(context.Context, *licentric.Client) (any, error){
	"validate": func(ctx context.Context, c *licentric.Client) (any, error) {
		return two(c.Validate(ctx, licenseKey, licentric.ValidateParams{Fingerprint: device, Entitlements: []string{"pro"}}))
	},
	"activate": func(ctx context.Context, c *licentric.Client) (any, error) {
		return two(c.Activate(ctx, licenseKey, licentric.Activation{
			Fingerprint: device, Name: "a <b> & c", Platform: "linux", Hostname: "h-1", Cores: 8, Metadata: map[string]any{"rack": 7},
		}))
	},
	"deactivate": func(ctx context.Context, c *licentric.Client) (any, error) {
		return nil, c.Deactivate(ctx, licenseKey, machineID)
	},
	"heartbeat": func(ctx context.Context, c *licentric.Client) (any, error) {
		return two(c.Heartbeat(ctx, licenseKey, machineID))
	},
	"checkout": func(ctx context.Context, c *licentric.Client) (any, error) {
		return two(c.Checkout(ctx, licenseID, licentric.CheckoutParams{Fingerprint: device, TTL: 3600_000_000_000}))
	},
	"machines": func(ctx context.Context, c *licentric.Client) (any, error) {
		return two(collect(c, ctx, licentric.MachinesParams{LicenseID: licenseID}))
	},
	"machine": func(ctx context.Context, c *licentric.Client) (any, error) { return two(c.Machine(ctx, machineID)) },
}

func two[T any](result T, err error) (any, error) { return result, err }

// collect takes all that a list gives.
func collect(c *licentric.Client, ctx context.Context, params licentric.MachinesParams) (all []licentric.Machine, failed error) {
	for m, err := range c.Machines(ctx, params) {
		if err != nil {
			return all, err
		}
		all = append(all, m)
	}
	return all, nil
}
