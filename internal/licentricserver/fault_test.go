package licentricserver_test

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/execguard/execguard/internal/licentricserver"
)

// start starts a server with the licence that most tests ask about, active on one machine.
func start(t *testing.T, opts ...licentricserver.Option) *licentricserver.Server {
	t.Helper()
	s, err := licentricserver.Start(opts...)
	ok(t, err)
	t.Cleanup(func() { ok(t, s.Close()) })
	addLicense(t, s.Service, licentricserver.License{})
	addMachine(t, s.Service, fingerprint)
	return s
}

// whole asks for everything that can be asked for.
func whole() call {
	return validate(`"fingerprint":"` + fingerprint + `","entitlements":["SYNC"]`)
}

// ask asks over the network. A fault that never answers is left after a moment.
func ask(t *testing.T, s *licentricserver.Server, endless bool) asked {
	t.Helper()
	patience := 20 * time.Second
	if endless {
		patience = 100 * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return overHTTP(ctx, s.Client(), s.URL(), whole())
}

func variants() map[string][]licentricserver.Option {
	return map[string][]licentricserver.Option{
		"bare":               nil,
		"enveloped, objects": {licentricserver.WithVariant(licentricserver.Enveloped), licentricserver.WithEntitlementObjects()},
	}
}

// Under every fault a client that keeps the rules makes of the first answer what the table says,
// and after it gets its ALLOW again.
func TestFaults(t *testing.T) {
	for name, opts := range variants() {
		t.Run(name, func(t *testing.T) {
			s := start(t, opts...)
			for _, fault := range s.Faults() {
				t.Run(fault.Name, func(t *testing.T) {
					if got := judge(ask(t, s, false), fingerprint, "SYNC"); got != "ALLOW" {
						t.Fatalf("before: %s", got)
					}
					ok(t, s.Inject(fault.Name))
					if got := judge(ask(t, s, fault.Endless), fingerprint, "SYNC"); got != string(fault.Code) {
						t.Errorf("under the fault: %s, want %s", got, fault.Code)
					}
					ok(t, s.Heal())
					if got := judge(ask(t, s, false), fingerprint, "SYNC"); got != "ALLOW" {
						t.Errorf("after: %s", got)
					}
				})
			}
			if strays := s.Strays(); len(strays) != 0 {
				t.Errorf("the other host was asked: %v", strays)
			}
		})
	}
}

// The faults that the wire document asks for are there, beside the common ones.
func TestFaultsAreComplete(t *testing.T) {
	s := start(t)
	var names []string
	for _, fault := range s.Faults() {
		if slices.Contains(names, fault.Name) {
			t.Errorf("%s stands twice", fault.Name)
		}
		names = append(names, fault.Name)
	}
	for _, name := range []string{
		"valid as a string", "valid as 1", "valid as null", "valid missing", "code missing", "valid with a deny code",
		"valid with the code ALLOW", "denied with the code ALLOW", "denied with the code VALID", "unknown code, valid",
		"unknown code, denied", "EXPIRED with valid true", "two answers in one", "answer for another device",
		"keys in another case", "duplicate keys", "ALLOW with 201", "ALLOW with 403", "ALLOW with 500", "connection refused", "flapping",
	} {
		if !slices.Contains(names, name) {
			t.Errorf("%s is missing", name)
		}
	}
}

// A fault of the body is one change away from an ALLOW: whoever looks less closely than the rules
// ask for would act on it.
func TestFaultsTempt(t *testing.T) {
	for name, opts := range variants() {
		t.Run(name, func(t *testing.T) {
			s := start(t, opts...)
			ok(t, s.Inject("ALLOW with 403"))
			yes := ask(t, s, false)
			yes.status = http.StatusOK
			if got := judge(yes, fingerprint, "SYNC"); got != "ALLOW" {
				t.Fatalf("what faults are made of is %s: %s", got, yes.body)
			}
			for _, fault := range []string{
				"valid as a string", "valid as 1", "valid as null", "valid missing", "code missing", "valid with a deny code",
				"valid with the code ALLOW", "denied with the code VALID", "unknown code, valid", "EXPIRED with valid true",
				"two answers in one", "answer for another device", "keys in another case", "duplicate keys",
			} {
				ok(t, s.Inject(fault))
				a := ask(t, s, false)
				if a.err != nil || a.status != http.StatusOK || string(a.body) == string(yes.body) || !gullible(a) || !json.Valid(a.body) {
					t.Errorf("%s: %d %s, %v", fault, a.status, a.body, a.err)
				}
			}
			ok(t, s.Inject("second document after the first"))
			a := ask(t, s, false)
			first, second, _ := strings.Cut(string(a.body), "\n")
			if strings.HasPrefix(first, `{"data":`) != strings.HasPrefix(second, `{"data":`) {
				t.Errorf("in two forms: %s", a.body)
			}
			for document, want := range map[string]string{first: "ALLOW", second: "PLAN_FROZEN"} {
				a.body = []byte(document)
				if got := judge(a, fingerprint, "SYNC"); got != want {
					t.Errorf("%s is %s, want %s", document, got, want)
				}
			}
		})
	}
}

// What a fault says is in the words of the call that it strikes, so that it tempts there too.
func TestFaultsOfOtherCalls(t *testing.T) {
	s := start(t)
	m := s.Machines(licenseID)[0]
	ok(t, s.Inject("ALLOW with 500"))
	for name, c := range every(s.Service, m.ID) {
		a := overHTTP(t.Context(), s.Client(), s.URL(), c)
		if a.status != http.StatusInternalServerError || a.err != nil {
			t.Fatalf("%s: %d %v", name, a.status, a.err)
		}
		body := answer{body: string(a.body)}
		switch name {
		case licentricserver.CallValidate:
			a.status = http.StatusOK
			if got := judge(a, fingerprint); got != "ALLOW" {
				t.Errorf("%s: %s", name, got)
			}
		case licentricserver.CallMachines:
			if p := decode[page](t, body); len(p.Data) != 1 || p.Data[0].ID == "" {
				t.Errorf("%s: %s", name, a.body)
			}
		case licentricserver.CallCheckout:
			file := decode[enveloped[struct{ Certificate string }]](t, body).Data.Certificate
			if in := open(t, []byte(file), s.PublicKey()); in.Data.ID != licenseID || in.Data.Fingerprint != fingerprint {
				t.Errorf("%s: %+v", name, in)
			}
		default:
			if got := decode[enveloped[machine]](t, body).Data; got.ID == "" || name == licentricserver.CallHeartbeat && got.ID != m.ID {
				t.Errorf("%s: %+v", name, got)
			}
		}
	}
	ok(t, s.Inject("answer for another device"))
	a := overHTTP(t.Context(), s.Client(), s.URL(), heartbeat(m.ID))
	if got := decode[enveloped[machine]](t, answer{body: string(a.body)}).Data; got.ID == m.ID || got.Fingerprint == fingerprint || got.ID == "" {
		t.Errorf("heartbeat of another machine: %+v", got)
	}
}

// Errors that faults bring are the service's own, in both forms.
func TestFaultsErrors(t *testing.T) {
	for _, opts := range [][]licentricserver.Option{nil, {licentricserver.WithOldErrors()}} {
		s := start(t, opts...)
		for name, code := range map[string]string{"500": "INTERNAL_ERROR", "503": "SERVICE_UNAVAILABLE", "429 with Retry-After in seconds": "RATE_LIMITED"} {
			ok(t, s.Inject(name))
			a := ask(t, s, false)
			f := decode[failure](t, answer{body: string(a.body)})
			if f.Code != code || f.Error == "" || (f.Status == a.status) != (opts != nil) || (f.RequestID == "") != (opts != nil) {
				t.Errorf("%s: %d %s", name, a.status, a.body)
			}
		}
	}
}

// A fault strikes the network and not what a test does in process.
func TestControlUnderAFault(t *testing.T) {
	s := start(t)
	ok(t, s.Inject("connection refused"))
	ok(t, s.Suspend(licenseID))
	ok(t, s.Heal())
	if got := judge(ask(t, s, false), fingerprint); got != "PLAN_FROZEN" {
		t.Errorf("got %s", got)
	}
	for _, bad := range []string{"", "no such fault"} {
		if err := s.Inject(bad); err == nil || !strings.HasPrefix(err.Error(), "licentricserver: ") {
			t.Errorf("Inject(%q): %v", bad, err)
		}
	}
}
