package guardtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
)

// TestMalformedAnswers holds each rule for single answers to what it must and must not catch.
func TestMalformedAnswers(t *testing.T) {
	sent := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	boom := errors.New("boom")
	yes := func(change func(*guard.Decision)) guard.Decision {
		d := guard.Decision{Allowed: true, Code: guard.CodeAllow}
		change(&d)
		return d
	}
	for _, test := range []struct {
		name string
		d    guard.Decision
		err  error
		want []string
	}{
		{"an ALLOW", yes(func(*guard.Decision) {}), nil, nil},
		{"an ALLOW with everything", yes(func(d *guard.Decision) {
			d.DeviceID, d.RequestID, d.ExpiresAt, d.RetryAfter = "a", "r", sent.Add(time.Second), time.Second
		}), nil, nil},
		{"a denial", guard.Decision{Code: guard.CodeDeviceRevoked}, nil, nil},
		{"a denial with an unknown code", guard.Decision{Code: "NEW"}, nil, nil},
		{"a denial that had an end", guard.Decision{Code: guard.CodeDeviceRevoked, ExpiresAt: sent.Add(-time.Hour)}, nil, nil},
		{"a denial beside an error", guard.Decision{Code: guard.CodeDeviceRevoked}, boom, nil},
		{"an error alone", guard.Decision{}, boom, nil},
		{"unavailable", guard.Decision{Code: guard.CodeSystemUnavailable, RetryAfter: time.Minute}, nil, nil},
		{"nothing at all", guard.Decision{}, nil, []string{"denied with neither code nor error"}},
		{"ALLOW, denied", guard.Decision{Code: guard.CodeAllow}, nil, []string{"denied with the code ALLOW"}},
		{"allowed without a code", guard.Decision{Allowed: true}, nil, []string{"allowed with the code of a denial"}},
		{"allowed with another code", guard.Decision{Allowed: true, Code: guard.CodePlanFrozen}, nil, []string{"allowed with the code of a denial"}},
		{"allowed with the code in another case", guard.Decision{Allowed: true, Code: "allow"}, nil, []string{"allowed with the code of a denial"}},
		{"allowed beside an error", yes(func(*guard.Decision) {}), boom, []string{"allowed beside an error"}},
		{"another device", yes(func(d *guard.Decision) { d.DeviceID = "b" }), nil, []string{"decided about device b"}},
		{"the device in another case", yes(func(d *guard.Decision) { d.DeviceID = "A" }), nil, []string{"decided about device A"}},
		{"denial of another device", guard.Decision{Code: guard.CodeDeviceRevoked, DeviceID: "b"}, nil, []string{"decided about device b"}},
		{"back in time", guard.Decision{Code: guard.CodePlanFrozen, RetryAfter: -1}, nil, []string{"a negative RetryAfter"}},
		{"ended when it was asked for", yes(func(d *guard.Decision) { d.ExpiresAt = sent }), nil, []string{"allowed until before the question"}},
		{"all at once", guard.Decision{Allowed: true, Code: "x", DeviceID: "b", RetryAfter: -1, ExpiresAt: sent.Add(-1)}, boom, []string{
			"allowed with the code of a denial", "allowed beside an error", "decided about device b",
			"a negative RetryAfter", "allowed until before the question",
		}},
	} {
		if got := malformed(reply{test.d, test.err, true}, "a", sent); !slices.Equal(got, test.want) {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
	if got := malformed(reply{}, "a", sent); got != nil {
		t.Errorf("a call that has not returned: %q", got)
	}
}

// subject is the least that a trial takes.
func subject(v guard.Validator) Subject {
	return Subject{Validator: v, Device: "a", Other: "b", Stranger: "c", Revoke: func(string) func() { return func() {} }}
}

// TestTrialOutlivesALateAnswer lets a call return after the trial has given it up: what it says
// then must neither block nor be reported.
func TestTrialOutlivesALateAnswer(t *testing.T) {
	release, returned := make(chan struct{}), make(chan struct{})
	v := NewValidator()
	v.Always("a", func(ctx context.Context, id string) (guard.Decision, error) {
		defer close(returned)
		return Hold(release, Reply(guard.Decision{Allowed: true}, nil))(ctx, id)
	})
	r := Run(t, func(r *Recorder) {
		on := newTrial(r, subject(v))
		on.patience = time.Millisecond
		if late := on.ask(t.Context(), "a"); late.ok || late.Allowed {
			t.Errorf("got %v before the answer", late)
		}
	})
	close(release)
	<-returned
	if errs := r.Errors(); len(errs) != 1 || !strings.Contains(errs[0], "has not returned within 1ms") {
		t.Errorf("reported %q", errs)
	}
}

// TestRunningCountsTheTrialsOwn starts goroutines on the way of a call, at one and two removes,
// and others beside it.
func TestRunningCountsTheTrialsOwn(t *testing.T) {
	end := make(chan struct{})
	var all sync.WaitGroup
	start := func(f func()) { all.Go(f) }
	wait := func() { <-end }
	v := guard.ValidatorFunc(func(context.Context, string) (guard.Decision, error) {
		started := make(chan struct{})
		start(func() {
			start(wait)
			close(started)
			wait()
		})
		<-started
		return guard.Decision{Code: guard.CodePlanFrozen}, nil
	})
	on, other := newTrial(t, subject(v)), newTrial(t, subject(v))
	start(wait)
	for range 3 {
		on.ask(t.Context(), "a")
	}
	other.ask(t.Context(), "a")
	if got := on.settle(6); got != 6 {
		t.Errorf("%d goroutines are the trial's, want 6", got)
	}
	if got := other.settle(2); got != 2 {
		t.Errorf("%d goroutines are the other's, want 2", got)
	}
	close(end)
	all.Wait()
	if got := on.settle(0); got != 0 {
		t.Errorf("%d goroutines are left", got)
	}
}

func TestTreeFindsEveryLayer(t *testing.T) {
	one, two := errors.New("one"), errors.New("two")
	err := fmt.Errorf("outer: %w", errors.Join(fmt.Errorf("inner: %w", one), fmt.Errorf("both: %w and %w", two, io.EOF)))
	var got []string
	for _, e := range tree(err) {
		got = append(got, strings.ReplaceAll(e.Error(), "\n", "/"))
	}
	want := []string{
		"outer: inner: one/both: two and EOF", "inner: one/both: two and EOF",
		"inner: one", "one", "both: two and EOF", "two", "EOF",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if tree(nil) != nil {
		t.Error("no error has layers")
	}
}
