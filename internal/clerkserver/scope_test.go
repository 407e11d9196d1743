package clerkserver_test

import (
	"fmt"
	"testing"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/m2m_token"
	"github.com/clerk/clerk-sdk-go/v2/machine"
	"github.com/clerk/clerk-sdk-go/v2/machinescope"

	"github.com/execguard/execguard/internal/clerkserver"
)

// reach lists what a machine has access to, as GET shows it.
func reach(t *testing.T, c sdk, id string) (ids []string) {
	t.Helper()
	got, err := c.machines.Get(t.Context(), id)
	for _, m := range must(t, got, err).ScopedMachines {
		ids = append(ids, m.ID)
	}
	return ids
}

func wantReach(t *testing.T, c sdk, id string, want ...string) {
	t.Helper()
	if got := reach(t, c, id); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("scopes are %q, want %q", got, want)
	}
}

func TestSDKManagesScopes(t *testing.T) {
	s := start(t)
	one, _ := s.AddMachine("one")
	two, _ := s.AddMachine("two")
	c := newSDK(s.Client(), s.BaseURL(), s.SecretKey())
	to := func(id string) *machinescope.CreateScopeParams {
		return &machinescope.CreateScopeParams{ToMachineID: id}
	}

	made, err := c.scopes.CreateScope(t.Context(), one, to(two))
	if must(t, made, err); made.Object != "machine_scope" || made.FromMachineID != one || made.ToMachineID != two || made.CreatedAt == 0 {
		t.Errorf("made: %s", made.Response.RawJSON)
	}
	wantReach(t, c, one, two)
	wantReach(t, c, two)

	_, err = c.scopes.CreateScope(t.Context(), one, to(two))
	wantStatus(t, err, 409)
	for _, pair := range [][2]string{{one, "mch_nobody"}, {"mch_nobody", two}} {
		_, err = c.scopes.CreateScope(t.Context(), pair[0], to(pair[1]))
		wantStatus(t, err, 404)
	}

	gone, err := c.scopes.DeleteScope(t.Context(), one, two)
	if must(t, gone, err); gone.Object != "machine_scope" || gone.FromMachineID != one || gone.ToMachineID != two || !gone.Deleted {
		t.Errorf("gone: %s", gone.Response.RawJSON)
	}
	wantReach(t, c, one)
	for _, from := range []string{one, "mch_nobody"} {
		_, err = c.scopes.DeleteScope(t.Context(), from, two)
		wantStatus(t, err, 404)
	}
}

// TestScopesFollowTheirMachine: who is gone is in nobody's reach, and is again when it is back.
func TestScopesFollowTheirMachine(t *testing.T) {
	s := newService(t)
	two, _ := s.AddMachine("two")
	three, _ := s.AddMachine("three")
	one, _ := s.AddMachine("one", two, three, two, "mch_nobody")
	c := inside(s, s.SecretKey())
	wantReach(t, c, one, two, three)
	if !s.RemoveMachine(two) || s.RemoveMachine(two) || s.RestoreMachine(three) {
		t.Error("a machine is removed once, and restored once removed")
	}
	wantReach(t, c, one, three)
	_, err := c.scopes.DeleteScope(t.Context(), one, two)
	wantStatus(t, err, 404)
	if !s.RestoreMachine(two) || s.RestoreMachine(two) {
		t.Error("a machine is restored once")
	}
	wantReach(t, c, one, two, three)
	if !s.SetScopes(one, three, three) || s.SetScopes("mch_nobody", three) {
		t.Error("SetScopes does not tell whose scopes there are")
	}
	wantReach(t, c, one, three)
}

// TestNoMachineHas151Scopes, whichever way it comes by them.
func TestNoMachineHas151Scopes(t *testing.T) {
	s := newService(t)
	c := inside(s, s.SecretKey())
	var ids []string
	for i := range 151 {
		id, _ := s.AddMachine(fmt.Sprint(i))
		ids = append(ids, id)
	}
	full, err := c.machines.Create(t.Context(), &machine.CreateParams{Name: "full", ScopedMachines: ids[:150]})
	if must(t, full, err); len(full.ScopedMachines) != 150 {
		t.Errorf("%d scopes, want 150", len(full.ScopedMachines))
	}
	_, err = c.machines.Create(t.Context(), &machine.CreateParams{Name: "too much", ScopedMachines: ids})
	wantStatus(t, err, 422)
	_, err = c.scopes.CreateScope(t.Context(), full.ID, &machinescope.CreateScopeParams{ToMachineID: ids[150]})
	wantStatus(t, err, 422)
	if s.RemoveMachine(ids[0]); len(reach(t, c, full.ID)) != 149 {
		t.Error("a machine that is gone still counts")
	}
	_, err = c.scopes.CreateScope(t.Context(), full.ID, &machinescope.CreateScopeParams{ToMachineID: ids[150]})
	if err != nil {
		t.Errorf("one that is gone makes no room: %v", err)
	}
}

// TestScopesCountWhenTheTokenIsMade: later changes affect later tokens alone.
func TestScopesCountWhenTheTokenIsMade(t *testing.T) {
	s := newService(t)
	two, _ := s.AddMachine("two")
	one, secret := s.AddMachine("one", two)
	before := tokenOf(t, s, secret, nil)
	s.SetScopes(one)
	after := tokenOf(t, s, secret, nil)
	if fmt.Sprint(before.Scopes) != fmt.Sprint([]string{two}) || len(after.Scopes) != 0 || after.Scopes == nil {
		t.Errorf("before %q, after %q", before.Scopes, after.Scopes)
	}
	c := inside(s, s.SecretKey())
	got, err := c.tokens.Verify(t.Context(), &m2m_token.VerifyParams{Token: before.Token})
	if must(t, got, err); fmt.Sprint(got.Scopes) != fmt.Sprint([]string{two}) {
		t.Errorf("the older token now has the scopes %q", got.Scopes)
	}
}

// tokenOf has the SDK make a token for a machine's secret key.
func tokenOf(t *testing.T, s *clerkserver.Service, secret string, p *m2m_token.CreateParams) *clerk.M2MTokenWithToken {
	t.Helper()
	if p == nil {
		p = &m2m_token.CreateParams{}
	}
	made, err := inside(s, secret).tokens.Create(t.Context(), p)
	return must(t, made, err)
}
