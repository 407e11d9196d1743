package licentricserver_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/internal/licentricserver"
)

// Every code of the wire document, each by the state that it stands for.
func TestCodes(t *testing.T) {
	for code, test := range map[string]struct {
		change func(t *testing.T, s *licentricserver.Service)
		ask    call
	}{
		"VALID":                 {func(*testing.T, *licentricserver.Service) {}, validateMachine(fingerprint)},
		"EXPIRED":               {func(t *testing.T, s *licentricserver.Service) { ok(t, s.Expire(licenseID, false)) }, validateMachine(fingerprint)},
		"SUSPENDED":             {func(t *testing.T, s *licentricserver.Service) { ok(t, s.Suspend(licenseID)) }, validateMachine(fingerprint)},
		"REVOKED":               {func(t *testing.T, s *licentricserver.Service) { ok(t, s.Revoke(licenseID)) }, validateMachine(fingerprint)},
		"BANNED":                {func(t *testing.T, s *licentricserver.Service) { ok(t, s.Ban(licenseID)) }, validateMachine(fingerprint)},
		"NOT_FOUND":             {func(t *testing.T, s *licentricserver.Service) { ok(t, s.RemoveLicense(licenseID)) }, validateMachine(fingerprint)},
		"FINGERPRINT_NOT_FOUND": {func(t *testing.T, s *licentricserver.Service) { ok(t, s.RemoveMachine(licenseID, fingerprint)) }, validateMachine(fingerprint)},
		"MACHINE_LIMIT_EXCEEDED": {func(t *testing.T, s *licentricserver.Service) {
			addMachine(t, s, other)
			ok(t, s.SetMaxMachines(licenseID, 1))
		}, validateMachine(fingerprint)},
		"HEARTBEAT_REQUIRED":   {func(t *testing.T, s *licentricserver.Service) { ok(t, s.RequireHeartbeats(licenseID, time.Minute)) }, validateMachine(fingerprint)},
		"USES_EXCEEDED":        {func(t *testing.T, s *licentricserver.Service) { ok(t, s.SetUses(licenseID, 3, 3)) }, validateMachine(fingerprint)},
		"ENTITLEMENTS_MISSING": {func(t *testing.T, s *licentricserver.Service) { ok(t, s.SetEntitlements(licenseID, "SYNC")) }, validate(`"fingerprint":"` + fingerprint + `","entitlements":["SYNC","EXPORT"]`)},
	} {
		t.Run(code, func(t *testing.T) {
			s := newService(t)
			addMachine(t, s, fingerprint)
			says(t, s, test.ask, "VALID")
			test.change(t, s)
			says(t, s, test.ask, code)
		})
	}
}

// Each change is in effect for the next answer, and taken back by the one after.
func TestReinstateTakesBack(t *testing.T) {
	s := newService(t)
	for _, change := range []func(string) error{
		s.Suspend, s.Revoke, s.Ban, func(id string) error { return s.Expire(id, false) },
	} {
		says(t, s, validate(""), "VALID")
		ok(t, change(licenseID))
		if v := decode[verdict](t, validate("").ask(s)); v.Valid || v.Code == "VALID" {
			t.Fatalf("still valid: %+v", v)
		}
		ok(t, s.Reinstate(licenseID))
	}
	says(t, s, validate(""), "VALID")
}

// The trap of the wire document: under ALLOW_ACCESS an expired licence is valid with EXPIRED, and
// all other denials stay what they are.
func TestExpiredUnderAllowAccess(t *testing.T) {
	s := newService(t)
	ok(t, s.Expire(licenseID, true))
	v := decode[verdict](t, validate("").ask(s))
	if !v.Valid || v.Code != "EXPIRED" || v.License.Status != "EXPIRED" {
		t.Fatalf("got %+v, want valid true with EXPIRED", v)
	}
	says(t, s, validateMachine(fingerprint), "FINGERPRINT_NOT_FOUND")
	says(t, s, validate(`"entitlements":["NONE"]`), "ENTITLEMENTS_MISSING")
	ok(t, s.Suspend(licenseID))
	says(t, s, validate(""), "SUSPENDED")
}

