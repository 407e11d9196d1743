package licentricserver_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/execguard/execguard/internal/licentricserver"
)

// go test ./internal/licentricserver -run TestGolden -update writes the golden files anew.
var update = flag.Bool("update", false, "write the golden files")

// scene is one answer that has a golden file: the state, the question, the status.
type scene struct {
	opts   []licentricserver.Option
	state  func(*licentricserver.Service) error
	ask    func(*licentricserver.Service) call
	status int
}

func asking(c call) func(*licentricserver.Service) call {
	return func(*licentricserver.Service) call { return c }
}

// aboutMachine asks a call about the one machine that there is.
func aboutMachine(c func(id string) call) func(*licentricserver.Service) call {
	return func(s *licentricserver.Service) call { return c(s.Machines(licenseID)[0].ID) }
}

// scenes is every kind of answer, by the name of its file.
func scenes() map[string]scene {
	whole := validate(`"fingerprint":"` + fingerprint + `","entitlements":["SYNC"]`)
	all := map[string]scene{
		"validate-valid":      {ask: asking(whole)},
		"validate-no-machine": {ask: asking(validate(""))},
		"validate-enveloped":  {opts: []licentricserver.Option{licentricserver.WithVariant(licentricserver.Enveloped)}, ask: asking(whole)},
		"validate-objects":    {opts: []licentricserver.Option{licentricserver.WithEntitlementObjects()}, ask: asking(whole)},
		"validate-access": {
			state: func(s *licentricserver.Service) error { return s.Expire(licenseID, true) }, ask: asking(whole),
		},
		"validate-bad": {ask: asking(validate(`"fingerprint":"short","entitlements":"SYNC"`)), status: http.StatusBadRequest},
		"activate": {
			ask:    asking(activate(`{"fingerprint":"` + other + `","name":"Ada","platform":"linux","hostname":"ada","cores":8,"metadata":{"a":[1]}}`)),
			status: http.StatusCreated,
		},
		"activate-conflict": {ask: asking(activate(`{"fingerprint":"` + fingerprint + `"}`)), status: http.StatusConflict},
		"activate-limit": {
			state:  func(s *licentricserver.Service) error { return s.SetMaxMachines(licenseID, 1) },
			ask:    asking(activate(`{"fingerprint":"` + other + `"}`)),
			status: http.StatusUnprocessableEntity,
		},
		"heartbeat": {
			state: func(s *licentricserver.Service) error { return s.RequireHeartbeats(licenseID, time.Minute) },
			ask:   aboutMachine(heartbeat),
		},
		"deactivate": {ask: aboutMachine(deactivate)},
		"checkout": {ask: func(s *licentricserver.Service) call {
			return checkout(s, `{"fingerprint":"`+fingerprint+`","ttl":3600}`)
		}},
		"machine":       {ask: func(s *licentricserver.Service) call { return get(s, s.Machines(licenseID)[0].ID) }},
		"machines":      {ask: func(s *licentricserver.Service) call { return list(s, "?licenseId="+licenseID) }},
		"machines-none": {ask: func(s *licentricserver.Service) call { return list(s, "?licenseId=none") }},
		"machines-more": {
			state: func(s *licentricserver.Service) error { return second(s.AddMachine(licenseID, other)) },
			ask:   func(s *licentricserver.Service) call { return list(s, "?limit=1") },
		},
		"no-key": {ask: asking(call{method: "GET", path: "/api/v1/machines"}), status: http.StatusUnauthorized},
		"scope": {
			ask: func(s *licentricserver.Service) call {
				c := list(s, "")
				c.auth = "Bearer " + s.AddAPIKey()
				return c
			},
			status: http.StatusForbidden,
		},
		"not-found": {ask: asking(heartbeat("none")), status: http.StatusNotFound},
		"not-found-old": {
			opts: []licentricserver.Option{licentricserver.WithOldErrors()}, ask: asking(heartbeat("none")), status: http.StatusNotFound,
		},
		"limited": {
			state: func(s *licentricserver.Service) error {
				s.Fail(licentricserver.CallValidate, 429, 7*time.Second)
				return nil
			},
			ask:    asking(whole),
			status: http.StatusTooManyRequests,
		},
		"unavailable": {
			state:  func(s *licentricserver.Service) error { s.Fail(licentricserver.CallValidate, 503, 0); return nil },
			ask:    asking(whole),
			status: http.StatusServiceUnavailable,
		},
	}
	for name, state := range denials() {
		all["validate-"+name] = scene{state: state, ask: asking(whole)}
	}
	return all
}

