package authority_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/authority"
)

// paths are the API's, each with its method.
var paths = map[string]string{
	"devices/validate": "POST", "devices/register": "POST", "devices/revoke": "POST", "devices/unrevoke": "POST",
	"devices/remove": "POST", "devices/revoke_batch": "POST", "devices/unrevoke_batch": "POST",
	"devices/list": "GET", "usage": "GET", "billing/checkout": "POST",
}

// object insists that an answer is one JSON object, sent as such, and returns it.
func object(t *testing.T, rec *httptest.ResponseRecorder) map[string]any {
	t.Helper()
	h := rec.Result().Header
	if h.Get("Content-Type") != "application/json" || h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("headers %v", h)
	}
	var got map[string]any
	if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil {
		t.Fatalf("not a JSON object: %v in %q", err, rec.Body)
	}
	return got
}

// refusal insists on an API error. For validate, that it is a denial as well.
func refusal(t *testing.T, rec *httptest.ResponseRecorder, path string, status int, code string) {
	t.Helper()
	got := object(t, rec)
	if rec.Code != status || got["error"] != code || got["request_id"] == "" || got["request_id"] == nil {
		t.Errorf("%s: %d %v, want %d %s", path, rec.Code, got, status, code)
	}
	if path == "devices/validate" {
		if got["allowed"] != false || got["code"] != "INVALID_DEVICE_ID" {
			t.Errorf("%s: %v is not a denial that says so", path, got)
		}
	} else if got["status"] != "error" || got["handler"] != path {
		t.Errorf("%s: %v", path, got)
	}
}

func TestWrongMethods(t *testing.T) {
	a, _ := newOrganisation(t, authority.PlanFree)
	for path, method := range paths {
		for _, m := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "post"} {
			if m == method {
				continue
			}
			rec := serveOnce(t, a, m, "/api/v1/"+path, `{"deviceId":"agent-01"}`, testKey)
			refusal(t, rec, path, 405, "method_not_allowed")
			if allow := rec.Header().Get("Allow"); allow != method {
				t.Errorf("%s %s: Allow %q, want %q", m, path, allow, method)
			}
		}
	}
}

func TestUnknownPaths(t *testing.T) {
	a, _ := newOrganisation(t, authority.PlanFree)
	for _, path := range []string{
		"/", "/api", "/api/v1", "/api/v1/", "/api/v1/devices", "/api/v1/devices/validate/", "/api/v2/devices/validate",
		"/devices/validate", "//api/v1/devices/validate", "/api/v1/devices/../usage", "/API/V1/usage", "/api/v1/devices/Validate",
		"/favicon.ico",
	} {
		for _, method := range []string{"GET", "POST"} {
			rec := serveOnce(t, a, method, path, "", testKey)
			if got := object(t, rec); rec.Code != 404 || got["error"] != "not_found" || got["status"] != "error" {
				t.Errorf("%s %s: %d %v", method, path, rec.Code, got)
			}
		}
	}
}

func TestContentTypes(t *testing.T) {
	a, org := newOrganisation(t, authority.PlanFree)
	if _, err := org.Register(t.Context(), "agent-01"); err != nil {
		t.Fatal(err)
	}
	for path, method := range paths {
		if method == http.MethodGet {
			continue
		}
		for name, ok := range map[string]bool{
			"": true, "application/json": true, "application/json; charset=utf-8": true, "Application/JSON": true,
			"text/plain": false, "application/x-www-form-urlencoded": false, "multipart/form-data; boundary=x": false,
			"application/jsonp": false, "application/json,": false, ";": false, "application/xml": false,
		} {
			req := httptest.NewRequestWithContext(t.Context(), method, "/api/v1/"+path, strings.NewReader(`{"deviceId":"agent-01"}`))
			req.Header.Set("x-org-key", testKey)
			if name != "" {
				req.Header.Set("Content-Type", name)
			}
			rec := httptest.NewRecorder()
			a.ServeHTTP(rec, req)
			if !ok {
				refusal(t, rec, path, 415, "unsupported_media_type")
			} else if rec.Code == 415 {
				t.Errorf("%s: %q refused", path, name)
			}
		}
	}
}

