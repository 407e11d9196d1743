package main

import (
	"bytes"
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/machineid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// beat keeps the tests short. Their sockets are real, and so is their time.
const beat = 100 * time.Millisecond

// written is what a story has printed. It is read after the story has closed its report.
func written(t *testing.T, out *bytes.Buffer, err error) string {
	t.Helper()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	line := regexp.MustCompile(`^( *\d+\.\d\ds  \S.*\S|--- .+|)$`)
	for text := range strings.SplitSeq(out.String(), "\n") {
		if !line.MatchString(text) {
			t.Errorf("not one line an event: %q", text)
		}
	}
	return out.String()
}

// expectInOrder looks for one match after the other, each behind the one before.
func expectInOrder(t *testing.T, text string, patterns ...string) {
	t.Helper()
	rest := text
	for _, pattern := range patterns {
		at := regexp.MustCompile(pattern).FindStringIndex(rest)
		if at == nil {
			t.Fatalf("nothing matches %q where it should in:\n%s", pattern, text)
		}
		rest = rest[at[1]:]
	}
}

const requestID = ` +[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`

func TestStoryWithOwnAuthority(t *testing.T) {
	var out bytes.Buffer
	err := local(t.Context(), newReport(&out), beat)
	expectInOrder(t, written(t, &out, err),
		`registered worker:demo:report:01`,
		`started +ALLOW`+requestID, `revoke +worker:demo:report:01`, `stopped +DEVICE_REVOKED`+requestID,
		`--- while it is revoked`, `refused +DEVICE_REVOKED`+requestID,
		`--- restored`, `refused +DEVICE_REVOKED`+requestID, `unrevoke`, `started +ALLOW`+requestID, `finished +ALLOW`+requestID,
		`--- nobody can be asked`, `started`, `outage +nothing listens`, `stopped +SYSTEM_UNAVAILABLE`,
		`--- an opted-in retry`, `started`, `outage +nothing listens`, `answered +SYSTEM_UNAVAILABLE`, `outage +is over`,
		`answered +ALLOW`, `finished +ALLOW`+requestID,
	)
}

// asHosted points the environment at an authority of our own, in the place of the hosted one.
func asHosted(t *testing.T) *service {
	t.Helper()
	own, err := startService(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := own.takeAway(); err != nil {
			t.Error(err)
		}
	})
	t.Setenv("MACHINEID_BASE_URL", "http://"+own.addr)
	t.Setenv("MACHINEID_ORG_KEY", own.key)
	t.Setenv("MACHINEID_DEVICE_ID", "worker:test:report:01")
	return own
}

// decision is what the authority says about the device of the environment.
func decision(t *testing.T) guard.Code {
	t.Helper()
	client := newClient(t)
	d, err := client.Validate(t.Context(), "worker:test:report:01")
	if err != nil {
		t.Fatal(err)
	}
	return d.Code
}

func newClient(t *testing.T) *machineid.Client {
	t.Helper()
	client, err := machineid.FromEnv()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	return client
}

func TestHostedStoryRevokesNothing(t *testing.T) {
	own := asHosted(t)
	var out bytes.Buffer
	err := hosted(t.Context(), newReport(&out), beat, false)
	text := written(t, &out, err)
	expectInOrder(t, text,
		`registered worker:test:report:01`,
		`started +ALLOW`+requestID, `answered +ALLOW`+requestID, `finished +ALLOW`+requestID,
		`--- a device that nobody has registered`, `refused +DEVICE_NOT_FOUND`+requestID,
	)
	if strings.Contains(text, "revoke") || strings.Contains(text, "REVOKED") {
		t.Errorf("something was revoked without leave:\n%s", text)
	}
	if strings.Contains(text, own.key) {
		t.Errorf("the key was printed:\n%s", text)
	}
}

func TestHostedStoryRevokesWithLeave(t *testing.T) {
	asHosted(t)
	var out bytes.Buffer
	err := hosted(t.Context(), newReport(&out), beat, true)
	expectInOrder(t, written(t, &out, err),
		`--- a device that nobody has registered`,
		`revoke +worker:test:report:01`, `stopped +DEVICE_REVOKED`+requestID,
		`refused +DEVICE_REVOKED`, `unrevoke`, `finished +ALLOW`,
	)
	if code := decision(t); code != guard.CodeAllow {
		t.Errorf("afterwards the device is %s, want ALLOW", code)
	}
}

