package licentricserver_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/execguard/execguard/internal/licentricserver"
)

// FuzzCalls asks anything of a service whose licence is active on one machine and may be on two.
// Whatever is asked, the answer is JSON under a documented status, a VALID is a yes and goes with
// no other code, no machine is active twice, and there are never more than the limit allows.
func FuzzCalls(f *testing.F) {
	for _, seed := range []struct{ method, path, auth, body string }{
		{"POST", "/api/v1/licenses/validate-key", "", `{"key":"` + licenseKey + `","fingerprint":"` + fingerprint + `","entitlements":["SYNC"]}`},
		{"POST", "/api/v1/licenses/validate-key", "", `{"key":"` + licenseKey + `","KEY":1,"key":"x"}`},
		{"POST", "/api/v1/machines", "License " + licenseKey, `{"fingerprint":"` + other + `","name":"é","platform":"linux","cores":8,"metadata":{"a":1}}`},
		{"POST", "/api/v1/machines", "License " + licenseKey, `{"fingerprint":"` + fingerprint + `"}`},
		{"POST", "/api/v1/machines", "License " + licenseKey, `{"fingerprint":"\ud800\ud800\ud800\ud800\ud800\ud800\ud800\ud800","metadata":{"":{}}}`},
		{"DELETE", "/api/v1/machines/ID", "License " + licenseKey, ""},
		{"POST", "/api/v1/machines/ID/heartbeat", "License " + licenseKey, "{}"},
		{"POST", "/api/v1/licenses/" + licenseID + "/checkout", "Bearer KEY", `{"fingerprint":"` + fingerprint + `","ttl":3600}`},
		{"GET", "/api/v1/machines?limit=1&cursor=YWZ0ZXI6MQ", "Bearer KEY", ""},
		{"GET", "/api/v1/machines/%2F", "Bearer  KEY", "["},
	} {
		f.Add(seed.method, seed.path, seed.auth, seed.body)
	}
	seed := licentricserver.WithSeed(make([]byte, 32))
	f.Fuzz(func(t *testing.T, method, path, auth, body string) {
		s := newService(t, seed)
		ok(t, s.SetMaxMachines(licenseID, 2))
		m := addMachine(t, s, fingerprint)
		path = strings.ReplaceAll(path, "ID", m.ID)
		r, err := http.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
		if err != nil {
			t.Skip("no request")
		}
		r.Header.Set("Authorization", strings.ReplaceAll(auth, "KEY", s.APIKey()))
		r.Header.Set("Content-Type", "application/json")
		for range 2 { // the second finds what the first has left
			w := httptest.NewRecorder()
			r.Body = http.NoBody
			if body != "" {
				r.Body = nopCloser{strings.NewReader(body)}
			}
			s.ServeHTTP(w, r)
			sane(t, w)
		}
		left := s.Machines(licenseID)
		slices.SortFunc(left, func(a, b licentricserver.Machine) int { return strings.Compare(a.Fingerprint, b.Fingerprint) })
		unique := slices.CompactFunc(slices.Clone(left), func(a, b licentricserver.Machine) bool { return a.Fingerprint == b.Fingerprint })
		if len(left) > 2 || len(unique) != len(left) {
			t.Errorf("active on %+v", left)
		}
	})
}

type nopCloser struct{ *strings.Reader }

func (nopCloser) Close() error { return nil }

// sane holds an answer to what every answer must be.
func sane(t *testing.T, w *httptest.ResponseRecorder) {
	t.Helper()
	if !slices.Contains([]int{200, 201, 400, 401, 403, 404, 405, 409, 413, 415, 422}, w.Code) {
		t.Fatalf("status %d", w.Code)
	}
	var body struct {
		Valid *bool
		Code  string
		Data  json.RawMessage
		Error string
	}
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || w.Header().Get("Content-Type") != "application/json" {
		t.Fatalf("body %q: %v", w.Body, err)
	}
	switch {
	case w.Code >= http.StatusBadRequest:
		if body.Error == "" || body.Code == "" || body.Valid != nil || body.Data != nil {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	case body.Valid != nil:
		if *body.Valid != (body.Code == "VALID") {
			t.Errorf("valid %t with %s", *body.Valid, body.Code)
		}
	case body.Data == nil:
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
