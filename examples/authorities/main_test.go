package main

import (
	"bytes"
	"errors"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Each authority stops the job, in its own word, and no secret is told on the way.
func TestDemonstration(t *testing.T) {
	var out bytes.Buffer
	if err := demonstrate(t.Context(), &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{
		`MachineID(?s:.*)stopped +DEVICE_REVOKED, within 1s\n +refused +DEVICE_REVOKED\n`,
		`Licentric: (?s:.*)stopped +PLAN_FROZEN \(SUSPENDED\), within 1s\n +refused +PLAN_FROZEN \(SUSPENDED\)\n`,
		`Clerk(?s:.*)stopped +DEVICE_REVOKED \(the machine mch_\w+ is not in its scopes\)`,
		`no network(?s:.*)stopped +SYSTEM_UNAVAILABLE .*, within 2s\n +refused +SYSTEM_UNAVAILABLE \(.*ended\)\n`,
		`cable pulled +ALLOW by the file(?s:.*)stopped +PLAN_NOT_ACTIVE \(REVOKED\)(?s:.*)started anew\n +refused +SYSTEM_UNAVAILABLE .*PLAN_NOT_ACTIVE`,
	} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("the output does not match %q:\n%s", want, out.String())
		}
	}
	if n := strings.Count(out.String(), "3 steps or more"); n != 5 {
		t.Errorf("%d jobs ran, want 5:\n%s", n, out.String())
	}
}

// An authority that does not do what it is told is found out, and so is a guard.
func TestDisobedienceIsFound(t *testing.T) {
	const device = "d-1"
	broken := errors.New("the authority does not answer")
	for name, e := range map[string]ending{
		"told in vain": {happens: func() error { return broken }, want: guard.CodeDeviceRevoked},
		"another code": {happens: func() error { return nil }, want: guard.CodePlanFrozen},
	} {
		t.Run(name, func(t *testing.T) {
			d := &desk{out: new(bytes.Buffer)}
			defer d.close()
			v := guardtest.NewValidator(device)
			g, err := d.guarded(v)
			if err != nil {
				t.Fatal(err)
			}
			happens := e.happens
			e.happens = func() error {
				v.Deny(device, guard.CodeDeviceRevoked)
				return happens()
			}
			err = d.stopped(t.Context(), g, device, e)
			if err == nil || happens() != nil && !errors.Is(err, broken) {
				t.Errorf("%v", err)
			}
			v.Allow(device)
			if err := d.refused(t.Context(), g, device, guard.CodeDeviceRevoked); err == nil {
				t.Error("a job that was started passes for refused")
			}
		})
	}
}
