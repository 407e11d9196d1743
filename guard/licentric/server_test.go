package licentric_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/licentric"
	"github.com/execguard/execguard/internal/licentricserver"
)

// variants are the forms in which the documentation can be read.
var variants = map[string][]licentricserver.Option{
	"bare":                {},
	"enveloped":           {licentricserver.WithVariant(licentricserver.Enveloped)},
	"entitlement objects": {licentricserver.WithEntitlementObjects()},
	"enveloped objects":   {licentricserver.WithVariant(licentricserver.Enveloped), licentricserver.WithEntitlementObjects(), licentricserver.WithOldErrors()},
	"no content":          {licentricserver.WithNoContent()},
}

// The life of a machine, told by every call, in every reading of the documentation.
func TestLifeOfMachine(t *testing.T) {
	for name, opts := range variants {
		t.Run(name, func(t *testing.T) {
			srv, license, client := local(t, opts...)
			ctx := t.Context()
			const fingerprint = "fp:second-machine"
			v := client.Validator(license.Key)
			expect := func(want guard.Code, reason string) {
				t.Helper()
				d, err := v.Validate(ctx, fingerprint)
				if err != nil || d.Code != want || d.Reason != reason || d.Allowed != (want == guard.CodeAllow) {
					t.Errorf("%+v, %v, want %s", d, err, want)
				}
			}
			expect(guard.CodeDeviceNotFound, "FINGERPRINT_NOT_FOUND")
			m, err := client.Activate(ctx, license.Key, licentric.Activation{
				Fingerprint: fingerprint, Name: "second", Platform: "linux", Hostname: "h2", Cores: 4, Metadata: map[string]any{"rack": 7},
			})
			if err != nil || m.ID == "" || m.LicenseID != license.ID || m.Fingerprint != fingerprint || m.Name != "second" || m.Platform != "linux" ||
				m.Hostname != "h2" || m.Cores != 4 || m.CreatedAt.IsZero() || m.UpdatedAt.IsZero() || !m.LastHeartbeatAt.IsZero() || string(m.Metadata) != `{"rack":7}` {
				t.Errorf("%+v, %v", m, err)
			}
			expect(guard.CodeAllow, "VALID")
			if err := srv.RequireHeartbeats(license.ID, time.Hour); err != nil {
				t.Fatal(err)
			}
			beaten, err := client.Heartbeat(ctx, license.Key, m.ID)
			if err != nil || beaten.ID != m.ID {
				t.Errorf("%+v, %v", beaten, err)
			}
			one, err := client.Machine(ctx, m.ID)
			if err != nil || one.Fingerprint != fingerprint || time.Since(one.LastHeartbeatAt).Abs() > time.Minute || one.HeartbeatStatus != "ALIVE" {
				t.Errorf("%+v, %v", one, err)
			}
			if name != "no content" && (beaten.HeartbeatStatus != "ALIVE" || !one.LastHeartbeatAt.Equal(beaten.LastHeartbeatAt)) {
				t.Errorf("%+v", beaten)
			}
			if err := client.Deactivate(ctx, license.Key, m.ID); err != nil {
				t.Error(err)
			}
			expect(guard.CodeDeviceNotFound, "FINGERPRINT_NOT_FOUND")
			for _, err := range []error{client.Deactivate(ctx, license.Key, m.ID), second(client.Machine(ctx, m.ID)), second(client.Heartbeat(ctx, license.Key, m.ID))} {
				if e := typedError(t, err); e.Status != 404 || e.Code != "NOT_FOUND" || errors.Is(err, guard.ErrUnavailable) {
					t.Errorf("%#v", e)
				}
			}
		})
	}
}

