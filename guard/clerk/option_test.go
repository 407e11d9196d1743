package clerk_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/clerk"
)

func TestNewRefuses(t *testing.T) {
	for want, make := range map[string]func() (*clerk.Client, error){
		"the secret key is blank":                                          func() (*clerk.Client, error) { return clerk.New(" ") },
		"the secret key contains white space":                              func() (*clerk.Client, error) { return clerk.New(key + "\n") },
		"option 2 is nil":                                                  with(clerk.WithEndlessTokens(), nil),
		"WithHTTPClient: the client is nil":                                with(clerk.WithHTTPClient(nil)),
		"WithTimeout(0s)":                                                  with(clerk.WithTimeout(0)),
		"WithTimeout(10m0.000000001s)":                                     with(clerk.WithTimeout(10*time.Minute + 1)),
		"WithMachineID: the id must be mch_":                               with(clerk.WithMachineID(key)),
		"WithMachineID: the id is blank":                                   with(clerk.WithMachineID("")),
		"WithTokenCache: the time is 0s":                                   with(clerk.WithTokenCache(0, 1)),
		"WithTokenCache: the time is 24h0m0.0":                             with(clerk.WithTokenCache(24*time.Hour+1, 1)),
		"WithTokenCache: 0 tokens":                                         with(clerk.WithTokenCache(1, 0)),
		"WithTokenCache: 1048577 tokens: it must be between 1 and 1048576": with(clerk.WithTokenCache(1, 1<<20+1)),
		"not an absolute http or https URL, such as https://api.clerk.com/v1 or http": with(clerk.WithBaseURL(key)),
		"the version is missing":      with(clerk.WithBaseURL("https://api.clerk.com/")),
		"plain http would show":       with(clerk.WithBaseURL("http://api.clerk.com/v1")),
		"user, query or fragment":     with(clerk.WithBaseURL("https://api.clerk.com/v1?x=1")),
		"the secret key stands in it": with(clerk.WithBaseURL("https://api.clerk.com/" + key)),
	} {
		client, err := make()
		if client != nil || err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "clerk: ") {
			t.Errorf("%v, want %s", err, want)
		}
		wantNoSecret(t, err)
	}
}

func with(opts ...clerk.Option) func() (*clerk.Client, error) {
	return func() (*clerk.Client, error) { return clerk.New(key, opts...) }
}

func TestNewAccepts(t *testing.T) {
	for _, base := range []string{"https://api.clerk.com/v1", "http://localhost:8080", "http://127.0.0.1/v1/", "http://[::1]:1/v1"} {
		client, err := clerk.New(key, clerk.WithBaseURL(base), clerk.WithTimeout(10*time.Minute), clerk.WithTokenCache(24*time.Hour, 1<<20),
			clerk.WithRetry(nil), clerk.WithoutRetry(), clerk.WithMachineID("mch_"+strings.Repeat("x", 124)))
		if err != nil || client.Close() != nil || client.Close() != nil {
			t.Errorf("%s: %v", base, err)
		}
	}
}

// The user's own client is not changed, and its rule for redirects is not asked.
func TestHTTPClientIsCopied(t *testing.T) {
	rt := canned(307, "", "Location", "/elsewhere")
	own := &http.Client{Transport: rt, Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error {
		t.Error("a redirect was followed")
		return nil
	}}
	client := newClient(t, clerk.WithHTTPClient(own))
	if _, err := client.Get(t.Context(), theirs); wantError[*clerk.Error](t, err).Status != 307 {
		t.Error(err)
	}
	if _, ok := own.Transport.(transport); !ok || own.CheckRedirect == nil || own.Timeout != time.Minute {
		t.Errorf("the client was changed: %+v", own)
	}
}

// The default transport is the user's client's where that has none.
func TestHTTPClientWithoutTransport(t *testing.T) {
	base := serve(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "down", http.StatusServiceUnavailable) })
	own := &http.Client{}
	defer own.CloseIdleConnections()
	client := newClient(t, clerk.WithHTTPClient(own), clerk.WithBaseURL(base))
	if _, err := client.Get(t.Context(), theirs); wantError[*clerk.BodyError](t, err).Status != 503 {
		t.Error(err)
	}
}

