package guard_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

var errDown = errors.New("connection refused")

// fragile is an error whose nil pointer cannot even say what it is.
type fragile struct{ text string }

func (f *fragile) Error() string { return f.text }

// errorList is an error that cannot be compared: == panics.
type errorList []error

func (l errorList) Error() string   { return errors.Join(l...).Error() }
func (l errorList) Unwrap() []error { return l }

// nonsense is what is neither an ALLOW nor a denial that stands.
type nonsense struct {
	name     string
	decision guard.Decision
	err      error
	panics   func() // instead of the two
	silent   bool   // nothing of the decision can be known
}

func nonsenses() []nonsense {
	allowed := func(code guard.Code) guard.Decision {
		return guard.Decision{Allowed: true, Code: code, RequestID: "nonsense"}
	}
	refused := func(code guard.Code) guard.Decision { return guard.Decision{Code: code, RequestID: "nonsense"} }
	about := func(id string) guard.Decision {
		return guard.Decision{Allowed: true, Code: guard.CodeAllow, RequestID: "nonsense", DeviceID: id}
	}
	ns := []nonsense{
		{name: "nothing at all", silent: true},
		{name: "an error alone", err: errDown, silent: true},
		{name: "an error without text", err: errors.New(""), silent: true},
		{name: "a cancelled context", err: context.Canceled, silent: true},
		{name: "a wrapped cancelled context", err: fmt.Errorf("asking: %w", context.Canceled), silent: true},
		{name: "allowed without a code", decision: allowed("")},
		{name: "allowed with an unknown code", decision: allowed("YES")},
		{name: "allowed in lower case", decision: allowed("allow")},
		{name: "allowed with a space", decision: allowed("ALLOW ")},
		{name: "refused with ALLOW", decision: refused(guard.CodeAllow)},
		{name: "refused with ALLOW and an error", decision: refused(guard.CodeAllow), err: errDown},
		{name: "refused without a code", decision: refused("")},
		{name: "refused without a code, with an error", decision: refused(""), err: errDown},
		{name: "unavailable", decision: refused(guard.CodeSystemUnavailable)},
		{name: "unavailable with an error", decision: refused(guard.CodeSystemUnavailable), err: errDown},
		{name: "unavailable with an error without text", decision: refused(guard.CodeSystemUnavailable), err: errors.New("")},
		{name: "an error beside ALLOW", decision: allowed(guard.CodeAllow), err: errDown},
		{name: "a nil pointer beside ALLOW", decision: allowed(guard.CodeAllow), err: (*fragile)(nil)},
		{name: "a nil pointer that cannot be unwrapped beside ALLOW", decision: allowed(guard.CodeAllow), err: (*net.OpError)(nil)},
		{name: "a nil pointer that cannot be unwrapped", err: (*net.OpError)(nil), silent: true},
		{name: "an error that cannot be compared beside ALLOW", decision: allowed(guard.CodeAllow), err: errorList{errDown}},
		{name: "an error beside an allowed deny code", decision: allowed(guard.CodeDeviceRevoked), err: errDown},
		{name: "another device", decision: about("other")},
		{name: "the device in upper case", decision: about("DEV")},
		{name: "the device with a space", decision: about("dev ")},
		{name: "another device and an error", decision: about("other"), err: errDown},
		{name: "a panic", panics: func() { panic("hunter2") }, silent: true},
		{name: "a panic with an error", panics: func() { panic(errDown) }, silent: true},
		{name: "a panic with nil", panics: func() { panic(nil) }, silent: true}, //nolint:govet // on purpose
		{name: "a panic of the runtime", panics: func() { _ = denyCodes[len(secret)*len(denyCodes)] }, silent: true},
		{name: "a panic that cannot be compared", panics: func() { panic([]string{"hunter2"}) }, silent: true},
		{name: "Goexit", panics: runtime.Goexit, silent: true},
	}
	for _, code := range append(denyCodes, guard.CodeSystemUnavailable) {
		ns = append(ns, nonsense{name: "allowed with " + string(code), decision: allowed(code)})
	}
	return ns
}