// Validate tells all that the service tells, in every reading of the documentation.
func TestValidationIsWhole(t *testing.T) {
	for name, opts := range variants {
		t.Run(name, func(t *testing.T) {
			srv, _, client := local(t, opts...)
			end := time.Now().Add(time.Hour).UTC().Truncate(time.Millisecond)
			license := licensed(t, srv.Service, licentricserver.License{Key: "LIC-whole-tail7y", Name: "n", Entitlements: []string{"pro", "sso"}, ExpiresAt: end}, device)
			params := licentric.ValidateParams{Fingerprint: device, Entitlements: []string{"sso"}}
			got, err := client.Validate(t.Context(), license.Key, params)
			if err != nil || !got.Valid || got.Code != licentric.CodeValid || got.Machine.Fingerprint != device || !slices.Equal(got.Entitlements, []string{"pro", "sso"}) {
				t.Errorf("%+v, %v", got, err)
			}
			l := got.License
			if l.ID != license.ID || l.Name != "n" || l.Status != "ACTIVE" || l.ProductID != license.ProductID || l.PolicyID != license.PolicyID ||
				!l.ExpiresAt.Equal(end) || l.MachineCount != 1 || !slices.Equal(l.Entitlements, []string{"pro", "sso"}) {
				t.Errorf("%+v", l)
			}
			var raw map[string]any
			if err := json.Unmarshal(got.Raw, &raw); err != nil || raw["valid"] == nil && raw["data"] == nil {
				t.Errorf("%s, %v", got.Raw, err)
			}
			checkSecret(t, got)
			params.Entitlements = []string{"other"}
			if got, err = client.Validate(t.Context(), license.Key, params); err != nil || got.Valid || got.Code != licentric.CodeEntitlementsMissing {
				t.Errorf("%+v, %v", got, err)
			}
			if got, err = client.Validate(t.Context(), license.Key, licentric.ValidateParams{}); err != nil || !got.Valid || got.Machine.ID != "" {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

// Each code that a state of the service can bring about.
func TestCodesByState(t *testing.T) {
	type service = licentricserver.Service
	for name, c := range map[string]struct {
		bring func(s *service, id string) error
		want  licentric.Code
	}{
		"active":    {func(*service, string) error { return nil }, licentric.CodeValid},
		"suspended": {(*service).Suspend, licentric.CodeSuspended},
		"revoked":   {(*service).Revoke, licentric.CodeRevoked},
		"banned":    {(*service).Ban, licentric.CodeBanned},
		"removed":   {(*service).RemoveLicense, licentric.CodeNotFound},
		"expired":   {func(s *service, id string) error { return s.Expire(id, false) }, licentric.CodeExpired},
		"the trap":  {func(s *service, id string) error { return s.Expire(id, true) }, licentric.CodeExpired},
		"too many machines": {func(s *service, id string) error {
			_, err := s.AddMachine(id, "fp:one-too-many")
			return errors.Join(err, s.SetMaxMachines(id, 1))
		}, licentric.CodeMachineLimitExceeded},
		"used up":       {func(s *service, id string) error { return s.SetUses(id, 3, 3) }, licentric.CodeUsesExceeded},
		"not entitled":  {func(s *service, id string) error { return s.SetEntitlements(id, "other") }, licentric.CodeEntitlementsMissing},
		"machine moved": {func(s *service, id string) error { return s.RemoveMachine(id, device) }, licentric.CodeFingerprintNotFound},
	} {
		srv, license, client := local(t)
		if err := errors.Join(srv.SetEntitlements(license.ID, "pro"), c.bring(srv.Service, license.ID)); err != nil {
			t.Fatal(err)
		}
		d, err := client.Validator(license.Key, licentric.WithEntitlements("pro")).Validate(t.Context(), device)
		if err != nil || d.Code != c.want.Guard() || d.Reason != string(c.want) || d.Allowed != (c.want == licentric.CodeValid) || name == "the trap" && d.Allowed {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
	}
}

// What the service refuses by status: the limit of machines, a machine that is there, a key
// without the scope, a key that is not known, a rate limit.
func TestRefusalsOfService(t *testing.T) {
	srv, license, client := local(t)
	ctx := t.Context()
	if err := srv.SetMaxMachines(license.ID, 1); err != nil {
		t.Fatal(err)
	}
	scopeless := newClientOf(t, srv, srv.AddAPIKey())
	stranger := newClientOf(t, srv, apiKey)
	for name, c := range map[string]struct {
		err    error
		status int
	}{
		"limit of machines": {second(client.Activate(ctx, license.Key, licentric.Activation{Fingerprint: "fp:another"})), 422},
		"bad platform":      {second(client.Activate(ctx, license.Key, licentric.Activation{Fingerprint: "fp:another", Platform: "amiga"})), 400},
		"unknown licence":   {second(client.Activate(ctx, "LIC-unknown", licentric.Activation{Fingerprint: "fp:another"})), 401},
		"there already":     {second(client.Activate(ctx, license.Key, licentric.Activation{Fingerprint: device})), 409},
		"no scope":          {second(scopeless.Machine(ctx, machineID)), 403},
		"no such key":       {second(stranger.Machine(ctx, machineID)), 401},
		"no such machine":   {second(client.Machine(ctx, machineID)), 404},
		"no such licence":   {second(client.Checkout(ctx, licenseID, licentric.CheckoutParams{Fingerprint: device})), 404},
	} {
		e := typedError(t, c.err)
		if e.Status != c.status || e.Code == "" || e.Message == "" || errors.Is(c.err, guard.ErrUnavailable) || (e.Status == 400) != (e.Details != nil) {
			t.Errorf("%s: %#v, want %d", name, e, c.status)
		}
		checkSecret(t, c.err)
	}
}

func newClientOf(t *testing.T, srv *licentricserver.Server, key string) *licentric.Client {
	t.Helper()
	client, err := licentric.New(key, licentric.WithBaseURL(srv.URL()), licentric.WithHTTPClient(srv.Client()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { checkClosed(t, client) })
	return client
}

// 60 validations a minute and no more: the one after is «could not ask», with the time to wait.
func TestRateLimitOfService(t *testing.T) {
	_, license, client := local(t, licentricserver.WithRateLimits())
	v := client.Validator(license.Key)
	for i := range 60 {
		if d, err := v.Validate(t.Context(), device); err != nil || !d.Allowed {
			t.Fatalf("%d: %+v, %v", i, d, err)
		}
	}
	d, err := v.Validate(t.Context(), device)
	checkUndecided(t, d, err)
	if e := typedError(t, err); e.Status != 429 || d.RetryAfter <= 0 || d.RetryAfter > time.Minute {
		t.Errorf("%+v, %#v", d, e)
	}
}

// List walks over all pages, of one licence or of all.
func TestMachinesOfService(t *testing.T) {
	srv, license, client := local(t)
	other := licensed(t, srv.Service, licentricserver.License{}, "fp:of-another-licence")
	want := []string{device}
	for i := range 120 {
		want = append(want, fmt.Sprintf("fp:machine-%03d", i))
		if _, err := srv.AddMachine(license.ID, want[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	for _, size := range []int{0, 1, 40, 100} {
		got, err := collect(client, t.Context(), licentric.MachinesParams{LicenseID: license.ID, PageSize: size})
		var fingerprints []string
		for _, m := range got {
			fingerprints = append(fingerprints, m.Fingerprint)
		}
		if err != nil || !slices.Equal(fingerprints, want) {
			t.Errorf("%d a page: %d machines, %v", size, len(got), err)
		}
	}
	if all, err := collect(client, t.Context(), licentric.MachinesParams{}); err != nil || len(all) != 122 {
		t.Errorf("%d, %v", len(all), err)
	}
	if one, err := collect(client, t.Context(), licentric.MachinesParams{LicenseID: other.ID}); err != nil || len(one) != 1 {
		t.Errorf("%+v, %v", one, err)
	}
}

// A file that was checked out lets its machine go on offline, and no other.
func TestCheckoutOfService(t *testing.T) {
	srv, license, client := local(t)
	got, err := client.Checkout(t.Context(), license.ID, licentric.CheckoutParams{Fingerprint: device, TTL: 2 * time.Hour})
	if err != nil || got.Raw == nil {
		t.Fatal(err)
	}
	file, err := licentric.VerifyFile(got.Certificate, licentric.FormatCertificate, device, time.Now(), srv.PublicKey())
	if err != nil || file.ID != license.ID || file.Ends.Sub(file.Issued) != 2*time.Hour {
		t.Errorf("%+v, %v", file, err)
	}
	offline, err := licentric.Offline(got.Certificate, licentric.FormatCertificate, srv.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	if d, err := offline.Validate(t.Context(), device); err != nil || !d.Allowed || !d.ExpiresAt.Equal(file.Ends) {
		t.Errorf("%+v, %v", d, err)
	}
	if d, err := offline.Validate(t.Context(), "fp:another"); err != nil || d.Allowed || d.Code != guard.CodeDeviceNotFound {
		t.Errorf("%+v, %v", d, err)
	}
	got, err = client.Checkout(t.Context(), license.ID, licentric.CheckoutParams{Fingerprint: device})
	if err != nil {
		t.Fatal(err)
	}
	if file, err = licentric.VerifyFile(got.Certificate, licentric.FormatCertificate, device, time.Now(), srv.PublicKey()); err != nil || file.Ends.Sub(file.Issued) != 14*24*time.Hour {
		t.Errorf("the service's own life of a file: %+v, %v", file, err)
	}
}

// A service that lives elsewhere is found by the same client.
func TestMovedService(t *testing.T) {
	moved := licentricserver.Paths{Validate: "/v2/check", Deactivate: "POST /m/{id}/off", Heartbeat: "PUT /m/{id}", Checkout: "/l/{id}/file"}
	srv, license, _ := local(t, licentricserver.WithPaths(moved))
	client, err := licentric.New(srv.APIKey(), licentric.WithBaseURL(srv.URL()), licentric.WithHTTPClient(srv.Client()),
		licentric.WithPaths(licentric.Paths{Validate: moved.Validate, Deactivate: moved.Deactivate, Heartbeat: moved.Heartbeat, Checkout: moved.Checkout}))
	if err != nil {
		t.Fatal(err)
	}
	defer checkClosed(t, client)
	ctx := t.Context()
	d, err := client.Validator(license.Key).Validate(ctx, device)
	if err != nil || !d.Allowed {
		t.Errorf("%+v, %v", d, err)
	}
	m := srv.Machines(license.ID)[0]
	if _, err := client.Heartbeat(ctx, license.Key, m.ID); err != nil {
		t.Error(err)
	}
	if _, err := client.Checkout(ctx, license.ID, licentric.CheckoutParams{Fingerprint: device}); err != nil {
		t.Error(err)
	}
	if err := client.Deactivate(ctx, license.Key, m.ID); err != nil {
		t.Error(err)
	}
}