// Parameters that cannot be right are refused unasked, by an error that is no «could not ask», and
// that does not repeat them: they may be a key in the wrong place.
func TestParametersAreChecked(t *testing.T) {
	client := offline(t, transport(func(*http.Request) (*http.Response, error) {
		t.Error("asked")
		return nil, errors.New("asked")
	}))
	ctx := t.Context()
	create := func(p clerk.CreateParams) error { _, err := client.Create(ctx, p); return err }
	update := func(id string, p clerk.UpdateParams) error { _, err := client.Update(ctx, id, p); return err }
	list := func(p clerk.ListParams) error { _, err := collect(client.List(ctx, p)); return err }
	rotate := func(id string, d time.Duration) error { _, err := client.RotateSecretKey(ctx, id, d); return err }
	mint := func(secret string, p clerk.TokenParams) error {
		_, err := client.CreateToken(ctx, secret, p)
		return err
	}
	scope := func(from, to string) error { _, err := client.AddScope(ctx, from, to); return err }
	revoke := func(id, why string) error { _, err := client.RevokeToken(ctx, id, why); return err }
	get := func(id string) error { _, err := client.Get(ctx, id); return err }
	keyOf := func(id string) error { _, err := client.SecretKey(ctx, id); return err }
	for i, c := range []struct {
		err  error
		want string
	}{
		{create(clerk.CreateParams{}), "must have a name"},
		{create(clerk.CreateParams{Name: strings.Repeat("ä", 256)}), "longer than 255 characters"},
		{create(clerk.CreateParams{Name: "\xff"}), "not valid UTF-8"},
		{create(clerk.CreateParams{Name: "a", ScopedMachines: make([]string, 151)}), "more than 150"},
		{create(clerk.CreateParams{Name: "a", ScopedMachines: []string{ours, key}}), "scoped machine 2"},
		{create(clerk.CreateParams{Name: "a", DefaultTokenTTL: time.Millisecond}), "whole seconds"},
		{create(clerk.CreateParams{Name: "a", DefaultTokenTTL: 1500 * time.Millisecond}), "whole seconds"},
		{create(clerk.CreateParams{Name: "a", DefaultTokenTTL: -time.Second}), "whole seconds"},
		{create(clerk.CreateParams{Name: "a", DefaultTokenTTL: 315360001 * time.Second}), "whole seconds"},
		{get("../secrets?x=1"), "must be mch_"}, {get("mch_a/.."), "must be mch_"}, {get(""), "blank"}, {get(key), "must be mch_"},
		{keyOf(tokenID), "must be mch_"},
		{update("x", clerk.UpdateParams{Name: "a"}), "must be mch_"},
		{update(ours, clerk.UpdateParams{}), "nothing to change"},
		{update(ours, clerk.UpdateParams{Name: strings.Repeat("a", 256)}), "longer than"},
		{update(ours, clerk.UpdateParams{DefaultTokenTTL: 1}), "whole seconds"},
		{client.Delete(ctx, "mch_"), "must be mch_"},
		{rotate(ours, -1), "whole seconds"}, {rotate(ours, 8*time.Hour+time.Second), "whole seconds"}, {rotate(key, 0), "must be mch_"},
		{scope(ours, key), "must be mch_"}, {scope(key, ours), "must be mch_"},
		{client.RemoveScope(ctx, ours, ours+"/x"), "must be mch_"}, {client.RemoveScope(ctx, "..", ours), "must be mch_"},
		{list(clerk.ListParams{PageSize: -1}), "page size"}, {list(clerk.ListParams{PageSize: 501}), "page size"},
		{list(clerk.ListParams{OrderBy: "id"}), "order"}, {list(clerk.ListParams{OrderBy: "--name"}), "order"}, {list(clerk.ListParams{Query: "\xff"}), "UTF-8"},
		{mint("", clerk.TokenParams{}), "begins with ak_"}, {mint(key, clerk.TokenParams{}), "begins with ak_"}, {mint(machine+"\n", clerk.TokenParams{}), "begins with ak_"},
		{mint(machine, clerk.TokenParams{Format: "paper"}), "neither opaque nor jwt"}, {mint(machine, clerk.TokenParams{TTL: -time.Second}), "whole seconds"},
		{mint(machine, clerk.TokenParams{Claims: []byte("[]")}), "claims"}, {mint(machine, clerk.TokenParams{Claims: []byte(`{"a":1,"a":2}`)}), "claims"},
		{revoke(opaque+"/x", ""), "must be mt_"}, {revoke(ours, ""), "must be mt_"}, {revoke(tokenID, "\xff"), "UTF-8"},
	} {
		failed := wantError[*clerk.Error](t, c.err)
		if failed.Status != 0 || failed.Op == "" || !strings.Contains(failed.Reason, c.want) || errors.Is(c.err, guard.ErrUnavailable) {
			t.Errorf("row %d: %v, want %s", i, c.err, c.want)
		}
		wantNoSecret(t, c.err)
	}
}
