package clerk_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/clerk"
	"github.com/google/go-cmp/cmp"
)

// The answer of each call, member by member.
func TestAnswers(t *testing.T) {
	at := func(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
	api := clerk.Machine{
		ID: ours, Name: "api", InstanceID: "ins_1", DefaultTokenTTL: time.Minute, CreatedAt: at(1700000000000), UpdatedAt: at(1700000001000),
	}
	worker := clerk.Machine{
		ID: theirs, Name: "worker", InstanceID: "ins_1", DefaultTokenTTL: time.Hour,
		CreatedAt: at(1700000000000), UpdatedAt: at(1700000001000), ScopedMachines: []clerk.Machine{api},
	}
	token := clerk.Token{
		ID: tokenID, Subject: theirs, Scopes: []string{ours}, ExpiresAt: at(4102444800000), Claims: json.RawMessage(`{"role":"reader"}`),
	}
	revoked := token
	revoked.Revoked = true
	for name, want := range map[string]any{
		"list": []clerk.Machine{worker}, "get": worker, "update": worker, "delete": nil, "remove scope": nil,
		"add scope":    clerk.Scope{From: theirs, To: ours, CreatedAt: at(1700000000000)},
		"verify token": token, "revoke token": revoked, "machine": theirs,
	} {
		got, err := calls()[name].do(t.Context(), offline(t, canned(200, success(name))))
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v, %s", name, err, diff)
		}
	}
	ctx := t.Context()
	made, err := offline(t, canned(200, success("create"))).Create(ctx, clerk.CreateParams{Name: "worker"})
	if diff := cmp.Diff(worker, made.Machine); diff != "" || err != nil || made.SecretKey.Reveal() != machine {
		t.Errorf("%v, %s", err, diff)
	}
	for _, name := range []string{"secret key", "rotate"} {
		got, err := calls()[name].do(ctx, offline(t, canned(200, success(name))))
		if secret, ok := got.(clerk.Secret); err != nil || !ok || secret.Reveal() != machine {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	fresh, err := offline(t, canned(201, success("create token"))).CreateToken(ctx, machine, clerk.TokenParams{})
	if diff := cmp.Diff(token, fresh.Token); diff != "" || err != nil || fresh.Secret.Reveal() != opaque {
		t.Errorf("%v, %s", err, diff)
	}
}

// Each documented error, from each call: the status, every word, and no «could not ask». Branching is
// by status, so any code will do.
func TestRefusals(t *testing.T) {
	for _, status := range []int{400, 401, 402, 403, 404, 409, 410, 422} {
		for name, c := range calls() {
			_, err := c.do(t.Context(), offline(t, canned(status, refusalOf("some_code"), "Retry-After", "7")))
			failed := wantError[*clerk.Error](t, err)
			want := clerk.Problem{Code: "some_code", Message: "msg", LongMessage: "A long message.", Meta: json.RawMessage(`{"param_name":"p"}`)}
			if failed.Status != status || failed.TraceID != trace || failed.RetryAfter != 7*time.Second || len(failed.Errors) != 1 || !cmp.Equal(want, failed.Errors[0]) {
				t.Errorf("%s %d: %#v", name, status, failed)
			}
			ours := name == "machine" && (status == 401 || status == 402 || status == 403 || status == 409) // no word about the token
			if errors.Is(err, guard.ErrUnavailable) != ours || errors.Is(err, guard.ErrDenied) {
				t.Errorf("%s %d: %v", name, status, err)
			}
		}
	}
}

// What could not be asked is an *Error where Clerk says so in its form, or nothing came, and a
// *BodyError where somebody else speaks.
func TestUndecided(t *testing.T) {
	for what, c := range map[string]struct {
		rt     transport
		status int
		body   bool
	}{
		"429":             {canned(429, refusalOf("too_many"), "Retry-After", "7"), 429, false},
		"500":             {canned(500, refusalOf("oops"), "Retry-After", "7"), 500, false},
		"500, no errors":  {canned(500, `{}`, "Retry-After", "7"), 500, false},
		"503, a page":     {canned(503, `<html>`, "Retry-After", "7"), 503, true},
		"429, empty":      {canned(429, ``, "Retry-After", "7"), 429, true},
		"404, a page":     {canned(404, `<html>`, "Retry-After", "7"), 404, true},
		"403, an object":  {canned(403, `{"message":"Forbidden"}`, "Retry-After", "7"), 403, true},
		"404, no errors":  {canned(404, `{"errors":[]}`, "Retry-After", "7"), 404, true},
		"404, odd errors": {canned(404, `{"errors":[{}]}`, "Retry-After", "7"), 404, true},
		"401, texts":      {canned(401, `{"errors":["a"]}`, "Retry-After", "7"), 401, true},
		"300":             {canned(300, refusalOf("several"), "Retry-After", "7"), 300, false},
		"302":             {canned(302, refusalOf("moved"), "Retry-After", "7", "Location", "/"), 302, false},
		"302 to nowhere":  {canned(302, `<html>`, "Retry-After", "7", "Location", "http://%zz"), 302, false},
		"304":             {canned(304, ``, "Retry-After", "7"), 304, false},
		"no answer": {func(*http.Request) (*http.Response, error) {
			return nil, errors.New("no route")
		}, 0, false},
		"nothing at all": {func(*http.Request) (*http.Response, error) { return nil, nil }, 0, false}, //nolint:nilnil // a broken transport
	} {
		for name, one := range calls() {
			_, err := one.do(t.Context(), offline(t, c.rt))
			if !errors.Is(err, guard.ErrUnavailable) {
				t.Fatalf("%s, %s: %v does not match ErrUnavailable", what, name, err)
			}
			var after time.Duration
			if c.body {
				strange := wantError[*clerk.BodyError](t, err)
				after = strange.RetryAfter
				if strange.Status != c.status || strange.Reason == "" || strange.ContentType != "application/json" {
					t.Errorf("%s, %s: %#v", what, name, strange)
				}
			} else {
				failed := wantError[*clerk.Error](t, err)
				after = failed.RetryAfter
				if failed.Status != c.status {
					t.Errorf("%s, %s: %#v", what, name, failed)
				}
			}
			if c.status != 0 && after != 7*time.Second {
				t.Errorf("%s, %s: RetryAfter %v", what, name, after)
			}
		}
	}
}

// A success that is nearly one is none: of each call, one thing at a time is spoilt.
func TestNonsense(t *testing.T) {
	for name, spoil := range map[string][][2]string{
		"get": {
			{theirs, other}, {`"id":"` + theirs + `",`, ``}, {`"object":"machine"`, `"object":"user"`}, {`"object":"machine",`, ``}, {`"object"`, `"Object"`},
			{`"scoped_machines":[`, `"scoped_machines":[7,`}, {ours, "../x"}, {`"name":"worker"`, `"name":7`}, {`{"object"`, `{"id":"` + other + `","object"`},
			{`{"object"`, `{"ID":"` + other + `","object"`}, {`{"object"`, `{"deleted":true,"object"`}, {`{"object"`, `{"errors":[],"object"`},
			{`"created_at":1700000000000`, `"created_at":"now"`}, {"worker", "\xff"}, {`{"object"`, `[{"object"`}, {`60}]}`, `60}]}{}`}, {`60}]}`, ``}, {`60}]}`, `60,"errors":[]}]}`},
		},
		"list": {
			{`"data"`, `"Data"`}, {`"data":[`, `"data":[null,`}, {`"total_count":1`, `"total_count":null`}, {`"total_count":1`, `"total_count":-1`},
			{`,"total_count":1`, ``}, {`"data":[`, `"data":{},"x":[`}, {theirs, "user_1"}, {`"total_count":1`, `"total_count":1e30`},
		},
		"create":     {{`"secret_key":"` + machine + `"`, `"secret_key":""`}, {`"secret_key"`, `"Secret_key"`}, {machine, "a b"}, {machine, key}, {theirs, "x"}},
		"delete":     {{`"deleted":true`, `"deleted":false`}, {`,"deleted":true`, ``}, {theirs, other}, {`true`, `"true"`}, {`"machine"`, `"user"`}},
		"secret key": {{machine, ""}, {`machine_secret_key`, `machine`}, {`"` + machine + `"`, "7"}},
		"add scope":  {{theirs, other}, {ours, other}, {`{"object"`, `{"deleted":true,"object"`}},
		"remove scope": {
			{theirs, other}, {ours, other}, {`"deleted":true`, `"deleted":false`}, {`,"deleted":true`, ``}, {`true`, `1`},
		},
		"create token": {{opaque, ""}, {`"token"`, `"Token"`}, {opaque, "a\\nb"}},
		"revoke token": {{`"revoked":true`, `"revoked":false`}, {tokenID, "mt_1"}, {theirs, "user_1"}, {`"expired":false,`, ``}},
		"verify token": {
			{`"revoked":false`, `"revoked":null`}, {`"revoked":false,`, ``}, {`"expired":false`, `"expired":"false"`}, {`"expired":false,`, ``},
			{`"revoked":false`, `"revoked":true,"Revoked":false`}, {`"expired":false`, `"expired":true,"EXPIRED":false`}, {`"scopes"`, `"Scopes":["` + ours + `"],"scopes"`},
			{`"expiration"`, `"expiration":1,"Expiration"`}, {`"expiration":` + later + `,`, ``}, {later, `"` + later + `"`}, {later, "1.5"}, {later, "0"}, {later, "999999999999999"},
			{theirs, "user_1"}, {`"subject"`, `"Subject"`}, {`["` + ours + `"]`, `null`}, {`["` + ours + `"]`, `[7]`}, {"machine_to_machine_token", "machine"},
		},
	} {
		for _, pair := range spoil {
			body := strings.Replace(success(name), pair[0], pair[1], 1)
			if body == success(name) {
				t.Fatalf("%s: %q does not stand in the answer", name, pair[0])
			}
			got, err := calls()[name].do(t.Context(), offline(t, canned(200, body)))
			if failed := wantError[*clerk.BodyError](t, err); failed.Status != 200 || failed.Reason == "" || !errors.Is(err, guard.ErrUnavailable) {
				t.Errorf("%s: %s: %+v, %v", name, body, got, err)
			}
			wantNoSecret(t, got, err)
		}
	}
}

// A success is 200, of what changes something also another 2xx; 204 says nothing.
func TestStatusOfSuccess(t *testing.T) {
	for name, c := range calls() {
		for _, status := range []int{101, 199, 200, 201, 202, 206} {
			_, err := c.do(context.Background(), offline(t, canned(status, success(name))))
			if good := status == 200 || status > 200 && !c.reads; (err == nil) != good {
				t.Errorf("%s %d: %v", name, status, err)
			}
		}
		if _, err := c.do(context.Background(), offline(t, canned(204, ""))); !errors.Is(err, guard.ErrUnavailable) {
			t.Errorf("%s 204: %v", name, err)
		}
	}
}