func (n nonsense) behaviour(context.Context, *asked) (guard.Decision, error) {
	if n.panics != nil {
		n.panics()
	}
	return n.decision, n.err
}

// check holds a denial to what may be said of the nonsense.
func (n nonsense) check(t *testing.T, denied *guard.DeniedError) {
	t.Helper()
	if d := denied.Decision; !n.silent && d.RequestID != "nonsense" {
		t.Errorf("the denial does not name the request: %+v", d)
	}
	_, list := n.err.(errorList)
	if (list || n.err == errDown) && !errors.Is(denied, errDown) {
		t.Errorf("the denial does not match the error: %v", denied)
	}
	if text := denied.Error() + denied.Decision.Reason; strings.Contains(text, "hunter2") {
		t.Errorf("the denial tells what the validator panicked with: %s", text)
	}
	if !denied.Decision.ExpiresAt.IsZero() {
		t.Errorf("a denial with an end: %+v", denied.Decision)
	}
}

// Only a nil error, Allowed and CodeAllow together are an ALLOW: all else starts nothing.
func TestS2_NonsenseStartsNothing(t *testing.T) {
	for _, n := range nonsenses() {
		bubble(t, n.name, func(t *testing.T) {
			a := newAuthority()
			a.set(n.behaviour)
			g := newGuard(t, a)
			err := g.Run(t.Context(), "dev", mustNotRun(t))
			n.check(t, wantDenied(t, err, "dev", guard.CodeSystemUnavailable, false))
			if n := a.count(); n != 1 {
				t.Errorf("%d requests, want 1", n)
			}
		})
	}
}

// As the answer to the watch it stops what runs.
func TestS2_NonsenseStopsWhatRuns(t *testing.T) {
	for _, n := range nonsenses() {
		bubble(t, n.name, func(t *testing.T) {
			a := newAuthority()
			g := newGuard(t, a)
			r := launch(t.Context(), g, "dev")
			synctest.Wait()
			a.set(n.behaviour)
			n.check(t, wantDenied(t, r.finish(), "dev", guard.CodeSystemUnavailable, true))
			wantStopped(t, r.ctx, "dev", guard.CodeSystemUnavailable)
			if n := a.count(); n != 2 {
				t.Errorf("%d requests, want 2", n)
			}
		})
	}
}

// Validate gives both: the decision «could not ask», and an error.
func TestS2_NonsenseIsNoDecision(t *testing.T) {
	for _, n := range nonsenses() {
		bubble(t, n.name, func(t *testing.T) {
			a := newAuthority()
			a.set(n.behaviour)
			g := newGuard(t, a)
			d, err := g.Validate(t.Context(), "dev")
			denied := wantDenied(t, err, "dev", guard.CodeSystemUnavailable, false)
			n.check(t, denied)
			if d != denied.Decision {
				t.Errorf("the decision %+v is not the error's, %+v", d, denied.Decision)
			}
		})
	}
}

// It is «could not ask», and so it is retried where that was opted in to; what follows counts.
func TestS2_NonsenseMayBeRetried(t *testing.T) {
	for _, n := range nonsenses() {
		bubble(t, n.name, func(t *testing.T) {
			a := newAuthority()
			a.set(inTurn(n.behaviour, n.behaviour, allows))
			g := newGuard(t, a, retries(time.Second, 10*time.Second))
			if err := g.Run(t.Context(), "dev", func(ctx context.Context) error { return guard.Checkpoint(ctx) }); err != nil {
				t.Errorf("after two retries: %v", err)
			}
			if n := a.count(); n != 3 {
				t.Errorf("%d requests, want 3", n)
			}
		})
	}
}