// What a licence is under is told before what a machine is, and that before what is asked for.
func TestTheFirstThingThatIsWrongIsTold(t *testing.T) {
	s := newService(t)
	ask := validate(`"fingerprint":"` + fingerprint + `","entitlements":["NONE"]`)
	ok(t, s.Ban(licenseID))
	ok(t, s.Expire(licenseID, false))
	ok(t, s.SetUses(licenseID, 1, 1))
	ok(t, s.SetMaxMachines(licenseID, 1))
	ok(t, s.RequireHeartbeats(licenseID, time.Minute))
	says(t, s, ask, "BANNED")
	ok(t, s.SetStatus(licenseID, licentricserver.StatusActive))
	says(t, s, ask, "EXPIRED")
	ok(t, s.Reinstate(licenseID))
	says(t, s, ask, "FINGERPRINT_NOT_FOUND")
	addMachine(t, s, fingerprint)
	addMachine(t, s, other)
	says(t, s, ask, "MACHINE_LIMIT_EXCEEDED")
	ok(t, s.RemoveMachine(licenseID, other))
	says(t, s, ask, "HEARTBEAT_REQUIRED")
	ok(t, s.SetHeartbeat(licenseID, fingerprint, time.Now()))
	says(t, s, ask, "USES_EXCEEDED")
	ok(t, s.SetUses(licenseID, 0, 1))
	says(t, s, ask, "ENTITLEMENTS_MISSING")
	ok(t, s.SetEntitlements(licenseID, "NONE"))
	says(t, s, ask, "VALID")
}

// A licence ends at its ExpiresAt to the nanosecond, and Reinstate does not lengthen it.
func TestLicenceEndsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := licentricserver.New()
		ok(t, err)
		addLicense(t, s, licentricserver.License{ExpiresAt: time.Now().Add(time.Hour).In(time.FixedZone("", 3600))})
		time.Sleep(time.Hour - 1)
		says(t, s, validate(""), "VALID")
		time.Sleep(1)
		v := says(t, s, validate(""), "EXPIRED")
		if v.License.Status != "EXPIRED" || v.License.ExpiresAt == nil || *v.License.ExpiresAt != "2000-01-01T01:00:00.000Z" {
			t.Errorf("got the licence %+v", v.License)
		}
		ok(t, s.Reinstate(licenseID))
		says(t, s, validate(""), "EXPIRED")
	})
}

// Expire ends a licence now, and not at the end that it was added with.
func TestExpireIsNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := licentricserver.New()
		ok(t, err)
		addLicense(t, s, licentricserver.License{ExpiresAt: time.Now().Add(time.Hour)})
		time.Sleep(time.Minute)
		ok(t, s.Expire(licenseID, false))
		if v := says(t, s, validate(""), "EXPIRED"); *v.License.ExpiresAt != "2000-01-01T00:01:00.000Z" {
			t.Errorf("expired at %s", *v.License.ExpiresAt)
		}
		ok(t, s.Reinstate(licenseID))
		if v := says(t, s, validate(""), "VALID"); *v.License.ExpiresAt != "2000-01-01T01:00:00.000Z" {
			t.Errorf("reinstated until %s", *v.License.ExpiresAt)
		}
	})
}

