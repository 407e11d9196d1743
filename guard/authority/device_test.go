package authority_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/authority"
)

// step is one call on one device and what must come of it.
type step struct {
	do, id        string
	status, error string
	used          int // active devices afterwards
}

func (w world) run(t *testing.T, steps []step) {
	t.Helper()
	for i, s := range steps {
		do := map[string]func() (authority.Result, error){
			"register": func() (authority.Result, error) { return w.Register(t.Context(), s.id) },
			"revoke":   func() (authority.Result, error) { return w.Revoke(t.Context(), s.id) },
			"unrevoke": func() (authority.Result, error) { return w.Unrevoke(t.Context(), s.id) },
			"remove":   func() (authority.Result, error) { return w.Remove(t.Context(), s.id) },
		}[s.do]
		r, err := do()
		if err != nil {
			t.Fatalf("step %d, %s %s: %v", i, s.do, s.id, err)
		}
		if r.Status != s.status || r.Error != s.error || r.DevicesUsed != s.used {
			t.Fatalf("step %d, %s %s: %s %s, %d used; want %s %s, %d used",
				i, s.do, s.id, r.Status, r.Error, r.DevicesUsed, s.status, s.error, s.used)
		}
		if r.Handler != "devices/"+s.do || r.DeviceID != strings.TrimSpace(s.id) {
			t.Fatalf("step %d: answered for %s of %q", i, r.Handler, r.DeviceID)
		}
	}
}

func TestDeviceRules(t *testing.T) {
	const (
		limit   = "device_limit_reached"
		revoked = "device_revoked"
		unknown = "device_not_found"
	)
	for _, tc := range []struct {
		name  string
		steps []step
	}{
		{"register is idempotent", []step{
			{"register", "a", "ok", "", 1},
			{"register", "a", "exists", "", 1},
			{"register", "  a ", "exists", "", 1},
			{"register", "A", "ok", "", 2},
		}},
		{"the cap blocks new devices only", []step{
			{"register", "a", "ok", "", 1},
			{"register", "b", "ok", "", 2},
			{"register", "c", "ok", "", 3},
			{"register", "d", "blocked", limit, 3},
			{"register", "a", "exists", "", 3},
			{"register", "d", "blocked", limit, 3},
		}},
		{"register does not restore", []step{
			{"register", "a", "ok", "", 1},
			{"revoke", "a", "ok", "", 0},
			{"register", "a", "revoked", revoked, 0},
			{"unrevoke", "a", "ok", "", 1},
			{"register", "a", "exists", "", 1},
		}},
		{"revoked devices take no place", []step{
			{"register", "a", "ok", "", 1},
			{"register", "b", "ok", "", 2},
			{"register", "c", "ok", "", 3},
			{"revoke", "b", "ok", "", 2},
			{"register", "d", "ok", "", 3},
			{"unrevoke", "b", "blocked", limit, 3},
			{"register", "b", "revoked", revoked, 3},
			{"revoke", "a", "ok", "", 2},
			{"unrevoke", "b", "ok", "", 3},
		}},
		{"revoke and unrevoke are idempotent", []step{
			{"register", "a", "ok", "", 1},
			{"unrevoke", "a", "ok", "", 1},
			{"revoke", "a", "ok", "", 0},
			{"revoke", "a", "ok", "", 0},
			{"unrevoke", "a", "ok", "", 1},
		}},
		{"unrevoke of an active device at the cap", []step{
			{"register", "a", "ok", "", 1},
			{"register", "b", "ok", "", 2},
			{"register", "c", "ok", "", 3},
			{"unrevoke", "a", "ok", "", 3},
		}},
		{"what is not registered is not found", []step{
			{"revoke", "a", "not_found", unknown, 0},
			{"unrevoke", "a", "not_found", unknown, 0},
			{"remove", "a", "not_found", unknown, 0},
		}},
		{"remove makes room and forgets", []step{
			{"register", "a", "ok", "", 1},
			{"register", "b", "ok", "", 2},
			{"register", "c", "ok", "", 3},
			{"remove", "a", "ok", "", 2},
			{"remove", "a", "not_found", unknown, 2},
			{"register", "d", "ok", "", 3},
			{"revoke", "b", "ok", "", 2},
			{"remove", "b", "ok", "", 2},
			{"register", "b", "ok", "", 3},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			eachWay(t, authority.PlanFree, func(t *testing.T, w world) { w.run(t, tc.steps) })
		})
	}
}

