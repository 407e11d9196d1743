package guard_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/execguard/execguard/guard"
)

// three asks All of three scripted authorities.
type three struct {
	guard.Validator

	each [3]*authority
}

func newThree(bs ...behaviour) *three {
	var a three
	for i := range a.each {
		a.each[i] = newAuthority()
		if i < len(bs) {
			a.each[i].set(bs[i])
		}
	}
	a.Validator = guard.All(a.each[0], a.each[1], a.each[2])
	return &a
}

// An ALLOW of All is everybody's, until the earliest end, with what each said.
func TestAll_S10_AllowsWhatAllAllow(t *testing.T) {
	at := func(hours int) time.Time { return time.Unix(4e9, 0).Add(time.Duration(hours) * time.Hour) }
	allow := func(d guard.Decision) behaviour {
		d.Allowed, d.Code = true, guard.CodeAllow
		return answers(d, nil)
	}
	for name, c := range map[string]struct {
		each [3]guard.Decision
		want guard.Decision
	}{
		"nothing said": {},
		"all said": {
			[3]guard.Decision{
				{RequestID: "a", DeviceID: "dev", Reason: "x", ExpiresAt: at(2)},
				{RequestID: "b", DeviceID: "dev", Reason: "y", ExpiresAt: at(1)},
				{RequestID: "c", DeviceID: "dev", Reason: "z", ExpiresAt: at(3)},
			},
			guard.Decision{RequestID: "a,b,c", DeviceID: "dev", Reason: "x; y; z", ExpiresAt: at(1)},
		},
		"the first said":    {[3]guard.Decision{{RequestID: "a", ExpiresAt: at(1)}}, guard.Decision{RequestID: "a", ExpiresAt: at(1)}},
		"the last said":     {[3]guard.Decision{2: {Reason: "z", DeviceID: "dev", ExpiresAt: at(1)}}, guard.Decision{Reason: "z", DeviceID: "dev", ExpiresAt: at(1)}},
		"all but one":       {[3]guard.Decision{{RequestID: "a"}, {}, {RequestID: "c"}}, guard.Decision{RequestID: "a,c"}},
		"an end is over":    {[3]guard.Decision{{ExpiresAt: at(1)}, {ExpiresAt: time.Unix(1, 0)}}, guard.Decision{ExpiresAt: time.Unix(1, 0)}},
		"wants to be alone": {[3]guard.Decision{{RetryAfter: time.Second}, {RetryAfter: time.Minute}}, guard.Decision{RetryAfter: time.Minute}},
	} {
		t.Run(name, func(t *testing.T) {
			v := newThree(allow(c.each[0]), allow(c.each[1]), allow(c.each[2]))
			c.want.Allowed, c.want.Code = true, guard.CodeAllow
			d, err := v.Validate(t.Context(), "dev")
			if diff := cmp.Diff(c.want, d); diff != "" || err != nil {
				t.Errorf("error %v; decision:\n%s", err, diff)
			}
		})
	}
}

// Whoever of them could not be asked, in whatever way, it is not allowed (S2), and the others are
// not cancelled for that.
func TestAll_S2_OneThatCouldNotBeAsked(t *testing.T) {
	for name, c := range couldNotAsk {
		for i := range 3 {
			bubble(t, name, func(t *testing.T) {
				v := newThree(after(time.Second, allows), after(time.Second, allows), after(time.Second, allows))
				v.each[i].set(c.b)
				d, err := v.Validate(t.Context(), "dev")
				wantCouldNot(t, d, err, c.word)
				if strings.Contains(d.Reason, secret) {
					t.Errorf("a secret is in %q", d.Reason)
				}
				for j, a := range v.each {
					if j != i && a.last(t).ended != nil {
						t.Errorf("number %d was cancelled: %v", j, a.last(t).ended)
					}
				}
			})
		}
	}
}

// Of several that could not be asked it is the first in the list that speaks, and the longest
// RetryAfter that counts.
func TestAll_TheFirstThatCouldNotBeAskedSpeaks(t *testing.T) {
	unavailable := func(name string, retry time.Duration) behaviour {
		return answers(guard.Decision{Code: guard.CodeSystemUnavailable, Reason: name, RequestID: name, RetryAfter: retry}, errors.New(name))
	}
	bubble(t, "", func(t *testing.T) {
		v := newThree(allows, after(time.Second, unavailable("second", time.Minute)), unavailable("third", time.Hour))
		d, err := v.Validate(t.Context(), "dev")
		want := guard.Decision{Code: guard.CodeSystemUnavailable, Reason: "second", RequestID: "second", RetryAfter: time.Hour}
		if diff := cmp.Diff(want, d); diff != "" || err == nil || err.Error() != "second" {
			t.Errorf("error %v; decision:\n%s", err, diff)
		}
	})
}

