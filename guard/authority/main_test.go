package authority_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"go.uber.org/goleak"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/authority"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testKey is the key of most tests' organisation. secret_test.go looks for it where it must
// not be.
const testKey = "org_7Hq2mXw9TzL4cVbN8rKd"

// calls is the API as a Go interface: *authority.Organisation has it, and overHTTP.
type calls interface {
	guard.Validator
	Register(ctx context.Context, deviceID string) (authority.Result, error)
	Revoke(ctx context.Context, deviceID string) (authority.Result, error)
	Unrevoke(ctx context.Context, deviceID string) (authority.Result, error)
	Remove(ctx context.Context, deviceID string) (authority.Result, error)
	RevokeBatch(ctx context.Context, deviceIDs []string) (authority.RevokeResult, error)
	UnrevokeBatch(ctx context.Context, deviceIDs []string) (authority.UnrevokeResult, error)
	RevokeAllActive(ctx context.Context) (authority.RevokeResult, error)
	UnrevokeAllRevoked(ctx context.Context) (authority.UnrevokeResult, error)
	List(ctx context.Context) (authority.Listing, error)
	Usage(ctx context.Context) (authority.UsageResult, error)
	Checkout(ctx context.Context, plan authority.Plan) (authority.Checkout, error)
}

var (
	_ calls = (*authority.Organisation)(nil)
	_ calls = (*overHTTP)(nil)
)

// world is one authority with one organisation, reached in one of two ways.
type world struct {
	calls
	authority *authority.Authority
	org       *authority.Organisation
	http      *overHTTP // nil in process
}

// eachWay runs a test in process and over HTTP, each time with an organisation of its own.
func eachWay(t *testing.T, plan authority.Plan, test func(t *testing.T, w world), opts ...authority.Option) {
	t.Helper()
	t.Run("in process", func(t *testing.T) {
		a, org := newOrganisation(t, plan, opts...)
		test(t, world{calls: org, authority: a, org: org})
	})
	t.Run("over HTTP", func(t *testing.T) {
		a, org := newOrganisation(t, plan, opts...)
		c := serve(t, a)
		test(t, world{calls: c, authority: a, org: org, http: c})
	})
}

func newOrganisation(t *testing.T, plan authority.Plan, opts ...authority.Option) (*authority.Authority, *authority.Organisation) {
	t.Helper()
	a, err := authority.New(opts...)
	if err != nil {
		t.Fatal(err)
	}
	org, err := a.AddOrganisation(t.Context(), testKey, plan)
	if err != nil {
		t.Fatal(err)
	}
	return a, org
}

// serve puts an authority on a loopback port until the test ends.
func serve(t *testing.T, a *authority.Authority) *overHTTP {
	t.Helper()
	srv := httptest.NewServer(a)
	t.Cleanup(srv.Close)
	return &overHTTP{client: srv.Client(), base: srv.URL, key: testKey}
}

// overHTTP asks as any client would. An answer that is an API error becomes an *apiError.
type overHTTP struct {
	client    *http.Client
	base, key string
}

type apiError struct {
	status int
	code   string
}

func (e *apiError) Error() string { return e.code }

// send returns the status, the headers and the body of one call.
func (c *overHTTP) send(ctx context.Context, method, path, contentType, body string) (int, http.Header, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader([]byte(body)))
	if err != nil {
		return 0, nil, nil, err
	}
	if c.key != "" {
		req.Header.Set("x-org-key", c.key)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, text, err
}

// ask makes a call with a JSON body (none for nil) and decodes the answer into out.
func (c *overHTTP) ask(ctx context.Context, path string, in, out any) error {
	method, contentType, body := http.MethodGet, "", ""
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		method, contentType, body = http.MethodPost, "application/json", string(text)
	}
	status, _, text, err := c.send(ctx, method, "/api/v1/"+path, contentType, body)
	if err != nil {
		return err
	}
	var failure struct{ Status, Error string }
	if err := json.Unmarshal(text, &failure); err != nil {
		return err
	}
	if failure.Status == "error" {
		return &apiError{status: status, code: failure.Error}
	}
	return json.Unmarshal(text, out)
}

type fields map[string]any

