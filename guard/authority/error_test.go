package authority_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/execguard/execguard/guard/authority"
)

// Whoever reads an error in a log learns what would have been right, whatever the code.
func TestErrorsNameTheirRule(t *testing.T) {
	seen := map[string]string{}
	for _, code := range authority.ErrorCodes() {
		text := (&authority.Error{Code: code}).Error()
		rule, ok := strings.CutPrefix(text, "authority: "+code+": ")
		if !ok || len(rule) < 10 {
			t.Errorf("%s: %q", code, text)
		}
		if other := seen[rule]; other != "" {
			t.Errorf("%s and %s have the same rule", code, other)
		}
		seen[rule] = code
	}
	if text := (&authority.Error{Code: "of_tomorrow"}).Error(); text != "authority: of_tomorrow" {
		t.Errorf("an unknown code: %s", text)
	}
}

// What was refused is told with the rule that it broke, and with what the store said.
func TestRefusalsNameTheirRule(t *testing.T) {
	a, org := newOrganisation(t, authority.PlanFree)
	failing, err := authority.New(authority.WithStore(&faultyStore{err: errDisk}))
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		call func() error
		says []string
	}{
		"a short key":    {func() error { _, err := a.AddOrganisation(t.Context(), "abc", "pro"); return err }, []string{"org_ and 1 to 252 visible ASCII"}},
		"an unknown key": {func() error { _, err := a.Organisation(t.Context(), "org_x"); return err }, []string{"unknown", "no such organisation"}},
		"a bad id":       {func() error { _, err := org.Register(t.Context(), "@"); return err }, []string{"1 to 128", "letter or digit"}},
		"no ids":         {func() error { _, err := org.RevokeBatch(t.Context(), nil); return err }, []string{"deviceIds", "missing"}},
		"the free plan":  {func() error { _, err := org.Checkout(t.Context(), "free"); return err }, []string{"pro, scale and max"}},
		"a store":        {func() error { return failing.RemoveOrganisation(t.Context(), testKey) }, []string{"the store failed", errDisk.Error()}},
	} {
		err := tc.call()
		own := (*authority.Error)(nil)
		if !errors.As(err, &own) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, says := range tc.says {
			if !strings.Contains(err.Error(), says) {
				t.Errorf("%s: %q does not say %q", name, err, says)
			}
		}
	}
}
