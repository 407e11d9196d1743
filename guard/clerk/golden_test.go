package clerk_test

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/execguard/execguard/guard/clerk"
	"github.com/google/go-cmp/cmp"
)

// request is what a server sees of one call.
type request struct {
	Method, Path, Body, Key string
	Chunked                 bool
}

// Each call, to the byte. The header is whole: what is not here is not sent. The token is made with
// the machine's key, all else with the client's.
func TestRequests(t *testing.T) {
	for name, want := range map[string]request{
		"list":         {Method: "GET", Path: "/machines?limit=100&offset=0"},
		"create":       {Method: "POST", Path: "/machines", Body: `{"name":"worker"}`},
		"get":          {Method: "GET", Path: "/machines/" + theirs},
		"update":       {Method: "PATCH", Path: "/machines/" + theirs, Body: `{"name":"worker"}`},
		"delete":       {Method: "DELETE", Path: "/machines/" + theirs, Body: "null"},
		"secret key":   {Method: "GET", Path: "/machines/" + theirs + "/secret_key"},
		"rotate":       {Method: "POST", Path: "/machines/" + theirs + "/secret_key/rotate", Body: `{"previous_token_ttl":3600}`},
		"add scope":    {Method: "POST", Path: "/machines/" + theirs + "/scopes", Body: `{"to_machine_id":"` + ours + `"}`},
		"remove scope": {Method: "DELETE", Path: "/machines/" + theirs + "/scopes/" + ours, Body: "null"},
		"create token": {Method: "POST", Path: "/m2m_tokens", Body: `{"seconds_until_expiration":3600}`, Key: machine},
		"verify token": {Method: "POST", Path: "/m2m_tokens/verify", Body: `{"token":"` + opaque + `"}`},
		"machine":      {Method: "POST", Path: "/m2m_tokens/verify", Body: `{"token":"` + opaque + `"}`},
		"revoke token": {Method: "POST", Path: "/m2m_tokens/" + tokenID + "/revoke", Body: `{"revocation_reason":"lost"}`},
	} {
		if want.Key == "" {
			want.Key = key
		}
		t.Run(name, func(t *testing.T) {
			var got []request
			base := serve(t, func(w http.ResponseWriter, r *http.Request) {
				got = append(got, seen(t, r))
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, success(name))
			})
			for _, prefix := range []string{"", "/", "/v1", "/behind/a/proxy/v1/"} {
				got = nil
				if _, err := calls()[name].do(t.Context(), newClient(t, clerk.WithBaseURL(base+prefix))); err != nil {
					t.Error(err)
				}
				want := want
				want.Path = strings.TrimRight(prefix, "/") + want.Path
				if diff := cmp.Diff([]request{want}, got); diff != "" {
					t.Errorf("below %q: %s", prefix, diff)
				}
			}
		})
	}
}

// seen is the request, and the header held to what it must be.
func seen(t *testing.T, r *http.Request) request {
	t.Helper()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	want := http.Header{
		"Accept": {"application/json"}, "Authorization": r.Header["Authorization"], "Content-Type": {"application/json"},
		"Clerk-Api-Version": {"2026-05-12"}, "X-Clerk-Sdk": {"go/v2.0.0"}, "Accept-Encoding": r.Header["Accept-Encoding"],
		"User-Agent": {"clerk/clerk-sdk-go@v2.0.0 execguard-clerk/" + clerk.Version},
	}
	delete(want, "Accept-Encoding")
	if len(body) > 0 {
		want.Set("Content-Length", strconv.Itoa(len(body)))
	}
	if diff := cmp.Diff(want, r.Header); diff != "" || !ok || len(r.Header["Authorization"]) != 1 {
		t.Errorf("header: %s", diff)
	}
	return request{Method: r.Method, Path: r.RequestURI, Body: string(body), Key: bearer, Chunked: len(r.TransferEncoding) > 0}
}

// What the parameters turn into.
func TestParameters(t *testing.T) {
	var got string
	client := offline(t, transport(func(r *http.Request) (*http.Response, error) {
		got = r.URL.RawQuery
		if r.Body != nil {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			got += string(body)
		}
		return reply(r, 503, "{}"), nil
	}))
	ctx := t.Context()
	for want, do := range map[string]func(){
		`{"name":"a","scoped_machines":["` + ours + `"],"default_token_ttl":315360000}`: func() {
			_, _ = client.Create(ctx, clerk.CreateParams{Name: "a", ScopedMachines: []string{ours}, DefaultTokenTTL: 315360000 * time.Second})
		},
		`{"default_token_ttl":1}`:      func() { _, _ = client.Update(ctx, ours, clerk.UpdateParams{DefaultTokenTTL: time.Second}) },
		`{"previous_token_ttl":0}`:     func() { _, _ = client.RotateSecretKey(ctx, ours, 0) },
		`{"previous_token_ttl":28800}`: func() { _, _ = client.RotateSecretKey(ctx, ours, 8*time.Hour) },
		`{}`:                           func() { _, _ = client.RevokeToken(ctx, tokenID, "") },
		`limit=500&offset=0&order_by=%2Bname&query=a%26b%3D+c`: func() {
			_, _ = collect(client.List(ctx, clerk.ListParams{Query: "a&b= c", OrderBy: "+name", PageSize: 500}))
		},
		`{"seconds_until_expiration":60,"claims":{"a":[1]},"token_format":"jwt"}`: func() {
			_, _ = client.CreateToken(ctx, machine, clerk.TokenParams{TTL: time.Minute, Format: clerk.TokenJWT, Claims: []byte(`{"a":[1]}`)})
		},
	} {
		got = "nothing"
		if do(); got != want {
			t.Errorf("sent %s, want %s", got, want)
		}
	}
}