func TestStoryThatBreaksOffLeavesNothingRevoked(t *testing.T) {
	asHosted(t)
	ctx, cancel := context.WithCancel(t.Context())
	var out bytes.Buffer
	s := &story{report: newReport(&out), client: newClient(t), device: "worker:test:report:01", beat: beat}
	err := s.tell(ctx, chapter{"interrupted", func(ctx context.Context) error {
		defer cancel()
		return errors.Join(s.revoke(ctx), errors.New("interrupted"))
	}})
	if err == nil || !strings.Contains(out.String(), "unrevoke ") {
		t.Errorf("got %v:\n%s", err, &out)
	}
	if code := decision(t); code != guard.CodeAllow {
		t.Errorf("afterwards the device is %s, want ALLOW", code)
	}
}

func TestRevokedDeviceIsNotTheStorysToRestore(t *testing.T) {
	asHosted(t)
	client := newClient(t)
	for _, call := range []func(context.Context, string) error{
		func(ctx context.Context, id string) error { _, err := client.Register(ctx, id); return err },
		func(ctx context.Context, id string) error { _, err := client.Revoke(ctx, id); return err },
	} {
		if err := call(t.Context(), "worker:test:report:01"); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if err := hosted(t.Context(), newReport(&out), beat, true); err == nil {
		t.Errorf("a story about a revoked device ended well:\n%s", &out)
	}
	if code := decision(t); code != guard.CodeDeviceRevoked {
		t.Errorf("afterwards the device is %s, want DEVICE_REVOKED", code)
	}
}

func TestEnvironmentChoosesTheStory(t *testing.T) {
	t.Setenv("MACHINEID_ORG_KEY", "org_of_nobody")
	t.Setenv("MACHINEID_BASE_URL", "")
	t.Setenv("MACHINEID_DEVICE_ID", "")
	var out bytes.Buffer
	err := quickstart(t.Context(), newReport(&out), false)
	if err == nil || !strings.Contains(err.Error(), "MACHINEID_DEVICE_ID") || out.Len() > 0 {
		t.Errorf("got %v and %q, want an error that names MACHINEID_DEVICE_ID", err, &out)
	}
}

func TestUnexpectedEndsAreErrors(t *testing.T) {
	revoked := &guard.DeniedError{Decision: guard.Decision{Code: guard.CodeDeviceRevoked}, InFlight: true}
	other := errors.New("other")
	for name, test := range map[string]struct {
		err      error
		code     guard.Code
		inFlight bool
		ok       bool
	}{
		"as told":         {revoked, guard.CodeDeviceRevoked, true, true},
		"another code":    {revoked, guard.CodeSystemUnavailable, true, false},
		"not in flight":   {revoked, guard.CodeDeviceRevoked, false, false},
		"finished":        {nil, guard.CodeDeviceRevoked, true, false},
		"another failure": {other, guard.CodeDeviceRevoked, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			if err := expectDenial(test.err, test.code, test.inFlight); (err == nil) != test.ok {
				t.Errorf("got %v, want it to be nil: %t", err, test.ok)
			} else if test.err != nil && !test.ok && !errors.Is(err, test.err) {
				t.Errorf("got %v, which hides %v", err, test.err)
			}
		})
	}
}

func TestJobEndsWithTheActionThatFails(t *testing.T) {
	broken := errors.New("broken")
	acted, ended := meanwhile(t.Context(), time.Millisecond,
		func(context.Context) error { return broken },
		func(ctx context.Context) error { return wait(ctx, time.Hour) })
	if !errors.Is(ended, context.Canceled) || !errors.Is(acted.err, broken) {
		t.Errorf("got %v and %v", ended, acted.err)
	}
}

func TestActionEndsWithTheJobThatIsShort(t *testing.T) {
	broken := errors.New("broken")
	acted, ended := meanwhile(t.Context(), time.Hour,
		func(context.Context) error { return nil },
		func(context.Context) error { return broken })
	if !errors.Is(ended, broken) || !errors.Is(acted.err, context.Canceled) {
		t.Errorf("got %v and %v", ended, acted.err)
	}
}
