package authority_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/execguard/execguard/guard/authority"
)

// Whatever comes in: no panic, always one JSON object, and an ALLOW for nobody but the one
// device that is registered and active, asked about by the one key.
func FuzzHandler(f *testing.F) {
	const validate = "/api/v1/devices/validate"
	for path, method := range paths {
		f.Add(method, "/api/v1/"+path, testKey, "application/json", `{"deviceId":"agent-01"}`)
	}
	for _, body := range []string{
		``, `{}`, `null`, `[]`, `{"deviceId":"revoked"}`, `{"deviceId":"agent-01","deviceId":"revoked"}`, `{"deviceId":" agent-01 "}`,
		`{"DEVICEID":"agent-01"}`, `{"deviceId":"agent-01"}{}`, `{"deviceId":["agent-01"]}`, `{"deviceId":"` + strings.Repeat("a", 200) + `"}`,
		`{"x":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `,"deviceId":"agent-01"}`, "\xff\xfe", `{"deviceId":"agent-01\u0000"}`,
	} {
		f.Add("POST", validate, testKey, "application/json", body)
	}
	f.Add("POST", "/api/v1/devices/revoke_batch", testKey, "", `{"scope":"all_active"}`)
	f.Add("POST", "/api/v1/devices/unrevoke_batch", testKey, "", `{"deviceIds":["revoked","","agent-01"]}`)
	f.Add("POST", "/api/v1/billing/checkout", testKey, "", `{"plan":"pro"}`)
	f.Add("POST", validate, "org_removed_1", "", `{"deviceId":"agent-01"}`)
	f.Add("GET", validate, "", "text/html", ``)
	f.Add("POST", "//", "org_", ";;", `{`)

	f.Fuzz(func(t *testing.T, method, path, key, contentType, body string) {
		a, org := newOrganisation(t, authority.PlanFree)
		w := world{calls: org}
		w.register(t, "agent-01", "revoked")
		w.revoke(t, "revoked")
		removed, err := a.AddOrganisation(t.Context(), "org_removed_1", authority.PlanFree)
		if err != nil {
			t.Fatal(err)
		}
		world{calls: removed}.register(t, "agent-01")
		if err := a.RemoveOrganisation(t.Context(), "org_removed_1"); err != nil {
			t.Fatal(err)
		}

		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(body))
		req.Method, req.URL = method, &url.URL{Path: path}
		req.Header = http.Header{"X-Org-Key": {key}, "Content-Type": {contentType}}
		rec := httptest.NewRecorder()
		a.ServeHTTP(rec, req)

		var got map[string]any
		if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil || got == nil {
			t.Fatalf("%d: not a JSON object: %q", rec.Code, rec.Body)
		}
		if _, stated := got["allowed"]; stated != (path == validate) {
			t.Errorf("%s: %v", path, got)
		}
		if got["allowed"] != true {
			return
		}
		id, _ := got["deviceId"].(string)
		var asked map[string]any // whose keys, unlike a struct's, match exactly
		if err := json.Unmarshal([]byte(body), &asked); err != nil || asked["deviceId"] != id {
			t.Errorf("allowed %q, asked with %q", id, body)
		}
		if strings.TrimSpace(id) != "agent-01" || strings.TrimSpace(key) != testKey || method != http.MethodPost ||
			rec.Code != 200 || got["code"] != "ALLOW" || path != validate {
			t.Errorf("%s %s by a key of %d characters: %d %v", method, path, len(key), rec.Code, got)
		}
	})
}
