package authority_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/authority"
)

// guarded is a guard over an organisation in process, told of its changes if hinted.
func guarded(t *testing.T, org *authority.Organisation, hinted bool) *guard.Guard {
	t.Helper()
	g, err := guard.New(org, guard.WithInterval(10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if hinted {
		t.Cleanup(org.Subscribe(g.Hint))
	}
	return g
}

// A run under a guard ends when the authority in its process says so: at once with hints, and
// without them within the guard's own bound.
func TestAGuardFollowsTheAuthority(t *testing.T) {
	for name, change := range map[string]struct {
		do   func(ctx context.Context, org *authority.Organisation) error
		want guard.Code
	}{
		"revoked": {func(ctx context.Context, org *authority.Organisation) error {
			_, err := org.Revoke(ctx, "agent-01")
			return err
		}, guard.CodeDeviceRevoked},
		"all revoked": {func(ctx context.Context, org *authority.Organisation) error {
			_, err := org.RevokeAllActive(ctx)
			return err
		}, guard.CodeDeviceRevoked},
		"switched off": {func(ctx context.Context, org *authority.Organisation) error {
			return org.SetState(ctx, authority.StateDisabled)
		}, guard.CodeOrgDisabled},
	} {
		for _, hinted := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					_, org := newOrganisation(t, authority.PlanFree)
					world{calls: org}.register(t, "agent-01")
					g := guarded(t, org, hinted)
					defer g.Close()
					var took time.Duration
					err := g.Run(t.Context(), "agent-01", func(ctx context.Context) error {
						if err := change.do(t.Context(), org); err != nil {
							return err
						}
						began := time.Now()
						<-ctx.Done()
						took = time.Since(began)
						return ctx.Err()
					})
					var denied *guard.DeniedError
					if !errors.As(err, &denied) || denied.Decision.Code != change.want || !denied.InFlight {
						t.Fatalf("the run ended with %v", err)
					}
					if hinted && took > time.Second || took > g.StopBound() {
						t.Errorf("hinted %v: stopped after %v", hinted, took)
					}
				})
			})
		}
	}
}

// A start is refused with the authority's own code and request id.
func TestAGuardRefusesWhatTheAuthorityDenies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, org := newOrganisation(t, authority.PlanFree)
		g := guarded(t, org, true)
		defer g.Close()
		err := g.Run(t.Context(), "agent-99", func(context.Context) error {
			t.Error("it ran")
			return nil
		})
		var denied *guard.DeniedError
		if !errors.As(err, &denied) || denied.Decision.Code != guard.CodeDeviceNotFound || len(denied.Decision.RequestID) != 36 {
			t.Errorf("%v", err)
		}
		// White space around an id is no other device: the decision names the id that was asked about.
		world{calls: org}.register(t, "agent-99")
		if err := g.Run(t.Context(), " agent-99 ", func(context.Context) error { return nil }); err != nil {
			t.Errorf("an id with white space: %v", err)
		}
	})
}
