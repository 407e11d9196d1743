package clerk_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/clerk"
	"github.com/execguard/execguard/internal/clerkserver"
)

// The life of a machine, told by every call, against the other implementation of the wire.
func TestAgainstServer(t *testing.T) {
	_, client, own := start(t)
	ctx := t.Context()
	made, err := client.Create(ctx, clerk.CreateParams{Name: "worker", DefaultTokenTTL: time.Minute})
	if err != nil || made.Name != "worker" || made.DefaultTokenTTL != time.Minute || made.SecretKey.Reveal() == "" {
		t.Fatalf("%+v, %v", made, err)
	}
	expect := func(want guard.Code, opts ...clerk.ValidatorOption) {
		t.Helper()
		d, err := client.Validator(opts...).Validate(ctx, made.ID)
		if err != nil || d.Code != want || d.Allowed != (want == guard.CodeAllow) || d.RequestID == "" {
			t.Errorf("%+v, %v, want %s", d, err, want)
		}
	}
	expect(guard.CodeAllow)
	expect(guard.CodeDeviceRevoked, clerk.WithScope(own))
	if scope, err := client.AddScope(ctx, made.ID, own); err != nil || scope.From != made.ID || scope.To != own || scope.CreatedAt.IsZero() {
		t.Errorf("%+v, %v", scope, err)
	}
	expect(guard.CodeAllow, clerk.WithScope(own))
	if _, err := client.AddScope(ctx, made.ID, own); wantError[*clerk.Error](t, err).Status != 409 {
		t.Errorf("%v", err)
	}
	if got, err := client.Update(ctx, made.ID, clerk.UpdateParams{Name: "other"}); err != nil || got.Name != "other" || got.DefaultTokenTTL != time.Minute {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := client.Get(ctx, made.ID); err != nil || got.Name != "other" || len(got.ScopedMachines) != 1 || got.ScopedMachines[0].ID != own {
		t.Errorf("%+v, %v", got, err)
	}
	if secret, err := client.SecretKey(ctx, made.ID); err != nil || secret.Reveal() != made.SecretKey.Reveal() {
		t.Errorf("%v", err)
	}
	if err := client.RemoveScope(ctx, made.ID, own); err != nil {
		t.Error(err)
	}
	expect(guard.CodeDeviceRevoked, clerk.WithScope(own))
	if err := client.Delete(ctx, made.ID); err != nil {
		t.Error(err)
	}
	expect(guard.CodeDeviceNotFound)
	if err := client.Delete(ctx, made.ID); wantError[*clerk.Error](t, err).Status != 404 || errors.Is(err, guard.ErrUnavailable) {
		t.Errorf("%v", err)
	}
}

// Tokens in both forms: made with the machine's key, verified with ours, ended.
func TestTokensAgainstServer(t *testing.T) {
	server, client, own := start(t)
	ctx := t.Context()
	id, secret := server.AddMachine("worker", own)
	for format, claims := range map[clerk.TokenFormat]string{"": "", clerk.TokenOpaque: `{"role":"reader"}`, clerk.TokenJWT: `{"role":"reader"}`} {
		params := clerk.TokenParams{TTL: time.Minute, Format: format}
		if claims != "" {
			params.Claims = json.RawMessage(claims)
		}
		made, err := client.CreateToken(ctx, secret, params)
		if left := time.Until(made.ExpiresAt); err != nil || made.Subject != id || left < 50*time.Second || left > time.Minute {
			t.Fatalf("%s: %+v, %v", format, made, err)
		}
		got, err := client.VerifyToken(ctx, made.Secret.Reveal())
		if err != nil || got.Subject != id || string(got.Claims) != claims {
			t.Errorf("%s: %+v, %v", format, got, err)
		}
		if machineID, err := client.VerifyMachine(ctx, made.Secret.Reveal()); machineID != id || err != nil {
			t.Errorf("%s: %q, %v", format, machineID, err)
		}
		if format == clerk.TokenJWT {
			continue // runs out, and cannot be revoked
		}
		if revoked, err := client.RevokeToken(ctx, made.ID, "lost"); err != nil || !revoked.Revoked || revoked.ID != made.ID {
			t.Errorf("%s: %+v, %v", format, revoked, err)
		}
		if machineID, err := client.VerifyMachine(ctx, made.Secret.Reveal()); machineID != "" || wantError[*clerk.TokenError](t, err).Reason != "it was revoked" {
			t.Errorf("%s: %q, %v", format, machineID, err)
		}
	}
	if _, err := client.VerifyMachine(ctx, "mt_unknown"); wantError[*clerk.Error](t, err).Status != 404 || errors.Is(err, guard.ErrUnavailable) {
		t.Errorf("%v", err)
	}
	_, endless, err := server.IssueToken(id, clerkserver.TokenSpec{Endless: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.VerifyMachine(ctx, endless); wantError[*clerk.TokenError](t, err).Reason != "it has no end" {
		t.Errorf("%v", err)
	}
	server.SetScopes(id)
	_, unscoped, err := server.IssueToken(id, clerkserver.TokenSpec{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.VerifyMachine(ctx, unscoped); wantError[*clerk.TokenError](t, err).Reason != "this machine is not in its scopes" {
		t.Errorf("%v", err)
	}
}

// A rotated key: the old one makes tokens for as long as was said, or no more at once.
func TestRotationAgainstServer(t *testing.T) {
	server, client, own := start(t)
	ctx := t.Context()
	id, first := server.AddMachine("worker", own)
	second, err := client.RotateSecretKey(ctx, id, time.Hour)
	if err != nil || second.Reveal() == first {
		t.Fatal(err)
	}
	for _, secret := range []string{first, second.Reveal()} {
		if _, err := client.CreateToken(ctx, secret, clerk.TokenParams{}); err != nil {
			t.Error(err)
		}
	}
	third, err := client.RotateSecretKey(ctx, id, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CreateToken(ctx, second.Reveal(), clerk.TokenParams{}); wantError[*clerk.Error](t, err).Status != 401 {
		t.Errorf("%v", err)
	}
	if current, err := client.SecretKey(ctx, id); err != nil || current.Reveal() != third.Reveal() {
		t.Errorf("%v", err)
	}
}

// Each documented error, as the server words it.
func TestErrorsOfServer(t *testing.T) {
	server, client, _ := start(t)
	for _, status := range []int{400, 401, 403, 404, 409, 422} {
		item := clerkserver.ErrorItem{Message: "is invalid", LongMessage: "It is.", Code: "form_invalid", Meta: map[string]any{"param_name": "name"}}
		if err := server.RefuseNext(status, item, item); err != nil {
			t.Fatal(err)
		}
		_, err := client.Create(t.Context(), clerk.CreateParams{Name: "x"})
		failed := wantError[*clerk.Error](t, err)
		if failed.Status != status || failed.TraceID == "" || len(failed.Errors) != 2 || string(failed.Errors[1].Meta) != `{"param_name":"name"}` {
			t.Errorf("%d: %#v", status, failed)
		}
	}
}

// A deletion that is answered by null is believed when the service, asked about it, says the same;
// anybody who says null to everything is not.
func TestDeletionsAnsweredByNull(t *testing.T) {
	service, err := clerkserver.New(clerkserver.WithDeleteNull())
	if err != nil {
		t.Fatal(err)
	}
	client, err := clerk.New(service.SecretKey(), clerk.WithHTTPClient(service.InProcess()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	to, _ := service.AddMachine("api")
	id, _ := service.AddMachine("worker", to)
	ctx := t.Context()
	if err := client.RemoveScope(ctx, id, to); err != nil {
		t.Error(err)
	}
	if got, err := client.Get(ctx, id); err != nil || len(got.ScopedMachines) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if err := client.Delete(ctx, id); err != nil {
		t.Error(err)
	}
	if err := client.Delete(ctx, id); wantError[*clerk.Error](t, err).Status != 404 {
		t.Error(err)
	}
	for name, do := range map[string]func(ctx context.Context, c *clerk.Client) error{
		"delete":       func(ctx context.Context, c *clerk.Client) error { return c.Delete(ctx, theirs) },
		"remove scope": func(ctx context.Context, c *clerk.Client) error { return c.RemoveScope(ctx, theirs, ours) },
	} {
		portal := offline(t, canned(200, "null"))
		still := offline(t, &flaky{name: "get", fails: 1, answer: canned(200, " null\n")})
		away := offline(t, &flaky{name: "get", fails: 1, answer: canned(202, "null")})
		for _, client := range []*clerk.Client{portal, still, away} {
			if err := do(ctx, client); !errors.Is(err, guard.ErrUnavailable) || wantError[*clerk.BodyError](t, err) == nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}
