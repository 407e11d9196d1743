package authority_test

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/authority"
)

// together runs n functions from one instant on and waits for all of them.
func together(n int, do func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			do(i)
		})
	}
	close(start)
	wg.Wait()
}

// A storm of registrations takes exactly the places there are.
func TestRegisterStormAtTheCap(t *testing.T) {
	eachWay(t, authority.PlanPro, func(t *testing.T, w world) {
		var ok, exists, blocked, over atomic.Int64
		together(120, func(i int) {
			r, err := w.Register(t.Context(), fmt.Sprintf("device-%d", i%60))
			if err != nil {
				t.Error(err)
			}
			if r.DevicesUsed > 25 {
				over.Add(1)
			}
			switch r.Status {
			case "ok":
				ok.Add(1)
			case "exists":
				exists.Add(1)
			case "blocked":
				blocked.Add(1)
			}
		})
		u, err := w.Usage(t.Context())
		if err != nil || u.DevicesUsed != 25 || ok.Load() != 25 || over.Load() != 0 {
			t.Errorf("%d used, %d new, %d over, %v", u.DevicesUsed, ok.Load(), over.Load(), err)
		}
		if sum := ok.Load() + exists.Load() + blocked.Load(); sum != 120 {
			t.Errorf("%d answers of 120", sum)
		}
	})
}

// A storm of restorations, single and in batches, does so too.
func TestUnrevokeStormAtTheCap(t *testing.T) {
	eachWay(t, authority.PlanPro, func(t *testing.T, w world) {
		ids := names("device", 75)
		for i := 0; i < 75; i += 25 {
			w.register(t, ids[i:i+25]...)
			if r, err := w.RevokeAllActive(t.Context()); err != nil || r.RevokedCount != 25 {
				t.Fatal(r, err)
			}
		}
		var restored, over atomic.Int64
		note := func(n, used int, err error) {
			if err != nil {
				t.Error(err)
			}
			restored.Add(int64(n))
			if used > 25 {
				over.Add(1)
			}
		}
		together(30, func(i int) {
			switch i % 3 {
			case 0:
				r, err := w.UnrevokeBatch(t.Context(), ids[i:i+20])
				note(r.UnrevokedCount, r.DevicesUsed, err)
			case 1:
				r, err := w.UnrevokeAllRevoked(t.Context())
				note(r.UnrevokedCount, r.DevicesUsed, err)
			default:
				r, err := w.Unrevoke(t.Context(), ids[i])
				n := 0
				if r.Status == "ok" {
					n = 1 // or was active: the sum below is then only a lower bound
				}
				note(n, r.DevicesUsed, err)
			}
		})
		u, err := w.Usage(t.Context())
		if err != nil || u.DevicesUsed != 25 || restored.Load() < 25 || over.Load() != 0 {
			t.Errorf("%d used, %d restored, %d over, %v", u.DevicesUsed, restored.Load(), over.Load(), err)
		}
	})
}

// Once Revoke has returned, no validate that begins later allows, whatever else goes on.
func TestRevokeAgainstValidate(t *testing.T) {
	eachWay(t, authority.PlanMax, func(t *testing.T, w world) {
		w.register(t, "agent-01")
		var revoked atomic.Bool
		var late atomic.Int64
		together(12, func(i int) {
			switch {
			case i == 0:
				w.revoke(t, "agent-01")
				revoked.Store(true)
			case i < 4:
				for n := range 20 {
					if _, err := w.Register(t.Context(), fmt.Sprintf("other-%d-%d", i, n)); err != nil {
						t.Error(err)
					}
				}
			default:
				for range 40 {
					before := revoked.Load()
					d, err := w.Validate(t.Context(), "agent-01")
					if err != nil || d.Allowed != (d.Code == guard.CodeAllow) {
						t.Errorf("%+v, %v", d, err)
					}
					if before && d.Allowed {
						late.Add(1)
					}
				}
			}
		})
		if late.Load() != 0 {
			t.Errorf("%d validates allowed after the revocation", late.Load())
		}
		w.decides(t, "agent-01", guard.CodeDeviceRevoked)
	})
}

// Listeners come and go while everything changes; whoever stays hears of the last change.
func TestSubscribeWhileThingsChange(t *testing.T) {
	_, org := newOrganisation(t, authority.PlanMax)
	heard := make(chan struct{})
	hears := sync.OnceFunc(func() { close(heard) })
	defer org.Subscribe(func(string) { // «every device», when it waits already, stands for the last one too
		if d, _ := org.Validate(t.Context(), "last"); d.Allowed {
			hears()
		}
	})()
	together(16, func(i int) {
		for n := range 25 {
			if i%2 == 0 {
				org.Subscribe(func(string) {})()
				continue
			}
			_, _ = org.Register(t.Context(), fmt.Sprintf("d-%d-%d", i, n))
			_, _ = org.RevokeAllActive(t.Context())
		}
	})
	world{calls: org}.register(t, "last")
	<-heard
}

// One update of an organisation follows the other, however long each takes.
func TestUpdatesDoNotOverlap(t *testing.T) {
	store := authority.NewMemory()
	if err := store.Create(t.Context(), "a", authority.Record{}); err != nil {
		t.Fatal(err)
	}
	together(8, func(int) {
		for range 50 {
			err := store.Update(t.Context(), "a", func(r *authority.Record) error {
				before := r.Revocations
				runtime.Gosched()
				r.Revocations = before + 1
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}
	})
	if r, err := store.Load(t.Context(), "a"); err != nil || r.Revocations != 400 {
		t.Errorf("%d of 400 updates, %v", r.Revocations, err)
	}
}

// Only one of many gets a new key.
func TestOrganisationsAreAddedOnce(t *testing.T) {
	a, err := authority.New()
	if err != nil {
		t.Fatal(err)
	}
	var added, removed atomic.Int64
	together(20, func(int) {
		if _, err := a.AddOrganisation(t.Context(), testKey, authority.PlanFree); err == nil {
			added.Add(1)
		}
	})
	together(20, func(int) {
		if err := a.RemoveOrganisation(t.Context(), testKey); err == nil {
			removed.Add(1)
		}
	})
	if added.Load() != 1 || removed.Load() != 1 {
		t.Errorf("added %d times, removed %d times", added.Load(), removed.Load())
	}
}
