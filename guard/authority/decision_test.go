package authority_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/authority"
)

// Every decision code is reached by a state that is really there.
func TestEveryCodeHasAState(t *testing.T) {
	set := func(s authority.State) func(*testing.T, world) {
		return func(t *testing.T, w world) {
			if err := w.org.SetState(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tc := range []struct {
		name   string
		make   func(t *testing.T, w world)
		device string
		want   guard.Code
	}{
		{"registered", func(*testing.T, world) {}, "agent-01", guard.CodeAllow},
		{"white space around the id", func(*testing.T, world) {}, " agent-01\t", guard.CodeAllow},
		{"never registered", func(*testing.T, world) {}, "agent-99", guard.CodeDeviceNotFound},
		{"another case is another device", func(*testing.T, world) {}, "Agent-01", guard.CodeDeviceNotFound},
		{"removed", func(t *testing.T, w world) { _, _ = w.Remove(t.Context(), "agent-01") }, "agent-01", guard.CodeDeviceNotFound},
		{"revoked", func(t *testing.T, w world) { w.revoke(t, "agent-01") }, "agent-01", guard.CodeDeviceRevoked},
		{"blank", func(*testing.T, world) {}, " ", guard.CodeInvalidDeviceID},
		{"malformed", func(*testing.T, world) {}, "agent/01", guard.CodeInvalidDeviceID},
		{"active again", func(t *testing.T, w world) {
			set(authority.StateDisabled)(t, w)
			set(authority.StateActive)(t, w)
		}, "agent-01", guard.CodeAllow},
		{"disabled", set(authority.StateDisabled), "agent-01", guard.CodeOrgDisabled},
		{"frozen", set(authority.StateFrozen), "agent-01", guard.CodePlanFrozen},
		{"inactive", set(authority.StateInactive), "agent-01", guard.CodePlanNotActive},
		{"expired", set(authority.StateExpired), "agent-01", guard.CodeEntitlementExpired},
		{"unavailable", set(authority.StateUnavailable), "agent-01", guard.CodeSystemUnavailable},
		{"organisation removed", func(t *testing.T, w world) {
			if err := w.authority.RemoveOrganisation(t.Context(), testKey); err != nil {
				t.Fatal(err)
			}
		}, "agent-01", guard.CodeOrgNotFound},
	} {
		t.Run(tc.name, func(t *testing.T) {
			eachWay(t, authority.PlanFree, func(t *testing.T, w world) {
				w.register(t, "agent-01")
				tc.make(t, w)
				d := w.decides(t, tc.device, tc.want)
				if d.DeviceID != "" && d.DeviceID != tc.device {
					t.Errorf("decided about %q, asked about %q", d.DeviceID, tc.device)
				}
				if tc.want == guard.CodeAllow && d.DeviceID == "" {
					t.Error("an ALLOW does not name its device")
				}
			})
		})
	}
}

// A key that nobody may use is told apart from an organisation that is gone.
func TestKeyIsLookedAtFirst(t *testing.T) {
	a, org := newOrganisation(t, authority.PlanFree)
	c := serve(t, a)
	if _, err := org.Register(t.Context(), "agent-01"); err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]string{
		"missing": "", "unknown": testKey + "x", "one letter off": strings.ToLower(testKey), "no prefix": testKey[4:],
		"prefix alone": "org_", "too long": "org_" + strings.Repeat("a", 300), "white space within": "org_a b",
	} {
		t.Run(name, func(t *testing.T) {
			bad := *c
			bad.key = key
			d, err := bad.Validate(t.Context(), "agent-01")
			if err != nil || d.Allowed || d.Code != guard.CodeInvalidOrgKey || d.RequestID == "" {
				t.Errorf("validate: %+v, %v", d, err)
			}
			_, err = bad.Register(t.Context(), "agent-01")
			if got := (*apiError)(nil); !errors.As(err, &got) || got.status != 401 || got.code != "invalid_org_key" {
				t.Errorf("register: %v", err)
			}
			// The body is not read, let alone judged, for a stranger.
			status, _, body, err := bad.send(t.Context(), http.MethodPost, "/api/v1/devices/validate", "text/html", "<")
			if err != nil || status != 200 || !strings.Contains(string(body), "INVALID_ORG_KEY") {
				t.Errorf("bad body beside a bad key: %d %s %v", status, body, err)
			}
		})
	}
}

// Two keys on one request are no key, in whatever order they come.
func TestTwoKeysAreNone(t *testing.T) {
	a, _ := newOrganisation(t, authority.PlanFree)
	for _, keys := range [][]string{{testKey, "org_other"}, {"org_other", testKey}, {testKey, testKey}} {
		rec := serveOnce(t, a, "POST", "/api/v1/devices/validate", `{"deviceId":"agent-01"}`, keys...)
		if !strings.Contains(rec.Body.String(), "INVALID_ORG_KEY") {
			t.Errorf("%d keys: %s", len(keys), rec.Body)
		}
	}
}

// ORG_DISABLED and its like override what a device's own state would say, and a bad id too.
func TestOrganisationOverridesDevices(t *testing.T) {
	for state, want := range map[authority.State]guard.Code{
		authority.StateDisabled: guard.CodeOrgDisabled, authority.StateFrozen: guard.CodePlanFrozen,
		authority.StateInactive: guard.CodePlanNotActive, authority.StateExpired: guard.CodeEntitlementExpired,
		authority.StateUnavailable: guard.CodeSystemUnavailable,
	} {
		t.Run(string(state), func(t *testing.T) {
			eachWay(t, authority.PlanFree, func(t *testing.T, w world) {
				w.register(t, "active", "revoked")
				w.revoke(t, "revoked")
				if err := w.org.SetState(t.Context(), state); err != nil {
					t.Fatal(err)
				}
				for _, id := range []string{"active", "revoked", "unknown", "", "b@d"} {
					w.decides(t, id, want)
				}
				// Devices are managed in every state, and are as they were afterwards.
				w.revoke(t, "active")
				if err := w.org.SetState(t.Context(), authority.StateActive); err != nil {
					t.Fatal(err)
				}
				w.decides(t, "active", guard.CodeDeviceRevoked)
			})
		})
	}
}

// A revocation is «in effect at the next validate».
func TestRevokeAndUnrevokeShowAtTheNextValidate(t *testing.T) {
	eachWay(t, authority.PlanFree, func(t *testing.T, w world) {
		w.register(t, "agent-01")
		for range 3 {
			w.decides(t, "agent-01", guard.CodeAllow)
			w.revoke(t, "agent-01")
			w.decides(t, "agent-01", guard.CodeDeviceRevoked)
			if r, err := w.Unrevoke(t.Context(), "agent-01"); err != nil || r.Status != "ok" {
				t.Fatal(r, err)
			}
		}
	})
}

// Every decision, whatever it says, has a request id of its own.
func TestRequestIDs(t *testing.T) {
	v4 := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	eachWay(t, authority.PlanFree, func(t *testing.T, w world) {
		w.register(t, "agent-01")
		seen := make(map[string]bool)
		for i := range 60 {
			d, err := w.Validate(t.Context(), []string{"agent-01", "agent-02", "?"}[i%3])
			if err != nil {
				t.Fatal(err)
			}
			if !v4.MatchString(d.RequestID) || seen[d.RequestID] {
				t.Fatalf("request id %q is malformed or was there before", d.RequestID)
			}
			seen[d.RequestID] = true
		}
	})
}

func TestDenyStatus(t *testing.T) {
	for _, status := range []int{200, 400, 401, 403, 409, 499} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			a, org := newOrganisation(t, authority.PlanFree, authority.WithDenyStatus(status))
			if _, err := org.Register(t.Context(), "agent-01"); err != nil {
				t.Fatal(err)
			}
			validate := func(id string, keys ...string) int {
				return serveOnce(t, a, "POST", "/api/v1/devices/validate", `{"deviceId":"`+id+`"}`, keys...).Code
			}
			if got := validate("agent-01", testKey); got != 200 {
				t.Errorf("an ALLOW came with %d", got)
			}
			for name, got := range map[string]int{
				"unknown device": validate("agent-02", testKey), "bad id": validate("", testKey), "bad key": validate("agent-01"),
			} {
				if got != status {
					t.Errorf("%s: %d, want %d", name, got, status)
				}
			}
			// The status of a denial is a matter of validate alone.
			if got := serveOnce(t, a, "POST", "/api/v1/devices/revoke", `{"deviceId":"agent-02"}`, testKey).Code; got != 404 {
				t.Errorf("revoke of an unknown device: %d", got)
			}
		})
	}
}

// A caller that has given up gets no ALLOW, and learns why.
func TestEndedContextIsNoDecision(t *testing.T) {
	_, org := newOrganisation(t, authority.PlanFree)
	if _, err := org.Register(t.Context(), "agent-01"); err != nil {
		t.Fatal(err)
	}
	gone := errors.New("gone home")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(gone)
	d, err := org.Validate(ctx, "agent-01")
	if d.Allowed || d.Code != guard.CodeSystemUnavailable || !errors.Is(err, gone) {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := org.Revoke(ctx, "agent-01"); errorCode(t, err) != "system_unavailable" || !errors.Is(err, gone) {
		t.Errorf("revoke: %v", err)
	}
}
