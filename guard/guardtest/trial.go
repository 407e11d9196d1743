package guardtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime/pprof"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
)

// trial is one check's subject, and the ways of asking it. It wraps testing.TB and not
// *testing.T, so that tests of this package can watch a check fail.
type trial struct {
	testing.TB
	Subject

	patience time.Duration // how long one call may take; a call that takes longer hangs
	label    string        // marks the goroutines that the calls start
}

// newTrial refuses subjects with which some check could not fail: two names for one device would
// hide that devices are mixed up.
func newTrial(t testing.TB, s Subject) *trial {
	t.Helper()
	for name, missing := range map[string]bool{
		"Validator": s.Validator == nil, "Device": s.Device == "", "Other": s.Other == "",
		"Stranger": s.Stranger == "", "Revoke": s.Revoke == nil,
	} {
		if missing {
			t.Fatalf("guardtest: Subject.%s is missing", name)
		}
	}
	if s.Device == s.Other || s.Device == s.Stranger || s.Other == s.Stranger {
		t.Fatalf("guardtest: Subject needs three different ids, got %q, %q and %q", s.Device, s.Other, s.Stranger)
	}
	// Clients have time-outs of their own, of ten seconds often. One that knows no other end
	// must not pass for one that obeys its context.
	return &trial{TB: t, Subject: s, patience: 5 * time.Second, label: rand.Text()}
}

// reply is what came of one call.
type reply struct {
	guard.Decision
	err error
	ok  bool // the call returned
}

// String leaves out what the checks do not judge.
func (r reply) String() string {
	return fmt.Sprintf("allowed %t, code %q, error %v", r.Allowed, r.Code, r.err)
}

// ask calls the validator and reports what no answer may be: late, a panic, a contradiction.
// It may be called from any goroutine.
func (t *trial) ask(ctx context.Context, deviceID string) reply {
	t.Helper()
	sent := time.Now()
	returned := make(chan reply, 1)
	go t.call(ctx, deviceID, returned)
	hung := time.NewTimer(t.patience)
	defer hung.Stop()
	select {
	case r, ok := <-returned:
		if !ok {
			t.Errorf("device %q: Validate ended its goroutine", deviceID)
		}
		for _, fault := range malformed(r, deviceID, sent) {
			t.Errorf("device %q: %s (%s)", deviceID, fault, r)
		}
		return r
	case <-hung.C:
		t.Errorf("device %q: Validate has not returned within %v", deviceID, t.patience)
		return reply{}
	}
}

// call runs on a goroutine of its own, so that one which hangs, panics or exits does not take
// the test with it.
func (t *trial) call(ctx context.Context, deviceID string, returned chan<- reply) {
	defer close(returned)
	defer func() {
		if p := recover(); p != nil {
			t.Errorf("device %q: Validate panicked: %v", deviceID, p)
			returned <- reply{}
		}
	}()
	pprof.Do(ctx, pprof.Labels(labelKey, t.label), func(ctx context.Context) {
		d, err := t.Validator.Validate(ctx, deviceID)
		returned <- reply{Decision: d, err: err, ok: true}
	})
}

// malformed says what is wrong with an answer, whatever the state of the authority.
func malformed(r reply, deviceID string, sent time.Time) []string {
	var faults []string
	add := func(wrong bool, what string) {
		if wrong {
			faults = append(faults, what)
		}
	}
	add(r.Allowed && r.Code != guard.CodeAllow, "allowed with the code of a denial")
	add(!r.Allowed && r.Code == guard.CodeAllow, "denied with the code ALLOW")
	add(r.Allowed && r.err != nil, "allowed beside an error")
	add(r.ok && !r.Allowed && r.Code == "" && r.err == nil, "denied with neither code nor error")
	add(r.DeviceID != "" && r.DeviceID != deviceID, "decided about device "+r.DeviceID)
	add(r.RetryAfter < 0, "a negative RetryAfter")
	add(r.Allowed && !r.ExpiresAt.IsZero() && !r.ExpiresAt.After(sent), "allowed until before the question")
	return faults
}

// allowed wants the device to be allowed now.
func (t *trial) allowed(deviceID, when string) {
	t.Helper()
	if r := t.ask(t.Context(), deviceID); r.ok && !(r.Allowed && r.Code == guard.CodeAllow && r.err == nil) {
		t.Errorf("device %q, %s: %s, want it allowed", deviceID, when, r)
	}
}

// denied wants a denial that the authority gave, not one for want of an answer.
func (t *trial) denied(deviceID, when string) {
	t.Helper()
	r := t.ask(t.Context(), deviceID)
	if r.ok && (r.Allowed || r.Code == "" || r.Code == guard.CodeAllow || r.Code == guard.CodeSystemUnavailable) {
		t.Errorf("device %q, %s: %s, want a denial with the authority's code", deviceID, when, r)
	}
}

// undecided wants a refusal that does not pass for the authority's own.
func (t *trial) undecided(ctx context.Context, deviceID, when string) reply {
	t.Helper()
	r := t.ask(ctx, deviceID)
	if r.ok && (r.Allowed || r.Code != "" && r.Code != guard.CodeSystemUnavailable) {
		t.Errorf("device %q, %s: %s, want %s or an error and no other code%s", deviceID, when, r, guard.CodeSystemUnavailable, hint(ctx))
	}
	return r
}

// gaveUp wants a call whose context is over, or ends soon, to say so. Since Go 1.23 net/http
// returns the context's cause, so either of the two will do.
func (t *trial) gaveUp(ctx context.Context, when string) {
	t.Helper()
	r := t.undecided(ctx, t.Device, "context "+when)
	if r.ok && !errors.Is(r.err, ctx.Err()) && !errors.Is(r.err, context.Cause(ctx)) {
		t.Errorf("context %s: error %v matches neither %v nor the cause %v%s", when, r.err, ctx.Err(), context.Cause(ctx), hint(ctx))
	}
}

// hint is for validators that never looked at their context, as those in process easily do not.
func hint(ctx context.Context) string {
	if ctx.Err() == nil {
		return ""
	}
	return " (the context is over: Validate should look at ctx.Err() first)"
}
