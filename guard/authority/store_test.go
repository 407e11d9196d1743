package authority_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/authority"
)

type netConn = net.Conn

var errDisk = errors.New("the disk is on fire")

// faultyStore hands calls on until it is told to fail.
type faultyStore struct {
	authority.Store
	mu   sync.Mutex
	left int // calls that still work
	err  error
}

func (s *faultyStore) fail(err error) { s.failAfter(0, err) }

func (s *faultyStore) failAfter(n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left, s.err = n, err
}

func (s *faultyStore) fault() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil || s.left > 0 {
		s.left--
		return nil
	}
	return s.err
}

func (s *faultyStore) Create(ctx context.Context, id string, r authority.Record) error {
	if err := s.fault(); err != nil {
		return err
	}
	return s.Store.Create(ctx, id, r)
}

func (s *faultyStore) Load(ctx context.Context, id string) (authority.Record, error) {
	if err := s.fault(); err != nil {
		return authority.Record{}, err
	}
	return s.Store.Load(ctx, id)
}

func (s *faultyStore) Update(ctx context.Context, id string, change func(*authority.Record) error) error {
	if err := s.fault(); err != nil {
		return err
	}
	return s.Store.Update(ctx, id, change)
}

// documentStore keeps organisations as a database would: as JSON under a version, with an
// optimistic update that runs the change again after a conflict. Every first try conflicts.
type documentStore struct {
	mu   sync.Mutex
	docs map[string][]byte
}

func (s *documentStore) Create(_ context.Context, id string, r authority.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.docs[id]; ok {
		return fmt.Errorf("insert: %w", authority.ErrExists)
	}
	return s.put(id, r)
}

func (s *documentStore) Load(_ context.Context, id string) (authority.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.get(id)
}

func (s *documentStore) Update(_ context.Context, id string, change func(*authority.Record) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, conflict := range []bool{true, false} {
		r, err := s.get(id)
		if err != nil {
			return err
		}
		if err := change(&r); err != nil {
			return fmt.Errorf("transaction: %w", err)
		}
		if !conflict {
			return s.put(id, r)
		}
	}
	return nil
}

func (s *documentStore) get(id string) (r authority.Record, err error) {
	doc, ok := s.docs[id]
	if !ok {
		return r, fmt.Errorf("select: %w", authority.ErrNotFound)
	}
	err = json.Unmarshal(doc, &r)
	return r, err
}

func (s *documentStore) put(id string, r authority.Record) error {
	doc, err := json.Marshal(r)
	s.docs[id] = doc
	return err
}

// The rules hold over a store that is nothing like the one in memory, and that loses nothing
// when the authority is made anew.
func TestRulesHoldOverADocumentStore(t *testing.T) {
	store := &documentStore{docs: make(map[string][]byte)}
	_, org := newOrganisation(t, authority.PlanFree, authority.WithStore(store))
	w := world{calls: org}
	w.register(t, "a", "b", "c")
	w.run(t, []step{
		{"register", "d", "blocked", "device_limit_reached", 3},
		{"register", "a", "exists", "", 3},
		{"revoke", "c", "ok", "", 2},
		{"revoke", "a", "ok", "", 1},
		{"register", "d", "ok", "", 2},
	})

	restarted, err := authority.New(authority.WithStore(store))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := restarted.AddOrganisation(t.Context(), testKey, authority.PlanFree); !errors.Is(err, authority.ErrExists) {
		t.Errorf("added twice: %v", err)
	}
	again, err := restarted.Organisation(t.Context(), testKey)
	if err != nil {
		t.Fatal(err)
	}
	w = world{calls: again}
	w.decides(t, "a", guard.CodeDeviceRevoked)
	w.decides(t, "b", guard.CodeAllow)
	r, err := w.UnrevokeAllRevoked(t.Context())
	if err != nil || r.UnrevokedCount != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	same(t, "sample", r.UnrevokedSample, []string{"a"})
	batch, err := w.RevokeBatch(t.Context(), []string{"a", "b", "x"})
	if err != nil || batch.RevokedCount != 2 || len(batch.Results) != 3 {
		t.Fatalf("%+v, %v", batch, err)
	}
	w.decides(t, "b", guard.CodeDeviceRevoked) // by the try that counted, too
	if err := restarted.RemoveOrganisation(t.Context(), testKey); err != nil {
		t.Fatal(err)
	}
	w.decides(t, "b", guard.CodeOrgNotFound)
	if _, err := w.Register(t.Context(), "b"); errorCode(t, err) != "org_not_found" {
		t.Errorf("an error wrapped by the store: %v", err)
	}
}

