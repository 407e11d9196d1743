package authority_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/authority"
)

func names(prefix string, n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("%s-%04d", prefix, i)
	}
	return ids
}

// outcomes writes items as lines that can be compared.
func outcomes(items []authority.Item) []string {
	var lines []string
	for _, it := range items {
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%.12s %s %s", it.DeviceID, it.Status, it.Error)))
	}
	return lines
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}

func TestRevokeBatch(t *testing.T) {
	eachWay(t, authority.PlanPro, func(t *testing.T, w world) {
		w.register(t, "a", "b", "c", "d")
		w.revoke(t, "b")
		r, err := w.RevokeBatch(t.Context(), []string{"a", "nobody", "b", "", " a ", "c", "b@d", "nobody", "b@d", "a"})
		if err != nil {
			t.Fatal(err)
		}
		same(t, "items", outcomes(r.Results), []string{
			"a revoked", "nobody not_found device_not_found", "b already_revoked", "invalid invalid_device_id",
			"c revoked", "b@d invalid invalid_device_id",
		})
		if r.Status != "ok" || r.RevokedCount != 2 || r.DevicesUsed != 1 || r.Scope != "" {
			t.Errorf("%+v", r)
		}
		for id, want := range map[string]guard.Code{
			"a": guard.CodeDeviceRevoked, "b": guard.CodeDeviceRevoked, "c": guard.CodeDeviceRevoked, "d": guard.CodeAllow,
		} {
			w.decides(t, id, want)
		}
		again, err := w.RevokeBatch(t.Context(), []string{"a", "c"})
		if err != nil || again.RevokedCount != 0 {
			t.Errorf("again: %+v, %v", again, err)
		}
		same(t, "items again", outcomes(again.Results), []string{"a already_revoked", "c already_revoked"})
	})
}

func TestUnrevokeBatchFillsTheRoomThatIsThere(t *testing.T) {
	eachWay(t, authority.PlanFree, func(t *testing.T, w world) {
		w.register(t, "a", "b", "c")
		w.revoke(t, "a", "b", "c")
		w.register(t, "d")
		// Two places: for the first two that need one, in the order of the request.
		r, err := w.UnrevokeBatch(t.Context(), []string{"c", "d", "nobody", "-", "b", "c", "a"})
		if err != nil {
			t.Fatal(err)
		}
		same(t, "items", outcomes(r.Results), []string{
			"c unrevoked", "d already_active", "nobody not_found device_not_found", "- invalid invalid_device_id",
			"b unrevoked", "a blocked device_limit_reached",
		})
		if r.Status != "ok" || r.UnrevokedCount != 2 || r.DevicesUsed != 3 || r.Reason != "" || r.UnrevokedSample != nil {
			t.Errorf("%+v", r)
		}
		w.decides(t, "b", guard.CodeAllow)
		w.decides(t, "a", guard.CodeDeviceRevoked)
		full, err := w.UnrevokeBatch(t.Context(), []string{"a"})
		if err != nil || full.UnrevokedCount != 0 || full.Status != "ok" {
			t.Errorf("at the cap: %+v, %v", full, err)
		}
		same(t, "items at the cap", outcomes(full.Results), []string{"a blocked device_limit_reached"})
	})
}

func TestBatchesTakeAtMost500ValidIDs(t *testing.T) {
	eachWay(t, authority.PlanMax, func(t *testing.T, w world) {
		ids := names("device", 501)
		w.register(t, ids[0], ids[499], ids[500])
		if _, err := w.RevokeBatch(t.Context(), ids); errorCode(t, err) != "too_many_devices" {
			t.Fatalf("501 ids: %v", err)
		}
		if _, err := w.UnrevokeBatch(t.Context(), ids); errorCode(t, err) != "too_many_devices" {
			t.Fatalf("501 ids: %v", err)
		}
		w.decides(t, ids[0], guard.CodeAllow) // nothing was done in part
		w.decides(t, ids[500], guard.CodeAllow)

		// Doubles and invalid ids do not count.
		padded := slices.Concat(ids[:500], ids[:500], []string{"", "b@d", "-", " " + ids[0]})
		r, err := w.RevokeBatch(t.Context(), padded)
		if err != nil || len(r.Results) != 503 || r.RevokedCount != 2 {
			t.Fatalf("500 different ids: %d items, %d revoked, %v", len(r.Results), r.RevokedCount, err)
		}
		w.decides(t, ids[499], guard.CodeDeviceRevoked)
		w.decides(t, ids[500], guard.CodeAllow)
	})
}

func TestBatchOfNothing(t *testing.T) {
	eachWay(t, authority.PlanFree, func(t *testing.T, w world) {
		w.register(t, "a")
		for _, ids := range [][]string{nil, {}} {
			if _, err := w.RevokeBatch(t.Context(), ids); errorCode(t, err) != "missing_params" {
				t.Errorf("revoke of %#v: %v", ids, err)
			}
			if _, err := w.UnrevokeBatch(t.Context(), ids); errorCode(t, err) != "missing_params" {
				t.Errorf("unrevoke of %#v: %v", ids, err)
			}
		}
		// Ids that are all invalid are a batch in which every item says so.
		r, err := w.RevokeBatch(t.Context(), []string{"?", "!"})
		if err != nil || r.RevokedCount != 0 {
			t.Errorf("%+v, %v", r, err)
		}
		same(t, "items", outcomes(r.Results), []string{"? invalid invalid_device_id", "! invalid invalid_device_id"})
		w.decides(t, "a", guard.CodeAllow)
	})
}

