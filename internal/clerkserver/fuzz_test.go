package clerkserver_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"testing"
)

// FuzzRequests: whatever is asked, the service answers once, with one JSON value, Clerk's form
// where it is an error, and no secret in it that was not asked for.
func FuzzRequests(f *testing.F) {
	for _, c := range everyCall() {
		method, path, body := c.method, c.path, c.body
		for _, key := range []byte{0, 1, 2} {
			f.Add(method, path, body, key)
		}
	}
	f.Add("GET", "/machines?limit=-9223372036854775808&offset=9223372036854775807&order_by=%2B%20-name", "", byte(1))
	f.Add("POST", "/m2m_tokens", `{"seconds_until_expiration":9223372036.854775807,"claims":{"a":[]},"min_remaining_ttl_seconds":0}`, byte(2))
	f.Add("POST", "/m2m_tokens/verify", `{"token":"a.b.c"}`, byte(2))
	f.Add("DELETE", "/machines/ONE/", " null ", byte(1))
	f.Fuzz(func(t *testing.T, method, path, body string, key byte) {
		w := newWorld(t)
		u, err := url.Parse(w.names.Replace(path))
		if err != nil {
			return
		}
		req := request(t, http.MethodGet, "https://clerk.test/", w.names.Replace(body))
		req.Method, req.URL.Path, req.URL.RawQuery = method, u.Path, u.RawQuery
		req.Header.Set("Authorization", "Bearer "+[]string{"none", w.SecretKey(), w.secret}[key%3])
		got := record(t, w, req)
		if !json.Valid([]byte(got.body)) || got.header.Get("Content-Type") != "application/json" {
			t.Errorf("%d %q", got.status, got.body)
		}
		if got.status != 200 && got.status != 201 && got.code() == "" || got.status >= 500 {
			t.Errorf("%d %s", got.status, got.body)
		}
		if key%3 == 0 && got.status < 400 {
			t.Errorf("without a key: %d %s", got.status, got.body)
		}
	})
}
