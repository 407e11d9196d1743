package licentricserver_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/execguard/execguard/internal/faulty"
	"github.com/execguard/execguard/internal/licentricserver"
)

// Requests are recorded with the machine that they are about, and with whether a key came along.
func TestRequests(t *testing.T) {
	s := start(t)
	m := s.Machines(licenseID)[0]
	for _, c := range []call{whole(), heartbeat(m.ID), get(s.Service, m.ID), {method: "GET", path: "/api/v1/machines"}} {
		if a := overHTTP(t.Context(), s.Client(), s.URL(), c); a.err != nil {
			t.Fatal(a.err)
		}
	}
	all, err := s.Wait(t.Context(), 4)
	ok(t, err)
	var got []string
	for _, r := range all {
		got = append(got, fmt.Sprint(r.Method, " ", r.DeviceID, " ", r.WithKey))
	}
	want := []string{"POST " + fingerprint + " true", "POST " + fingerprint + " true", "GET " + fingerprint + " true", "GET  false"}
	if !slices.Equal(got, want) {
		t.Errorf("recorded %q, want %q", got, want)
	}
	if body := all[0].Body(); string(body) != whole().body || all[1].Header().Get("Authorization") != "License "+licenseKey {
		t.Errorf("kept %s", body)
	}
}

func TestPlainHTTP(t *testing.T) {
	s := start(t, licentricserver.WithPlainHTTP())
	if got := judge(ask(t, s, false), fingerprint); got != "ALLOW" || !strings.HasPrefix(s.URL(), "http://127.0.0.1:") {
		t.Errorf("%s from %s", got, s.URL())
	}
	if i := slices.IndexFunc(s.Faults(), func(f faulty.Fault) bool { return f.NeedsTLS }); i < 0 {
		t.Error("no fault of TLS")
	} else if err := s.Inject(s.Faults()[i].Name); err == nil {
		t.Error("a fault of TLS on a server without")
	}
}

// S8: what is printed of a server, or of a service, holds no key.
func TestPrintedServer(t *testing.T) {
	s := start(t)
	for _, value := range []any{s, *s, s.Service, struct{ S *licentricserver.Server }{s}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			text := fmt.Sprintf(verb, value)
			if strings.Contains(text, s.APIKey()) || strings.Contains(text, licenseKey) {
				t.Errorf("%s of %T gives a key away", verb, value)
			}
		}
	}
	if text := fmt.Sprint(s); text != "licentricserver.Server("+s.URL()+")" {
		t.Errorf("printed %q", text)
	}
}
