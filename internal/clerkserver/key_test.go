package clerkserver_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/clerk/clerk-sdk-go/v2/m2m_token"

	"github.com/execguard/execguard/internal/clerkserver"
)

// everyCall lists a well-formed request of each call, in the order of the wire document, and
// the keys that it takes: i for the instance's, m for a machine's.
func everyCall() []struct{ method, path, body, keys string } {
	return []struct{ method, path, body, keys string }{
		{"GET", "/machines", "", "i"},
		{"POST", "/machines", `{"name":"new"}`, "i"},
		{"GET", "/machines/ONE", "", "i"},
		{"PATCH", "/machines/ONE", `{}`, "i"},
		{"GET", "/machines/ONE/secret_key", "", "i"},
		{"POST", "/machines/ONE/secret_key/rotate", `{"previous_token_ttl":60}`, "i"},
		{"POST", "/machines/ONE/scopes", `{"to_machine_id":"ONE"}`, "i"},
		{"DELETE", "/machines/ONE/scopes/TWO", "", "i"},
		{"DELETE", "/machines/TWO", "", "i"},
		{"POST", "/m2m_tokens", `{}`, "m"},
		{"GET", "/m2m_tokens?subject=ONE", "", "im"},
		{"POST", "/m2m_tokens/verify", `{"token":"TOKEN"}`, "im"},
		{"POST", "/m2m_tokens/ID/revoke", `{}`, "im"},
	}
}

// world is a service with two machines and a token of the first, and what stands for them above.
type world struct {
	*clerkserver.Service
	one, secret string
	names       *strings.Replacer
}

func newWorld(t testing.TB, opts ...clerkserver.Option) world {
	t.Helper()
	s := newService(t, opts...)
	two, _ := s.AddMachine("two")
	one, secret := s.AddMachine("one", two)
	s.SetScopes(one, two, one) // its own too, so that it may verify its token
	id, token, err := s.IssueToken(one, clerkserver.TokenSpec{})
	if err != nil {
		t.Fatal(err)
	}
	s.SetScopes(one, two)
	return world{s, one, secret, strings.NewReplacer("ONE", one, "TWO", two, "TOKEN", token, "ID", id)}
}

func (w world) ask(t testing.TB, key, method, path, body string) answer {
	t.Helper()
	return ask(t, w.InProcess(), key, method, "https://clerk.test/v1"+w.names.Replace(path), w.names.Replace(body))
}

// TestKeysOpenTheirCallsAlone walks every call with every kind of key.
func TestKeysOpenTheirCallsAlone(t *testing.T) {
	for _, c := range everyCall() {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			w := newWorld(t)
			right := 200
			if c.keys == "m" {
				right = 201
			}
			status := func(kind string) int {
				if strings.Contains(c.keys, kind) {
					return right
				}
				return 403
			}
			want := func(name, key string, status int) {
				t.Helper()
				if got := w.ask(t, key, c.method, c.path, c.body); got.status != status || status >= 400 && got.code() == "" {
					t.Errorf("with %s: %d %s, want %d", name, got.status, got.body, status)
				}
			}
			want("no key", "", 401)
			want("an unknown key", "sk_test_other", 401)
			want("half of the key", w.SecretKey()[:12], 401)
			w.RevokeKey()
			want("a revoked key", w.SecretKey(), 401)
			w.RestrictKey()
			want("a restricted key", w.SecretKey(), 403)
			w.RestoreKey()
			if c.keys == "im" {
				want("a machine's key", w.secret, status("m"))
				want("the instance's key", w.SecretKey(), status("i"))
				return
			}
			for _, wrong := range []struct{ kind, key string }{{"i", w.SecretKey()}, {"m", w.secret}} { // first what is refused
				if !strings.Contains(c.keys, wrong.kind) {
					want("the wrong kind of key", wrong.key, 403)
				}
			}
			if c.keys == "i" {
				want("the instance's key", w.SecretKey(), 200)
			} else {
				want("a machine's key", w.secret, 201)
			}
		})
	}
}

// TestAuthorizationIsReadToTheLetter: one header, Bearer, one space.
func TestAuthorizationIsReadToTheLetter(t *testing.T) {
	s := newService(t)
	for want, headers := range map[int][][]string{
		200: {{"Bearer " + s.SecretKey()}},
		401: {
			{s.SecretKey()}, {"bearer " + s.SecretKey()}, {"Bearer  " + s.SecretKey()}, {"Bearer"}, {"Bearer "},
			{"Basic " + s.SecretKey()}, {"Bearer " + s.SecretKey(), "Bearer " + s.SecretKey()}, {"Bearer " + s.SecretKey() + " "},
		},
	} {
		for _, values := range headers {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://clerk.test/machines", http.NoBody)
			must(t, req, err)
			req.Header["Authorization"] = values
			resp, err := s.InProcess().Do(req)
			must(t, resp, err)
			if resp.StatusCode != want {
				t.Errorf("%d header(s), Bearer %t: %d, want %d", len(values), strings.HasPrefix(values[0], "Bearer"), resp.StatusCode, want)
			}
			resp.Body.Close()
		}
	}
}

// TestMachinesKeysOutliveTheInstances: RevokeKey is about one key.
func TestMachinesKeysOutliveTheInstances(t *testing.T) {
	s := newService(t)
	_, secret := s.AddMachine("one")
	s.RevokeKey()
	tokenOf(t, s, secret, &m2m_token.CreateParams{})
}