// What a store hands out without making sense allows nothing.
func TestNonsenseFromAStoreFailsClosed(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(r *authority.Record)
		want  guard.Code
	}{
		"no state":       {func(r *authority.Record) { r.State = "" }, guard.CodeSystemUnavailable},
		"unknown state":  {func(r *authority.Record) { r.State = "ACTIVE" }, guard.CodeSystemUnavailable},
		"unknown plan":   {func(r *authority.Record) { r.Plan = "gold" }, guard.CodePlanNotActive},
		"no devices":     {func(r *authority.Record) { r.Devices = nil }, guard.CodeDeviceNotFound},
		"unknown status": {func(r *authority.Record) { r.Devices["agent-01"] = authority.Device{Status: "ACTIVE"} }, guard.CodeDeviceRevoked},
		"no status":      {func(r *authority.Record) { r.Devices["agent-01"] = authority.Device{} }, guard.CodeDeviceRevoked},
	} {
		t.Run(name, func(t *testing.T) {
			store := authority.NewMemory()
			_, org := newOrganisation(t, authority.PlanFree, authority.WithStore(store))
			w := world{calls: org}
			w.register(t, "agent-01")
			err := store.Update(t.Context(), authority.StoreID(testKey), func(r *authority.Record) error {
				tc.spoil(r)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			w.decides(t, "agent-01", tc.want)
		})
	}
}

// A store may hand back no map for an empty one, and times that JSON cannot write.
func TestStoresOwnWays(t *testing.T) {
	store := authority.NewMemory()
	a, org := newOrganisation(t, authority.PlanFree, authority.WithStore(store))
	w := world{calls: org}
	alter := func(change func(r *authority.Record)) {
		t.Helper()
		err := store.Update(t.Context(), authority.StoreID(testKey), func(r *authority.Record) error {
			change(r)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	alter(func(r *authority.Record) { r.Devices = nil })
	w.run(t, []step{{"revoke", "a", "not_found", "device_not_found", 0}, {"register", "a", "ok", "", 1}})
	alter(func(r *authority.Record) {
		r.Devices["a"] = authority.Device{ID: "a", Status: "active", RegisteredAt: time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)}
	})
	rec := serveOnce(t, a, "GET", "/api/v1/devices/list", "", testKey)
	if got := object(t, rec); rec.Code != 503 || got["error"] != "system_unavailable" {
		t.Errorf("a list that cannot be written: %d %v", rec.Code, got)
	}
	w.decides(t, "a", guard.CodeAllow) // a date nobody asked about decides nothing
}

// A record under the right id but of another key is not this key's organisation.
func TestProofIsCompared(t *testing.T) {
	for name, proof := range map[string]string{
		"another": strings.Repeat("0", 32), "none": "", "half": authority.StoreProof(testKey)[:16],
		"in capitals": strings.ToUpper(authority.StoreProof(testKey)), "more": authority.StoreProof(testKey) + "0",
	} {
		t.Run(name, func(t *testing.T) {
			store := authority.NewMemory()
			r := authority.Record{Proof: proof, Plan: authority.PlanFree, State: authority.StateActive}
			r.Devices = map[string]authority.Device{"agent-01": {ID: "agent-01", Status: "active"}}
			if err := store.Create(t.Context(), authority.StoreID(testKey), r); err != nil {
				t.Fatal(err)
			}
			a, err := authority.New(authority.WithStore(store))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := a.Organisation(t.Context(), testKey); errorCode(t, err) != "invalid_org_key" {
				t.Errorf("by key: %v", err)
			}
			rec := serveOnce(t, a, "POST", "/api/v1/devices/validate", `{"deviceId":"agent-01"}`, testKey)
			if got := object(t, rec); got["code"] != "INVALID_ORG_KEY" {
				t.Errorf("%v", got)
			}
		})
	}
}

// A store that fails is no ALLOW, whatever was so before, and says why in process.
func TestFailingStoreInProcess(t *testing.T) {
	ctx := t.Context()
	store := &faultyStore{Store: authority.NewMemory()}
	a, org := newOrganisation(t, authority.PlanFree, authority.WithStore(store))
	w := world{calls: org}
	w.register(t, "agent-01")
	w.decides(t, "agent-01", guard.CodeAllow)
	store.fail(errDisk)
	d, err := org.Validate(ctx, "agent-01")
	if d.Allowed || d.Code != guard.CodeSystemUnavailable || d.RequestID == "" || d.Reason == "" || !errors.Is(err, errDisk) {
		t.Errorf("validate: %+v, %v", d, err)
	}
	for name, call := range map[string]func() error{
		"register":     func() error { _, err := org.Register(ctx, "x"); return err },
		"revoke":       func() error { _, err := org.Revoke(ctx, "agent-01"); return err },
		"unrevoke":     func() error { _, err := org.Unrevoke(ctx, "agent-01"); return err },
		"remove":       func() error { _, err := org.Remove(ctx, "agent-01"); return err },
		"bad id":       func() error { _, err := org.Remove(ctx, ""); return err },
		"list":         func() error { _, err := org.List(ctx); return err },
		"usage":        func() error { _, err := org.Usage(ctx); return err },
		"checkout":     func() error { _, err := org.Checkout(ctx, authority.PlanPro); return err },
		"batch":        func() error { _, err := org.RevokeBatch(ctx, []string{"a"}); return err },
		"unbatch":      func() error { _, err := org.UnrevokeBatch(ctx, []string{"a"}); return err },
		"all active":   func() error { _, err := org.RevokeAllActive(ctx); return err },
		"all revoked":  func() error { _, err := org.UnrevokeAllRevoked(ctx); return err },
		"state":        func() error { return org.SetState(ctx, authority.StateDisabled) },
		"plan":         func() error { return org.SetPlan(ctx, authority.PlanPro) },
		"by key":       func() error { _, err := a.Organisation(ctx, testKey); return err },
		"organisation": func() error { return a.RemoveOrganisation(ctx, testKey) },
	} {
		if err := call(); errorCode(t, err) != "system_unavailable" || !errors.Is(err, errDisk) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := a.AddOrganisation(ctx, "org_other", authority.PlanFree); !errors.Is(err, errDisk) {
		t.Errorf("add: %v", err)
	}
	store.fail(nil)
	w.decides(t, "agent-01", guard.CodeAllow) // nothing of all that took effect
}

// An organisation that the store has lost is one of an unknown key.
func TestOrganisationLostByTheStore(t *testing.T) {
	store := &documentStore{docs: make(map[string][]byte)}
	_, org := newOrganisation(t, authority.PlanFree, authority.WithStore(store))
	clear(store.docs)
	world{calls: org}.decides(t, "agent-01", guard.CodeInvalidOrgKey)
	if _, err := org.Register(t.Context(), "agent-01"); errorCode(t, err) != "invalid_org_key" || !errors.Is(err, authority.ErrNotFound) {
		t.Errorf("register: %v", err)
	}
}

// The store in memory keeps what Store promises.
func TestMemoryStore(t *testing.T) {
	ctx := t.Context()
	m := authority.NewMemory()
	if _, err := m.Load(ctx, "a"); !errors.Is(err, authority.ErrNotFound) {
		t.Errorf("load of nothing: %v", err)
	}
	if err := m.Update(ctx, "a", func(*authority.Record) error { t.Error("called"); return nil }); !errors.Is(err, authority.ErrNotFound) {
		t.Errorf("update of nothing: %v", err)
	}
	first := authority.Record{Proof: "p", Plan: authority.PlanPro, State: authority.StateActive}
	if err := m.Create(ctx, "a", first); err != nil {
		t.Fatal(err)
	}
	if err := m.Create(ctx, "a", authority.Record{Proof: "q"}); !errors.Is(err, authority.ErrExists) {
		t.Errorf("created twice: %v", err)
	}
	if err := m.Update(ctx, "a", func(r *authority.Record) error {
		r.Devices = map[string]authority.Device{"x": {ID: "x", Status: "active"}}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	before, err := m.Load(ctx, "a")
	if err != nil || before.Proof != "p" || len(before.Devices) != 1 {
		t.Fatalf("%+v, %v", before, err)
	}
	// A change that fails half way has changed nothing.
	err = m.Update(ctx, "a", func(r *authority.Record) error {
		r.Plan = authority.PlanMax
		delete(r.Devices, "x")
		return errDisk
	})
	if after, _ := m.Load(ctx, "a"); !errors.Is(err, errDisk) || !reflect.DeepEqual(after, before) {
		t.Errorf("%+v after %v", after, err)
	}
	// What was handed out does not change any more.
	if err := m.Update(ctx, "a", func(r *authority.Record) error { delete(r.Devices, "x"); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(before.Devices) != 1 {
		t.Error("an update changed a record that was handed out")
	}
	gone := errors.New("gone")
	ended, cancel := context.WithCancelCause(ctx)
	cancel(gone)
	_, loadErr := m.Load(ended, "a")
	for name, err := range map[string]error{
		"create": m.Create(ended, "b", first), "load": loadErr,
		"update": m.Update(ended, "a", func(*authority.Record) error { t.Error("called"); return nil }),
	} {
		if !errors.Is(err, gone) {
			t.Errorf("%s after the context ended: %v", name, err)
		}
	}
	if _, err := m.Load(ctx, "b"); !errors.Is(err, authority.ErrNotFound) {
		t.Errorf("created all the same: %v", err)
	}
}
