package authority_test

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/authority"
)

// listener remembers what it was told.
type listener struct {
	mu   sync.Mutex
	told []string
}

func (l *listener) hint(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told = append(l.told, id)
}

// take waits until every hint is delivered and returns them, sorted. It works in a bubble only.
func (l *listener) take() []string {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	told := l.told
	l.told = nil
	slices.Sort(told)
	return told
}

func TestEachChangeIsHintedOnce(t *testing.T) {
	all := []string{""}
	for _, tc := range []struct {
		name string
		do   func(t *testing.T, w world) error
		want []string
	}{
		{"register new", func(t *testing.T, w world) error { _, err := w.Register(t.Context(), " new "); return err }, []string{"new"}},
		{"register existing", func(t *testing.T, w world) error { _, err := w.Register(t.Context(), "a"); return err }, nil},
		{"register revoked", func(t *testing.T, w world) error { _, err := w.Register(t.Context(), "r"); return err }, nil},
		{"revoke", func(t *testing.T, w world) error { _, err := w.Revoke(t.Context(), " a"); return err }, []string{"a"}},
		{"revoke revoked", func(t *testing.T, w world) error { _, err := w.Revoke(t.Context(), "r"); return err }, nil},
		{"revoke unknown", func(t *testing.T, w world) error { _, err := w.Revoke(t.Context(), "x"); return err }, nil},
		{"unrevoke", func(t *testing.T, w world) error { _, err := w.Unrevoke(t.Context(), "r"); return err }, []string{"r"}},
		{"unrevoke active", func(t *testing.T, w world) error { _, err := w.Unrevoke(t.Context(), "a"); return err }, nil},
		{"remove", func(t *testing.T, w world) error { _, err := w.Remove(t.Context(), "a"); return err }, []string{"a"}},
		{"remove unknown", func(t *testing.T, w world) error { _, err := w.Remove(t.Context(), "x"); return err }, nil},
		{"revoke batch", func(t *testing.T, w world) error {
			_, err := w.RevokeBatch(t.Context(), []string{"b", "a", "r", "x", "?", "a"})
			return err
		}, []string{"a", "b"}},
		{"revoke batch of nothing new", func(t *testing.T, w world) error {
			_, err := w.RevokeBatch(t.Context(), []string{"r", "x"})
			return err
		}, nil},
		{"unrevoke batch", func(t *testing.T, w world) error {
			_, err := w.UnrevokeBatch(t.Context(), []string{"r", "a"})
			return err
		}, []string{"r"}},
		{"all active", func(t *testing.T, w world) error { _, err := w.RevokeAllActive(t.Context()); return err }, all},
		{"all revoked", func(t *testing.T, w world) error { _, err := w.UnrevokeAllRevoked(t.Context()); return err }, all},
		{"all revoked, twice", func(t *testing.T, w world) error {
			for range 2 {
				if _, err := w.UnrevokeAllRevoked(t.Context()); err != nil {
					return err
				}
			}
			return nil
		}, all},
		{"state", func(t *testing.T, w world) error { return w.org.SetState(t.Context(), authority.StateFrozen) }, all},
		{"the same state", func(t *testing.T, w world) error { return w.org.SetState(t.Context(), authority.StateActive) }, nil},
		{"plan", func(t *testing.T, w world) error { return w.org.SetPlan(t.Context(), authority.PlanFree) }, nil},
		{"organisation removed", func(t *testing.T, w world) error {
			return w.authority.RemoveOrganisation(t.Context(), testKey)
		}, all},
		{"validate", func(t *testing.T, w world) error { _, err := w.Validate(t.Context(), "a"); return err }, nil},
		{"list", func(t *testing.T, w world) error { _, err := w.List(t.Context()); return err }, nil},
		{"another organisation", func(t *testing.T, w world) error {
			other, err := w.authority.AddOrganisation(t.Context(), "org_other", authority.PlanFree)
			if err == nil {
				_, err = other.Register(t.Context(), "a")
			}
			return err
		}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, org := newOrganisation(t, authority.PlanPro)
				w := world{calls: org, authority: a, org: org}
				w.register(t, "a", "b", "r")
				w.revoke(t, "r")
				var one, two listener
				defer org.Subscribe(one.hint)()
				defer org.Subscribe(two.hint)()
				if err := tc.do(t, w); err != nil {
					t.Fatal(err)
				}
				same(t, "told", one.take(), tc.want)
				same(t, "told to the second", two.take(), tc.want)
			})
		})
	}
}

