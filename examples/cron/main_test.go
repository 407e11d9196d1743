package main

import (
	"bytes"
	"context"
	"errors"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/execguard/execguard/guard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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

const requestID = `DEVICE_REVOKED, request [0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\)\n`

func TestStory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		began := time.Now()
		if err := demonstrate(t.Context(), &out); err != nil {
			t.Fatalf("%v\n%s", err, &out)
		}
		if took := time.Since(began); took > 12*time.Second {
			t.Errorf("took %v", took)
		}
		expectInOrder(t, out.String(),
			`report +is written for 00:00:01\n`, `backup +has copied 9 files\n`,
			`backup +begins\n`, `4.30s  \(revoked\) +worker:demo:nightly:01\n`, `4.30s  backup +is cut after 2 files of 9: guard: .* stopped: DEVICE_REVOKED`,
			`backup +denied while it ran: stopped \(`+requestID, `4.30s  \(cut\) +0s after the revocation\n`,
			`5.00s  report +denied: to be caught up \(`+requestID, `6.00s  backup +denied: skipped \(`+requestID,
			`6.50s  \(allowed\) +worker:demo:nightly:01\n`, `6.50s  report +allowed again: catching up\n`, `6.50s  report +is written for 00:00:06\n`,
			`report +is written for 00:00:07\n`,
			`backup +begins\n`, `\(Stop\)\n`, `backup +is cut after 2 files of 9: .* stopped`, `backup +ended with its context\n`, `\(stopped\) +nothing runs\n$`,
		)
		if n := strings.Count(out.String(), "catching up"); n != 1 {
			t.Errorf("%d reports were caught up", n)
		}
	})
}

// runnerFunc is a guard that does not do all that one should.
type runnerFunc func(ctx context.Context, deviceID string, fn func(context.Context) error) error

func (f runnerFunc) Run(ctx context.Context, deviceID string, fn func(context.Context) error) error {
	return f(ctx, deviceID, fn)
}

// tellWith tells the story, in a bubble, with the guard that spoil makes of a good one.
func tellWith(ctx context.Context, t *testing.T, patience time.Duration, spoil func(g *guard.Guard) guard.Runner) (text string, err error) {
	t.Helper()
	org, err := register(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	g, err := guard.New(org)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	defer org.Subscribe(g.Hint)()
	var out bytes.Buffer
	err = newStory(&out, org, spoil(g)).tell(ctx, patience)
	return out.String(), err
}

// atStart asks before the start and never again, as a check at the top of a job would.
func atStart(g *guard.Guard) guard.Runner {
	return runnerFunc(func(ctx context.Context, id string, fn func(context.Context) error) error {
		if d, err := g.Validate(ctx, id); err != nil || !d.Allowed {
			return &guard.DeniedError{Decision: d}
		}
		return fn(ctx)
	})
}

// later stops what runs, and lets everything start.
func later(g *guard.Guard) guard.Runner {
	return runnerFunc(func(ctx context.Context, id string, fn func(context.Context) error) error {
		err := g.Run(ctx, id, fn)
		if denied := (*guard.DeniedError)(nil); errors.As(err, &denied) && !denied.InFlight {
			return fn(ctx)
		}
		return err
	})
}

// slow tells nobody of hints: what is caught up comes when the interval is over.
func slow(g *guard.Guard) guard.Runner { return runnerFunc(g.Run) }

// silent says no, but not why.
func silent(g *guard.Guard) guard.Runner {
	return runnerFunc(func(ctx context.Context, id string, fn func(context.Context) error) error {
		return g.Run(ctx, id, func(outer context.Context) error {
			ctx, cancel := context.WithCancel(context.WithoutCancel(outer))
			defer context.AfterFunc(outer, cancel)()
			return fn(ctx)
		})
	})
}

func never(*guard.Guard) guard.Runner {
	return runnerFunc(func(context.Context, string, func(context.Context) error) error {
		return &guard.DeniedError{Decision: guard.Decision{Code: guard.CodeDeviceNotFound}}
	})
}

func TestGuardThatDoesNotDoItsWorkIsFoundOut(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(g *guard.Guard) guard.Runner
		says  string
	}{
		"nothing runs":          {never, `jobs run on their ticks: report: "denied: to be caught up (DEVICE_NOT_FOUND, request )" should not have come`},
		"the backup goes on":    {atStart, `the backup is cut: backup: "has copied 9 files" should not have come`},
		"refused ticks run":     {later, `are refused: report: "is written for 00:00:05" should not have come`},
		"it is not caught up":   {slow, "one report is caught up: the report"},
		"the cause is not told": {silent, "the backup was told \"is cut after 2 files of 9: context canceled\", and not of the denial"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				text, err := tellWith(t.Context(), t, time.Minute, test.spoil)
				if err == nil || !strings.Contains(err.Error(), test.says) {
					t.Errorf("got %v, want it to say %q:\n%s", err, test.says, text)
				}
			})
		})
	}
}

func TestPatienceEndsTheStory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		text, err := tellWith(t.Context(), t, 3*time.Second, func(g *guard.Guard) guard.Runner { return g })
		if err == nil || !strings.Contains(err.Error(), "something did not come, or goes on") {
			t.Errorf("got %v after:\n%s", err, text)
		}
	})
}

func TestInterruptEndsTheStory(t *testing.T) {
	for _, after := range []int32{1, 3, 5, 7} {
		synctest.Test(t, func(t *testing.T) {
			ctx, interrupt := context.WithCancel(t.Context())
			defer interrupt()
			var started atomic.Int32
			text, err := tellWith(ctx, t, time.Minute, func(g *guard.Guard) guard.Runner {
				return runnerFunc(func(ctx context.Context, id string, fn func(context.Context) error) error {
					return g.Run(ctx, id, func(ctx context.Context) error {
						if started.Add(1) == after {
							interrupt()
						}
						return fn(ctx)
					})
				})
			})
			if !errors.Is(err, context.Canceled) || strings.Contains(text, "nothing runs") {
				t.Errorf("interrupted at start %d: got %v after:\n%s", after, err, text)
			}
		})
	}
}