// denials is every code of validate but VALID, by the state that brings it.
func denials() map[string]func(*licentricserver.Service) error {
	return map[string]func(*licentricserver.Service) error{
		"expired":               func(s *licentricserver.Service) error { return s.Expire(licenseID, false) },
		"suspended":             func(s *licentricserver.Service) error { return s.Suspend(licenseID) },
		"revoked":               func(s *licentricserver.Service) error { return s.Revoke(licenseID) },
		"banned":                func(s *licentricserver.Service) error { return s.Ban(licenseID) },
		"not-found":             func(s *licentricserver.Service) error { return s.RemoveLicense(licenseID) },
		"fingerprint-not-found": func(s *licentricserver.Service) error { return s.RemoveMachine(licenseID, fingerprint) },
		"machine-limit": func(s *licentricserver.Service) error {
			_, err := s.AddMachine(licenseID, other)
			if err != nil {
				return err
			}
			return s.SetMaxMachines(licenseID, 1)
		},
		"heartbeat-required":   func(s *licentricserver.Service) error { return s.RequireHeartbeats(licenseID, time.Minute) },
		"uses-exceeded":        func(s *licentricserver.Service) error { return s.SetUses(licenseID, 3, 3) },
		"entitlements-missing": func(s *licentricserver.Service) error { return s.SetEntitlements(licenseID) },
	}
}

// What each answer looks like, to the byte but for the ids that are new each time: those are
// numbered in the order in which they stand. The first line is the status, then come the headers.
func TestGolden(t *testing.T) {
	kept := map[string]bool{}
	for name, test := range scenes() {
		kept[name+".http"] = true
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newService(t, append(test.opts, licentricserver.WithSeed(bytes.Repeat([]byte{0x42}, 32)))...)
				addMachine(t, s, fingerprint)
				if test.state != nil {
					ok(t, test.state(s))
				}
				a := test.ask(s).ask(s)
				if want := max(test.status, http.StatusOK); a.status != want {
					t.Fatalf("status %d, want %d: %s", a.status, want, a.body)
				}
				golden(t, name+".http", a)
			})
		})
	}
	files, err := filepath.Glob("testdata/*")
	ok(t, err)
	for _, file := range files {
		if !kept[filepath.Base(file)] {
			t.Errorf("%s is no scene's", file)
		}
	}
}

// uuid finds ids of version 4, and nothing that only looks like one.
var uuid = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`)

// golden compares an answer with its file, or writes it.
func golden(t *testing.T, name string, a answer) {
	t.Helper()
	var body bytes.Buffer
	if a.body != "" {
		ok(t, json.Indent(&body, []byte(a.body), "", "  "))
	}
	var head bytes.Buffer
	ok(t, a.header.Write(&head)) // sorted
	fixed := map[string]bool{licenseID: true, "11111111-1111-4111-8111-111111111111": true, "22222222-2222-4222-8222-222222222222": true}
	numbers := map[string]string{}
	text := uuid.ReplaceAllStringFunc(body.String(), func(id string) string {
		if !fixed[id] && numbers[id] == "" {
			numbers[id] = fmt.Sprintf("00000000-0000-4000-8000-%012d", len(numbers)+1)
		}
		if fixed[id] {
			return id
		}
		return numbers[id]
	})
	got := fmt.Sprintf("%d\n%s\n%s", a.status, strings.ReplaceAll(head.String(), "\r\n", "\n"), text)
	file := filepath.Join("testdata", name)
	if *update {
		ok(t, os.WriteFile(file, []byte(got), 0o600))
	}
	want, err := os.ReadFile(file)
	ok(t, err)
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Error(diff)
	}
}
