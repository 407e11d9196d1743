package licentricserver_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/execguard/execguard/internal/licentricserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// noKey is the code of 401, as services spell it.
const noKey = "UNAUTHORIZED" //nolint:misspell // and not as we do

// What most tests ask about.
const (
	licenseID   = "3e0a4c1b-5b1b-4f0a-9a57-64f1f3b8a2de"
	licenseKey  = "LIC-7HQ2MXW9TZL4CVBN8RKD"
	fingerprint = "fp-machine-01"
	other       = "fp-machine-02"
)

// newService makes a service with one licence, which is active on no machine.
func newService(t *testing.T, opts ...licentricserver.Option) *licentricserver.Service {
	t.Helper()
	s, err := licentricserver.New(opts...)
	if err != nil {
		t.Fatal(err)
	}
	addLicense(t, s, licentricserver.License{})
	return s
}

// addLicense adds the licence that most tests ask about.
func addLicense(t *testing.T, s *licentricserver.Service, l licentricserver.License) {
	t.Helper()
	l.ID, l.Key = licenseID, licenseKey
	l.ProductID, l.PolicyID = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
	if l.Entitlements == nil {
		l.Entitlements = []string{"EXPORT", "SYNC"}
	}
	if _, err := s.AddLicense(l); err != nil {
		t.Fatal(err)
	}
}

// ok ends the test where the state could not be changed.
func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// addMachine activates the licence on a machine, in process.
func addMachine(t *testing.T, s *licentricserver.Service, mark string) licentricserver.Machine {
	t.Helper()
	m, err := s.AddMachine(licenseID, mark)
	ok(t, err)
	return m
}

// answer is what came of one request.
type answer struct {
	status int
	header http.Header
	body   string
}

// call is one request, in process.
type call struct{ method, path, auth, body string }

func (c call) ask(s *licentricserver.Service) answer {
	r := httptest.NewRequestWithContext(context.Background(), c.method, c.path, strings.NewReader(c.body))
	if c.auth != "" {
		r.Header.Set("Authorization", c.auth)
	}
	if c.body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return answer{w.Code, w.Result().Header, w.Body.String()}
}

// The calls of the API, as the wire document has them.
func validate(members string) call {
	if members != "" {
		members = "," + members
	}
	return call{method: "POST", path: "/api/v1/licenses/validate-key", body: `{"key":"` + licenseKey + `"` + members + `}`}
}

func validateMachine(mark string) call { return validate(`"fingerprint":"` + mark + `"`) }

func activate(body string) call {
	return call{"POST", "/api/v1/machines", "License " + licenseKey, body}
}

func deactivate(id string) call {
	return call{"DELETE", "/api/v1/machines/" + id, "License " + licenseKey, ""}
}

func heartbeat(id string) call {
	return call{"POST", "/api/v1/machines/" + id + "/heartbeat", "License " + licenseKey, ""}
}

func checkout(s *licentricserver.Service, body string) call {
	return call{"POST", "/api/v1/licenses/" + licenseID + "/checkout", "Bearer " + s.APIKey(), body}
}

func list(s *licentricserver.Service, query string) call {
	return call{"GET", "/api/v1/machines" + query, "Bearer " + s.APIKey(), ""}
}

func get(s *licentricserver.Service, id string) call {
	return call{"GET", "/api/v1/machines/" + id, "Bearer " + s.APIKey(), ""}
}

// decode reads an answer's body, which must be one JSON value.
func decode[T any](t *testing.T, a answer) (out T) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), &out); err != nil {
		t.Fatalf("body %q: %v", a.body, err)
	}
	return out
}

// verdict is an answer to validate in either variant.
type verdict struct {
	Valid   bool
	Code    string
	License *struct {
		ID, Key, Status string
		ExpiresAt       *string
		MachineCount    int
	}
	Machine      *machine
	Entitlements []json.RawMessage
}

// machine is one in any answer.
type machine struct {
	ID, LicenseID, Fingerprint, Name, Platform, Hostname   string
	HeartbeatStatus, LastHeartbeatAt, DeletedAt, CreatedAt *string
	Cores                                                  int
	Metadata                                               json.RawMessage
}

// enveloped is an answer in the documented envelope.
type enveloped[T any] struct{ Data T }

// failure is an error of the API.
type failure struct {
	Error, Code, RequestID string
	Status                 int
	Details                []struct{ Field, Message string }
}

// says asks about the licence and insists on the code; with the code VALID, and with no other,
// the answer must be a yes.
func says(t *testing.T, s *licentricserver.Service, c call, code string) verdict {
	t.Helper()
	a := c.ask(s)
	v := decode[verdict](t, a)
	if a.status != http.StatusOK || v.Code != code || v.Valid != (code == "VALID") {
		t.Fatalf("%s = %d %s, want 200 with the code %s", c.body, a.status, a.body, code)
	}
	return v
}

// refused insists on an error of the API.
func refused(t *testing.T, s *licentricserver.Service, c call, status int, code string) failure {
	t.Helper()
	a := c.ask(s)
	f := decode[failure](t, a)
	if a.status != status || f.Code != code || f.Error == "" {
		t.Fatalf("%s %s %s = %d %s, want %d with the code %s", c.method, c.path, c.body, a.status, a.body, status, code)
	}
	return f
}

// done insists on a machine, in the envelope.
func done(t *testing.T, s *licentricserver.Service, c call, status int) machine {
	t.Helper()
	a := c.ask(s)
	if a.status != status {
		t.Fatalf("%s %s = %d %s, want %d", c.method, c.path, a.status, a.body, status)
	}
	return decode[enveloped[machine]](t, a).Data
}