// A body with two meanings, or none, has no effect.
func TestBodies(t *testing.T) {
	for _, tc := range []struct{ name, body, want string }{
		{"empty", ``, "invalid_json"},
		{"half", `{"deviceId":"agent-01"`, "invalid_json"},
		{"half a string", `{"deviceId":"agent-0`, "invalid_json"},
		{"a comma too many", `{"deviceId":"agent-01",}`, "invalid_json"},
		{"no colon", `{"deviceId" "agent-01"}`, "invalid_json"},
		{"array", `["agent-01"]`, "invalid_json"},
		{"string", `"agent-01"`, "invalid_json"},
		{"number", `1`, "invalid_json"},
		{"null", `null`, "invalid_json"},
		{"not JSON", `deviceId=agent-01`, "invalid_json"},
		{"HTML", `<html></html>`, "invalid_json"},
		{"a second document", `{"deviceId":"agent-01"}{"deviceId":"agent-02"}`, "invalid_json"},
		{"a second document on its own line", "{\"deviceId\":\"agent-01\"}\n{}", "invalid_json"},
		{"rubbish behind", `{"deviceId":"agent-01"}x`, "invalid_json"},
		{"twice", `{"deviceId":"agent-02","deviceId":"agent-01"}`, "invalid_json"},
		{"twice the same", `{"deviceId":"agent-01","deviceId":"agent-01"}`, "invalid_json"},
		{"twice, once null", `{"deviceId":null,"deviceId":"agent-01"}`, "invalid_json"},
		{"number as an id", `{"deviceId":1}`, "invalid_params"},
		{"array as an id", `{"deviceId":["agent-01"]}`, "invalid_params"},
		{"object as an id", `{"deviceId":{"deviceId":"agent-01"}}`, "invalid_params"},
		{"true as an id", `{"deviceId":true}`, "invalid_params"},
		{"null as an id", `{"deviceId":null}`, "missing_params"},
		{"no id", `{}`, "missing_params"},
		{"blank", `{"deviceId":" "}`, "missing_params"},
		{"another case", `{"deviceid":"agent-01"}`, "missing_params"},
		{"snake case", `{"device_id":"agent-01"}`, "missing_params"},
		{"within something else", `{"device":{"deviceId":"agent-01"}}`, "missing_params"},
		{"unknown fields", `{"v":2,"x":{"deviceId":"b"},"deviceId":"agent-01","DeviceId":"c","x":[1,null]}`, ""},
		{"white space", " \r\n\t{ \"deviceId\" : \"agent-01\" } \n\n", ""},
		{"escapes", `{"device\u0049d":"\u0061gent-01"}`, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, org := newOrganisation(t, authority.PlanFree)
			w := world{calls: org}
			w.register(t, "agent-01")
			post := func(path string) *httptest.ResponseRecorder {
				return serveOnce(t, a, "POST", "/api/v1/"+path, tc.body, testKey)
			}
			if rec := post("devices/revoke"); tc.want != "" {
				refusal(t, rec, "devices/revoke", 400, tc.want)
				w.decides(t, "agent-01", guard.CodeAllow)
			} else {
				w.decides(t, "agent-01", guard.CodeDeviceRevoked)
				return
			}
			rec := post("devices/validate")
			if tc.want == "missing_params" { // a readable request about no device is a decision
				if got := object(t, rec); rec.Code != 200 || got["allowed"] != false || got["code"] != "INVALID_DEVICE_ID" {
					t.Errorf("validate: %d %v", rec.Code, got)
				}
				return
			}
			refusal(t, rec, "devices/validate", 400, tc.want)
		})
	}
}

