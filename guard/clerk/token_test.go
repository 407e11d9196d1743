package clerk_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/clerk"
)

// The rules of the wire document for «is this caller who it says?», and what VerifyToken says of the
// same tokens, which does not look at scopes.
func TestTokens(t *testing.T) {
	with := func(old, fresh string) string { return strings.Replace(aToken(later), old, fresh, 1) }
	for name, c := range map[string]struct {
		body           string
		opts           []clerk.Option
		why            string // of VerifyToken
		whyMachine     string // of VerifyMachine
		revokedExpired bool
	}{
		"good":                    {body: aToken(later)},
		"without a kind":          {body: with(`"object":"machine_to_machine_token",`, "")},
		"good for others too":     {body: with(`"scopes":[`, `"scopes":["`+other+`",`)},
		"revoked":                 {body: with(`"revoked":false`, `"revoked":true`), why: "it was revoked", whyMachine: "it was revoked"},
		"expired":                 {body: with(`"expired":false`, `"expired":true`), why: "it has expired", whyMachine: "it has expired"},
		"its end has passed":      {body: aToken("1700000000000"), why: "its expiration has passed", whyMachine: "its expiration has passed"},
		"in seconds":              {body: aToken("4102444800"), why: "its expiration has passed", whyMachine: "its expiration has passed"},
		"endless":                 {body: aToken("null"), why: "it has no end", whyMachine: "it has no end"},
		"endless, and opted in":   {body: aToken("null"), opts: []clerk.Option{clerk.WithEndlessTokens()}},
		"revoked, endless too":    {body: strings.Replace(aToken("null"), `"revoked":false`, `"revoked":true`, 1), opts: []clerk.Option{clerk.WithEndlessTokens()}, why: "it was revoked", whyMachine: "it was revoked"},
		"of another's scope":      {body: with(ours, other), whyMachine: "this machine is not in its scopes"},
		"of no scope":             {body: with(`"`+ours+`"`, ""), whyMachine: "this machine is not in its scopes"},
		"a scope in another case": {body: with(`"`+ours+`"`, `"`+strings.ToUpper(ours)+`"`), whyMachine: "this machine is not in its scopes"},
	} {
		client := offline(t, canned(200, c.body, "Clerk-Trace-Id", trace), c.opts...)
		token, err := client.VerifyToken(t.Context(), opaque)
		wantToken(t, name, err, c.why)
		if token.ID != tokenID || token.Subject != theirs {
			t.Errorf("%s: %+v", name, token)
		}
		id, err := client.VerifyMachine(t.Context(), opaque)
		wantToken(t, name, err, c.whyMachine)
		if (id == theirs) != (err == nil) || err != nil && id != "" {
			t.Errorf("%s: %q, %v", name, id, err)
		}
	}
}

// wantToken wants a TokenError of that reason, none where it is "".
func wantToken(t *testing.T, name string, err error, why string) {
	t.Helper()
	if why == "" {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return
	}
	if no := wantError[*clerk.TokenError](t, err); no.Reason != why || no.TraceID != trace || errors.Is(err, guard.ErrUnavailable) {
		t.Errorf("%s: %#v, want %s", name, no, why)
	}
}

// A token's end is one instant: until then it is good, from then on it is not.
func TestTokensEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := in(time.Minute)
		client := offline(t, canned(200, aToken(end)))
		time.Sleep(time.Minute - 1)
		if _, err := client.VerifyMachine(t.Context(), opaque); err != nil {
			t.Error(err)
		}
		time.Sleep(1)
		if _, err := client.VerifyMachine(t.Context(), opaque); wantError[*clerk.TokenError](t, err).Reason != "its expiration has passed" {
			t.Error(err)
		}
	})
}

// What no token can be is refused unasked, and not repeated.
func TestNoTokens(t *testing.T) {
	client := offline(t, transport(func(*http.Request) (*http.Response, error) {
		t.Error("asked")
		return nil, errors.New("asked")
	}), clerk.WithTokenCache(time.Hour, 1))
	for _, token := range []string{"", " ", opaque + "\n", "a b", "ä", "\x00", strings.Repeat("x", 16<<10+1)} {
		_, err := client.VerifyToken(t.Context(), token)
		if no := wantError[*clerk.TokenError](t, err); no.Reason == "" || no.TraceID != "" || errors.Is(err, guard.ErrUnavailable) {
			t.Errorf("%.20q: %v", token, err)
		}
		id, errOfMachine := client.VerifyMachine(t.Context(), token)
		if id != "" || errOfMachine.Error() != err.Error() {
			t.Errorf("%.20q: %q, %v", token, id, errOfMachine)
		}
		wantNoSecret(t, err)
	}
}

// For what is our own mistake no caller is blamed: no machine id of ours, a key that is not taken.
func TestOurMistakes(t *testing.T) {
	client, err := clerk.New(key, clerk.WithHTTPClient(&http.Client{Transport: canned(200, aToken(later))}))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	id, err := client.VerifyMachine(t.Context(), opaque)
	if failed := wantError[*clerk.Error](t, err); id != "" || !strings.Contains(failed.Reason, "WithMachineID") || !errors.Is(err, guard.ErrUnavailable) {
		t.Errorf("%q, %v", id, err)
	}
	for _, status := range []int{401, 403} {
		client := offline(t, canned(status, refusalOf("authentication_invalid")))
		id, err := client.VerifyMachine(t.Context(), opaque)
		if failed := wantError[*clerk.Error](t, err); id != "" || failed.Status != status || !errors.Is(err, guard.ErrUnavailable) {
			t.Errorf("%q, %v", id, err)
		}
		if _, err := client.VerifyToken(t.Context(), opaque); errors.Is(err, guard.ErrUnavailable) {
			t.Errorf("%v", err)
		}
	}
}

// The messages, whole.
func TestMessages(t *testing.T) {
	for want, err := range map[string]error{
		"clerk: get machine: HTTP 404: resource_not_found: msg (trace 0123456789abcdef)":                                    failing(t, 404, refusalOf("resource_not_found")),
		"clerk: get machine: HTTP 503: down: msg (trace 0123456789abcdef)":                                                  failing(t, 503, refusalOf("down")),
		"clerk: get machine: HTTP 302: redirected; redirects are never followed":                                            failing(t, 302, ""),
		"clerk: get machine: HTTP 500":                                                                                      failing(t, 500, "{}"),
		"clerk: get machine: HTTP 200: the answer is not the service's: not the JSON that it should be: not one JSON value": failing(t, 200, "<html>"),
		"clerk: verify token: the token is not taken: it is blank": func() error {
			_, err := offline(t, canned(200, "")).VerifyToken(t.Context(), "")
			return err
		}(),
		"clerk: delete machine: the client is closed": func() error {
			client := offline(t, canned(200, success("delete")))
			client.Close()
			return client.Delete(t.Context(), theirs)
		}(),
	} {
		if err.Error() != want {
			t.Errorf("%s, want %s", err, want)
		}
	}
}

func failing(t *testing.T, status int, body string) error {
	_, err := offline(t, canned(status, body)).Get(t.Context(), theirs)
	return err
}
