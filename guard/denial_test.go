package guard_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// denyCodes are the codes with which an authority denies, and one that the guard does not know.
var denyCodes = []guard.Code{
	guard.CodeOrgDisabled, guard.CodePlanFrozen, guard.CodePlanNotActive, guard.CodeEntitlementExpired,
	guard.CodeDeviceRevoked, guard.CodeDeviceNotFound, guard.CodeOrgNotFound, guard.CodeInvalidOrgKey,
	guard.CodeInvalidDeviceID, "SOMETHING_NEW",
}

// organisationCodes are those of S3 that concern every device.
var organisationCodes = []guard.Code{
	guard.CodeOrgDisabled, guard.CodePlanFrozen, guard.CodePlanNotActive,
	guard.CodeEntitlementExpired, guard.CodeOrgNotFound, guard.CodeInvalidOrgKey,
}

// source is a way in which the guard learns something about a device with work in flight.
type source struct {
	name  string
	learn func(t *testing.T, g *guard.Guard, device string)
}

// sources lists them. Each waits until the authority's answer is known; but for the watch's all
// do so in an instant, so that no watch comes between.
func sources() []source {
	return []source{
		{"watch", func(t *testing.T, _ *guard.Guard, _ string) { time.Sleep(10 * time.Second) }},
		{"start", func(t *testing.T, g *guard.Guard, device string) {
			if err := g.Run(t.Context(), device, mustNotRun(t)); !errors.Is(err, guard.ErrDenied) {
				t.Errorf("the start returned %v, want a denial", err)
			}
		}},
		{"hint", func(t *testing.T, g *guard.Guard, device string) { g.Hint(device); synctest.Wait() }},
		{"hint for all", func(t *testing.T, g *guard.Guard, _ string) { g.Hint(""); synctest.Wait() }},
		{"validate", func(t *testing.T, g *guard.Guard, device string) {
			if d, _ := g.Validate(t.Context(), device); d.Allowed {
				t.Errorf("Validate says %+v", d)
			}
		}},
	}
}

// from lets the runs in flight and the source do their work.
func (s source) from(t *testing.T, g *guard.Guard, device string) {
	t.Helper()
	s.learn(t, g, device)
	synctest.Wait()
}

// A denial, wherever it is learnt from, ends every run of its device with itself as the cause,
// and no run of another device.
func TestS3_ADenialStopsEveryRunOfItsDevice(t *testing.T) {
	for _, s := range sources() {
		for _, code := range []guard.Code{
			guard.CodeDeviceRevoked, guard.CodeDeviceNotFound, guard.CodeInvalidDeviceID, "SOMETHING_NEW",
		} {
			bubble(t, s.name+"/"+string(code), func(t *testing.T) {
				a := newAuthority()
				g := newGuard(t, a)
				runs := []*running{launch(t.Context(), g, "dev"), launch(t.Context(), g, "dev"), launch(t.Context(), g, "dev")}
				other := launch(t.Context(), g, "other")
				synctest.Wait()
				a.deny(code, "dev")
				s.from(t, g, "dev")
				first := a.asked("dev")
				for _, r := range runs {
					stop := wantStopped(t, r.ctx, "dev", code)
					denied := wantDenied(t, r.finish(), "dev", code, true)
					for _, id := range []string{stop.Decision.RequestID, denied.Decision.RequestID} {
						if id != first[len(first)-1].id() {
							t.Errorf("the denial names request %q, want %q", id, first[len(first)-1].id())
						}
					}
				}
				wantRunning(t, other, "a run of another device")
			})
		}
	}
}

// What was held for reuse is gone with the denial, and comes back with no earlier ALLOW.
func TestS3_ADenialEndsReuse(t *testing.T) {
	for _, s := range sources() {
		bubble(t, s.name, func(t *testing.T) {
			a := newAuthority()
			g := newGuard(t, a, guard.WithReuse(10*time.Second))
			r := launch(t.Context(), g, "dev")
			synctest.Wait()
			a.deny(guard.CodeDeviceRevoked)
			if s.name == "start" { // with reuse a start of this device would not ask
				g.Hint("dev")
			}
			s.from(t, g, "dev")
			_ = r.finish()
			known := a.count()
			err := g.Run(t.Context(), "dev", mustNotRun(t))
			wantDenied(t, err, "dev", guard.CodeDeviceRevoked, false)
			if n := a.count(); n != known+1 {
				t.Errorf("%d requests for the next start, want 1", n-known)
			}
		})
	}
	bubble(t, "nothing in flight", func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a, guard.WithReuse(10*time.Second))
		if _, err := g.Validate(t.Context(), "dev"); err != nil {
			t.Fatal(err)
		}
		a.deny(guard.CodeDeviceRevoked)
		if d, err := g.Validate(t.Context(), "dev"); d.Code != guard.CodeDeviceRevoked || err != nil {
			t.Errorf("Validate says %+v, %v", d, err)
		}
		a.hang()
		err := g.Run(t.Context(), "dev", mustNotRun(t))
		wantDenied(t, err, "dev", guard.CodeSystemUnavailable, false)
	})
}

