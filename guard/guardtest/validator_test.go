package guardtest_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

// codes asks about a device n times and returns the codes.
func codes(t *testing.T, v guard.Validator, deviceID string, n int) []guard.Code {
	t.Helper()
	var got []guard.Code
	for range n {
		d, err := v.Validate(t.Context(), deviceID)
		if err != nil {
			t.Errorf("device %q: %v", deviceID, err)
		}
		if d.Allowed != (d.Code == guard.CodeAllow) {
			t.Errorf("device %q: %+v", deviceID, d)
		}
		got = append(got, d.Code)
	}
	return got
}

func wantCodes(t *testing.T, got []guard.Code, want ...guard.Code) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func reply(code guard.Code) guard.ValidatorFunc {
	return guardtest.Reply(guard.Decision{Allowed: code == guard.CodeAllow, Code: code}, nil)
}

func TestValidatorAnswersByDevice(t *testing.T) {
	v := guardtest.NewValidator("a", "b")
	wantCodes(t, codes(t, v, "a", 1), guard.CodeAllow)
	wantCodes(t, codes(t, v, "c", 1), guard.CodeDeviceNotFound)
	wantCodes(t, codes(t, v, " \n", 1), guard.CodeInvalidDeviceID)
	v.Deny("a", guard.CodeDeviceRevoked)
	wantCodes(t, codes(t, v, "a", 2), guard.CodeDeviceRevoked, guard.CodeDeviceRevoked)
	wantCodes(t, codes(t, v, "b", 1), guard.CodeAllow)
	v.Allow("a")
	wantCodes(t, codes(t, v, "a", 1), guard.CodeAllow)
	v.Always("a", nil)
	wantCodes(t, codes(t, v, "a", 1), guard.CodeDeviceNotFound)
}

func TestValidatorSpeaksForEveryDevice(t *testing.T) {
	v := guardtest.NewValidator("a")
	v.Deny("", guard.CodeOrgDisabled)
	wantCodes(t, codes(t, v, "a", 1), guard.CodeOrgDisabled)
	wantCodes(t, codes(t, v, "never seen", 1), guard.CodeOrgDisabled)
	wantCodes(t, codes(t, v, "", 1), guard.CodeInvalidDeviceID)
	v.Always("", nil)
	wantCodes(t, codes(t, v, "a", 1), guard.CodeAllow)
	v.Allow("")
	wantCodes(t, codes(t, v, "never seen", 1), guard.CodeAllow)
	wantCodes(t, codes(t, v, "", 1), guard.CodeInvalidDeviceID)
}

func TestValidatorPlaysSequences(t *testing.T) {
	v := guardtest.NewValidator("a", "b")
	v.Next("a", reply(guard.CodeDeviceRevoked), reply(guard.CodePlanFrozen))
	v.Next("", reply(guard.CodeSystemUnavailable))
	wantCodes(t, codes(t, v, "a", 2), guard.CodeSystemUnavailable, guard.CodeDeviceRevoked)
	wantCodes(t, codes(t, v, "b", 1), guard.CodeAllow)
	v.Next("a", reply(guard.CodeOrgNotFound)) // comes after what waits
	wantCodes(t, codes(t, v, "a", 3), guard.CodePlanFrozen, guard.CodeOrgNotFound, guard.CodeAllow)
	v.Next("", reply(guard.CodeAllow))
	if d, _ := v.Validate(t.Context(), ""); !d.Allowed {
		t.Errorf("a scripted answer for a blank id: %+v", d) // a guard must never ask; a script may still answer
	}
}

