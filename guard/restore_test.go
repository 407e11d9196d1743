package guard_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// A request sent after the denial was learnt restores, be it in the same instant.
func TestS5_AnAllowAskedForAfterTheDenialRestores(t *testing.T) {
	for _, code := range denyCodes {
		bubble(t, string(code), func(t *testing.T) {
			a := newAuthority()
			g := newGuard(t, a)
			for range 3 {
				a.deny(code)
				wantDenied(t, g.Run(t.Context(), "dev", mustNotRun(t)), "dev", code, false)
				a.allow()
				for _, id := range []string{"dev", "other"} {
					if err := g.Run(t.Context(), id, func(ctx context.Context) error { return guard.Checkpoint(ctx) }); err != nil {
						t.Errorf("%s after the denial: %v", id, err)
					}
				}
			}
		})
	}
}

// While the authority says no it is asked anew for each start, and each is refused.
func TestS5_NothingRestoresButAnAllow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a, guard.WithReuse(10*time.Second))
		a.deny(guard.CodeDeviceRevoked)
		wantDenied(t, g.Run(t.Context(), "dev", mustNotRun(t)), "dev", guard.CodeDeviceRevoked, false)
		a.hang()
		wantDenied(t, g.Run(t.Context(), "dev", mustNotRun(t)), "dev", guard.CodeSystemUnavailable, false)
		a.answer(guard.Decision{Allowed: true}, nil)
		wantDenied(t, g.Run(t.Context(), "dev", mustNotRun(t)), "dev", guard.CodeSystemUnavailable, false)
		if n := a.count(); n != 3 {
			t.Errorf("%d requests, want 3", n)
		}
	})
}

// wide is a guard with one run in flight on "dev", an ALLOW held for reuse on "held", and a
// question about "slow" in flight that will be answered with an ALLOW two seconds after it was
// sent. The watch is a day away.
func wide(t *testing.T, opts ...guard.Option) (*authority, *guard.Guard, *running) {
	t.Helper()
	a := newAuthority()
	a.set(deaf(2*time.Second, allows), "slow")
	g := newGuard(t, a, append([]guard.Option{guard.WithInterval(24 * time.Hour), guard.WithReuse(time.Hour)}, opts...)...)
	r := launch(t.Context(), g, "dev")
	if _, err := g.Validate(t.Context(), "held"); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	return a, g, r
}

// An organisation-wide denial overtakes every question that is in flight, about any device: an
// ALLOW that answers it is too old.
func TestS5_AnOrganisationWideDenialOvertakesQuestionsInFlight(t *testing.T) {
	for name, opts := range map[string][]guard.Option{
		"plain":   nil,
		"retries": {retries(100*time.Millisecond, 10*time.Second)}, // it is a denial: not retried
	} {
		for _, code := range organisationCodes {
			bubble(t, name+"/"+string(code), func(t *testing.T) {
				a, g, r := wide(t, opts...)
				slow := launchFunc(t.Context(), g, "slow", mustNotRun(t))
				time.Sleep(time.Second)
				a.deny(code, "stranger")
				wantDenied(t, g.Run(t.Context(), "stranger", mustNotRun(t)), "stranger", code, false)
				wantDenied(t, r.finish(), "dev", code, true)
				wantDenied(t, slow.finish(), "slow", code, false)
				if n := a.count("slow"); n != 1 {
					t.Errorf("asked %d times about the device, want once", n)
				}
				a.hang() // nothing is held, neither the old ALLOW nor the overtaken one
				for _, id := range []string{"slow", "held", "dev"} {
					if err := g.Run(t.Context(), id, mustNotRun(t)); err == nil {
						t.Errorf("%s started on an ALLOW from before the denial", id)
					}
				}
				a.allow()
				for _, id := range []string{"slow", "held", "dev", "stranger"} {
					if err := g.Run(t.Context(), id, func(context.Context) error { return nil }); err != nil {
						t.Errorf("%s after the organisation came back: %v", id, err)
					}
				}
			})
		}
	}
}