// «Could not ask» stops what runs only as the answer to the watch's own question.
func TestS3_CouldNotAskStopsRunsOnlyByTheWatch(t *testing.T) {
	down := errors.New("connection refused")
	for _, how := range []struct {
		name string
		behaviour
	}{
		{"an error", fails(down)},
		{"SYSTEM_UNAVAILABLE", denies(guard.CodeSystemUnavailable)},
		{"nonsense", answers(guard.Decision{Allowed: true, Code: guard.CodeOrgDisabled}, nil)},
		{"a panic", func(context.Context, *asked) (guard.Decision, error) { panic("down") }},
	} {
		for _, s := range sources() {
			bubble(t, s.name+"/"+how.name, func(t *testing.T) {
				a := newAuthority()
				g := newGuard(t, a, guard.WithInterval(10*time.Second))
				r := launch(t.Context(), g, "dev")
				other := launch(t.Context(), g, "other")
				synctest.Wait()
				a.set(how.behaviour, "dev")
				s.from(t, g, "dev")
				if n := a.count("dev"); n != 2 {
					t.Fatalf("%d requests, want the start's and one more", n)
				}
				if s.name != "watch" {
					wantRunning(t, r, "could not ask")
					a.allow("dev")
					time.Sleep(time.Minute)
					wantRunning(t, r, "the authority came back")
				} else {
					wantStopped(t, r.ctx, "dev", guard.CodeSystemUnavailable)
					wantDenied(t, r.finish(), "dev", guard.CodeSystemUnavailable, true)
				}
				wantRunning(t, other, "a run of another device")
			})
		}
	}
}

// A start and Validate that could not ask say so to their own callers, and keep the error.
func TestS3_AStartThatCouldNotAskIsRefusedAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("connection refused")
		a := newAuthority()
		g := newGuard(t, a)
		r := launch(t.Context(), g, "dev")
		synctest.Wait()
		a.fail(down)
		err := g.Run(t.Context(), "dev", mustNotRun(t))
		wantDenied(t, err, "dev", guard.CodeSystemUnavailable, false)
		if !errors.Is(err, down) {
			t.Errorf("the denial does not match what stood in the way: %v", err)
		}
		d, err := g.Validate(t.Context(), "dev")
		if d.Code != guard.CodeSystemUnavailable || d.Allowed || d.Reason == "" {
			t.Errorf("Validate says %+v", d)
		}
		wantDenied(t, err, "dev", guard.CodeSystemUnavailable, false)
		if !errors.Is(err, down) {
			t.Errorf("Validate's error does not match what stood in the way: %v", err)
		}
		wantRunning(t, r, "others could not ask")
	})
}

// A timeout is «could not ask» like any other, and stops what runs only by the watch.
func TestS3_ATimeoutOfAStartIsRefusedAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a, guard.WithInterval(24*time.Hour))
		r := launch(t.Context(), g, "dev")
		synctest.Wait()
		a.hang()
		at := time.Now()
		err := g.Run(t.Context(), "dev", mustNotRun(t))
		wantDenied(t, err, "dev", guard.CodeSystemUnavailable, false)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the denial does not match DeadlineExceeded: %v", err)
		}
		if took := time.Since(at); took != 3*time.Second {
			t.Errorf("the start was refused after %v, want the timeout, 3s", took)
		}
		wantRunning(t, r, "a start ran into its timeout")
	})
}

// Where the watch shares its question with a start or a hint, it is the watch's question.
func TestS3_AQuestionThatTheWatchSharesIsItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a, guard.WithInterval(time.Second), guard.WithTimeout(3*time.Second))
		r := launch(t.Context(), g, "dev")
		synctest.Wait()
		// Allowed, but only after the watch has become due behind it: the next one is both the
		// watch's and the start's.
		a.set(inTurn(deaf(2*time.Second, allows), fails(errors.New("down"))))
		launch(t.Context(), g, "dev")
		time.Sleep(time.Second)
		late := launch(t.Context(), g, "dev")
		time.Sleep(time.Second)
		synctest.Wait()
		wantDenied(t, late.finish(), "dev", guard.CodeSystemUnavailable, false)
		wantStopped(t, r.ctx, "dev", guard.CodeSystemUnavailable)
	})
}