// TestRepliesAreExact shows that what no authority should say can be said.
func TestRepliesAreExact(t *testing.T) {
	over, cancel := context.WithCancel(t.Context())
	cancel()
	boom := errors.New("boom")
	for _, want := range []struct {
		d   guard.Decision
		err error
	}{
		{guard.Decision{Allowed: true, Code: guard.CodeAllow}, boom},
		{guard.Decision{Allowed: true, Code: guard.CodeDeviceRevoked}, nil},
		{guard.Decision{Code: guard.CodeAllow}, nil},
		{guard.Decision{Allowed: true, Code: guard.CodeAllow, DeviceID: "another", RequestID: "r", RetryAfter: -1}, nil},
		{guard.Decision{}, nil},
		{guard.Decision{}, boom},
	} {
		v := guardtest.NewValidator()
		v.Always("a", guardtest.Reply(want.d, want.err))
		d, err := v.Validate(over, "a")
		if diff := cmp.Diff(want.d, d); diff != "" || err != want.err { //nolint:errorlint // this very error
			t.Errorf("error %v, want %v; decision: %s", err, want.err, diff)
		}
	}
}

func TestValidatorNumbersItsAnswers(t *testing.T) {
	v := guardtest.NewValidator("a")
	seen := map[string]bool{}
	for _, id := range []string{"a", "a", "b", ""} {
		d, _ := v.Validate(t.Context(), id)
		if d.RequestID == "" || seen[d.RequestID] || d.DeviceID != id {
			t.Errorf("device %q: %+v", id, d)
		}
		seen[d.RequestID] = true
	}
}

func TestValidatorRecordsCallsWithTheirTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		v := guardtest.NewValidator("a")
		v.Next("a", guardtest.Delay(3*time.Second, reply(guard.CodePlanFrozen)))
		_, _ = v.Validate(t.Context(), "a")
		time.Sleep(time.Minute)
		_, _ = v.Validate(t.Context(), "stranger")
		boom := errors.New("boom")
		v.Next("", guardtest.Reply(guard.Decision{}, boom))
		_, _ = v.Validate(t.Context(), "a")
		want := []guardtest.Call{
			{"a", start, start.Add(3 * time.Second), guard.Decision{Code: guard.CodePlanFrozen}, nil},
			{"stranger", start.Add(63 * time.Second), start.Add(63 * time.Second),
				guard.Decision{Code: guard.CodeDeviceNotFound, DeviceID: "stranger", RequestID: "script-1"}, nil},
			{"a", start.Add(63 * time.Second), start.Add(63 * time.Second), guard.Decision{}, boom},
		}
		got := v.Calls()
		if diff := cmp.Diff(want, got, cmpopts.EquateErrors()); diff != "" {
			t.Error(diff)
		}
		got[0].DeviceID = "changed"
		if v.Calls()[0].DeviceID != "a" {
			t.Error("Calls hands out its own record")
		}
	})
}

func TestDelayObeysItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		v := guardtest.NewValidator()
		v.Always("a", guardtest.Delay(time.Hour, reply(guard.CodeAllow)))
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("enough"))
		defer cancel()
		d, err := v.Validate(ctx, "a")
		if d.Allowed || err == nil || err.Error() != "enough" || time.Since(start) != time.Second {
			t.Errorf("%+v, %v after %v", d, err, time.Since(start))
		}
	})
}

func TestHangEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := guardtest.NewValidator()
		v.Always("a", guardtest.Hang())
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		d, err := v.Validate(ctx, "a")
		if c := v.Calls()[0]; c.Returned.Sub(c.Sent) != 24*time.Hour {
			t.Errorf("hung for %v", c.Returned.Sub(c.Sent))
		}
		if d.Allowed || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%+v, %v", d, err)
		}
	})
}

func TestHoldIgnoresItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := guardtest.NewValidator()
		release := make(chan struct{})
		v.Always("a", guardtest.Hold(release, reply(guard.CodeAllow)))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		var got guard.Decision
		go func() { got, _ = v.Validate(ctx, "a") }()
		synctest.Wait()
		if c := v.Calls(); len(c) != 1 || !c[0].Returned.IsZero() {
			t.Errorf("before the release: %+v", c)
		}
		close(release)
		synctest.Wait()
		if c := v.Calls(); c[0].Returned.IsZero() || !got.Allowed {
			t.Errorf("after it: %+v, %+v", c, got)
		}
	})
}

