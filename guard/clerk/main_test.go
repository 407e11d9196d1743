package clerk_test

import (
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
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/clerk"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	key     = "sk_test_5Qz0vW1kTq3tail9x"
	ours    = "mch_ours0123456789"
	theirs  = "mch_theirs987"
	other   = "mch_other555"
	opaque  = "mt_opaqueToken000111222333tail8y"
	tokenID = "mt_0123456789abcdef0123456789abcdef"
	machine = "ak_machineSecret4444tail7z"
	trace   = "0123456789abcdef"
)

// aMachine is theirs, which may act on ours.
const aMachine = `{"object":"machine","id":"` + theirs + `","name":"worker","instance_id":"ins_1","created_at":1700000000000,` +
	`"updated_at":1700000001000,"default_token_ttl":3600,"scoped_machines":[` +
	`{"object":"machine","id":"` + ours + `","name":"api","instance_id":"ins_1","created_at":1700000000000,` +
	`"updated_at":1700000001000,"default_token_ttl":60}]}`

// aToken is good for ours until end, in milliseconds or null.
func aToken(end string) string {
	return `{"object":"machine_to_machine_token","id":"` + tokenID + `","subject":"` + theirs + `","scopes":["` + ours +
		`"],"claims":{"role":"reader"},"revoked":false,"revocation_reason":null,"expired":false,"expiration":` + end +
		`,"created_at":1700000000000,"updated_at":1700000000000}`
}

// later is an expiration that no test lives to see.
const later = "4102444800000"

// refusalOf is an error in Clerk's form.
func refusalOf(code string) string {
	return `{"errors":[{"message":"msg","long_message":"A long message.","code":"` + code +
		`","meta":{"param_name":"p"}}],"clerk_trace_id":"` + trace + `"}`
}

// transport is an http.RoundTripper without sockets.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// reply makes an answer that comes at once.
func reply(r *http.Request, status int, body string, header ...string) *http.Response {
	h := http.Header{"Content-Type": {"application/json"}}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{
		StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: r,
	}
}

// canned is a transport that always gives the same answer.
func canned(status int, body string, header ...string) transport {
	return func(r *http.Request) (*http.Response, error) { return reply(r, status, body, header...), nil }
}