func TestResultsOverHTTPHaveTheirStatus(t *testing.T) {
	a, org := newOrganisation(t, authority.PlanFree)
	w := world{calls: org}
	w.register(t, "a", "b", "c")
	w.revoke(t, "c")
	w.register(t, "d")
	for _, tc := range []struct {
		path, id string
		want     int
	}{
		{"devices/register", "a", 200},
		{"devices/register", "new", 403},
		{"devices/register", "c", 403},
		{"devices/unrevoke", "c", 403},
		{"devices/revoke", "nobody", 404},
		{"devices/unrevoke", "nobody", 404},
		{"devices/remove", "nobody", 404},
		{"devices/unrevoke", "a", 200},
		{"devices/revoke", "c", 200},
		{"devices/remove", "d", 200},
	} {
		rec := serveOnce(t, a, http.MethodPost, "/api/v1/"+tc.path, `{"deviceId":"`+tc.id+`"}`, testKey)
		if rec.Code != tc.want {
			t.Errorf("%s %s: %d, want %d: %s", tc.path, tc.id, rec.Code, tc.want, rec.Body)
		}
	}
}

func TestDeviceIDs(t *testing.T) {
	long := "a" + strings.Repeat("-", 127)
	for _, tc := range []struct {
		id string
		ok bool
	}{
		{"agent-01", true},
		{"worker:prod:queue-consumer:07", true},
		{"python-starter:01", true},
		{"A.b_c-d:E9", true},
		{"7", true},
		{long, true},
		{" \t\n" + long + "\r\n ", true},
		{long + "-", false},
		{"", false},
		{" \t", false},
		{"-agent", false},
		{".agent", false},
		{":agent", false},
		{"_agent", false},
		{"agent 01", false},
		{"agent\x0001", false},
		{"agent\n01", false},
		{"agent/01", false},
		{"../agent", false},
		{"agent%2F01", false},
		{"agënt", false},
		{"аgent", false}, // the first letter is Cyrillic
		{"agent\u200b", false},
		{"<agent>", false},
		{"agent\xff", false},
	} {
		t.Run(fmt.Sprintf("%.20q", tc.id), func(t *testing.T) {
			eachWay(t, authority.PlanFree, func(t *testing.T, w world) {
				r, err := w.Register(t.Context(), tc.id)
				if tc.ok {
					if err != nil || r.Status != "ok" || r.DeviceID != strings.TrimSpace(tc.id) {
						t.Fatalf("register: %+v, %v", r, err)
					}
					w.decides(t, tc.id, guard.CodeAllow)
					w.decides(t, strings.TrimSpace(tc.id), guard.CodeAllow)
					return
				}
				want := "invalid_device_id"
				if w.http != nil && strings.TrimSpace(tc.id) == "" {
					want = "missing_params"
				}
				if errorCode(t, err) != want {
					t.Fatalf("register: %+v, %v, want %s", r, err, want)
				}
				w.decides(t, tc.id, guard.CodeInvalidDeviceID)
			})
		})
	}
}

func TestListAndUsage(t *testing.T) {
	eachWay(t, authority.PlanFree, func(t *testing.T, w world) {
		empty, err := w.List(t.Context())
		if err != nil || len(empty.Devices) != 0 || empty.Devices == nil {
			t.Fatalf("an empty list: %+v, %v", empty, err)
		}
		w.register(t, "c", "a", "b")
		w.revoke(t, "b")
		l, err := w.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, d := range l.Devices {
			got = append(got, d.ID+" "+d.Status)
			if d.RegisteredAt.IsZero() || d.RevokedAt.IsZero() != (d.Status == "active") {
				t.Errorf("times of %+v", d)
			}
		}
		if want := []string{"a active", "b revoked", "c active"}; !slices.Equal(got, want) {
			t.Errorf("list %v, want %v", got, want)
		}
		u, err := w.Usage(t.Context())
		want := authority.Usage{PlanTier: "free", PlanState: "active", Limit: 3, DevicesUsed: 2, Remaining: 1}
		if err != nil || u.Usage != want || l.Usage != want || u.Status != "ok" || l.Status != "ok" {
			t.Errorf("usage %+v, %v; with the list %+v; want %+v", u, err, l.Usage, want)
		}
	})
}

