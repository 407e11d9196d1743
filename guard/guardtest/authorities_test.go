package guardtest_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/authority"
	"github.com/execguard/execguard/guard/clerk"
	"github.com/execguard/execguard/guard/guardtest"
	"github.com/execguard/execguard/guard/licentric"
	"github.com/execguard/execguard/internal/clerkserver"
	"github.com/execguard/execguard/internal/licentricserver"
)

// authorities are all that this module can ask, each with every handle that it has.
var authorities = map[string]func(t *testing.T) guardtest.Subject{
	"MachineID's client over HTTPS": func(t *testing.T) guardtest.Subject {
		srv := guardtest.NewServer(t)
		return srv.Subject(newClient(t, srv))
	},
	"MachineID's client over HTTP": func(t *testing.T) guardtest.Subject {
		srv := guardtest.NewServer(t, guardtest.WithPlainHTTP())
		return srv.Subject(newClient(t, srv))
	},
	"the embedded authority in process": func(t *testing.T) guardtest.Subject {
		srv := guardtest.NewServer(t)
		s := srv.Subject(srv.Organisation())
		s.Silence = nil // there is no network in between
		s.Outage = func() func() {
			srv.SetState(authority.StateUnavailable)
			return func() { srv.SetState(authority.StateActive) }
		}
		return s
	},
	"Licentric": func(t *testing.T) guardtest.Subject { return onLicentric(t) },
	"Licentric, in envelopes": func(t *testing.T) guardtest.Subject {
		return onLicentric(t, licentricserver.WithVariant(licentricserver.Enveloped))
	},
	"Clerk": onClerk,
}

// must is for handles, which may end the test.
func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func onLicentric(t *testing.T, opts ...licentricserver.Option) guardtest.Subject {
	t.Helper()
	const one, another = "licentric-machine-01", "licentric-machine-02"
	srv, err := licentricserver.Start(opts...)
	must(t, err)
	t.Cleanup(func() { must(t, srv.Close()) })
	license, err := srv.AddLicense(licentricserver.License{})
	must(t, err)
	add := func(fingerprint string) {
		_, err := srv.AddMachine(license.ID, fingerprint)
		must(t, err)
	}
	add(one)
	add(another)
	client, err := licentric.New(srv.APIKey(), licentric.WithBaseURL(srv.URL()), licentric.WithHTTPClient(srv.Client()))
	must(t, err)
	t.Cleanup(func() { must(t, client.Close()) })
	return guardtest.Subject{
		Validator: client.Validator(license.Key), Device: one, Other: another, Stranger: "licentric-stranger-03",
		Revoke: func(fingerprint string) func() {
			must(t, srv.RemoveMachine(license.ID, fingerprint))
			return func() { add(fingerprint) }
		},
		SwitchOff: func() func() {
			must(t, srv.Suspend(license.ID))
			return func() { must(t, srv.Reinstate(license.ID)) }
		},
		Outage:  injecting(t, srv, "connection refused"),
		Silence: injecting(t, srv, "accepted and silent"),
		Secrets: []string{license.Key, srv.APIKey()},
	}
}

func onClerk(t *testing.T) guardtest.Subject {
	t.Helper()
	srv, err := clerkserver.Start()
	must(t, err)
	t.Cleanup(func() { must(t, srv.Close()) })
	one, secret := srv.AddMachine("one")
	another, _ := srv.AddMachine("another")
	client, err := clerk.New(srv.SecretKey(), clerk.WithBaseURL(srv.URL()+"/v1"), clerk.WithHTTPClient(srv.Client()))
	must(t, err)
	t.Cleanup(func() { must(t, client.Close()) })
	return guardtest.Subject{
		Validator: client.Validator(), Device: one, Other: another, Stranger: "mch_stranger03",
		Revoke: func(id string) func() {
			if !srv.RemoveMachine(id) {
				t.Fatal("there is no machine " + id)
			}
			return func() { srv.RestoreMachine(id) }
		},
		SwitchOff: func() func() {
			srv.RevokeKey()
			return srv.RestoreKey
		},
		Outage:  injecting(t, srv, "connection refused"),
		Silence: injecting(t, srv, "accepted and silent"),
		Secrets: []string{srv.SecretKey(), secret},
	}
}

// injecting makes a handle that injects a fault and gives back what heals it.
func injecting(t *testing.T, srv interface {
	Inject(fault string) error
	Heal() error
}, fault string,
) func() func() {
	t.Helper()
	return func() func() {
		must(t, srv.Inject(fault))
		return func() { must(t, srv.Heal()) }
	}
}

func TestEveryAuthorityConforms(t *testing.T) {
	for name, subject := range authorities {
		t.Run(name, func(t *testing.T) { guardtest.TestValidator(t, subject) })
	}
}

// One story, told to every authority: what a guard makes of the answers is the same.
func TestEveryAuthorityTellsTheSame(t *testing.T) {
	want := []string{
		"device allowed", "other allowed", "stranger denied", "blank INVALID_DEVICE_ID",
		"revoked denied", "other meanwhile allowed", "restored allowed",
		"off denied", "on again allowed",
		"outage SYSTEM_UNAVAILABLE", "stranger in the outage SYSTEM_UNAVAILABLE", "mended allowed",
		"silence SYSTEM_UNAVAILABLE", "after it allowed",
		"gone caller SYSTEM_UNAVAILABLE",
	}
	for name, subject := range authorities {
		t.Run(name, func(t *testing.T) {
			s := subject(t)
			if diff := cmp.Diff(want, story(t, s)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// story asks in every state that the authority can be put into.
func story(t *testing.T, s guardtest.Subject) (told []string) {
	t.Helper()
	ask := func(ctx context.Context, what, deviceID string) {
		d, err := s.Validator.Validate(ctx, deviceID)
		told = append(told, what+" "+inAWord(d, err))
	}
	ask(t.Context(), "device", s.Device)
	ask(t.Context(), "other", s.Other)
	ask(t.Context(), "stranger", s.Stranger)
	ask(t.Context(), "blank", " ")
	restore := s.Revoke(s.Device)
	ask(t.Context(), "revoked", s.Device)
	ask(t.Context(), "other meanwhile", s.Other)
	restore()
	ask(t.Context(), "restored", s.Device)
	switchOn := s.SwitchOff()
	ask(t.Context(), "off", s.Device)
	switchOn()
	ask(t.Context(), "on again", s.Device)
	mend := s.Outage()
	ask(t.Context(), "outage", s.Device)
	ask(t.Context(), "stranger in the outage", s.Stranger)
	mend()
	ask(t.Context(), "mended", s.Device)
	if s.Silence == nil {
		told = append(told, "silence SYSTEM_UNAVAILABLE") // nothing can be silent in process
	} else {
		mend := s.Silence()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		ask(ctx, "silence", s.Device)
		cancel()
		mend()
	}
	ask(t.Context(), "after it", s.Device)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	ask(gone, "gone caller", s.Device)
	return told
}

// inAWord is an answer as far as authorities must agree: which denial it is differs.
func inAWord(d guard.Decision, err error) string {
	switch {
	case d.Allowed && d.Code == guard.CodeAllow && err == nil:
		return "allowed"
	case d.Allowed || d.Code == guard.CodeAllow || d.Code == "":
		return "contradicts itself: " + string(d.Code)
	case d.Code == guard.CodeSystemUnavailable || d.Code == guard.CodeInvalidDeviceID:
		return string(d.Code)
	case err != nil:
		return "denied with an error"
	}
	return "denied"
}