// newClient makes a client whose connections go with the test.
func newClient(t testing.TB, opts ...clerk.Option) *clerk.Client {
	t.Helper()
	client, err := clerk.New(key, append([]clerk.Option{clerk.WithMachineID(ours)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// offline makes a client whose calls reach no socket.
func offline(t testing.TB, rt http.RoundTripper, opts ...clerk.Option) *clerk.Client {
	t.Helper()
	return newClient(t, append([]clerk.Option{clerk.WithHTTPClient(&http.Client{Transport: rt})}, opts...)...)
}

// serve starts a server that answers every request with h.
func serve(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

// call is one call of the client, giving all that it returns.
type call struct {
	reads bool
	do    func(context.Context, *clerk.Client) (any, error)
}

func calls() map[string]call {
	return map[string]call{
		"list": {true, func(ctx context.Context, c *clerk.Client) (any, error) {
			return collect(c.List(ctx, clerk.ListParams{}))
		}},
		"create": {false, func(ctx context.Context, c *clerk.Client) (any, error) {
			return two(c.Create(ctx, clerk.CreateParams{Name: "worker"}))
		}},
		"get": {true, func(ctx context.Context, c *clerk.Client) (any, error) { return two(c.Get(ctx, theirs)) }},
		"update": {false, func(ctx context.Context, c *clerk.Client) (any, error) {
			return two(c.Update(ctx, theirs, clerk.UpdateParams{Name: "worker"}))
		}},
		"delete":     {false, func(ctx context.Context, c *clerk.Client) (any, error) { return nil, c.Delete(ctx, theirs) }},
		"secret key": {true, func(ctx context.Context, c *clerk.Client) (any, error) { return two(c.SecretKey(ctx, theirs)) }},
		"rotate": {false, func(ctx context.Context, c *clerk.Client) (any, error) {
			return two(c.RotateSecretKey(ctx, theirs, time.Hour))
		}},
		"add scope":    {false, func(ctx context.Context, c *clerk.Client) (any, error) { return two(c.AddScope(ctx, theirs, ours)) }},
		"remove scope": {false, func(ctx context.Context, c *clerk.Client) (any, error) { return nil, c.RemoveScope(ctx, theirs, ours) }},
		"create token": {false, func(ctx context.Context, c *clerk.Client) (any, error) {
			return two(c.CreateToken(ctx, machine, clerk.TokenParams{}))
		}},
		"verify token": {true, func(ctx context.Context, c *clerk.Client) (any, error) { return two(c.VerifyToken(ctx, opaque)) }},
		"revoke token": {false, func(ctx context.Context, c *clerk.Client) (any, error) {
			return two(c.RevokeToken(ctx, tokenID, "lost"))
		}},
		"machine": {true, func(ctx context.Context, c *clerk.Client) (any, error) { return two(c.VerifyMachine(ctx, opaque)) }},
	}
}

func two[T any](result T, err error) (any, error) { return result, err }

// collect walks to the end.
func collect(walk func(func(clerk.Machine, error) bool)) ([]clerk.Machine, error) {
	var all []clerk.Machine
	for m, err := range walk {
		if err != nil {
			return all, err
		}
		all = append(all, m)
	}
	return all, nil
}

// success is what each call is answered when all is well.
func success(name string) string {
	switch name {
	case "list":
		return `{"data":[` + aMachine + `],"total_count":1}`
	case "create":
		return strings.TrimSuffix(aMachine, "}") + `,"secret_key":"` + machine + `"}`
	case "delete":
		return `{"object":"machine","id":"` + theirs + `","deleted":true}`
	case "secret key", "rotate":
		return `{"object":"machine_secret_key","secret":"` + machine + `"}`
	case "add scope":
		return `{"object":"machine_scope","from_machine_id":"` + theirs + `","to_machine_id":"` + ours + `","created_at":1700000000000}`
	case "remove scope":
		return `{"object":"machine_scope","from_machine_id":"` + theirs + `","to_machine_id":"` + ours + `","deleted":true}`
	case "create token":
		return strings.TrimSuffix(aToken(later), "}") + `,"token":"` + opaque + `"}`
	case "revoke token":
		return strings.Replace(aToken(later), `"revoked":false`, `"revoked":true`, 1)
	case "verify token", "machine":
		return aToken(later)
	}
	return aMachine
}

func wantError[E error](t testing.TB, err error) E {
	t.Helper()
	var typed E
	if !errors.As(err, &typed) {
		t.Fatalf("%v (%T) is no %T", err, err, typed)
	}
	return typed
}

// wantUndecided holds a decision to what every failure to ask must come to.
func wantUndecided(t testing.TB, d guard.Decision, err error) {
	t.Helper()
	if d.Allowed || d.Code != guard.CodeSystemUnavailable || d.Reason == "" || d.DeviceID != "" {
		t.Errorf("decision %+v, want SYSTEM_UNAVAILABLE with a reason", d)
	}
	if !errors.Is(err, guard.ErrUnavailable) || errors.Is(err, guard.ErrDenied) {
		t.Errorf("error %v: must match ErrUnavailable alone", err)
	}
	wantNoSecret(t, d, err)
}

// wantNoSecret looks for keys and tokens in everything that can be printed of the values.
func wantNoSecret(t testing.TB, values ...any) {
	t.Helper()
	for _, value := range values {
		for _, text := range printed(value) {
			for _, tail := range []string{"tail9x", "tail8y", "tail7z"} {
				if strings.Contains(text, tail) {
					t.Errorf("a secret stands in %s", text)
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
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
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
