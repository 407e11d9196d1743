package authority_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/authority"
)

// serveOnce hands one request straight to the handler, with as many keys as are given.
func serveOnce(t *testing.T, a http.Handler, method, path, body string, keys ...string) *httptest.ResponseRecorder {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	for _, k := range keys {
		req.Header.Add("x-org-key", k)
	}
	rec := httptest.NewRecorder()
	a.ServeHTTP(rec, req)
	return rec
}

func TestPlans(t *testing.T) {
	for plan, want := range map[authority.Plan]int{
		authority.PlanFree: 3, authority.PlanPro: 25, authority.PlanScale: 250, authority.PlanMax: 1000,
		"": 0, "FREE": 0, "enterprise": 0,
	} {
		if got := plan.Limit(); got != want {
			t.Errorf("Plan(%q).Limit() = %d, want %d", plan, got, want)
		}
	}
}

func TestBadOptionsAreRefusedByName(t *testing.T) {
	for _, tc := range []struct {
		opt  authority.Option
		want []string
	}{
		{nil, []string{"option 1", "nil"}},
		{authority.WithStore(nil), []string{"WithStore", "nil"}},
		{authority.WithDenyStatus(0), []string{"WithDenyStatus", "0"}},
		{authority.WithDenyStatus(204), []string{"WithDenyStatus", "204"}},
		{authority.WithDenyStatus(302), []string{"WithDenyStatus", "302"}},
		{authority.WithDenyStatus(500), []string{"WithDenyStatus", "500"}},
		{authority.WithDenyStatus(-403), []string{"WithDenyStatus", "-403"}},
	} {
		a, err := authority.New(tc.opt)
		if a != nil || err == nil {
			t.Errorf("%v: accepted", tc.want)
			continue
		}
		for _, w := range tc.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q does not name %q", err, w)
			}
		}
	}
}

func TestAddOrganisationRefuses(t *testing.T) {
	a, _ := newOrganisation(t, authority.PlanFree)
	for name, key := range map[string]string{
		"empty": "", "no prefix": "key_0123456789abcdef", "prefix alone": "org_", "in capitals": "ORG_0123456789",
		"white space": "org_0123 4567", "a line break": "org_0123\n4567", "not ASCII": "org_schlüssel",
		"too long": "org_" + strings.Repeat("k", 253),
	} {
		if _, err := a.AddOrganisation(t.Context(), key, authority.PlanFree); errorCode(t, err) != "invalid_org_key" {
			t.Errorf("%s: %v", name, err)
		} else if len(key) > len("org_") && strings.Contains(err.Error(), key) {
			t.Errorf("%s: the error shows the key", name)
		}
	}
	if _, err := a.AddOrganisation(t.Context(), "org_longest"+strings.Repeat("k", 245), authority.PlanMax); err != nil {
		t.Errorf("256 characters: %v", err)
	}
	if _, err := a.AddOrganisation(t.Context(), "org_other", "gold"); err == nil || !strings.Contains(err.Error(), "gold") {
		t.Errorf("an unknown plan: %v", err)
	}
	if _, err := a.AddOrganisation(t.Context(), testKey, authority.PlanFree); !errors.Is(err, authority.ErrExists) {
		t.Errorf("a key in use: %v", err)
	}
}

