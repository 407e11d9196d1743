package main

import (
	"bytes"
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/execguard/execguard/guard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestNextToolIsNotCalledAfterRevocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		if err := demonstrate(t.Context(), &out); err != nil {
			t.Fatalf("%v\n%s", err, out.String())
		}
		for _, want := range []string{
			`called +read_ticket, look_up_order, draft_reply\n`,
			`not called +send_mail, refund_order\n`,
			`because +DEVICE_REVOKED, request [0-9a-f-]{36}\n`,
			`\(unlocked\)`,
		} {
			if !regexp.MustCompile(want).MatchString(out.String()) {
				t.Errorf("the output does not match %q:\n%s", want, out.String())
			}
		}
		if strings.Contains(out.String(), "on its way") || strings.Contains(out.String(), "on their way") {
			t.Errorf("a tool worked after the revocation:\n%s", out.String())
		}
	})
}

// office is a desk and a guard for a device that nobody revokes.
func office(t *testing.T, out *bytes.Buffer) (*desk, *guard.Guard) {
	t.Helper()
	org, err := register(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	g, err := guard.New(org)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return newDesk(out), g
}

func TestAgentThatIsAllowedFinishesItsPlan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		d, g := office(t, &out)
		if err := runAgent(t.Context(), g, d, d.plan()); err != nil {
			t.Fatal(err)
		}
		for _, tool := range d.plan() {
			if !d.wasCalled(tool.name) {
				t.Errorf("%s was not called", tool.name)
			}
		}
		if err := d.account(nil); err == nil {
			t.Error("an agent that was not stopped is reported as stopped")
		}
	})
}

func TestAgentEndsWithItsTool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		d, g := office(t, &out)
		broken := errors.New("out of paper")
		plan := []tool{{"print", func(context.Context) error { return broken }}, d.plan()[3]}
		err := runAgent(t.Context(), g, d, plan)
		if !errors.Is(err, broken) || !strings.Contains(err.Error(), "print: ") {
			t.Errorf("got %v, want print: %v", err, broken)
		}
		if d.wasCalled("send_mail") {
			t.Error("the agent went on after a tool had failed")
		}
		if !strings.Contains(out.String(), "(unlocked)") {
			t.Errorf("nothing was put in order:\n%s", out.String())
		}
	})
}

func TestInterruptEndsTheDemonstration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
		defer cancel()
		var out bytes.Buffer
		if err := demonstrate(ctx, &out); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the context's end", err)
		}
		if !strings.Contains(out.String(), "(unlocked)") {
			t.Errorf("nothing was put in order:\n%s", out.String())
		}
	})
}