func TestBatchBodies(t *testing.T) {
	for _, tc := range []struct{ name, path, body, want string }{
		{"neither", "devices/revoke_batch", `{}`, "missing_params"},
		{"both", "devices/revoke_batch", `{"deviceIds":["a"],"scope":"all_active"}`, "invalid_params"},
		{"both, an empty list", "devices/revoke_batch", `{"deviceIds":[],"scope":"all_active"}`, "invalid_params"},
		{"the other's scope", "devices/revoke_batch", `{"scope":"all_revoked"}`, "invalid_scope"},
		{"the other's scope", "devices/unrevoke_batch", `{"scope":"all_active"}`, "invalid_scope"},
		{"no scope of ours", "devices/revoke_batch", `{"scope":"ALL_ACTIVE"}`, "invalid_scope"},
		{"a blank scope", "devices/revoke_batch", `{"scope":""}`, "invalid_scope"},
		{"null", "devices/revoke_batch", `{"deviceIds":null}`, "missing_params"},
		{"empty", "devices/unrevoke_batch", `{"deviceIds":[]}`, "missing_params"},
		{"a string", "devices/revoke_batch", `{"deviceIds":"a"}`, "invalid_params"},
		{"numbers", "devices/revoke_batch", `{"deviceIds":[1]}`, "invalid_params"},
		{"the single call's field", "devices/revoke_batch", `{"deviceId":"a"}`, "missing_params"},
		{"twice", "devices/revoke_batch", `{"deviceIds":["a"],"deviceIds":["b"]}`, "invalid_json"},
		{"no plan", "billing/checkout", `{}`, "missing_params"},
		{"no such plan", "billing/checkout", `{"plan":"gold"}`, "invalid_plan"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, org := newOrganisation(t, authority.PlanFree)
			w := world{calls: org}
			w.register(t, "a", "b")
			w.revoke(t, "b")
			refusal(t, serveOnce(t, a, "POST", "/api/v1/"+tc.path, tc.body, testKey), tc.path, 400, tc.want)
			w.decides(t, "a", guard.CodeAllow)
			w.decides(t, "b", guard.CodeDeviceRevoked)
		})
	}
}

func TestBodiesAreBounded(t *testing.T) {
	a, org := newOrganisation(t, authority.PlanMax)
	const limit = 1 << 20
	head, tail := `{"deviceId":"agent-01","x":"`, `"}`
	fits := head + strings.Repeat("x", limit-len(head)-len(tail)) + tail
	if _, err := org.Register(t.Context(), "agent-01"); err != nil {
		t.Fatal(err)
	}
	for path, method := range paths {
		if method == http.MethodGet {
			continue
		}
		if rec := serveOnce(t, a, method, "/api/v1/"+path, fits, testKey); rec.Code == 413 {
			t.Errorf("%s: 1 MiB is refused", path)
		}
		for name, body := range map[string]string{
			"a byte more": fits[:len(fits)-2] + `x"}`, "white space behind": fits + " ", "64 MiB": strings.Repeat("[", 64<<20),
		} {
			want, status := "body_too_large", 413
			if name == "64 MiB" {
				want, status = "invalid_json", 400 // judged by its first byte
			}
			t.Run(path+" "+name, func(t *testing.T) {
				refusal(t, serveOnce(t, a, method, "/api/v1/"+path, body, testKey), path, status, want)
			})
		}
	}
	// The largest batch there can be fits.
	ids := make([]string, 500)
	for i, id := range names("x", 500) {
		ids[i] = id + strings.Repeat("-", 128-len(id))
	}
	body, err := json.Marshal(fields{"deviceIds": ids})
	if err != nil {
		t.Fatal(err)
	}
	if rec := serveOnce(t, a, "POST", "/api/v1/devices/revoke_batch", string(body), testKey); rec.Code != 200 {
		t.Errorf("500 ids of 128 characters: %d", rec.Code)
	}
}

// A request that no server has read may be without a body.
func TestNoBodyAtAll(t *testing.T) {
	a, _ := newOrganisation(t, authority.PlanFree)
	req := &http.Request{Method: http.MethodPost, Header: http.Header{"X-Org-Key": {testKey}}, URL: &url.URL{Path: "/api/v1/devices/validate"}}
	rec := httptest.NewRecorder()
	a.ServeHTTP(rec, req)
	refusal(t, rec, "devices/validate", 400, "invalid_json")
}

