package licentricserver_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/execguard/execguard/internal/licentricserver"
)

// every is each call of the API once, none of which changes what another needs.
func every(s *licentricserver.Service, machineID string) map[licentricserver.Call]call {
	return map[licentricserver.Call]call{
		licentricserver.CallValidate:   validateMachine(fingerprint),
		licentricserver.CallActivate:   activate(`{"fingerprint":"` + fingerprint + `"}`), // 409
		licentricserver.CallDeactivate: deactivate("none"),                                // 404
		licentricserver.CallHeartbeat:  heartbeat(machineID),
		licentricserver.CallCheckout:   checkout(s, `{"fingerprint":"`+fingerprint+`"}`),
		licentricserver.CallMachines:   list(s, ""),
		licentricserver.CallMachine:    get(s, machineID),
	}
}

// Who may call what: nobody is asked for anything by validate, a licence key opens what its own
// machines need, an API key what manages them, and neither opens the other's door.
func TestAuthorization(t *testing.T) {
	s := newService(t)
	m := addMachine(t, s, fingerprint)
	removed := s.AddAPIKey(licentricserver.ScopeMachines, licentricserver.ScopeCheckout)
	s.RemoveAPIKey(removed)
	for name, c := range every(s, m.ID) {
		good := c.auth
		if name == licentricserver.CallValidate {
			says(t, s, c, "VALID")
			continue
		}
		scheme, _, _ := strings.Cut(good, " ")
		for _, bad := range []string{
			"", scheme, scheme + " ", scheme + " none", "Basic " + licenseKey, licenseKey, s.APIKey(), "Bearer " + removed,
			"License " + s.APIKey(), "Bearer " + licenseKey, good + "x",
		} {
			c.auth = bad
			refused(t, s, c, http.StatusUnauthorized, noKey)
		}
		c.auth = strings.ToLower(scheme) + strings.TrimPrefix(good, scheme) // schemes have no case (RFC 9110, section 11.1)
		if a := c.ask(s); a.status == http.StatusUnauthorized {
			t.Errorf("%s: %s", name, a.body)
		}
	}
}