// A change made over HTTP reaches a listener in process, and is in effect by then.
func TestHintComesAfterTheChangeTookEffect(t *testing.T) {
	a, org := newOrganisation(t, authority.PlanFree)
	c := serve(t, a)
	w := world{calls: c}
	w.register(t, "agent-01")
	told := make(chan guard.Decision, 1)
	defer org.Subscribe(func(id string) {
		d, _ := org.Validate(t.Context(), id)
		told <- d
	})()
	w.revoke(t, "agent-01")
	if d := <-told; d.Code != guard.CodeDeviceRevoked || d.DeviceID != "agent-01" {
		t.Errorf("at the hint: %+v", d)
	}
}

func TestAListenerThatMisbehavesHarmsNobody(t *testing.T) {
	for name, misbehave := range map[string]func(release chan struct{}){
		"blocks": func(release chan struct{}) { <-release },
		"panics": func(chan struct{}) { panic("a listener's own fault") },
		"exits":  func(chan struct{}) { runtime.Goexit() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, org := newOrganisation(t, authority.PlanMax)
				w := world{calls: org}
				var good, bad listener
				release := make(chan struct{})
				defer org.Subscribe(func(id string) {
					bad.hint(id)
					misbehave(release)
				})()
				defer org.Subscribe(good.hint)()
				for i := range 5 {
					id := fmt.Sprint("d", i)
					w.register(t, id)
					same(t, "told to the other", good.take(), []string{id})
					w.decides(t, id, guard.CodeAllow)
				}
				close(release)
				same(t, "told in the end", bad.take(), []string{"d0", "d1", "d2", "d3", "d4"})
				w.register(t, "later") // the subscription has outlived it
				same(t, "told later", bad.take(), []string{"later"})
			})
		})
	}
}

// What waits for a listener that blocks is bounded: doubles are one, and beyond a number of
// devices it is «every device».
func TestWaitingHintsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, org := newOrganisation(t, authority.PlanMax)
		w := world{calls: org}
		release := make(chan struct{})
		var l listener
		defer org.Subscribe(func(id string) {
			l.hint(id)
			<-release
		})()
		w.register(t, "first")
		same(t, "told", l.take(), []string{"first"})
		for range 10 {
			w.register(t, "a")
			if _, err := w.Remove(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
		}
		release <- struct{}{}
		same(t, "told of ten changes", l.take(), []string{"a"})
		ids := names("device", 999)
		w.register(t, ids...) // each a hint, as is each that follows
		for _, id := range ids {
			w.revoke(t, id)
		}
		for _, id := range names("more", 100) {
			w.register(t, id)
		}
		close(release)
		same(t, "told of too many devices", l.take(), []string{""})
	})
}

func TestCancelledListenerIsToldNothingMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, org := newOrganisation(t, authority.PlanMax)
		w := world{calls: org}
		release := make(chan struct{})
		var l listener
		cancel := org.Subscribe(func(id string) {
			l.hint(id)
			<-release
		})
		w.register(t, "a", "b", "c")
		if got := l.take(); len(got) != 1 {
			t.Fatalf("told %q while the first blocks", got)
		}
		cancel()
		cancel() // once more does nothing
		if n := authority.Listeners(a); n != 0 {
			t.Errorf("%d organisations are still listened to", n)
		}
		w.register(t, "d")
		close(release)
		same(t, "told after cancel", l.take(), nil)
	})
}

// A hint may call back into the authority, also to cancel itself.
func TestHintMayUseTheAuthority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, org := newOrganisation(t, authority.PlanMax)
		w := world{calls: org}
		var l listener
		var cancel func()
		cancel = org.Subscribe(func(id string) {
			l.hint(id)
			if id == "a" {
				_, _ = org.Register(t.Context(), "b")
				return
			}
			cancel()
			_, _ = org.Register(t.Context(), "c")
		})
		w.register(t, "a")
		same(t, "told", l.take(), []string{"a", "b"})
		w.decides(t, "c", guard.CodeAllow)
	})
}

// Nothing is told when the store did not take the change.
func TestFailedChangeIsNotHinted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &faultyStore{Store: authority.NewMemory()}
		_, org := newOrganisation(t, authority.PlanFree, authority.WithStore(store))
		world{calls: org}.register(t, "a")
		var l listener
		defer org.Subscribe(l.hint)()
		store.fail(errDisk)
		_, _ = org.Revoke(t.Context(), "a")
		_ = org.SetState(t.Context(), authority.StateDisabled)
		same(t, "told", l.take(), nil)
	})
}

// Nobody to tell is nobody listening.
func TestSubscribeNil(t *testing.T) {
	a, org := newOrganisation(t, authority.PlanFree)
	cancel := org.Subscribe(nil)
	if n := authority.Listeners(a); n != 0 {
		t.Errorf("%d listeners", n)
	}
	world{calls: org}.register(t, "agent-01")
	cancel()
	cancel()
}