// «At the cap, registered devices keep validating», also when the cap has moved below them.
func TestDowngradeKeepsDevicesValidating(t *testing.T) {
	eachWay(t, authority.PlanPro, func(t *testing.T, w world) {
		ids := []string{"a", "b", "c", "d", "e"}
		w.register(t, ids...)
		setPlan := func(p authority.Plan) {
			if err := w.org.SetPlan(t.Context(), p); err != nil {
				t.Fatal(err)
			}
		}
		setPlan(authority.PlanFree)
		for _, id := range ids {
			w.decides(t, id, guard.CodeAllow)
		}
		u, err := w.Usage(t.Context())
		if err != nil || !u.OverLimit || u.Limit != 3 || u.DevicesUsed != 5 || u.Remaining != 0 {
			t.Fatalf("usage over the limit: %+v, %v", u, err)
		}
		w.run(t, []step{
			{"register", "a", "exists", "", 5},
			{"register", "f", "blocked", "device_limit_reached", 5},
			{"revoke", "a", "ok", "", 4},
			{"unrevoke", "a", "blocked", "device_limit_reached", 4},
			{"revoke", "b", "ok", "", 3},
			{"unrevoke", "a", "blocked", "device_limit_reached", 3},
		})
		if u, err := w.Usage(t.Context()); err != nil || u.OverLimit || u.Remaining != 0 {
			t.Fatalf("usage at the limit: %+v, %v", u, err)
		}
		setPlan(authority.PlanPro)
		w.run(t, []step{{"unrevoke", "a", "ok", "", 4}, {"register", "f", "ok", "", 5}})
	})
}

// Each plan takes exactly what it says.
func TestEveryPlansCap(t *testing.T) {
	for _, plan := range []authority.Plan{authority.PlanFree, authority.PlanPro, authority.PlanScale, authority.PlanMax} {
		_, org := newOrganisation(t, plan)
		for i := range plan.Limit() {
			if r, err := org.Register(t.Context(), fmt.Sprintf("device-%d", i)); err != nil || r.Status != "ok" {
				t.Fatalf("%s: device %d: %s, %v", plan, i, r.Status, err)
			}
		}
		if r, err := org.Register(t.Context(), "one-more"); err != nil || r.Status != "blocked" || r.Remaining != 0 || r.OverLimit {
			t.Errorf("%s: one more: %+v, %v", plan, r, err)
		}
	}
}

// Registering and revoking for ever does not make the organisation grow for ever.
func TestKnownDevicesAreBounded(t *testing.T) {
	ctx := t.Context()
	store := authority.NewMemory()
	a, org := newOrganisation(t, authority.PlanFree, authority.WithStore(store))
	fill := func(r *authority.Record) error {
		for i := range 9_999 {
			id := fmt.Sprintf("old-%d", i)
			r.Devices[id] = authority.Device{ID: id, Status: "revoked", Revocation: uint64(i + 1)}
		}
		return nil
	}
	if err := store.Update(ctx, authority.StoreID(testKey), fill); err != nil {
		t.Fatal(err)
	}
	found, err := a.Organisation(ctx, testKey)
	if err != nil {
		t.Fatal(err)
	}
	world{calls: found}.run(t, []step{
		{"register", "last", "ok", "", 1},
		{"register", "one-more", "blocked", "device_limit_reached", 1},
		{"register", "last", "exists", "", 1},
		{"unrevoke", "old-5", "ok", "", 2},
		{"remove", "old-7", "ok", "", 2},
		{"register", "one-more", "ok", "", 3},
	})
	if u, err := org.Usage(ctx); err != nil || u.DevicesUsed != 3 {
		t.Errorf("usage: %+v, %v", u, err)
	}
}

func TestCheckout(t *testing.T) {
	eachWay(t, authority.PlanFree, func(t *testing.T, w world) {
		for _, plan := range []authority.Plan{authority.PlanPro, authority.PlanScale, authority.PlanMax} {
			c, err := w.Checkout(t.Context(), plan)
			if err != nil || c.Plan != plan || c.URL != "https://checkout.invalid/not-a-payment-page?plan="+string(plan) {
				t.Errorf("%s: %+v, %v", plan, c, err)
			}
			if !strings.Contains(c.Notice, "not a payment page") {
				t.Errorf("%s: the notice does not say what it is: %q", plan, c.Notice)
			}
		}
		for _, plan := range []authority.Plan{"", authority.PlanFree, "gold", "PRO"} {
			if _, err := w.Checkout(t.Context(), plan); errorCode(t, err) != "invalid_plan" {
				t.Errorf("%q: %v", plan, err)
			}
		}
		if u, err := w.Usage(t.Context()); err != nil || u.PlanTier != authority.PlanFree {
			t.Errorf("the checkout changed the plan: %+v, %v", u, err)
		}
	})
}
