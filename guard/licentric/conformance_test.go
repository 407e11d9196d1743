package licentric_test

import (
	"errors"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
	"github.com/execguard/execguard/guard/licentric"
	"github.com/execguard/execguard/internal/licentricserver"
)

// The validator is held to what the guard relies on, in both readings of the documentation, with
// heartbeats and entitlements and without.
func TestConformance(t *testing.T) {
	t.Run("bare", func(t *testing.T) {
		guardtest.TestValidator(t, func(t *testing.T) guardtest.Subject {
			srv, license, client := local(t)
			return subject(t, srv, license, client.Validator(license.Key))
		})
	})
	t.Run("enveloped, with heartbeats and entitlements", func(t *testing.T) {
		guardtest.TestValidator(t, func(t *testing.T) guardtest.Subject {
			srv, license, client := local(t, variants["enveloped objects"]...)
			err := errors.Join(srv.RequireHeartbeats(license.ID, time.Hour), srv.SetEntitlements(license.ID, "pro", "sso"))
			if err != nil {
				t.Fatal(err)
			}
			return subject(t, srv, license, client.Validator(license.Key, licentric.WithEntitlements("sso")))
		})
	})
}

func subject(t *testing.T, srv *licentricserver.Server, license licentricserver.License, v guard.Validator) guardtest.Subject {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	add := func(fingerprint string) {
		t.Helper()
		_, err := srv.AddMachine(license.ID, fingerprint)
		must(err)
	}
	inject := func(fault string) func() func() {
		return func() func() {
			must(srv.Inject(fault))
			return func() { must(srv.Heal()) }
		}
	}
	const other = "fp:worker:test:08"
	add(other)
	return guardtest.Subject{
		Validator: v,
		Device:    device,
		Other:     other,
		Stranger:  "fp:stranger:09",
		Revoke: func(fingerprint string) func() {
			must(srv.RemoveMachine(license.ID, fingerprint))
			return func() { add(fingerprint) }
		},
		SwitchOff: func() func() {
			must(srv.Suspend(license.ID))
			return func() { must(srv.Reinstate(license.ID)) }
		},
		Outage:  inject("connection refused"),
		Silence: inject("accepted and silent"),
		Secrets: []string{license.Key, srv.APIKey()},
	}
}