func TestRemovedOrganisationStaysRemoved(t *testing.T) {
	eachWay(t, authority.PlanFree, func(t *testing.T, w world) {
		ctx := t.Context()
		w.register(t, "agent-01")
		if err := w.authority.RemoveOrganisation(ctx, testKey); err != nil {
			t.Fatal(err)
		}
		w.decides(t, "agent-01", guard.CodeOrgNotFound)
		w.decides(t, "b@d", guard.CodeOrgNotFound)
		for name, call := range map[string]func() error{
			"register":      func() error { _, err := w.Register(ctx, "agent-01"); return err },
			"bad id":        func() error { _, err := w.Revoke(ctx, "b@d"); return err },
			"unrevoke":      func() error { _, err := w.Unrevoke(ctx, "agent-01"); return err },
			"remove":        func() error { _, err := w.Remove(ctx, "agent-01"); return err },
			"list":          func() error { _, err := w.List(ctx); return err },
			"usage":         func() error { _, err := w.Usage(ctx); return err },
			"batch":         func() error { _, err := w.RevokeBatch(ctx, []string{"a"}); return err },
			"empty batch":   func() error { _, err := w.UnrevokeBatch(ctx, []string{}); return err },
			"all active":    func() error { _, err := w.RevokeAllActive(ctx); return err },
			"all revoked":   func() error { _, err := w.UnrevokeAllRevoked(ctx); return err },
			"checkout":      func() error { _, err := w.Checkout(ctx, authority.PlanPro); return err },
			"bad plan":      func() error { _, err := w.Checkout(ctx, "gold"); return err },
			"state":         func() error { return w.org.SetState(ctx, authority.StateActive) },
			"plan":          func() error { return w.org.SetPlan(ctx, authority.PlanPro) },
			"by key":        func() error { _, err := w.authority.Organisation(ctx, testKey); return err },
			"removed again": func() error { return w.authority.RemoveOrganisation(ctx, testKey) },
		} {
			if err := call(); errorCode(t, err) != "org_not_found" {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := w.authority.AddOrganisation(ctx, testKey, authority.PlanFree); !errors.Is(err, authority.ErrExists) {
			t.Errorf("the key was used again: %v", err)
		}
	})
}

func TestRemoveOrganisationByAnUnknownKey(t *testing.T) {
	a, _ := newOrganisation(t, authority.PlanFree)
	for _, key := range []string{"", "org_unknown", testKey + "x"} {
		if err := a.RemoveOrganisation(t.Context(), key); errorCode(t, err) != "invalid_org_key" {
			t.Errorf("%d characters: %v", len(key), err)
		}
	}
}

// What one organisation does is nothing to another, though they name their devices alike.
func TestOrganisationsAreApart(t *testing.T) {
	a, first := newOrganisation(t, authority.PlanFree)
	second, err := a.AddOrganisation(t.Context(), "org_second", authority.PlanPro)
	if err != nil {
		t.Fatal(err)
	}
	one, two := world{calls: first}, world{calls: second}
	one.register(t, "agent-01")
	two.decides(t, "agent-01", guard.CodeDeviceNotFound)
	two.register(t, "agent-01", "agent-02")
	one.revoke(t, "agent-01")
	two.decides(t, "agent-01", guard.CodeAllow)
	if err := a.RemoveOrganisation(t.Context(), testKey); err != nil {
		t.Fatal(err)
	}
	two.decides(t, "agent-01", guard.CodeAllow)
	if u, err := two.Usage(t.Context()); err != nil || u.DevicesUsed != 2 || u.Limit != 25 {
		t.Errorf("usage of the second: %+v, %v", u, err)
	}
}

// An organisation found by its key is the one that was added.
func TestOrganisationByKey(t *testing.T) {
	a, org := newOrganisation(t, authority.PlanFree)
	found, err := a.Organisation(t.Context(), testKey)
	if err != nil {
		t.Fatal(err)
	}
	world{calls: found}.register(t, "agent-01")
	world{calls: org}.decides(t, "agent-01", guard.CodeAllow)
	if _, err := a.Organisation(t.Context(), "org_unknown"); errorCode(t, err) != "invalid_org_key" {
		t.Errorf("an unknown key: %v", err)
	}
}

func TestUnknownStateAndPlanAreRefused(t *testing.T) {
	_, org := newOrganisation(t, authority.PlanFree)
	for _, s := range []authority.State{"", "Active", "ACTIVE", "on"} {
		if err := org.SetState(t.Context(), s); err == nil {
			t.Errorf("SetState(%q) was accepted", s)
		}
	}
	for _, p := range []authority.Plan{"", "Free", "gold"} {
		if err := org.SetPlan(t.Context(), p); err == nil {
			t.Errorf("SetPlan(%q) was accepted", p)
		}
	}
	u, err := org.Usage(t.Context())
	if err != nil || u.PlanState != authority.StateActive || u.PlanTier != authority.PlanFree {
		t.Errorf("something changed all the same: %+v, %v", u, err)
	}
}