// Validate tells its caller of what overtook the question.
func TestS5_ValidateTellsWhatOvertookItsQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, g, _ := wide(t)
		time.AfterFunc(time.Second, func() {
			a.deny(guard.CodePlanFrozen, "stranger")
			_, _ = g.Validate(t.Context(), "stranger")
		})
		d, err := g.Validate(t.Context(), "slow")
		if d.Allowed || d.Code != guard.CodePlanFrozen || err != nil {
			t.Errorf("got %+v, %v, want %s", d, err, guard.CodePlanFrozen)
		}
		if d.DeviceID != "" && d.DeviceID != "slow" {
			t.Errorf("the decision is about %q", d.DeviceID)
		}
	})
}

// The denial that stopped a run is not undone by the answer to the question that its watch had
// in flight.
func TestS5_TheWatchsQuestionInFlightIsOvertakenToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a, guard.WithReuse(10*time.Second))
		r := launch(t.Context(), g, "dev")
		synctest.Wait()
		a.set(deaf(2*time.Second, allows), "dev")
		for a.inFlight("dev") == 0 {
			time.Sleep(time.Millisecond)
		}
		a.deny(guard.CodeOrgDisabled, "stranger")
		_, _ = g.Validate(t.Context(), "stranger")
		wantDenied(t, r.finish(), "dev", guard.CodeOrgDisabled, true)
		a.hang("dev")
		time.Sleep(2 * time.Second) // now it has been answered
		err := g.Run(t.Context(), "dev", mustNotRun(t))
		wantDenied(t, err, "dev", guard.CodeSystemUnavailable, false)
	})
}

// A denial of one device leaves the questions about others alone.
func TestS5_ADenialOfOneDeviceOvertakesNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, g, r := wide(t)
		slow := launch(t.Context(), g, "slow")
		time.Sleep(time.Second)
		a.deny(guard.CodeDeviceRevoked, "stranger")
		wantDenied(t, g.Run(t.Context(), "stranger", mustNotRun(t)), "stranger", guard.CodeDeviceRevoked, false)
		time.Sleep(time.Second)
		synctest.Wait()
		wantRunning(t, slow, "asked about before")
		wantRunning(t, r, "running before")
	})
}

// A call that was given up can no longer allow anything: it starts nothing, is not held for
// reuse, and restores nothing.
func TestS5_ALateAllowStartsNothing(t *testing.T) {
	for _, c := range []struct {
		name string
		next behaviour // what a question is answered between
		code guard.Code
	}{
		{"nothing between", hangs, guard.CodeSystemUnavailable},
		{"a denial between", denies(guard.CodeDeviceRevoked), guard.CodeDeviceRevoked},
		{"a denial of all between", denies(guard.CodeOrgDisabled), guard.CodeOrgDisabled},
	} {
		bubble(t, c.name, func(t *testing.T) {
			a := newAuthority()
			a.set(inTurn(deaf(10*time.Second, allows), c.next, hangs))
			g := newGuard(t, a, guard.WithReuse(10*time.Second), guard.WithInterval(time.Hour))
			wantDenied(t, g.Run(t.Context(), "dev", mustNotRun(t)), "dev", guard.CodeSystemUnavailable, false)
			wantDenied(t, g.Run(t.Context(), "dev", mustNotRun(t)), "dev", c.code, false)
			time.Sleep(9 * time.Second) // the late ALLOW comes
			if n := a.inFlight(); n != 0 {
				t.Fatalf("%d calls are in flight", n)
			}
			wantDenied(t, g.Run(t.Context(), "dev", mustNotRun(t)), "dev", guard.CodeSystemUnavailable, false)
		})
	}
}

// Nor does it move a stop line, or answer the try that came after it.
func TestS5_ALateAllowMovesNoLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a, retries(time.Second, 20*time.Second))
		w := watch(t, g, "dev")
		synctest.Wait()
		a.set(inTurn(deaf(5*time.Second, allows), hangs)) // late while the second try is in flight
		wantDenied(t, w.finish(), "dev", guard.CodeSystemUnavailable, true)
		if after := w.ended.Sub(a.asked()[1].sent); after != 23*time.Second {
			t.Errorf("stopped %v after the watch's first try, want timeout and budget, 23s", after)
		}
	})
}

// What it denies is learnt, and stops what runs.
func TestS5_ALateDenialIsLearnt(t *testing.T) {
	for _, code := range []guard.Code{guard.CodeDeviceRevoked, guard.CodeOrgDisabled} {
		bubble(t, string(code), func(t *testing.T) {
			a := newAuthority()
			g := newGuard(t, a, retries(10*time.Second, 20*time.Second))
			w := watch(t, g, "dev")
			synctest.Wait()
			a.set(deaf(5*time.Second, denies(code)))
			wantDenied(t, w.finish(), "dev", code, true)
			if after := w.ended.Sub(a.asked()[1].sent); after != 5*time.Second {
				t.Errorf("stopped %v after the question, want 5s, when it was answered", after)
			}
		})
	}
}