// An invalid id that begins like a valid one neither hides it nor is taken for it.
func TestLongInvalidIDsHideNothing(t *testing.T) {
	eachWay(t, authority.PlanFree, func(t *testing.T, w world) {
		longest := strings.Repeat("a", 128)
		w.register(t, longest)
		r, err := w.RevokeBatch(t.Context(), []string{longest + "a", longest, longest + "b", strings.Repeat("ü", 4000)})
		if err != nil || len(r.Results) != 4 || r.RevokedCount != 1 {
			t.Fatalf("%d items, %d revoked, %v", len(r.Results), r.RevokedCount, err)
		}
		for i, it := range r.Results {
			if valid := i == 1; (it.Status == "revoked") != valid || (it.DeviceID == longest) != valid {
				t.Errorf("item %d: %+v", i, it)
			}
			if n := len([]rune(it.DeviceID)); n > 129 {
				t.Errorf("item %d: %d characters sent back", i, n)
			}
		}
		w.decides(t, longest, guard.CodeDeviceRevoked)
	})
}

func TestRevokeAllActive(t *testing.T) {
	eachWay(t, authority.PlanMax, func(t *testing.T, w world) {
		none, err := w.RevokeAllActive(t.Context())
		if err != nil || none.RevokedCount != 0 || none.Status != "ok" {
			t.Fatalf("nobody there: %+v, %v", none, err)
		}
		ids := names("device", 60)
		w.register(t, ids...)
		w.revoke(t, ids[:10]...)
		r, err := w.RevokeAllActive(t.Context())
		if err != nil || r.RevokedCount != 50 || r.DevicesUsed != 0 || r.Scope != "all_active" || r.Results != nil {
			t.Fatalf("%+v, %v", r, err)
		}
		for _, id := range ids {
			w.decides(t, id, guard.CodeDeviceRevoked)
		}
		if r, err := w.RevokeAllActive(t.Context()); err != nil || r.RevokedCount != 0 {
			t.Fatalf("again: %+v, %v", r, err)
		}
	})
}

// A scope is not bound by the 500 of a list.
func TestScopesReachEveryDevice(t *testing.T) {
	_, org := newOrganisation(t, authority.PlanMax)
	w := world{calls: org}
	w.register(t, names("device", 700)...)
	if r, err := w.RevokeAllActive(t.Context()); err != nil || r.RevokedCount != 700 {
		t.Fatalf("%d revoked, %v", r.RevokedCount, err)
	}
	if r, err := w.UnrevokeAllRevoked(t.Context()); err != nil || r.UnrevokedCount != 700 || len(r.UnrevokedSample) != 25 {
		t.Fatalf("%d restored, %v", r.UnrevokedCount, err)
	}
}

func TestUnrevokeAllRevokedNewestFirst(t *testing.T) {
	eachWay(t, authority.PlanFree, func(t *testing.T, w world) {
		w.register(t, "a", "b", "c")
		w.revoke(t, "b", "c", "a")
		w.register(t, "x")
		r, err := w.UnrevokeAllRevoked(t.Context())
		if err != nil || r.UnrevokedCount != 2 || r.Reason != "" || r.Scope != "all_revoked" || r.DevicesUsed != 3 {
			t.Fatalf("%+v, %v", r, err)
		}
		same(t, "sample", r.UnrevokedSample, []string{"a", "c"})
		w.decides(t, "b", guard.CodeDeviceRevoked)
	})
}

// What was restored and revoked again is new again.
func TestNewestFirstCountsTheLastRevocation(t *testing.T) {
	eachWay(t, authority.PlanFree, func(t *testing.T, w world) {
		w.register(t, "a", "b")
		w.revoke(t, "a", "b")
		if r, err := w.Unrevoke(t.Context(), "a"); err != nil || r.Status != "ok" {
			t.Fatal(r, err)
		}
		w.revoke(t, "a")
		w.register(t, "x", "y")
		r, err := w.UnrevokeAllRevoked(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		same(t, "sample", r.UnrevokedSample, []string{"a"})
	})
}

func TestUnrevokeAllRevokedSaysWhyNot(t *testing.T) {
	eachWay(t, authority.PlanFree, func(t *testing.T, w world) {
		expect := func(reason string) {
			t.Helper()
			r, err := w.UnrevokeAllRevoked(t.Context())
			if err != nil || r.Status != "ok" || r.UnrevokedCount != 0 || len(r.UnrevokedSample) != 0 || r.Reason != reason {
				t.Errorf("%+v, %v; want reason %s", r, err, reason)
			}
		}
		expect("none_revoked")
		w.register(t, "a", "b", "c")
		expect("none_revoked") // also at the cap: there is nobody that the cap holds back
		w.revoke(t, "a")
		w.register(t, "d")
		expect("at_cap")
		if err := w.org.SetPlan(t.Context(), authority.PlanPro); err != nil {
			t.Fatal(err)
		}
		r, err := w.UnrevokeAllRevoked(t.Context())
		if err != nil || r.UnrevokedCount != 1 || r.Reason != "" {
			t.Errorf("with room: %+v, %v", r, err)
		}
		// Over the cap, after a downgrade, there is no room either.
		w.revoke(t, "a")
		w.register(t, "e", "f")
		if err := w.org.SetPlan(t.Context(), authority.PlanFree); err != nil {
			t.Fatal(err)
		}
		expect("at_cap")
	})
}

func TestSampleHas25AtMost(t *testing.T) {
	eachWay(t, authority.PlanScale, func(t *testing.T, w world) {
		ids := names("device", 40)
		w.register(t, ids...)
		w.revoke(t, ids...)
		r, err := w.UnrevokeAllRevoked(t.Context())
		if err != nil || r.UnrevokedCount != 40 {
			t.Fatalf("%+v, %v", r, err)
		}
		slices.Reverse(ids)
		same(t, "sample", r.UnrevokedSample, ids[:25])
	})
}
