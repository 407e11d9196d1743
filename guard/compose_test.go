package guard_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

// A nil validator is found by New, which names the function and the argument, and however deep it
// is; without New it allows nothing and asks nobody.
func TestNew_RefusesWhatIsMadeOfNil(t *testing.T) {
	a := newAuthority()
	for name, c := range map[string]struct {
		v     guard.Validator
		words []string
	}{
		"online":              {guard.Fallback(nil, a), []string{"guard.Fallback: online is nil"}},
		"offline":             {guard.Fallback(a, nil), []string{"guard.Fallback: offline is nil"}},
		"both":                {guard.Fallback(nil, nil), []string{"online is nil", "offline is nil"}},
		"a nil pointer":       {guard.Fallback((*authority)(nil), a), []string{"online is nil"}},
		"a nil function":      {guard.Fallback(a, guard.ValidatorFunc(nil)), []string{"offline is nil"}},
		"no validators":       {guard.All(), []string{"guard.All: there are no validators"}},
		"one of all":          {guard.All(a, nil), []string{"guard.All: validators[1] is nil"}},
		"two of all":          {guard.All(nil, a, (*guardtest.Validator)(nil)), []string{"validators[0] is nil", "validators[2] is nil"}},
		"none, inside":        {guard.Fallback(a, guard.All()), []string{"guard.Fallback: offline: guard.All: there are no validators"}},
		"nil, inside":         {guard.All(a, guard.Fallback(a, nil)), []string{"guard.All: validators[1]: guard.Fallback: offline is nil"}},
		"nil, further inside": {guard.Fallback(guard.All(a, guard.All(nil)), a), []string{"online: guard.All: validators[1]: guard.All: validators[0] is nil"}},
	} {
		t.Run(name, func(t *testing.T) {
			g, err := guard.New(c.v)
			if g != nil || err == nil {
				t.Fatalf("New made %v, %v", g, err)
			}
			d, denied := c.v.Validate(t.Context(), "dev")
			wantCouldNot(t, d, denied, c.words...)
			for _, word := range c.words {
				if !strings.Contains(err.Error(), word) || denied == nil || !strings.Contains(denied.Error(), word) {
					t.Errorf("errors %q and %v, want %q in them", err, denied, word)
				}
			}
		})
	}
	if a.count() != 0 {
		t.Error("somebody was asked")
	}
}

// flawed is a client's Validator that was made with an option that is refused.
type flawed struct{ guard.Validator }

func (f flawed) Flaw() error { return errFlaw }

var errFlaw = errors.New("an option is refused")

// A validator of a client's that says that it was made wrong is refused, alone and inside of others: its
// word is neither an outage, for which a file could stand in, nor a denial that a file has to remember.
func TestNew_RefusesFlawedValidators(t *testing.T) {
	a := newAuthority()
	for _, v := range []guard.Validator{
		flawed{a}, guard.Fallback(flawed{a}, a), guard.Fallback(a, flawed{a}), guard.All(a, flawed{a}), guard.All(guard.Fallback(flawed{a}, a)),
	} {
		if g, err := guard.New(v); g != nil || !errors.Is(err, errFlaw) {
			t.Errorf("%v: New made %v, %v", v, g, err)
		}
	}
}

