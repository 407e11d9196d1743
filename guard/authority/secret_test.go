package authority_test

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/execguard/execguard/guard/authority"
)

// forms are all the ways in which a value gets into a log.
func forms(t *testing.T, v any) []string {
	t.Helper()
	out := []string{fmt.Sprintf("%v", v), fmt.Sprintf("%+v", v), fmt.Sprintf("%#v", v), fmt.Sprintf("%s", v), fmt.Sprintf("%q", v)}
	if text, err := json.Marshal(v); err == nil {
		out = append(out, string(text))
	}
	if p := reflect.ValueOf(v); p.Kind() == reflect.Pointer && !p.IsNil() {
		out = append(out, forms(t, p.Elem().Interface())...)
	}
	return out
}

// No public value, error or answer shows the key, or of its digest more than a Store is given.
func TestTheKeyIsNowhereToBeSeen(t *testing.T) {
	ctx := t.Context()
	store := authority.NewMemory()
	a, org := newOrganisation(t, authority.PlanPro, authority.WithStore(store))
	defer org.Subscribe(func(string) {})()
	w := world{calls: org}
	w.register(t, "agent-01")
	values := map[string]any{"organisation": org}
	keep := func(name string, v any, err error) {
		values[name] = v
		if err != nil {
			values[name+" error"] = err
		}
	}
	reg, err := org.Register(ctx, "agent-02")
	keep("register", &reg, err)
	_, err = org.Register(ctx, "@")
	keep("bad id", nil, err)
	batch, err := org.RevokeBatch(ctx, []string{"agent-01", "x"})
	keep("batch", &batch, err)
	all, err := org.UnrevokeAllRevoked(ctx)
	keep("unrevoke", &all, err)
	list, err := org.List(ctx)
	keep("list", &list, err)
	usage, err := org.Usage(ctx)
	keep("usage", &usage, err)
	link, err := org.Checkout(ctx, authority.PlanMax)
	keep("checkout", &link, err)
	d, err := org.Validate(ctx, "agent-01")
	keep("decision", &d, err)
	_, err = a.AddOrganisation(ctx, testKey, authority.PlanPro)
	keep("added twice", nil, err)
	_, err = a.AddOrganisation(ctx, testKey+"\n", authority.PlanPro)
	keep("malformed", nil, err)
	_, err = a.AddOrganisation(ctx, testKey, "gold")
	keep("unknown plan", nil, err)
	_, err = a.Organisation(ctx, testKey+"x")
	keep("unknown key", nil, err)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	keep("ended", nil, a.RemoveOrganisation(ended, testKey))

	for name, v := range values {
		for _, text := range forms(t, v) {
			for _, secret := range []string{testKey, authority.StoreID(testKey), authority.StoreProof(testKey)} {
				if strings.Contains(text, secret) {
					t.Errorf("%s: %s", name, text)
				}
			}
		}
	}
	// What is given to a Store, and the Authority that holds one, may show the digest, but no key.
	r, err := store.Load(ctx, authority.StoreID(testKey))
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]any{"authority": &struct{ A *authority.Authority }{a}, "record": &r, "store": store} {
		for _, text := range forms(t, v) {
			if strings.Contains(text, testKey) || strings.Contains(text, testKey[4:]) {
				t.Errorf("%s: %s", name, text)
			}
		}
	}
}

// No answer repeats the key, not even one to a request that put it everywhere.
func TestTheKeyIsInNoAnswer(t *testing.T) {
	for name, store := range map[string]authority.Store{"working": authority.NewMemory(), "failing": &faultyStore{err: errDisk}} {
		a, err := authority.New(authority.WithStore(store))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.AddOrganisation(t.Context(), testKey, authority.PlanFree); (err == nil) != (name == "working") {
			t.Fatal(err)
		}
		for path, method := range paths {
			for _, body := range []string{``, `{}`, `{"deviceId":"agent-01"}`, `{"plan":"pro"}`, `{"scope":"all_active"}`, `{"` + testKey + `":1}`} {
				for _, key := range []string{testKey, testKey + "x", testKey + " " + testKey} {
					rec := serveOnce(t, a, method, "/api/v1/"+path, body, key)
					if text := rec.Body.String() + fmt.Sprint(rec.Result().Header); strings.Contains(text, testKey) {
						t.Errorf("%s, %s: %s", name, path, text)
					}
				}
			}
		}
	}
}
