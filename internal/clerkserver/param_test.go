package clerkserver_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/execguard/execguard/internal/clerkserver"
)

// TestParametersAreJudged walks what can be wrong with a request whose key is right, and a
// little of what is just right.
func TestParametersAreJudged(t *testing.T) {
	long, longest := strings.Repeat("ä", 256), strings.Repeat("ä", 255)
	for _, test := range []struct {
		method, path, body string
		status             int
		param              string // named in meta, for machines
	}{
		{"POST", "/machines", `{}`, 422, "name"},
		{"POST", "/machines", `{"name":""}`, 422, "name"},
		{"POST", "/machines", `{"name":null}`, 422, "name"},
		{"POST", "/machines", `{"name":1}`, 422, "name"},
		{"POST", "/machines", `{"name":"` + long + `"}`, 422, "name"},
		{"POST", "/machines", `{"name":"` + longest + `"}`, 200, ""},
		{"POST", "/machines", `{"Name":"x"}`, 422, "Name"},
		{"POST", "/machines", `{"name":"x","more":1}`, 422, "more"},
		{"POST", "/machines", `{"name":"x","default_token_ttl":0}`, 422, "default_token_ttl"},
		{"POST", "/machines", `{"name":"x","default_token_ttl":315360001}`, 422, "default_token_ttl"},
		{"POST", "/machines", `{"name":"x","default_token_ttl":315360000}`, 200, ""},
		{"POST", "/machines", `{"name":"x","default_token_ttl":1}`, 200, ""},
		{"POST", "/machines", `{"name":"x","default_token_ttl":"1"}`, 422, "default_token_ttl"},
		{"POST", "/machines", `{"name":"x","default_token_ttl":1.5}`, 422, "default_token_ttl"},
		{"POST", "/machines", `{"name":"x","default_token_ttl":null}`, 422, "default_token_ttl"},
		{"POST", "/machines", `{"name":"x","scoped_machines":["mch_nobody"]}`, 422, "scoped_machines"},
		{"POST", "/machines", `{"name":"x","scoped_machines":"TWO"}`, 422, "scoped_machines"},
		{"POST", "/machines", `{"name":"x","scoped_machines":[null]}`, 422, "scoped_machines"},
		{"POST", "/machines", `{"name":"x","scoped_machines":null}`, 422, "scoped_machines"},
		{"POST", "/machines", `{"name":"x","scoped_machines":[]}`, 200, ""},
		{"POST", "/machines", ``, 400, ""},
		{"POST", "/machines", `null`, 400, ""},
		{"POST", "/machines", `[]`, 400, ""},
		{"POST", "/machines", `{"name":"x"`, 400, ""},
		{"POST", "/machines", `{"name":"x"}{}`, 400, ""},
		{"POST", "/machines", `{"name":"` + strings.Repeat("x", 1<<20) + `"}`, 413, ""},
		{"PATCH", "/machines/ONE", `{"name":""}`, 422, "name"},
		{"PATCH", "/machines/ONE", `{"default_token_ttl":0}`, 422, "default_token_ttl"},
		{"PATCH", "/machines/ONE", `{"scoped_machines":[]}`, 422, "scoped_machines"},
		{"PATCH", "/machines/mch_nobody", `{"name":""}`, 404, ""},
		{"GET", "/machines?limit=0", ``, 422, "limit"},
		{"GET", "/machines?limit=501", ``, 422, "limit"},
		{"GET", "/machines?limit=500", ``, 200, ""},
		{"GET", "/machines?limit=x", ``, 422, "limit"},
		{"GET", "/machines?offset=-1", ``, 422, "offset"},
		{"GET", "/machines?order_by=updated_at", ``, 422, "order_by"},
		{"GET", "/machines?order_by=+name", ``, 200, ""},
		{"GET", "/machines?order_by=%2Bname", ``, 200, ""},
		{"POST", "/machines/ONE/secret_key/rotate", `{}`, 422, "previous_token_ttl"},
		{"POST", "/machines/ONE/secret_key/rotate", `{"previous_token_ttl":-1}`, 422, "previous_token_ttl"},
		{"POST", "/machines/ONE/secret_key/rotate", `{"previous_token_ttl":28801}`, 422, "previous_token_ttl"},
		{"POST", "/machines/ONE/secret_key/rotate", `{"previous_token_ttl":28800}`, 200, ""},
		{"POST", "/machines/ONE/secret_key/rotate", `{"previous_token_ttl":1,"x":1}`, 422, "x"},
		{"POST", "/machines/ONE/scopes", `{}`, 422, "to_machine_id"},
		{"POST", "/machines/ONE/scopes", `{"to_machine_id":1}`, 422, "to_machine_id"},
		{"POST", "/machines/ONE/scopes", `{"to_machine_id":"TWO","x":1}`, 422, "x"},
		{"DELETE", "/machines/ONE/scopes/TWO", `null`, 200, ""},
		{"DELETE", "/machines/ONE/scopes/TWO", `{}`, 200, ""},
		{"DELETE", "/machines/ONE", `{"x":1}`, 400, ""},
		{"DELETE", "/machines/ONE", "null", 200, ""},
		{"GET", "/m2m_tokens", ``, 400, ""},
		{"GET", "/m2m_tokens?subject=one", ``, 400, ""},
		{"GET", "/m2m_tokens?subject=ONE&limit=101", ``, 400, ""},
		{"GET", "/m2m_tokens?subject=ONE&limit=100", ``, 200, ""},
		{"GET", "/m2m_tokens?subject=ONE&offset=x", ``, 400, ""},
		{"GET", "/m2m_tokens?subject=ONE&revoked=1", ``, 400, ""},
		{"GET", "/m2m_tokens?subject=ONE&expired=yes", ``, 400, ""},
		{"POST", "/m2m_tokens/verify", `{}`, 400, ""},
		{"POST", "/m2m_tokens/verify", `{"token":null}`, 400, ""},
		{"POST", "/m2m_tokens/verify", `{"token":"TOKEN","x":1}`, 400, ""},
		{"POST", "/m2m_tokens/verify", `{"token":""}`, 404, ""},
		{"POST", "/m2m_tokens/mt_1/revoke", `{}`, 400, ""},
		{"POST", "/m2m_tokens/ID/revoke", `{"revocation_reason":1}`, 400, ""},
		{"POST", "/m2m_tokens/ID/revoke", `{"reason":"x"}`, 400, ""},
		{"POST", "/m2m_tokens/ID/revoke", `{"revocation_reason":null}`, 200, ""},
		{"GET", "/machines/", ``, 404, ""},
		{"GET", "/machines//secret_key", ``, 404, ""},
		{"GET", "/machines/../machines", ``, 404, ""},
		{"GET", "/v1/machines", ``, 404, ""}, // behind the one that is there
		{"GET", "/users", ``, 404, ""},
		{"PUT", "/machines/ONE", `{}`, 405, ""},
		{"DELETE", "/m2m_tokens/verify", ``, 405, ""},
	} {
		w := newWorld(t)
		got := w.ask(t, w.SecretKey(), test.method, test.path, test.body)
		tokens := strings.HasPrefix(test.path, "/m2m_tokens")
		judge(t, test.method+" "+test.path+" "+clip(test.body), got, test.status, w.names.Replace(test.param), tokens)
	}
}