// Both are validators like any other.
func TestComposed_Conform(t *testing.T) {
	silent := func(vs ...*guardtest.Validator) func() {
		for _, v := range vs {
			v.Always("", guardtest.Hang())
		}
		return func() {
			for _, v := range vs {
				v.Always("", nil)
			}
		}
	}
	out := guardtest.Reply(guard.Decision{Code: guard.CodeSystemUnavailable}, nil)
	subject := func(v guard.Validator, online *guardtest.Validator, others ...*guardtest.Validator) guardtest.Subject {
		return guardtest.Subject{
			Validator: v, Device: "one", Other: "two", Stranger: "three",
			Revoke: func(id string) func() {
				online.Deny(id, guard.CodeDeviceRevoked)
				return func() { online.Allow(id) }
			},
			SwitchOff: func() func() {
				online.Deny("", guard.CodeOrgDisabled)
				return func() { online.Always("", nil) }
			},
			Outage: func() func() {
				for _, o := range append(others, online) {
					o.Always("", out)
				}
				return func() {
					for _, o := range append(others, online) {
						o.Always("", nil)
					}
				}
			},
			Silence: func() func() { return silent(append(others, online)...) },
		}
	}
	scripts := func() (one, two *guardtest.Validator) {
		return guardtest.NewValidator("one", "two"), guardtest.NewValidator("one", "two")
	}
	// named makes the request ids of one script differ from another's.
	named := func(name string, v guard.Validator) guard.Validator {
		return guard.ValidatorFunc(func(ctx context.Context, id string) (guard.Decision, error) {
			d, err := v.Validate(ctx, id)
			if d.RequestID != "" {
				d.RequestID = name + d.RequestID
			}
			return d, err
		})
	}
	t.Run("Fallback", func(t *testing.T) {
		guardtest.TestValidator(t, func(*testing.T) guardtest.Subject {
			online, offline := scripts()
			return subject(guard.Fallback(online, offline), online, offline)
		})
	})
	t.Run("Fallback on its file", func(t *testing.T) { // what the file is asked in an outage is all there is
		guardtest.TestValidator(t, func(*testing.T) guardtest.Subject {
			online, offline := scripts()
			s := subject(guard.Fallback(online, offline), online, offline)
			s.Outage = func() func() {
				offline.Deny("", guard.CodeEntitlementExpired)
				online.Always("", out)
				return func() { online.Always("", nil); offline.Always("", nil) }
			}
			return s
		})
	})
	t.Run("All", func(t *testing.T) {
		guardtest.TestValidator(t, func(*testing.T) guardtest.Subject {
			one, two := scripts()
			return subject(guard.All(one, named("two ", two)), one, two)
		})
	})
	t.Run("All, the last denies", func(t *testing.T) {
		guardtest.TestValidator(t, func(*testing.T) guardtest.Subject {
			one, two := scripts()
			return subject(guard.All(one, named("two ", guard.Fallback(two, one))), two, one)
		})
	})
}

// Nothing that is printed of them tells what their validators hold (S8).
func TestComposed_S8_TellNoSecret(t *testing.T) {
	for name, v := range clients(allows) {
		for _, c := range []guard.Validator{guard.Fallback(v, v), guard.All(v, v), guard.Fallback(guard.All(v), guard.All(v)), guard.Fallback(v, nil)} {
			wantNoSecretIn(t, name, c, false)
			if _, err := c.Validate(t.Context(), "dev"); err != nil {
				wantNoSecret(t, name, err)
			}
		}
	}
	w := guard.Fallback(guard.ValidatorFunc(valueClient{secret, fails(secretError{secret})}.Validate), valueClient{secret, fails(secretError{secret})})
	_, err := w.Validate(t.Context(), "dev")
	wantNoSecret(t, "both errors", err)
	if !errors.Is(err, secretError{secret}) {
		t.Errorf("got %v", err)
	}
}

// They print their names.
func TestComposed_PrintTheirNames(t *testing.T) {
	a := newAuthority()
	for want, v := range map[string]guard.Validator{"guard.Fallback": guard.Fallback(a, a), "guard.All": guard.All(a)} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
			if text := fmt.Sprintf(verb, v); text != want {
				t.Errorf("%s prints %q, want %q", verb, text, want)
			}
		}
	}
}

// Many ask at the same time, while the authority goes up and down and refuses and allows: the race
// detector looks on. Whoever has been refused, and not allowed since, is never allowed by the file.
func TestComposed_Race(t *testing.T) {
	w, n := newNotebook()
	v := guard.All(w, guard.All(w, newAuthority()))
	faults := []behaviour{allows, fails(errCable), denies(guard.CodeDeviceRevoked), fails(errCable), denies(guard.CodeOrgDisabled), fails(errCable)}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 200 {
				w.online.set(faults[(i+j)%len(faults)])
				if d, err := v.Validate(ctx, fmt.Sprintf("dev%d", j%3)); d.Allowed && err != nil {
					t.Errorf("allowed beside %v", err)
				}
			}
		})
	}
	wg.Go(func() {
		for range 200 {
			_ = fmt.Sprintf("%v %+v %#v", v, w.Validator, v)
		}
	})
	wg.Wait()
	for _, id := range []string{"dev0", "dev1", "dev2"} {
		w.online.deny(guard.CodeDeviceRevoked)
		_, _ = v.Validate(t.Context(), id)
		w.unplug()
		if d, _ := v.Validate(t.Context(), id); d.Allowed {
			t.Errorf("%s: %+v", id, d)
		}
	}
	if notes := n.all(); notes[len(notes)-1] == "dev2 ALLOW" {
		t.Error("the last word is not the last")
	}
}
