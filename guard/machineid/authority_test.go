package machineid_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/authority"
	"github.com/execguard/execguard/guard/machineid"
)

// selfHosted starts an authority of one's own with one organisation, and a client for it.
func selfHosted(t *testing.T, plan authority.Plan, opts ...authority.Option) (*machineid.Client, *authority.Organisation) {
	t.Helper()
	service, err := authority.New(opts...)
	if err != nil {
		t.Fatal(err)
	}
	organisation, err := service.AddOrganisation(t.Context(), key, plan)
	if err != nil {
		t.Fatal(err)
	}
	return newClient(t, serve(t, service.ServeHTTP)), organisation
}

// The life of a device, told by every call, against the other implementation of the wire.
func TestAgainstAuthority(t *testing.T) {
	client, _ := selfHosted(t, authority.PlanFree)
	ctx := t.Context()
	expect := func(want guard.Code) {
		t.Helper()
		d, err := client.Validate(ctx, device)
		if err != nil || d.Code != want || d.Allowed != (want == guard.CodeAllow) || d.RequestID == "" {
			t.Errorf("%+v, %v, want %s", d, err, want)
		}
	}
	expect(guard.CodeDeviceNotFound)
	for _, want := range []string{"ok", "exists"} {
		if got, err := client.Register(ctx, device); err != nil || got.Status != want || got.DeviceID != device || got.Limit != 3 || got.DevicesUsed != 1 {
			t.Errorf("%+v, %v, want %s", got, err, want)
		}
	}
	expect(guard.CodeAllow)
	if _, err := client.Revoke(ctx, device); err != nil {
		t.Error(err)
	}
	expect(guard.CodeDeviceRevoked)
	if got, err := client.Register(ctx, device); err == nil || got.Status != "revoked" || errors.Is(err, guard.ErrUnavailable) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := client.Unrevoke(ctx, device); err != nil {
		t.Error(err)
	}
	expect(guard.CodeAllow)
	if got, err := client.List(ctx); err != nil || len(got.Devices) != 1 || got.Devices[0] != (machineid.Device{DeviceID: device, Status: "active"}) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := client.Usage(ctx); err != nil || got.PlanTier != "free" || got.PlanState != "active" || got.Remaining != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := client.Checkout(ctx, "scale"); err != nil || got.URL == "" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := client.Remove(ctx, device); err != nil {
		t.Error(err)
	}
	expect(guard.CodeDeviceNotFound)
	if _, err := client.Revoke(ctx, device); err == nil || errors.Is(err, guard.ErrUnavailable) {
		t.Errorf("revoked what was not there: %v", err)
	}
}

// The batches, over the service's limit of a request, and the plan's cap.
func TestBatchesAgainstAuthority(t *testing.T) {
	client, _ := selfHosted(t, authority.PlanMax)
	ctx := t.Context()
	for _, id := range ids(620) {
		if _, err := client.Register(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	got, err := client.RevokeBatch(ctx, append(ids(610), "stranger", "no good"))
	if err != nil || len(got.Items) != 612 || len(got.Answers) != 2 {
		t.Fatalf("%d items, %v", len(got.Items), err)
	}
	count := map[string]int{}
	for _, item := range got.Items {
		count[item.Status]++
	}
	if want := "map[invalid:1 not_found:1 revoked:610]"; fmt.Sprint(count) != want {
		t.Errorf("%v, want %s", count, want)
	}
	if all, err := client.RevokeAllActive(ctx); err != nil || all.Count != 10 {
		t.Errorf("%+v, %v", all, err)
	}
	if some, err := client.UnrevokeBatch(ctx, ids(2)); err != nil || some.Items[1] != (machineid.Item{DeviceID: "agent-0001", Status: "unrevoked"}) {
		t.Errorf("%+v, %v", some.Items, err)
	}
	if all, err := client.UnrevokeAllRevoked(ctx); err != nil || all.Count != 618 || len(all.Sample) != 25 {
		t.Errorf("%d, %d, %v", all.Count, len(all.Sample), err)
	}
	if none, err := client.UnrevokeAllRevoked(ctx); err != nil || none.Count != 0 || none.Reason != "none_revoked" {
		t.Errorf("%+v, %v", none, err)
	}
	if list, err := client.List(ctx); err != nil || len(list.Devices) != 620 {
		t.Errorf("%d devices, %v", len(list.Devices), err)
	}
}

// The plan's limit is the service's no, and an organisation that is off denies whatever the
// status its authority was told to send.
func TestRefusalsOfAuthority(t *testing.T) {
	for _, opts := range [][]authority.Option{nil, {authority.WithDenyStatus(403)}} {
		client, organisation := selfHosted(t, authority.PlanFree, opts...)
		ctx := t.Context()
		for _, id := range ids(3) {
			if _, err := client.Register(ctx, id); err != nil {
				t.Fatal(err)
			}
		}
		blocked, err := client.Register(ctx, device)
		if failed := typedError(t, err); failed.Code != "device_limit_reached" || failed.Status != 403 || blocked.Status != "blocked" {
			t.Errorf("%+v, %v", blocked, err)
		}
		for state, want := range map[authority.State]guard.Code{
			authority.StateDisabled: guard.CodeOrgDisabled, authority.StateFrozen: guard.CodePlanFrozen,
			authority.StateExpired: guard.CodeEntitlementExpired, authority.StateInactive: guard.CodePlanNotActive,
		} {
			if err := organisation.SetState(ctx, state); err != nil {
				t.Fatal(err)
			}
			if d, err := client.Validate(ctx, "agent-0000"); err != nil || d.Code != want {
				t.Errorf("%s: %+v, %v", state, d, err)
			}
		}
	}
}

// A key that the service does not know is told as INVALID_ORG_KEY, and by the other calls as an
// error of the service's own, not as an outage.
func TestUnknownKey(t *testing.T) {
	service, err := authority.New()
	if err != nil {
		t.Fatal(err)
	}
	client := newClient(t, serve(t, service.ServeHTTP))
	d, err := client.Validate(t.Context(), device)
	if err != nil || d.Allowed || d.Code != guard.CodeInvalidOrgKey {
		t.Errorf("%+v, %v", d, err)
	}
	for name, call := range calls {
		if name == "validate" {
			continue
		}
		_, err := call(t.Context(), client)
		if failed := typedError(t, err); failed.Code != "invalid_org_key" || failed.Status != 401 || errors.Is(err, guard.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
