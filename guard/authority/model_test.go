package authority_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/authority"
)

// model is the rules once more, told in the plainest way: two lists.
type model struct {
	limit   int
	active  []string
	revoked []string // the newest last
}

func (m *model) room() bool { return len(m.active) < m.limit }

func without(list []string, id string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == id })
}

// apply carries out one call and returns the status that it must have.
func (m *model) apply(do, id string) string {
	active, revoked := slices.Contains(m.active, id), slices.Contains(m.revoked, id)
	switch {
	case do == "register" && active:
		return "exists"
	case do == "register" && revoked:
		return "revoked"
	case do == "register" && !m.room():
		return "blocked"
	case do == "register":
		m.active = append(m.active, id)
	case !active && !revoked:
		return "not_found"
	case do == "remove":
		m.active, m.revoked = without(m.active, id), without(m.revoked, id)
	case do == "revoke" && active:
		m.active, m.revoked = without(m.active, id), append(m.revoked, id)
	case do == "unrevoke" && revoked && !m.room():
		return "blocked"
	case do == "unrevoke" && revoked:
		m.active, m.revoked = append(m.active, id), without(m.revoked, id)
	}
	return "ok"
}

func (m *model) code(id string) guard.Code {
	switch {
	case slices.Contains(m.active, id):
		return guard.CodeAllow
	case slices.Contains(m.revoked, id):
		return guard.CodeDeviceRevoked
	}
	return guard.CodeDeviceNotFound
}

// revokeAll revokes in the order of the ids, as the authority says it does.
func (m *model) revokeAll() int {
	n := len(m.active)
	m.revoked = append(m.revoked, slices.Sorted(slices.Values(m.active))...)
	m.active = nil
	return n
}

func (m *model) unrevokeAll() (restored []string) {
	for m.room() && len(m.revoked) > 0 {
		newest := m.revoked[len(m.revoked)-1]
		m.revoked = m.revoked[:len(m.revoked)-1]
		m.active = append(m.active, newest)
		restored = append(restored, newest)
	}
	return restored
}

// Any sequence of calls has the outcome that the plain rules give it, call by call.
func TestAuthorityAgreesWithAPlainModel(t *testing.T) {
	const calls = 150
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 1))
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			_, org := newOrganisation(t, authority.PlanFree)
			w, m := world{calls: org, org: org}, &model{limit: 3}
			for range calls {
				w.step(t, m, rng)
				if t.Failed() {
					return
				}
			}
		})
	}
}

// step makes one random call of both, compares what came of it, and then what everybody sees.
func (w world) step(t *testing.T, m *model, rng *rand.Rand) {
	t.Helper()
	id := fmt.Sprint("d", rng.IntN(30))
	switch n := rng.IntN(20); n {
	case 0:
		w.plan(t, m, []authority.Plan{authority.PlanFree, authority.PlanPro}[rng.IntN(2)])
	case 1:
		if r, err := w.RevokeAllActive(t.Context()); err != nil || r.RevokedCount != m.revokeAll() {
			t.Errorf("all active: %+v, %v", r, err)
		}
	case 2:
		r, err := w.UnrevokeAllRevoked(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := m.unrevokeAll()
		same(t, "all revoked", r.UnrevokedSample, append([]string{}, want...))
	case 3, 4:
		w.batch(t, m, rng, n == 3)
	default:
		do := []string{"register", "register", "revoke", "unrevoke", "remove"}[n%5]
		want := m.apply(do, id)
		call := map[string]func() (authority.Result, error){
			"register": func() (authority.Result, error) { return w.Register(t.Context(), id) },
			"revoke":   func() (authority.Result, error) { return w.Revoke(t.Context(), id) },
			"unrevoke": func() (authority.Result, error) { return w.Unrevoke(t.Context(), id) },
			"remove":   func() (authority.Result, error) { return w.Remove(t.Context(), id) },
		}[do]
		if r, err := call(); err != nil || r.Status != want {
			t.Errorf("%s %s: %s, %v, want %s", do, id, r.Status, err, want)
		}
	}
	w.decides(t, id, m.code(id))
	u, err := w.Usage(t.Context())
	want := authority.Usage{
		PlanTier: u.PlanTier, PlanState: authority.StateActive, Limit: m.limit, DevicesUsed: len(m.active),
		Remaining: max(0, m.limit-len(m.active)), OverLimit: len(m.active) > m.limit,
	}
	if err != nil || u.Usage != want {
		t.Errorf("usage %+v, %v, want %+v", u.Usage, err, want)
	}
}

func (w world) plan(t *testing.T, m *model, p authority.Plan) {
	t.Helper()
	if err := w.org.SetPlan(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	m.limit = p.Limit()
}

// batch sends up to six ids, some of them twice.
func (w world) batch(t *testing.T, m *model, rng *rand.Rand, revoke bool) {
	t.Helper()
	var ids, want []string
	seen := make(map[string]bool)
	for range 1 + rng.IntN(6) {
		id := fmt.Sprint("d", rng.IntN(30))
		ids = append(ids, id)
		if seen[id] {
			continue
		}
		seen[id] = true
		before := m.code(id)
		do, done, already, nothing := "unrevoke", "unrevoked", "already_active", guard.CodeAllow
		if revoke {
			do, done, already, nothing = "revoke", "revoked", "already_revoked", guard.CodeDeviceRevoked
		}
		status := m.apply(do, id)
		if status == "ok" {
			status = done
			if before == nothing {
				status = already
			}
		}
		want = append(want, id+" "+status)
	}
	var items []authority.Item
	var err error
	if revoke {
		var r authority.RevokeResult
		r, err = w.RevokeBatch(t.Context(), ids)
		items = r.Results
	} else {
		var r authority.UnrevokeResult
		r, err = w.UnrevokeBatch(t.Context(), ids)
		items = r.Results
	}
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, it := range items {
		got = append(got, it.DeviceID+" "+it.Status)
	}
	same(t, "batch", got, want)
}