// One connection serves call after call, refusals with unread bodies included.
func TestConnectionsAreKept(t *testing.T) {
	a, _ := newOrganisation(t, authority.PlanFree)
	conns := make(chan struct{}, 100)
	srv := httptest.NewUnstartedServer(a)
	srv.Config.ConnState = func(_ netConn, s http.ConnState) {
		if s == http.StateNew {
			conns <- struct{}{}
		}
	}
	srv.Start()
	t.Cleanup(srv.Close)
	c := &overHTTP{client: srv.Client(), base: srv.URL, key: testKey}
	stranger := &overHTTP{client: srv.Client(), base: srv.URL}
	for range 5 {
		if _, err := c.Register(t.Context(), "agent-01"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.List(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := stranger.Validate(t.Context(), "agent-01"); err != nil {
			t.Fatal(err)
		}
		if _, _, _, err := c.send(t.Context(), "POST", "/api/v1/devices/revoke", "application/json", "[]"); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(conns); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// Every word of an error has a status of 400 or more, as errors must.
func TestErrorCodesHaveTheirStatus(t *testing.T) {
	want := map[string]int{
		"invalid_org_key": 401, "org_not_found": 404, "system_unavailable": 503, "missing_params": 400, "invalid_params": 400,
		"invalid_device_id": 400, "invalid_scope": 400, "invalid_plan": 400, "too_many_devices": 400, "invalid_json": 400,
		"not_found": 404, "method_not_allowed": 405, "body_too_large": 413, "unsupported_media_type": 415,
	}
	for _, code := range authority.ErrorCodes() {
		if got := authority.ErrorStatus(code); got != want[code] {
			t.Errorf("%s: %d, want %d", code, got, want[code])
		}
		delete(want, code)
	}
	if len(want) != 0 {
		t.Errorf("not walked: %v", want)
	}
	for status, want := range map[string]int{"ok": 200, "exists": 200, "blocked": 403, "revoked": 403, "not_found": 404} {
		if got := authority.ResultStatus(status); got != want {
			t.Errorf("%s: %d, want %d", status, got, want)
		}
	}
}

// A store that fails is a denial to validate and 503 to everything else, and what it said
// stays inside.
func TestFailingStoreOverHTTP(t *testing.T) {
	store := &faultyStore{Store: authority.NewMemory()}
	a, _ := newOrganisation(t, authority.PlanFree, authority.WithStore(store))
	store.fail(errDisk)
	for path, method := range paths {
		rec := serveOnce(t, a, method, "/api/v1/"+path, `{"deviceId":"agent-01"}`, testKey)
		got := object(t, rec)
		if strings.Contains(rec.Body.String(), "disk") {
			t.Errorf("%s tells what the store said: %s", path, rec.Body)
		}
		if path == "devices/validate" {
			if rec.Code != 200 || got["allowed"] != false || got["code"] != "SYSTEM_UNAVAILABLE" {
				t.Errorf("validate: %d %v", rec.Code, got)
			}
		} else if rec.Code != 503 || got["error"] != "system_unavailable" {
			t.Errorf("%s: %d %v", path, rec.Code, got)
		}
	}
}

// The store fails between the look at the key and the decision.
func TestStoreFailsHalfWay(t *testing.T) {
	store := &faultyStore{Store: authority.NewMemory()}
	a, org := newOrganisation(t, authority.PlanFree, authority.WithStore(store))
	if _, err := org.Register(context.Background(), "agent-01"); err != nil {
		t.Fatal(err)
	}
	store.failAfter(1, errDisk)
	rec := serveOnce(t, a, "POST", "/api/v1/devices/validate", `{"deviceId":"agent-01"}`, testKey)
	if got := object(t, rec); got["allowed"] != false || got["code"] != "SYSTEM_UNAVAILABLE" || got["reason"] == nil {
		t.Errorf("%v", got)
	}
}
