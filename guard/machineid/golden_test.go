package machineid_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"testing"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/machineid"
	"github.com/google/go-cmp/cmp"
)

// request is what a server sees of one call.
type request struct {
	Method, Path, Body string
	Header             http.Header
}

// Each call, to the byte. The header is whole: what is not here is not sent.
func TestRequests(t *testing.T) {
	one := `{"deviceId":"` + device + `"}`
	for name, want := range map[string]request{
		"register":       {http.MethodPost, "/api/v1/devices/register", one, nil},
		"validate":       {http.MethodPost, "/api/v1/devices/validate", one, nil},
		"list":           {http.MethodGet, "/api/v1/devices/list", "", nil},
		"revoke":         {http.MethodPost, "/api/v1/devices/revoke", one, nil},
		"unrevoke":       {http.MethodPost, "/api/v1/devices/unrevoke", one, nil},
		"remove":         {http.MethodPost, "/api/v1/devices/remove", one, nil},
		"revoke batch":   {http.MethodPost, "/api/v1/devices/revoke_batch", `{"deviceIds":["` + device + `"]}`, nil},
		"unrevoke batch": {http.MethodPost, "/api/v1/devices/unrevoke_batch", `{"deviceIds":["` + device + `"]}`, nil},
		"revoke all":     {http.MethodPost, "/api/v1/devices/revoke_batch", `{"scope":"all_active"}`, nil},
		"unrevoke all":   {http.MethodPost, "/api/v1/devices/unrevoke_batch", `{"scope":"all_revoked"}`, nil},
		"usage":          {http.MethodGet, "/api/v1/usage", "", nil},
		"checkout":       {http.MethodPost, "/api/v1/billing/checkout", `{"plan":"pro"}`, nil},
	} {
		want.Header = http.Header{
			"Accept":     {"application/json"},
			"User-Agent": {"execguard-machineid/" + machineid.Version},
			"X-Org-Key":  {key},
		}
		if want.Method == http.MethodPost {
			want.Header.Set("Content-Type", "application/json")
			want.Header.Set("Content-Length", strconv.Itoa(len(want.Body)))
		}
		t.Run(name, func(t *testing.T) {
			var got []request
			base := serve(t, func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil {
					t.Error(err)
				}
				got = append(got, request{r.Method, r.RequestURI, string(body), r.Header})
				answer(200, allow)(w, r)
			})
			for _, prefix := range []string{"", "/", "/behind/a/proxy", "/behind/a/proxy/"} {
				got = nil
				_, _ = calls[name](t.Context(), newClient(t, base+prefix))
				want := want
				if len(prefix) > 1 {
					want.Path = "/behind/a/proxy" + want.Path
				}
				if diff := cmp.Diff([]request{want}, got); diff != "" {
					t.Errorf("below %q: %s", prefix, diff)
				}
			}
		})
	}
}

// Every call of the table above is held to the faults that concern it: a call without an answer
// fails with a typed error that matches ErrUnavailable, and so does one whose answer is no JSON.
func TestEveryCallFails(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"HTML":            answer(200, "<html>"),
		"array":           answer(200, "[]"),
		"name twice":      answer(200, `{"status":"ok","status":"ok"}`),
		"other case":      answer(200, `{"Status":"ok"}`),
		"second document": answer(200, `{"status":"ok"}{}`),
		"redirect":        answer(307, `{"status":"ok"}`, "Location", "/"),
		"429":             answer(429, `{"error":"slow_down","request_id":"r-4"}`, "Retry-After", "3"),
		"500":             answer(500, `{"status":"ok"}`),
		"503":             answer(503, ""),
		"cut": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, `{"status":"ok"}`)
		},
	} {
		client := newClient(t, serve(t, h))
		for call, do := range calls {
			t.Run(name+" "+call, func(t *testing.T) { checkFailed(t, do, client, name == "429") })
		}
	}
}

func checkFailed(t *testing.T, do func(context.Context, *machineid.Client) (any, error), client *machineid.Client, busy bool) {
	t.Helper()
	_, err := do(t.Context(), client)
	typed := typedError(t, err)
	if !errors.Is(err, guard.ErrUnavailable) {
		t.Errorf("%v does not match ErrUnavailable", err)
	}
	if busy && (typed.Status != 429 || typed.Code != "slow_down" || typed.RequestID != "r-4" || typed.RetryAfter.Seconds() != 3) {
		t.Errorf("%#v", typed)
	}
	checkSecret(t, err)
}
