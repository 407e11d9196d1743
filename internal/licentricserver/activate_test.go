package licentricserver_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/internal/licentricserver"
)

// A machine is what it was told to be, is seen by every call, and is gone when it is deactivated.
func TestMachinesLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		m := done(t, s, activate(`{"fingerprint":"`+fingerprint+`","name":"Ada's","platform":"linux","hostname":"ada","cores":8,"metadata":{"a":[1]}}`), http.StatusCreated)
		if m.Fingerprint != fingerprint || m.LicenseID != licenseID || m.Name != "Ada's" || m.Platform != "linux" ||
			m.Hostname != "ada" || m.Cores != 8 || string(m.Metadata) != `{"a":[1]}` || m.DeletedAt != nil ||
			*m.CreatedAt != "2000-01-01T00:00:00.000Z" {
			t.Fatalf("activated %+v", m)
		}
		says(t, s, validateMachine(fingerprint), "VALID")
		if same := done(t, s, get(s, m.ID), http.StatusOK); same.ID != m.ID || same.Hostname != "ada" {
			t.Errorf("got %+v", same)
		}
		if kept := s.Machines(licenseID); len(kept) != 1 || kept[0].ID != m.ID || kept[0].Cores != 8 {
			t.Errorf("kept %+v", kept)
		}
		time.Sleep(time.Minute)
		if last := done(t, s, deactivate(m.ID), http.StatusOK); last.ID != m.ID || last.DeletedAt == nil || *last.DeletedAt != "2000-01-01T00:01:00.000Z" {
			t.Errorf("deactivated %+v", last)
		}
		says(t, s, validateMachine(fingerprint), "FINGERPRINT_NOT_FOUND")
		refused(t, s, get(s, m.ID), http.StatusNotFound, "NOT_FOUND")
		refused(t, s, deactivate(m.ID), http.StatusNotFound, "NOT_FOUND")
		refused(t, s, heartbeat(m.ID), http.StatusNotFound, "NOT_FOUND")
		if again := done(t, s, activate(`{"fingerprint":"`+fingerprint+`"}`), http.StatusCreated); again.ID == m.ID {
			t.Error("a new activation has the old id")
		}
	})
}

func TestChangesWithoutContent(t *testing.T) {
	s := newService(t, licentricserver.WithNoContent())
	m := addMachine(t, s, fingerprint)
	for _, c := range []call{heartbeat(m.ID), deactivate(m.ID)} {
		if a := c.ask(s); a.status != http.StatusNoContent || a.body != "" || a.header.Get("Content-Type") != "" {
			t.Errorf("%s: got %d %q %v", c.method, a.status, a.body, a.header)
		}
		if left := s.Machines(licenseID); len(left) == 1 && left[0].LastHeartbeat.IsZero() {
			t.Error("the heartbeat was not noted")
		}
	}
	if len(s.Machines(licenseID)) != 0 {
		t.Error("the machine is still there")
	}
}

// 409 comes before 422: a machine that is active already takes no more room.
func TestMachineLimit(t *testing.T) {
	s := newService(t)
	ok(t, s.SetMaxMachines(licenseID, 1))
	m := done(t, s, activate(`{"fingerprint":"`+fingerprint+`"}`), http.StatusCreated)
	refused(t, s, activate(`{"fingerprint":"`+fingerprint+`"}`), http.StatusConflict, "CONFLICT")
	refused(t, s, activate(`{"fingerprint":"`+other+`"}`), http.StatusUnprocessableEntity, "MACHINE_LIMIT_EXCEEDED")
	says(t, s, validateMachine(fingerprint), "VALID") // at the limit is not above it
	done(t, s, deactivate(m.ID), http.StatusOK)
	done(t, s, activate(`{"fingerprint":"`+other+`"}`), http.StatusCreated)
}

// A licence that is good for nothing gets no machine and no heartbeat, but can free a seat.
func TestCallsOfALicenceThatIsNotInForce(t *testing.T) {
	for name, change := range map[string]func(*licentricserver.Service) error{
		"suspended": func(s *licentricserver.Service) error { return s.Suspend(licenseID) },
		"revoked":   func(s *licentricserver.Service) error { return s.Revoke(licenseID) },
		"banned":    func(s *licentricserver.Service) error { return s.Ban(licenseID) },
		"expired":   func(s *licentricserver.Service) error { return s.Expire(licenseID, false) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t)
			m := addMachine(t, s, fingerprint)
			ok(t, change(s))
			for _, c := range []call{
				activate(`{"fingerprint":"` + other + `"}`), heartbeat(m.ID), checkout(s, `{"fingerprint":"`+fingerprint+`"}`),
			} {
				if f := refused(t, s, c, http.StatusForbidden, "FORBIDDEN"); f.Error != "the licence is "+name {
					t.Errorf("%s: %q", c.path, f.Error)
				}
			}
			done(t, s, deactivate(m.ID), http.StatusOK)
		})
	}
}

// Under ALLOW_ACCESS an expired licence goes on with all of its calls.
func TestCallsUnderAllowAccess(t *testing.T) {
	s := newService(t)
	ok(t, s.Expire(licenseID, true))
	m := done(t, s, activate(`{"fingerprint":"`+fingerprint+`"}`), http.StatusCreated)
	done(t, s, heartbeat(m.ID), http.StatusOK)
	if a := checkout(s, `{"fingerprint":"`+fingerprint+`"}`).ask(s); a.status != http.StatusOK {
		t.Errorf("checkout: %d %s", a.status, a.body)
	}
}

