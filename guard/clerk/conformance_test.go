package clerk_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/clerk"
	"github.com/execguard/execguard/guard/guardtest"
	"github.com/execguard/execguard/internal/clerkserver"
)

// start starts a local Clerk, and a client for it that is the machine ownID.
func start(t testing.TB, opts ...clerk.Option) (server *clerkserver.Server, client *clerk.Client, ownID string) {
	t.Helper()
	server, err := clerkserver.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	ownID, _ = server.AddMachine("api")
	client, err = clerk.New(server.SecretKey(), append([]clerk.Option{
		clerk.WithBaseURL(server.BaseURL()), clerk.WithHTTPClient(server.Client()), clerk.WithMachineID(ownID),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return server, client, ownID
}

// subject puts a client of the service on trial.
func subject(t *testing.T, service *clerkserver.Service, v guard.Validator, to ...string) guardtest.Subject {
	one, secret := service.AddMachine("one", to...)
	another, _ := service.AddMachine("another", to...)
	return guardtest.Subject{
		Validator: v, Device: one, Other: another, Stranger: "mch_stranger",
		Revoke: func(id string) func() {
			if !service.RemoveMachine(id) {
				t.Fatalf("no machine %s", id)
			}
			return func() { service.RestoreMachine(id) }
		},
		SwitchOff: func() func() {
			service.RevokeKey()
			return service.RestoreKey
		},
		Secrets: []string{service.SecretKey(), secret},
	}
}

func TestConformance(t *testing.T) {
	guardtest.TestValidator(t, func(t *testing.T) guardtest.Subject {
		server, client, _ := start(t)
		s := subject(t, server.Service, client.Validator())
		s.Outage, s.Silence = injecting(t, server, "connection refused"), injecting(t, server, "accepted and silent")
		return s
	})
}

// The same where what is revoked is a scope, and the key has no right in place of not being known.
func TestConformanceOfScopes(t *testing.T) {
	guardtest.TestValidator(t, func(t *testing.T) guardtest.Subject {
		server, client, own := start(t)
		s := subject(t, server.Service, client.Validator(clerk.WithScope(own)), own)
		s.Revoke = func(id string) func() {
			server.SetScopes(id)
			return func() { server.SetScopes(id, own) }
		}
		s.SwitchOff = func() func() {
			server.RestrictKey()
			return server.RestoreKey
		}
		s.Outage, s.Silence = injecting(t, server, "DNS failure"), injecting(t, server, "TLS handshake stalled")
		return s
	})
}

// The same without sockets.
func TestConformanceInProcess(t *testing.T) {
	guardtest.TestValidator(t, func(t *testing.T) guardtest.Subject {
		service, err := clerkserver.New()
		if err != nil {
			t.Fatal(err)
		}
		client, err := clerk.New(service.SecretKey(), clerk.WithHTTPClient(service.InProcess()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		s := subject(t, service, client.Validator())
		s.Outage = func() func() {
			service.Limit(time.Second)
			return service.Unlimit
		}
		return s
	})
}

func injecting(t *testing.T, server *clerkserver.Server, fault string) func() func() {
	return func() func() {
		if err := server.Inject(fault); err != nil {
			t.Fatal(err)
		}
		return func() {
			if err := server.Heal(); err != nil {
				t.Error(err)
			}
		}
	}
}

// B1, S3: in a guard, a machine that is deleted stops its run, and so does a scope that is removed;
// a key that is not taken any more stops every device at once.
func TestInAGuard(t *testing.T) {
	for name, c := range map[string]struct {
		revoke func(s *clerkserver.Server, id string)
		want   guard.Code
	}{
		"deleted":       {func(s *clerkserver.Server, id string) { s.RemoveMachine(id) }, guard.CodeDeviceNotFound},
		"scope removed": {func(s *clerkserver.Server, id string) { s.SetScopes(id) }, guard.CodeDeviceRevoked},
		"key revoked":   {func(s *clerkserver.Server, _ string) { s.RevokeKey() }, guard.CodeInvalidOrgKey},
	} {
		t.Run(name, func(t *testing.T) {
			server, client, own := start(t)
			id, _ := server.AddMachine("worker", own)
			g, err := guard.New(client.Validator(clerk.WithScope(own)), guard.WithInterval(20*time.Millisecond), guard.WithTimeout(5*time.Second))
			if err != nil {
				t.Fatal(err)
			}
			defer g.Close()
			err = g.Run(t.Context(), id, func(ctx context.Context) error {
				c.revoke(server, id)
				<-ctx.Done()
				return ctx.Err()
			})
			denied := wantError[*guard.DeniedError](t, err)
			if denied.Decision.Code != c.want || !denied.InFlight || errors.Is(err, guard.ErrUnavailable) {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
}