// A deny code that came with Allowed == false stands, known or not, whatever stands beside it,
// and is not retried.
func TestS2_ADenyCodeStands(t *testing.T) {
	beside := map[string]struct {
		decision guard.Decision
		err      error
	}{
		"alone":        {},
		"an error":     {err: errDown},
		"cancelled":    {err: context.Canceled},
		"a nil error":  {err: (*net.OpError)(nil)},
		"a reason":     {decision: guard.Decision{Reason: "because"}},
		"the device":   {decision: guard.Decision{DeviceID: "dev"}},
		"retry after":  {decision: guard.Decision{RetryAfter: time.Second}},
		"an end ahead": {decision: guard.Decision{ExpiresAt: time.Unix(1<<40, 0)}},
	}
	for _, code := range append(denyCodes, "allow", "ALLOW ", "ALLOWED", "\x00", "429") {
		for name, b := range beside {
			bubble(t, fmt.Sprintf("%s/%s", code, name), func(t *testing.T) {
				b.decision.Code, b.decision.RequestID = code, "denial"
				a := newAuthority()
				a.answer(b.decision, b.err)
				g := newGuard(t, a, retries(0, 10*time.Second))
				denied := wantDenied(t, g.Run(t.Context(), "dev", mustNotRun(t)), "dev", code, false)
				if d := denied.Decision; d.RequestID != "denial" || d.Reason != b.decision.Reason || d.RetryAfter != b.decision.RetryAfter {
					t.Errorf("the denial says %+v, want %+v", d, b.decision)
				}
				if n := a.count(); n != 1 {
					t.Errorf("%d requests, want 1: a denial is not retried", n)
				}
				d, err := g.Validate(t.Context(), "dev")
				if d != denied.Decision || err != nil {
					t.Errorf("Validate says %+v, %v, want the same decision and no error", d, err)
				}
				a.allow()
				r := launch(t.Context(), g, "dev")
				synctest.Wait()
				a.answer(b.decision, b.err)
				wantDenied(t, r.finish(), "dev", code, true)
			})
		}
	}
}

// What an answer about another device denies is at least no permission for this one.
func TestS2_AnotherDevicesDenialIsADenial(t *testing.T) {
	for _, code := range denyCodes {
		bubble(t, string(code), func(t *testing.T) {
			a := newAuthority()
			a.answer(guard.Decision{Code: code, DeviceID: "other"}, nil)
			g := newGuard(t, a)
			if err := g.Run(t.Context(), "dev", mustNotRun(t)); !errors.Is(err, guard.ErrDenied) {
				t.Errorf("got %v, want a denial", err)
			}
		})
	}
}

// The authority's word is handed on: the reason of SYSTEM_UNAVAILABLE, and the wait it wants.
func TestS2_TheAuthoritysOwnReasonIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		a.answer(guard.Decision{
			Code: guard.CodeSystemUnavailable, Reason: "RATE_LIMITED", RetryAfter: 7 * time.Second, RequestID: "busy",
		}, errDown)
		g := newGuard(t, a)
		denied := wantDenied(t, g.Run(t.Context(), "dev", mustNotRun(t)), "dev", guard.CodeSystemUnavailable, false)
		if d := denied.Decision; d.Reason != "RATE_LIMITED" || d.RetryAfter != 7*time.Second || d.RequestID != "busy" {
			t.Errorf("the denial says %+v", d)
		}
		if !errors.Is(denied, errDown) {
			t.Errorf("the denial does not match the error: %v", denied)
		}
	})
}