// One customer's machine is nobody else's: 404, as if it were not there.
func TestMachineOfAnotherLicence(t *testing.T) {
	s := newService(t)
	second, err := s.AddLicense(licentricserver.License{})
	ok(t, err)
	m, err := s.AddMachine(second.ID, fingerprint)
	ok(t, err)
	refused(t, s, heartbeat(m.ID), http.StatusNotFound, "NOT_FOUND")
	refused(t, s, deactivate(m.ID), http.StatusNotFound, "NOT_FOUND")
	if left := s.Machines(second.ID); len(left) != 1 || !left[0].LastHeartbeat.IsZero() {
		t.Errorf("left %+v", left)
	}
	ok(t, s.RemoveLicense(second.ID))
	refused(t, s, get(s, m.ID), http.StatusNotFound, "NOT_FOUND")
}

// 400 names every member that is wrong, by its name.
func TestValidationErrors(t *testing.T) {
	s := newService(t)
	addMachine(t, s, fingerprint)
	long := strings.Repeat("x", 256)
	at := func(c call, body string) call { c.body = body; return c }
	for name, test := range map[string]struct {
		ask    call
		fields []string
	}{
		"validate without a key":           {at(validate(""), `{}`), []string{"key"}},
		"validate with a key that is null": {at(validate(""), `{"key":null}`), []string{"key"}},
		"an empty key":                     {at(validate(""), `{"key":""}`), []string{"key"}},
		"a key that is no string":          {at(validate(""), `{"key":7}`), []string{"key"}},
		"a key in another case":            {at(validate(""), `{"Key":"x"}`), []string{"key"}},
		"a short fingerprint":              {validateMachine("1234567"), []string{"fingerprint"}},
		"a long fingerprint":               {validateMachine(long + "x"), []string{"fingerprint"}},
		"no list of entitlements":          {validate(`"entitlements":"SYNC"`), []string{"entitlements"}},
		"an empty entitlement":             {validate(`"entitlements":["SYNC",""]`), []string{"entitlements"}},
		"validate, three mistakes":         {at(validate(""), `{"fingerprint":"","entitlements":[1]}`), []string{"key", "fingerprint", "entitlements"}},
		"activate without a body":          {activate(""), []string{"fingerprint"}},
		"activate, a short fingerprint":    {activate(`{"fingerprint":"1234567"}`), []string{"fingerprint"}},
		"activate, everything wrong": {
			activate(`{"fingerprint":[],"name":"` + long + `","platform":"beos","hostname":1,"cores":0,"metadata":"x"}`),
			[]string{"fingerprint", "name", "platform", "hostname", "cores", "metadata"},
		},
		"half a core":               {activate(`{"fingerprint":"fp-machine-09","cores":1.5}`), []string{"cores"}},
		"checkout without a body":   {checkout(s, ""), []string{"fingerprint"}},
		"a ttl below an hour":       {checkout(s, `{"fingerprint":"`+fingerprint+`","ttl":3599}`), []string{"ttl"}},
		"a ttl above 90 days":       {checkout(s, `{"fingerprint":"`+fingerprint+`","ttl":7776001}`), []string{"ttl"}},
		"a limit of 0":              {list(s, "?limit=0"), []string{"limit"}},
		"a limit above 100":         {list(s, "?limit=101"), []string{"limit"}},
		"a limit that is no number": {list(s, "?limit=ten&cursor=ten"), []string{"limit", "cursor"}},
		"a cursor of another's":     {list(s, "?cursor=YWJj"), []string{"cursor"}},
		"a cursor of another kind":  {list(s, "?cursor=b3RoZXI6MQ"), []string{"cursor"}},
		"a cursor of no kind":       {list(s, "?cursor=%21"), []string{"cursor"}},
		"no JSON":                   {activate(`{`), nil},
		"an array":                  {activate(`[]`), nil},
		"null":                      {activate(`null`), nil},
		"two documents":             {activate(`{"fingerprint":"fp-machine-09"}{}`), nil},
	} {
		t.Run(name, func(t *testing.T) {
			f := refused(t, s, test.ask, http.StatusBadRequest, "VALIDATION_ERROR")
			var fields []string
			for _, d := range f.Details {
				fields = append(fields, d.Field)
				if d.Message == "" {
					t.Errorf("%s: no message", d.Field)
				}
			}
			if !slices.Equal(fields, test.fields) {
				t.Errorf("fields %q, want %q", fields, test.fields)
			}
		})
	}
	if n := len(s.Machines(licenseID)); n != 1 {
		t.Errorf("%d machines: a request that is refused has done something", n)
	}
}

// The bounds themselves are allowed, and characters are counted, not bytes.
func TestBoundsAreIncluded(t *testing.T) {
	s := newService(t)
	for i, c := range []call{
		activate(`{"fingerprint":"12345678"}`),
		activate(`{"fingerprint":"` + strings.Repeat("é", 256) + `","name":"` + strings.Repeat("é", 255) + `"}`),
		activate(`{"fingerprint":"fp-machine-09","name":null,"platform":null,"cores":1,"metadata":{},"unknown":1}`),
	} {
		done(t, s, c, http.StatusCreated)
		if n := len(s.Machines(licenseID)); n != i+1 {
			t.Errorf("%d machines after %d activations", n, i+1)
		}
	}
	for _, platform := range []string{"macos", "windows", "linux", "docker", "kubernetes"} {
		done(t, s, activate(fmt.Sprintf(`{"fingerprint":"on-%s","platform":%q}`, strings.Repeat(platform, 3), platform)), http.StatusCreated)
	}
}