// Answers out of order: the late denial is learnt while a newer question is in flight, whose
// ALLOW was asked for before that and is too old.
func TestS5_ALateDenialOvertakesTheQuestionInFlight(t *testing.T) {
	for _, code := range []guard.Code{guard.CodeDeviceRevoked, guard.CodeOrgDisabled} {
		bubble(t, string(code), func(t *testing.T) {
			a := newAuthority()
			a.set(inTurn(deaf(5*time.Second, denies(code)), deaf(2500*time.Millisecond, allows), hangs))
			g := newGuard(t, a, guard.WithReuse(10*time.Second))
			wantDenied(t, g.Run(t.Context(), "dev", mustNotRun(t)), "dev", guard.CodeSystemUnavailable, false)
			// 3 s: asked anew. 5 s: the denial. 5.5 s: the ALLOW.
			wantDenied(t, g.Run(t.Context(), "dev", mustNotRun(t)), "dev", code, false)
			wantDenied(t, g.Run(t.Context(), "dev", mustNotRun(t)), "dev", guard.CodeSystemUnavailable, false)
			if n := a.count(); n != 3 {
				t.Errorf("%d requests, want 3", n)
			}
		})
	}
}

// The late answer of a start is a denial like any other (S3): the runs in flight have no ALLOW
// that was asked for after it was learnt.
func TestS5_ALateDenialStopsWhatStartedMeanwhile(t *testing.T) {
	for _, code := range []guard.Code{guard.CodeDeviceRevoked, guard.CodeOrgDisabled} {
		bubble(t, string(code), func(t *testing.T) {
			a := newAuthority()
			a.set(inTurn(deaf(5*time.Second, denies(code)), allows))
			g := newGuard(t, a, guard.WithInterval(24*time.Hour))
			wantDenied(t, g.Run(t.Context(), "dev", mustNotRun(t)), "dev", guard.CodeSystemUnavailable, false)
			r := launch(t.Context(), g, "dev")
			time.Sleep(2 * time.Second)
			synctest.Wait()
			wantStopped(t, r.ctx, "dev", code)
		})
	}
}

// Whatever it means for its own device, an organisation-wide code stops the others.
func TestS5_ALateOrganisationWideDenialStopsTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a, guard.WithInterval(24*time.Hour))
		other := launch(t.Context(), g, "other")
		synctest.Wait()
		a.set(inTurn(deaf(5*time.Second, denies(guard.CodeOrgDisabled)), allows))
		wantDenied(t, g.Run(t.Context(), "dev", mustNotRun(t)), "dev", guard.CodeSystemUnavailable, false)
		launch(t.Context(), g, "dev")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		wantStopped(t, other.ctx, "other", guard.CodeOrgDisabled)
	})
}

// A denial that is learnt between the ALLOW and its caller's seeing it overtakes that too.
func TestS5_ADenialBeforeTheCallerSawHisAllow(t *testing.T) {
	for _, code := range organisationCodes {
		bubble(t, string(code), func(t *testing.T) {
			a := newAuthority()
			a.deny(code, "stranger")
			g := newGuard(t, a)
			learn := func() { time.AfterFunc(time.Second, func() { _, _ = g.Validate(context.Background(), "stranger") }) }
			ctx := heldContext{t.Context()} // looks for the answer two seconds after it is there
			learn()
			if d, err := g.Validate(ctx, "dev"); d.Allowed || d.Code != code || err != nil {
				t.Errorf("Validate says %+v, %v, want %s", d, err, code)
			}
			wantAllows(t, a, "dev")
			a.set(func(ctx context.Context, c *asked) (guard.Decision, error) {
				learn()
				return allows(ctx, c)
			}, "dev")
			wantDenied(t, g.Run(ctx, "dev", mustNotRun(t)), "dev", code, false)
			wantAllows(t, a, "dev")
		})
	}
}