// Of two headers, which one speaks is nobody's to choose.
func TestTwoAuthorizations(t *testing.T) {
	s := newService(t)
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/machines", http.NoBody)
	r.Header["Authorization"] = []string{"Bearer " + s.APIKey(), "Bearer " + s.APIKey()}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	if w.Code != http.StatusUnauthorized {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

// 403: a key without the scope.
func TestScopes(t *testing.T) {
	s := newService(t)
	m := addMachine(t, s, fingerprint)
	for scope, may := range map[licentricserver.Scope][]licentricserver.Call{
		"":                            nil,
		licentricserver.ScopeMachines: {licentricserver.CallMachines, licentricserver.CallMachine},
		licentricserver.ScopeCheckout: {licentricserver.CallCheckout},
	} {
		key := s.AddAPIKey(scope)
		if !strings.HasPrefix(key, "lk_test_") {
			t.Errorf("the key begins otherwise than the documented ones")
		}
		for name, c := range every(s, m.ID) {
			if !strings.HasPrefix(c.auth, "Bearer ") {
				continue
			}
			c.auth = "Bearer " + key
			if slices.Contains(may, name) {
				if a := c.ask(s); a.status != http.StatusOK {
					t.Errorf("%s with %q: %d %s", name, scope, a.status, a.body)
				}
				continue
			}
			refused(t, s, c, http.StatusForbidden, "FORBIDDEN")
		}
	}
}

// Who may not call learns nothing about what is wrong with the body.
func TestAccessComesBeforeTheBody(t *testing.T) {
	s := newService(t)
	for _, body := range []string{"{", "", strings.Repeat("x", 2<<20)} {
		c := activate(body)
		c.auth = "License none"
		refused(t, s, c, http.StatusUnauthorized, noKey)
	}
	refused(t, s, activate(strings.Repeat(" ", 1<<20)+"{}"), http.StatusRequestEntityTooLarge, "PAYLOAD_TOO_LARGE")
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1/licenses/validate-key", strings.NewReader(`{"key":"x"}`))
	r.Header.Set("Content-Type", "text/plain")
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	if w.Code != http.StatusUnsupportedMediaType {
		t.Errorf("text/plain: %d %s", w.Code, w.Body)
	}
	r = httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1/licenses/validate-key", iotest.ErrReader(errors.New("broken off")))
	w = httptest.NewRecorder()
	s.ServeHTTP(w, r)
	if w.Code != http.StatusBadRequest {
		t.Errorf("a body that breaks off: %d %s", w.Code, w.Body)
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	s := newService(t)
	for _, path := range []string{"/", "/api/v1", "/api/v1/", "/machines", "/api/v1/machines/", "/api/v1/machines/a/b", "/api/v2/machines", "/api/v1/licenses/validate-key/"} {
		a := answer{}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", http.NoBody)
		r.URL.Path, r.URL.RawPath = path, ""
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		a.status, a.body = w.Code, w.Body.String()
		if f := decode[failure](t, a); a.status != http.StatusNotFound || f.Code != "NOT_FOUND" {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	for _, c := range []call{
		{method: "GET", path: "/api/v1/licenses/validate-key"},
		{method: "PUT", path: "/api/v1/machines"},
		{method: "POST", path: "/api/v1/machines/x"},
		{method: "GET", path: "/api/v1/machines/x/heartbeat"},
		{method: "GET", path: "/api/v1/licenses/x/checkout"},
	} {
		refused(t, s, c, http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED")
	}
}

// An id is one segment, whatever is in it once its escapes are undone.
func TestEscapedIDs(t *testing.T) {
	s := newService(t)
	for _, id := range []string{"a%2Fb", "..%2F..", "%00", "a%20b"} {
		refused(t, s, get(s, id), http.StatusNotFound, "NOT_FOUND")
		if n := s.Calls(licentricserver.CallMachine); n == 0 {
			t.Errorf("%s did not reach the call", id)
		}
	}
	l, err := s.AddLicense(licentricserver.License{ID: "a/b"})
	ok(t, err)
	_, err = s.AddMachine(l.ID, fingerprint)
	ok(t, err)
	c := checkout(s, `{"fingerprint":"`+fingerprint+`"}`)
	c.path = "/api/v1/licenses/a%2Fb/checkout"
	if a := c.ask(s); a.status != http.StatusOK {
		t.Errorf("got %d %s", a.status, a.body)
	}
}

// Everything that the vendor has not published can be elsewhere, and is then nowhere else.
func TestPaths(t *testing.T) {
	s := newService(t, licentricserver.WithPaths(licentricserver.Paths{
		Deactivate: "POST /machines/{id}/deactivate", Heartbeat: "/beat/{id}", Checkout: "PUT /files/{id}",
		Validate: "/v/validate", FingerprintMember: "hardware", EntitlementsMember: "features", CertificateMember: "file",
	}))
	m := addMachine(t, s, fingerprint)
	ask := validate(`"hardware":"` + fingerprint + `","features":["SYNC"],"fingerprint":1,"entitlements":1`)
	ask.path = "/api/v1/v/validate"
	if v := says(t, s, ask, "VALID"); v.Machine == nil || v.Machine.ID != m.ID {
		t.Errorf("the machine %+v", v.Machine)
	}
	ask.body = strings.Replace(ask.body, "SYNC", "NONE", 1)
	says(t, s, ask, "ENTITLEMENTS_MISSING")
	done(t, s, call{"POST", "/api/v1/beat/" + m.ID, "License " + licenseKey, ""}, http.StatusOK)
	file := call{"PUT", "/api/v1/files/" + licenseID, "Bearer " + s.APIKey(), `{"fingerprint":"` + fingerprint + `"}`}.ask(s)
	body := decode[enveloped[map[string]any]](t, file).Data
	if _, usual := body["certificate"]; usual || file.status != http.StatusOK || !strings.Contains(body["file"].(string), "LICENSE FILE") {
		t.Errorf("got %d %v", file.status, body)
	}
	for _, c := range []call{validate(""), heartbeat(m.ID), checkout(s, "{}")} {
		refused(t, s, c, http.StatusNotFound, "NOT_FOUND")
	}
	refused(t, s, deactivate(m.ID), http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED") // get is still there
	done(t, s, call{"POST", "/api/v1/machines/" + m.ID + "/deactivate", "License " + licenseKey, ""}, http.StatusOK)
}

func TestOptionsThatCannotBe(t *testing.T) {
	for name, o := range map[string]licentricserver.Option{
		"nil":             nil,
		"no variant":      licentricserver.WithVariant(2),
		"a short seed":    licentricserver.WithSeed(make([]byte, 31)),
		"a relative path": licentricserver.WithPaths(licentricserver.Paths{Validate: "v"}),
		"no id":           licentricserver.WithPaths(licentricserver.Paths{Heartbeat: "/beat"}),
		"two ids":         licentricserver.WithPaths(licentricserver.Paths{Checkout: "/{id}/{id}"}),
		"an id too many":  licentricserver.WithPaths(licentricserver.Paths{Machines: "GET /{id}"}),
	} {
		if s, err := licentricserver.New(o); err == nil || s != nil || !strings.HasPrefix(err.Error(), "licentricserver: ") {
			t.Errorf("%s: New gave %v, %v", name, s, err)
		}
		if s, err := licentricserver.Start(o); err == nil || s != nil {
			t.Errorf("%s: Start gave %v, %v", name, s, err)
		}
	}
}