func TestPanicsAndExitsAreRecorded(t *testing.T) {
	v := guardtest.NewValidator()
	v.Next("a", guardtest.Panic("boom"), guardtest.Goexit())
	func() {
		defer func() {
			if p := recover(); p != "boom" {
				t.Errorf("recovered %v", p)
			}
		}()
		_, _ = v.Validate(t.Context(), "a")
	}()
	var exited sync.WaitGroup
	returned := true
	exited.Go(func() {
		returned = false
		_, _ = v.Validate(t.Context(), "a")
		returned = true
	})
	exited.Wait()
	if returned {
		t.Error("Goexit did not end the goroutine")
	}
	for i, c := range v.Calls() {
		if c.Returned.IsZero() || c.Decision.Allowed {
			t.Errorf("call %d: %+v", i, c)
		}
	}
}

// TestScriptMayChangeWhileACallIsInFlight holds a lock of the validator for no longer than a
// look: a call that hangs must not keep a test from changing the script.
func TestScriptMayChangeWhileACallIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := guardtest.NewValidator()
		release := make(chan struct{})
		v.Always("a", guardtest.Hold(release, reply(guard.CodeAllow)))
		var first guard.Decision
		go func() { first, _ = v.Validate(t.Context(), "a") }()
		synctest.Wait()
		v.Deny("a", guard.CodeDeviceRevoked)
		wantCodes(t, codes(t, v, "a", 1), guard.CodeDeviceRevoked)
		close(release)
		synctest.Wait()
		if !first.Allowed {
			t.Errorf("the call before the change got %+v", first)
		}
	})
}

func TestWaitReturnsWithTheCall(t *testing.T) {
	v := guardtest.NewValidator("a") // made outside of the bubble on purpose
	synctest.Test(t, func(t *testing.T) {
		var returned []time.Duration
		start := time.Now()
		for _, n := range []int{0, 1, 2} {
			go func() {
				calls, err := v.Wait(t.Context(), n)
				if err != nil || len(calls) < n {
					t.Errorf("Wait(%d): %d calls, %v", n, len(calls), err)
				}
				returned = append(returned, time.Since(start))
			}()
			synctest.Wait()
		}
		for range 2 {
			time.Sleep(time.Second)
			go func() { _, _ = v.Validate(t.Context(), "a") }()
			synctest.Wait()
		}
		if want := []time.Duration{0, time.Second, 2 * time.Second}; !slices.Equal(returned, want) {
			t.Errorf("returned after %v, want %v", returned, want)
		}
	})
}

func TestWaitReturnsBeforeTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := guardtest.NewValidator()
		v.Always("a", guardtest.Hang())
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _, _ = v.Validate(ctx, "a") }()
		calls, err := v.Wait(t.Context(), 1)
		if err != nil || len(calls) != 1 || !calls[0].Returned.IsZero() {
			t.Errorf("%+v, %v", calls, err)
		}
		cancel()
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := guardtest.NewValidator("a")
		_, _ = v.Validate(t.Context(), "a")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("too long"))
		defer cancel()
		calls, err := v.Wait(ctx, 2)
		if err == nil || err.Error() != "too long" || len(calls) != 1 {
			t.Errorf("%d calls, %v", len(calls), err)
		}
	})
}

// TestAnswersFollowTheRecord asks from many goroutines: the i-th call must get the i-th answer.
func TestAnswersFollowTheRecord(t *testing.T) {
	const n = 200
	v := guardtest.NewValidator()
	for i := range n {
		v.Next("a", guardtest.Reply(guard.Decision{Code: guard.CodePlanFrozen, RetryAfter: time.Duration(i)}, nil))
	}
	var asking sync.WaitGroup
	for range n {
		asking.Go(func() { _, _ = v.Validate(t.Context(), "a") })
	}
	asking.Wait()
	for i, c := range v.Calls() {
		if c.Decision.RetryAfter != time.Duration(i) {
			t.Fatalf("call %d got answer %d", i, c.Decision.RetryAfter)
		}
	}
}