// One denial decides, whatever the others do, and ends them with the denial as the cause.
func TestAll_S2_OneDenialDecidesAndCancelsTheOthers(t *testing.T) {
	beside := errors.New("beside")
	denial := guard.Decision{Code: guard.CodePlanFrozen, Reason: "unpaid", RequestID: "r", DeviceID: "dev", RetryAfter: time.Second}
	others := map[string]behaviour{
		"allow": allows, "hang": hangs, "cannot be asked": fails(errCable), "panic": couldNotAsk["a panic"].b, "end": couldNotAsk["an ended goroutine"].b,
		"deny when cancelled": func(ctx context.Context, _ *asked) (guard.Decision, error) {
			<-ctx.Done()
			return guard.Decision{Code: guard.CodeOrgDisabled}, nil
		},
	}
	for name, other := range others {
		for i := range 3 {
			bubble(t, name, func(t *testing.T) {
				v := newThree(other, other, other)
				v.each[i].set(after(time.Second, answers(denial, beside)))
				began := time.Now()
				d, err := v.Validate(t.Context(), "dev")
				if diff := cmp.Diff(denial, d); diff != "" || err != beside || time.Since(began) != time.Second {
					t.Errorf("error %v after %v; decision:\n%s", err, time.Since(began), diff)
				}
				ended := v.each[(i+1)%3].last(t).ended
				var denied *guard.DeniedError
				if name == "hang" && (!errors.As(ended, &denied) || denied.Decision.Code != guard.CodePlanFrozen) {
					t.Errorf("the others were ended because %v", ended)
				}
			})
		}
	}
}

// They are asked at the same time, about the same device, with the caller's deadline, and All comes
// back when the last has.
func TestAll_AsksAtTheSameTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newThree(after(3*time.Second, allows), after(2*time.Second, allows), after(time.Second, allows))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		d, err := v.Validate(ctx, "dev")
		if !d.Allowed || err != nil || time.Since(began) != 3*time.Second {
			t.Errorf("got %+v, %v after %v", d, err, time.Since(began))
		}
		for i, a := range v.each {
			c := a.last(t)
			if a.count() != 1 || c.device != "dev" || !c.sent.Equal(began) || !c.deadline.Equal(began.Add(time.Minute)) {
				t.Errorf("number %d: %d questions, the last %+v", i, a.count(), c)
			}
		}
	})
}

// When the caller's context is over, nothing allows, and the error says so; a denial stands even then.
func TestAll_S5_ACallerThatLeftGetsNothing(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errCable)
	v := newThree()
	d, err := v.Validate(ctx, "dev")
	if wantCouldNot(t, d, err); !errors.Is(err, errCable) || v.each[0].count() != 0 {
		t.Errorf("got %v after %d questions", err, v.each[0].count())
	}
	late := func(b behaviour) behaviour { return deaf(2*time.Second, b) }
	for name, c := range map[string]struct {
		each [3]behaviour
		want guard.Code
	}{
		"obedient":             {[3]behaviour{hangs, hangs, allows}, guard.CodeSystemUnavailable},
		"deaf":                 {[3]behaviour{late(allows), allows, allows}, guard.CodeSystemUnavailable},
		"deaf, does not know":  {[3]behaviour{late(denies(guard.CodeSystemUnavailable)), allows, allows}, guard.CodeSystemUnavailable},
		"a denial comes late":  {[3]behaviour{allows, hangs, late(denies(guard.CodeDeviceRevoked))}, guard.CodeDeviceRevoked},
		"another after it too": {[3]behaviour{deaf(3*time.Second, denies(guard.CodeOrgDisabled)), late(denies(guard.CodeDeviceRevoked)), hangs}, guard.CodeDeviceRevoked},
	} {
		bubble(t, name, func(t *testing.T) {
			v := newThree(c.each[:]...)
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			d, err := v.Validate(ctx, "dev")
			if d.Code != c.want || d.Allowed || errors.Is(err, context.Canceled) != (c.want == guard.CodeSystemUnavailable) {
				t.Errorf("got %+v, %v", d, err)
			}
		})
	}
}

// When All is back, nothing of it is left, whatever they did.
func TestAll_LeavesNothingRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // fails where a goroutine is left that waits
		for _, c := range couldNotAsk {
			v := newThree(hangs, denies(guard.CodeDeviceRevoked), c.b)
			_, _ = v.Validate(t.Context(), "dev")
			for i, a := range v.each {
				if a.inFlight() != 0 {
					t.Errorf("number %d is still being asked", i)
				}
			}
		}
	})
}

// All of one is that one.
func TestAll_OfOne(t *testing.T) {
	a := newAuthority()
	v := guard.All(a)
	if d, err := v.Validate(t.Context(), "dev"); !d.Allowed || err != nil || d.RequestID != "r1" {
		t.Errorf("got %+v, %v", d, err)
	}
	a.deny(guard.CodeDeviceRevoked)
	if d, err := v.Validate(t.Context(), "dev"); d.Code != guard.CodeDeviceRevoked || err != nil || d.RequestID != "r2" {
		t.Errorf("got %+v, %v", d, err)
	}
}