// A blank id is refused before the authority is asked, by every way in.
func TestS2_ABlankIDIsRefusedUnasked(t *testing.T) {
	for _, id := range []string{"", " ", "\t", "\r\n", " \v\f ", "\u00a0", "\u2003\u3000", "\u0085"} {
		bubble(t, fmt.Sprintf("%q", id), func(t *testing.T) {
			a := newAuthority()
			g := newGuard(t, a, guard.WithReuse(time.Second), retries(0, time.Second))
			wantDenied(t, g.Run(t.Context(), id, mustNotRun(t)), id, guard.CodeInvalidDeviceID, false)
			wantDenied(t, g.Keep(t.Context(), id, mustNotRun(t)), id, guard.CodeInvalidDeviceID, false)
			_, err := guard.Do(t.Context(), g, id, func(ctx context.Context) (int, error) { return 1, mustNotRun(t)(ctx) })
			wantDenied(t, err, id, guard.CodeInvalidDeviceID, false)
			if d, err := g.Validate(t.Context(), id); d.Code != guard.CodeInvalidDeviceID || d.Allowed || err != nil {
				t.Errorf("Validate says %+v, %v", d, err)
			}
			if n := a.count(); n != 0 {
				t.Errorf("%d requests, want none", n)
			}
		})
	}
}

// The guard changes no id: the authority and the error get it as it was given, and ids that a
// reader may take for the same are different devices.
func TestS2_TheGuardChangesNoID(t *testing.T) {
	ids := []string{
		"dev", "DEV", " dev", "dev ", "dev\n", "d\x00ev", "../dev", "dév", "de\u0301v", "\xff\xfe", "\u200b",
		strings.Repeat("x", 1<<16),
	}
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a, guard.WithReuse(time.Second))
		for _, id := range ids {
			if err := g.Run(t.Context(), id, func(context.Context) error { return nil }); err != nil {
				t.Errorf("%.20q: %v", id, err)
			}
			if n := a.count(id); n != 1 || a.last(t).device != id {
				t.Errorf("%.20q: asked %d times; last about %.20q", id, n, a.last(t).device)
			}
		}
		a.deny(guard.CodeDeviceRevoked)
		time.Sleep(2 * time.Second)
		for _, id := range ids {
			wantDenied(t, g.Run(t.Context(), id, mustNotRun(t)), id, guard.CodeDeviceRevoked, false)
		}
	})
}

// DecisionFrom gives what allowed the run, not what allows it now.
func TestDecisionFrom_IsWhatTheRunStartedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		if d, ok := guard.DecisionFrom(t.Context()); ok || d != (guard.Decision{}) {
			t.Errorf("of no run: %+v, %v", d, ok)
		}
		r := launch(t.Context(), g, "dev")
		<-r.began
		time.Sleep(time.Minute)
		if n := a.count(); n < 6 {
			t.Fatalf("only %d requests in a minute", n)
		}
		derived, cancel := context.WithCancel(context.WithoutCancel(r.ctx))
		defer cancel()
		a.deny(guard.CodeDeviceRevoked)
		_ = r.finish()
		for _, ctx := range []context.Context{r.ctx, derived} {
			d, ok := guard.DecisionFrom(ctx)
			want := guard.Decision{Allowed: true, Code: guard.CodeAllow, RequestID: "r1", DeviceID: "dev"}
			if !ok || d != want {
				t.Errorf("got %+v, %v, want %+v", d, ok, want)
			}
		}
	})
}

// Where runs are nested it is the innermost one's; a run that reuses an ALLOW stands on that.
func TestDecisionFrom_IsOfTheInnermostRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newAuthority(), newAuthority()
		outer, inner := newGuard(t, a), newGuard(t, b, guard.WithReuse(time.Second))
		says := func(ctx context.Context, want string) {
			t.Helper()
			if d, ok := guard.DecisionFrom(ctx); !ok || d.DeviceID+" "+d.RequestID != want {
				t.Errorf("got %+v, want %s", d, want)
			}
		}
		err := outer.Run(t.Context(), "out", func(ctx context.Context) error {
			says(ctx, "out r1")
			for range 2 {
				if err := inner.Run(ctx, "in", func(ctx context.Context) error { says(ctx, "in r1"); return nil }); err != nil {
					return err
				}
			}
			says(ctx, "out r1")
			return outer.Run(ctx, "second", func(ctx context.Context) error { says(ctx, "second r2"); return nil })
		})
		if err != nil {
			t.Error(err)
		}
	})
}