// A question all of whose callers gave up is no answer, not even a denial.
func TestS3_AQuestionThatNobodyWaitsForIsNoAnswer(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer behaviour
	}{
		{"denied", denies(guard.CodeDeviceRevoked)},
		{"denied for the organisation", denies(guard.CodeOrgDisabled)},
		{"could not ask", fails(errors.New("down"))},
	} {
		bubble(t, c.name, func(t *testing.T) {
			a := newAuthority()
			g := newGuard(t, a, guard.WithInterval(24*time.Hour))
			r := launch(t.Context(), g, "dev")
			other := launch(t.Context(), g, "other")
			synctest.Wait()
			a.set(deaf(2*time.Second, c.answer), "dev")
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := g.Run(ctx, "dev", mustNotRun(t)); err != context.DeadlineExceeded {
				t.Errorf("the caller who gave up got %v", err)
			}
			a.allow()
			time.Sleep(time.Minute)
			if n := a.inFlight(); n != 0 {
				t.Fatalf("%d calls are in flight", n)
			}
			wantRunning(t, r, "an answer for nobody")
			wantRunning(t, other, "an answer for nobody")
			if err := g.Run(t.Context(), "dev", func(context.Context) error { return nil }); err != nil {
				t.Errorf("the next start: %v", err)
			}
		})
	}
}

// An ALLOW that nobody waited for extends nothing: the runs end by the line of the last one
// that somebody did.
func TestS3_AnAllowThatNobodyWaitsForExtendsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		expires := time.Now().Add(time.Hour)
		a.set(inTurn(
			answers(guard.Decision{Allowed: true, Code: guard.CodeAllow, ExpiresAt: expires}, nil),
			deaf(2*time.Second, allows),
			hangs,
		))
		g := newGuard(t, a, guard.WithInterval(24*time.Hour))
		r := launch(t.Context(), g, "dev")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_ = g.Run(ctx, "dev", mustNotRun(t))
		<-r.done
		if r.at.After(expires) {
			t.Errorf("the run went on until %v after its ALLOW had expired", r.at.Sub(expires))
		}
	})
}

// When one of several callers gives up the answer stands.
func TestS3_AQuestionThatOneStillWaitsForIsAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a, guard.WithInterval(24*time.Hour))
		r := launch(t.Context(), g, "dev")
		synctest.Wait()
		a.set(after(2*time.Second, denies(guard.CodeDeviceRevoked)))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		impatient := launchFunc(ctx, g, "dev", mustNotRun(t))
		patient := launchFunc(t.Context(), g, "dev", mustNotRun(t))
		if err := impatient.finish(); err != context.DeadlineExceeded {
			t.Errorf("who gave up got %v", err)
		}
		wantDenial(t, patient.finish(), "dev", guard.CodeDeviceRevoked)
		synctest.Wait()
		wantStopped(t, r.ctx, "dev", guard.CodeDeviceRevoked)
	})
}

// An organisation-wide code that the authority sends about one device, with or without work in
// flight there, stops every device of the guard in the same instant.
func TestS3_AnOrganisationWideCodeStopsEveryDevice(t *testing.T) {
	for _, s := range sources() {
		for _, code := range organisationCodes {
			bubble(t, s.name+"/"+string(code), func(t *testing.T) {
				a := newAuthority()
				g := newGuard(t, a, guard.WithInterval(10*time.Second))
				foreign := newGuard(t, newAuthority())
				var runs []*running
				for i := range 20 {
					runs = append(runs, launch(t.Context(), g, device(i)), launch(t.Context(), g, device(i)))
				}
				another := launch(t.Context(), foreign, device(0))
				synctest.Wait()
				a.deny(code, device(0)) // the others are allowed whenever they are asked about
				s.from(t, g, device(0))
				for i, r := range runs {
					stop := wantStopped(t, r.ctx, device(i/2), code)
					wantDenied(t, r.finish(), device(i/2), code, true)
					if asked := a.last(t, device(0)); stop.Decision.RequestID != asked.id() && s.name != "hint for all" {
						t.Errorf("%s: request %q, want %q", device(i/2), stop.Decision.RequestID, asked.id())
					}
				}
				wantRunning(t, another, "a run of another guard")
			})
		}
	}
}

func device(i int) string { return fmt.Sprintf("dev%d", i) }

// One about a device that nothing is known of stops those that run.
func TestS3_AnOrganisationWideCodeAboutAStranger(t *testing.T) {
	for _, code := range organisationCodes {
		bubble(t, string(code), func(t *testing.T) {
			a := newAuthority()
			g := newGuard(t, a, guard.WithReuse(10*time.Second))
			r := launch(t.Context(), g, "dev")
			if _, err := g.Validate(t.Context(), "held"); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			a.deny(code, "stranger")
			if d, err := g.Validate(t.Context(), "stranger"); d.Code != code || err != nil {
				t.Fatalf("Validate says %+v, %v", d, err)
			}
			wantDenied(t, r.finish(), "dev", code, true)
			for _, id := range []string{"dev", "held"} { // nothing is left to be reused
				known := a.count(id)
				if err := g.Run(t.Context(), id, func(context.Context) error { return nil }); err != nil {
					t.Errorf("%s: %v", id, err)
				}
				if n := a.count(id) - known; n != 1 {
					t.Errorf("%s: %d requests for the next start, want 1", id, n)
				}
			}
		})
	}
}