// A machine is alive for a period after each heartbeat, and dead before the first.
func TestHeartbeatsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		m := addMachine(t, s, fingerprint)
		pulse := func(code, status string) {
			t.Helper()
			v := says(t, s, validateMachine(fingerprint), code)
			if v.Machine == nil || v.Machine.HeartbeatStatus == nil || *v.Machine.HeartbeatStatus != status {
				t.Fatalf("got the machine %+v, want the heartbeat status %s", v.Machine, status)
			}
		}
		if v := says(t, s, validateMachine(fingerprint), "VALID"); v.Machine.HeartbeatStatus != nil {
			t.Errorf("heartbeat status %q where nobody asks for heartbeats", *v.Machine.HeartbeatStatus)
		}
		ok(t, s.RequireHeartbeats(licenseID, 5*time.Minute))
		pulse("HEARTBEAT_REQUIRED", "NOT_STARTED")
		for range 3 {
			beat := done(t, s, heartbeat(m.ID), http.StatusOK)
			if beat.LastHeartbeatAt == nil || beat.ID != m.ID || *beat.HeartbeatStatus != "ALIVE" {
				t.Fatalf("got %+v", beat)
			}
			pulse("VALID", "ALIVE")
			time.Sleep(5 * time.Minute)
			pulse("VALID", "ALIVE")
			time.Sleep(1)
			pulse("HEARTBEAT_REQUIRED", "DEAD")
		}
		says(t, s, validate(""), "VALID") // nobody asked about a machine
		ok(t, s.SetHeartbeat(licenseID, fingerprint, time.Time{}))
		pulse("HEARTBEAT_REQUIRED", "NOT_STARTED")
	})
}

// The answer is about the machine that was asked about, under the licence that was asked about.
func TestMachineOfTheAnswer(t *testing.T) {
	s := newService(t)
	second, err := s.AddLicense(licentricserver.License{})
	ok(t, err)
	m := addMachine(t, s, fingerprint)
	if v := says(t, s, validate(""), "VALID"); v.Machine != nil {
		t.Errorf("a machine that nobody asked about: %+v", v.Machine)
	}
	v := says(t, s, validateMachine(fingerprint), "VALID")
	if v.Machine == nil || v.Machine.ID != m.ID || v.Machine.Fingerprint != fingerprint || v.License.MachineCount != 1 {
		t.Errorf("got %+v of %+v", v.Machine, v.License)
	}
	elsewhere := validateMachine(fingerprint)
	elsewhere.body = strings.Replace(elsewhere.body, licenseKey, second.Key, 1)
	if v := says(t, s, elsewhere, "FINGERPRINT_NOT_FOUND"); v.Machine != nil || v.License.ID != second.ID {
		t.Errorf("another licence's machine: %+v", v.Machine)
	}
	_, err = s.AddMachine(second.ID, fingerprint)
	ok(t, err)
	if v := says(t, s, elsewhere, "VALID"); v.Machine.LicenseID != second.ID || v.Machine.ID == m.ID {
		t.Errorf("got %+v", v.Machine)
	}
}

// Both variants that the documentation can be read as, and both forms of an entitlement.
func TestVariants(t *testing.T) {
	bare := newService(t, licentricserver.WithEntitlementObjects())
	v := says(t, bare, validate(""), "VALID")
	if len(v.Entitlements) != 2 || string(v.Entitlements[0]) != `{"code":"EXPORT","name":"EXPORT"}` {
		t.Errorf("entitlements %s", v.Entitlements)
	}
	s := newService(t, licentricserver.WithVariant(licentricserver.Enveloped))
	for name, ask := range map[string]call{"VALID": validate(""), "FINGERPRINT_NOT_FOUND": validateMachine(other)} {
		top := decode[map[string]json.RawMessage](t, ask.ask(s))
		if len(top) != 1 || top["data"] == nil {
			t.Errorf("%s: members %v, want data alone", name, top)
		}
		if v := decode[enveloped[verdict]](t, ask.ask(s)).Data; v.Code != name || v.Valid != (name == "VALID") {
			t.Errorf("%s: %+v", name, v)
		}
	}
	// An error is never in an envelope.
	refused(t, s, validate(`"fingerprint":"short"`), http.StatusBadRequest, "VALIDATION_ERROR")
}