// wantAllows fails unless the last call about the device was answered with an ALLOW.
func wantAllows(t *testing.T, a *authority, device string) {
	t.Helper()
	if c := a.last(t, device); !c.decision.Allowed || c.err != nil {
		t.Errorf("the last answer about %s was %+v, %v", device, c.decision, c.err)
	}
}

// A call whose caller gave up serves nobody who came while it was unwinding.
func TestS5_ACallThatWasLeftServesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		a.set(inTurn(deaf(2*time.Second, allows), denies(guard.CodeDeviceRevoked)))
		g := newGuard(t, a, guard.WithReuse(10*time.Second))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := g.Run(ctx, "dev", mustNotRun(t)); err != context.DeadlineExceeded {
			t.Errorf("who gave up got %v", err)
		}
		wantDenied(t, g.Run(t.Context(), "dev", mustNotRun(t)), "dev", guard.CodeDeviceRevoked, false)
		if c := a.asked(); len(c) != 2 || c[1].sent.Before(c[0].returned) {
			t.Errorf("%d requests, want a second one after the first had returned", len(c))
		}
	})
}

// A permission that has run out is a denial of its device: an ALLOW that was asked for before
// does not restore it.
func TestS5_AnAllowFromBeforeTheLineDoesNotRestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		a.set(inTurn(
			answers(guard.Decision{Allowed: true, Code: guard.CodeAllow, ExpiresAt: time.Now().Add(5 * time.Second)}, nil),
			deaf(2*time.Second, allows), allows,
		))
		g := newGuard(t, a, guard.WithInterval(24*time.Hour))
		r := launch(t.Context(), g, "dev")
		time.Sleep(4 * time.Second)
		late := launchFunc(t.Context(), g, "dev", mustNotRun(t)) // asked at 4 s, allowed at 6 s
		wantDenied(t, r.finish(), "dev", guard.CodeSystemUnavailable, true)
		wantDenied(t, late.finish(), "dev", guard.CodeSystemUnavailable, false)
		if err := g.Run(t.Context(), "dev", func(context.Context) error { return nil }); err != nil {
			t.Errorf("asked after the line: %v", err)
		}
	})
}

// A question that was left by all who had asked it is no answer to the watch either: a run that
// began meanwhile, on an ALLOW that it could reuse, is revalidated an interval after that one.
func TestB1_AQuestionThatWasLeftDoesNotPutTheWatchOff(t *testing.T) {
	for name, c := range map[string]struct {
		left behaviour
		gap  time.Duration // an interval, or as long as the left call or its retry keeps the next waiting
		opts []guard.Option
	}{
		"obeys":                 {hangs, 10 * time.Second, nil},
		"obeys, with retries":   {hangs, 10 * time.Second, []guard.Option{retries(5*time.Second, 20*time.Second)}},
		"left in its back-off":  {after(600*time.Millisecond, fails(errDown)), 13600 * time.Millisecond, []guard.Option{retries(5*time.Second, 20*time.Second)}},
		"deaf, then it allows":  {deaf(2500*time.Millisecond, allows), 10500 * time.Millisecond, nil},
		"deaf, and is given up": {deaf(20*time.Second, allows), 11 * time.Second, nil},
	} {
		bubble(t, name, func(t *testing.T) {
			a := newAuthority()
			g := newGuard(t, a, append(c.opts, guard.WithReuse(10*time.Second), guard.WithMaxRequests(1000))...)
			var runs []*running
			for i := range 30 { // the phase is random
				if _, err := g.Validate(t.Context(), device(i)); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(8 * time.Second)
			a.set(c.left)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			for i := range 30 {
				go func() { _, _ = g.Validate(ctx, device(i)) }()
			}
			time.Sleep(500 * time.Millisecond)
			for i := range 30 {
				runs = append(runs, launch(t.Context(), g, device(i)))
			}
			synctest.Wait()
			a.allow()
			time.Sleep(time.Minute)
			for i, r := range runs {
				wantRunning(t, r, device(i)+" was allowed whenever it was asked about")
				asked := a.asked(device(i))
				last := asked[0].sent
				for _, call := range asked[1:] {
					if call.ended != nil || call.returned.IsZero() || call.err != nil {
						continue // left, given up, or no answer
					}
					if gap := call.sent.Sub(last); gap > c.gap {
						t.Errorf("%s: %v between two revalidations, want at most %v", device(i), gap, c.gap)
					}
					last = call.sent
				}
			}
		})
	}
}