func (c *overHTTP) Validate(ctx context.Context, id string) (guard.Decision, error) {
	var v struct {
		Allowed   bool       `json:"allowed"`
		Code      guard.Code `json:"code"`
		RequestID string     `json:"request_id"`
		DeviceID  string     `json:"deviceId"`
		Reason    string     `json:"reason"`
	}
	err := c.ask(ctx, "devices/validate", fields{"deviceId": id}, &v)
	return guard.Decision{Allowed: v.Allowed, Code: v.Code, RequestID: v.RequestID, DeviceID: v.DeviceID, Reason: v.Reason}, err
}

func (c *overHTTP) onDevice(ctx context.Context, path, id string) (r authority.Result, err error) {
	err = c.ask(ctx, path, fields{"deviceId": id}, &r)
	return r, err
}

func (c *overHTTP) Register(ctx context.Context, id string) (authority.Result, error) {
	return c.onDevice(ctx, "devices/register", id)
}

func (c *overHTTP) Revoke(ctx context.Context, id string) (authority.Result, error) {
	return c.onDevice(ctx, "devices/revoke", id)
}

func (c *overHTTP) Unrevoke(ctx context.Context, id string) (authority.Result, error) {
	return c.onDevice(ctx, "devices/unrevoke", id)
}

func (c *overHTTP) Remove(ctx context.Context, id string) (authority.Result, error) {
	return c.onDevice(ctx, "devices/remove", id)
}

func (c *overHTTP) RevokeBatch(ctx context.Context, ids []string) (r authority.RevokeResult, err error) {
	err = c.ask(ctx, "devices/revoke_batch", fields{"deviceIds": ids}, &r)
	return r, err
}

func (c *overHTTP) UnrevokeBatch(ctx context.Context, ids []string) (r authority.UnrevokeResult, err error) {
	err = c.ask(ctx, "devices/unrevoke_batch", fields{"deviceIds": ids}, &r)
	return r, err
}

func (c *overHTTP) RevokeAllActive(ctx context.Context) (r authority.RevokeResult, err error) {
	err = c.ask(ctx, "devices/revoke_batch", fields{"scope": "all_active"}, &r)
	return r, err
}

func (c *overHTTP) UnrevokeAllRevoked(ctx context.Context) (r authority.UnrevokeResult, err error) {
	err = c.ask(ctx, "devices/unrevoke_batch", fields{"scope": "all_revoked"}, &r)
	return r, err
}

func (c *overHTTP) List(ctx context.Context) (r authority.Listing, err error) {
	err = c.ask(ctx, "devices/list", nil, &r)
	return r, err
}

func (c *overHTTP) Usage(ctx context.Context) (r authority.UsageResult, err error) {
	err = c.ask(ctx, "usage", nil, &r)
	return r, err
}

func (c *overHTTP) Checkout(ctx context.Context, plan authority.Plan) (r authority.Checkout, err error) {
	err = c.ask(ctx, "billing/checkout", fields{"plan": plan}, &r)
	return r, err
}

// errorCode is the API's word in an error of either way; "" for none.
func errorCode(t *testing.T, err error) string {
	t.Helper()
	var own *authority.Error
	var api *apiError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &own):
		return own.Code
	case errors.As(err, &api):
		return api.code
	}
	t.Fatalf("not an error of the API: %v", err)
	return ""
}

// register adds devices and insists that each is new.
func (w world) register(t *testing.T, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if r, err := w.Register(t.Context(), id); err != nil || r.Status != "ok" {
			t.Fatalf("register %s: %q, %v", id, r.Status, err)
		}
	}
}

// revoke revokes devices one by one.
func (w world) revoke(t *testing.T, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if r, err := w.Revoke(t.Context(), id); err != nil || r.Status != "ok" {
			t.Fatalf("revoke %s: %q, %v", id, r.Status, err)
		}
	}
}

// decides insists on a decision's code and on what must hold for any decision.
func (w world) decides(t *testing.T, id string, want guard.Code) guard.Decision {
	t.Helper()
	d, err := w.Validate(t.Context(), id)
	if err != nil {
		t.Fatalf("validate %q: %v", id, err)
	}
	if d.Code != want || d.Allowed != (want == guard.CodeAllow) {
		t.Fatalf("validate %q = %v %s, want %s", id, d.Allowed, d.Code, want)
	}
	return d
}