// A deny code beside an error stands, and so does its reach.
func TestS3_AnOrganisationWideCodeBesideAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		r := launch(t.Context(), g, "dev")
		synctest.Wait()
		a.answer(guard.Decision{Code: guard.CodeOrgDisabled}, errors.New("401"), "other")
		err := g.Run(t.Context(), "other", mustNotRun(t))
		wantDenied(t, err, "other", guard.CodeOrgDisabled, false)
		wantDenied(t, r.finish(), "dev", guard.CodeOrgDisabled, true)
	})
}

// All other codes, and all that the guard makes itself, concern one device.
func TestS3_NothingElseIsOrganisationWide(t *testing.T) {
	wide := guard.CodeOrgDisabled
	for name, b := range map[string]behaviour{
		"revoked":                  denies(guard.CodeDeviceRevoked),
		"not found":                denies(guard.CodeDeviceNotFound),
		"invalid id":               denies(guard.CodeInvalidDeviceID),
		"unavailable":              denies(guard.CodeSystemUnavailable),
		"unknown":                  denies("ORG_SOMETHING"),
		"in lower case":            denies("org_disabled"),
		"with a space":             denies("ORG_DISABLED "),
		"a contradiction":          answers(guard.Decision{Allowed: true, Code: wide}, nil),
		"contradicted by an error": answers(guard.Decision{Allowed: true, Code: wide}, errors.New("down")),
		"expired":                  answers(guard.Decision{Allowed: true, Code: guard.CodeAllow, ExpiresAt: time.Unix(1, 0)}, nil),
		"an error that names it":   fails(errors.New("ORG_DISABLED")),
		"only as a reason":         answers(guard.Decision{Code: guard.CodeDeviceRevoked, Reason: "ORG_DISABLED"}, nil),
		"a hang":                   hangs,
	} {
		bubble(t, name, func(t *testing.T) {
			a := newAuthority()
			g := newGuard(t, a)
			r, other := launch(t.Context(), g, "dev"), launch(t.Context(), g, "other")
			synctest.Wait()
			a.set(b, "dev")
			if err := g.Run(t.Context(), "dev", mustNotRun(t)); !errors.Is(err, guard.ErrDenied) {
				t.Errorf("the start returned %v", err)
			}
			if err := r.finish(); !errors.Is(err, guard.ErrDenied) { // by the watch, if not before
				t.Errorf("the run returned %v", err)
			}
			time.Sleep(time.Minute)
			wantRunning(t, other, "a denial of another device")
		})
	}
	for _, id := range []string{"", " "} {
		bubble(t, fmt.Sprintf("blank id %q", id), func(t *testing.T) {
			g := newGuard(t, newAuthority())
			other := launch(t.Context(), g, "other")
			synctest.Wait()
			wantDenied(t, g.Run(t.Context(), id, mustNotRun(t)), id, guard.CodeInvalidDeviceID, false)
			time.Sleep(time.Minute)
			wantRunning(t, other, "a blank id")
		})
	}
}

// The stop line is one device's own.
func TestS3_TheStopLineIsOneDevicesOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		r, other := launch(t.Context(), g, "dev"), launch(t.Context(), g, "other")
		synctest.Wait()
		a.stick(t, allows, "dev")
		wantDenied(t, r.finish(), "dev", guard.CodeSystemUnavailable, true)
		time.Sleep(time.Minute)
		wantRunning(t, other, "another device could not be asked about")
	})
}

// A denial that comes while a function does not heed its context is told once, and stays what
// it was: neither a later denial nor Close replaces it.
func TestS3_TheFirstDenialStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		free := make(chan struct{})
		r := launchFunc(t.Context(), g, "dev", func(ctx context.Context) error { <-free; return nil })
		synctest.Wait()
		for _, code := range []guard.Code{guard.CodeDeviceRevoked, guard.CodeOrgDisabled, guard.CodeDeviceNotFound} {
			a.deny(code)
			if d, err := g.Validate(t.Context(), "dev"); d.Code != code || err != nil {
				t.Fatalf("Validate says %+v, %v", d, err)
			}
		}
		a.allow()
		if err := g.Run(t.Context(), "dev", func(context.Context) error { return nil }); err != nil {
			t.Errorf("a new run: %v", err)
		}
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		wantStopped(t, r.ctx, "dev", guard.CodeDeviceRevoked)
		close(free)
		wantDenied(t, r.finish(), "dev", guard.CodeDeviceRevoked, true)
	})
}
