package guardtest_test

import (
	"net/http"
	"testing"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/authority"
	"github.com/execguard/execguard/guard/guardtest"
)

// scripted puts the scripted validator on trial.
func scripted() guardtest.Subject {
	v := guardtest.NewValidator("one", "two")
	endOutage := func() { v.Always("", nil) }
	return guardtest.Subject{
		Validator: v,
		Device:    "one",
		Other:     "two",
		Stranger:  "three",
		Revoke: func(id string) func() {
			v.Deny(id, guard.CodeDeviceRevoked)
			return func() { v.Allow(id) }
		},
		SwitchOff: func() func() {
			v.Deny("", guard.CodeOrgDisabled)
			return endOutage
		},
		Outage: func() func() {
			v.Always("", guardtest.Reply(guard.Decision{Code: guard.CodeSystemUnavailable}, nil))
			return endOutage
		},
		Silence: func() func() {
			v.Always("", guardtest.Hang())
			return endOutage
		},
		Secrets: []string{"org_that_it_never_saw"},
	}
}

func TestScriptedValidatorConforms(t *testing.T) {
	guardtest.TestValidator(t, func(*testing.T) guardtest.Subject { return scripted() })
}

func TestAuthorityInProcessConforms(t *testing.T) {
	guardtest.TestValidator(t, func(t *testing.T) guardtest.Subject {
		srv := guardtest.NewServer(t)
		s := srv.Subject(srv.Organisation())
		s.Silence = nil // there is no network in between
		s.Outage = func() func() {
			srv.SetState(authority.StateUnavailable)
			return func() { srv.SetState(authority.StateActive) }
		}
		return s
	})
}

func TestClientOverHTTPConforms(t *testing.T) {
	for name, opts := range map[string][]guardtest.Option{
		"denials with 200":   nil,
		"denials with 403":   {guardtest.WithAuthority(authority.WithDenyStatus(http.StatusForbidden))},
		"denials with 404":   {guardtest.WithAuthority(authority.WithDenyStatus(http.StatusNotFound))},
		"over HTTP, not TLS": {guardtest.WithPlainHTTP()},
	} {
		t.Run(name, func(t *testing.T) {
			guardtest.TestValidator(t, func(t *testing.T) guardtest.Subject {
				srv := guardtest.NewServer(t, opts...)
				return srv.Subject(newClient(t, srv))
			})
		})
	}
}