// clip keeps a name readable.
func clip(s string) string {
	return fmt.Sprintf("%.60s", s)
}

// judge compares an answer with what it should be: its status, and Clerk's form of errors.
func judge(t *testing.T, name string, got answer, status int, param string, tokens bool) {
	t.Helper()
	if got.status != status || got.header.Get("Content-Type") != "application/json" {
		t.Errorf("%s: %d %s %s, want %d", name, got.status, got.header.Get("Content-Type"), got.body, status)
		return
	}
	var body struct {
		Errors []clerkserver.ErrorItem `json:"errors"`
		Trace  *string                 `json:"clerk_trace_id"`
	}
	if err := json.Unmarshal([]byte(got.body), &body); err != nil {
		t.Fatal(err)
	}
	if status < 400 {
		if len(body.Errors) != 0 || got.header.Get("Clerk-Trace-Id") == "" {
			t.Errorf("%s: %s", name, got.body)
		}
		return
	}
	if len(body.Errors) != 1 || body.Errors[0].Code == "" || body.Errors[0].Message == "" || body.Errors[0].LongMessage == "" {
		t.Errorf("%s: %s is not Clerk's form of an error", name, got.body)
		return
	}
	if said, _ := body.Errors[0].Meta["param_name"].(string); said != param {
		t.Errorf("%s: %s names the parameter %q, want %q", name, got.body, said, param)
	}
	routed := status != 404 && status != 405 || tokens && status == 404
	if trace := got.header.Get("Clerk-Trace-Id"); trace == "" || (body.Trace != nil) == (tokens && routed) || body.Trace != nil && *body.Trace != trace {
		t.Errorf("%s: header %q, body %s", name, trace, got.body)
	}
}

// TestTokenParametersAreJudged does the same for the one call that takes a machine's key.
func TestTokenParametersAreJudged(t *testing.T) {
	for body, status := range map[string]int{
		`{}`:                                      201,
		`{"seconds_until_expiration":0.5}`:        201,
		`{"seconds_until_expiration":1e300}`:      201,
		`{"seconds_until_expiration":0}`:          400,
		`{"seconds_until_expiration":-1}`:         400,
		`{"seconds_until_expiration":"60"}`:       400,
		`{"token_format":"opaque"}`:               201,
		`{"token_format":"JWT"}`:                  400,
		`{"token_format":""}`:                     400,
		`{"token_format":null}`:                   400,
		`{"claims":null}`:                         201,
		`{"claims":"text"}`:                       201,
		`{"min_remaining_ttl_seconds":0}`:         201,
		`{"min_remaining_ttl_seconds":-1}`:        400,
		`{"min_remaining_ttl_seconds":3600}`:      400,
		`{"min_remaining_ttl_seconds":3599}`:      201,
		`{"min_remaining_ttl_seconds":1.5}`:       400,
		`{"min_remaining_ttl_seconds":"1"}`:       400,
		`{"more":1}`:                              400,
		`{"Claims":{}}`:                           400,
		`null`:                                    400,
		`[]`:                                      400,
		``:                                        400,
		`{"seconds_until_expiration":60}trailing`: 400,
	} {
		w := newWorld(t)
		judge(t, body, w.ask(t, w.secret, "POST", "/m2m_tokens", body), status, "", true)
	}
}

// TestBodiesAreJSON by their header too, with or without a charset.
func TestBodiesAreJSON(t *testing.T) {
	s := newService(t)
	for kind, want := range map[string]int{
		"application/json": 200, "application/json; charset=utf-8": 200, "": 415, "text/plain": 415, "application/x-www-form-urlencoded": 415,
	} {
		req := request(t, "POST", "https://clerk.test/machines", `{"name":"x"}`)
		req.Header.Set("Authorization", "Bearer "+s.SecretKey())
		req.Header.Set("Content-Type", kind)
		resp, err := s.InProcess().Do(req)
		if must(t, resp, err); resp.StatusCode != want {
			t.Errorf("%q: %d, want %d", kind, resp.StatusCode, want)
		}
		resp.Body.Close()
	}
}
