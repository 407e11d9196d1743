package guard_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/execguard/execguard/guard"
)

// wantHealth compares all but the moment.
func wantHealth(t *testing.T, g *guard.Guard, want guard.Health) {
	t.Helper()
	synctest.Wait()
	got := g.Health()
	if !got.At.Equal(time.Now()) {
		t.Errorf("taken at %v, and it is %v", got.At, time.Now())
	}
	if want.Refused == nil {
		want.Refused = map[guard.Code]int{}
	}
	want.StopBound = g.StopBound()
	if want.Authority.Slots == 0 {
		want.Authority.Slots = 48 // of 64
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(guard.Health{}, "At"), cmpopts.EquateApproxTime(time.Nanosecond)); diff != "" {
		t.Errorf("Health (-want +got):\n%s", diff)
	}
}

func wantReady(t *testing.T, h guard.Health, sentinel error) {
	t.Helper()
	if err := h.Ready(); !errors.Is(err, sentinel) || sentinel == nil && err != nil {
		t.Errorf("Ready says %v, want %v, of %+v", err, sentinel, h)
	}
}

func wantLive(t *testing.T, h guard.Health, alive bool) {
	t.Helper()
	if err := h.Live(); (err == nil) != alive {
		t.Errorf("Live says %v of %+v", err, h)
	}
}

func refuse(t *testing.T, g *guard.Guard, devices ...string) {
	t.Helper()
	for _, id := range devices {
		if err := g.Run(t.Context(), id, mustNotRun(t)); !errors.Is(err, guard.ErrDenied) {
			t.Fatalf("%s: %v", id, err)
		}
	}
}

func TestHealth_OfAGuardThatHasDoneNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, newAuthority())
		time.Sleep(time.Hour)
		wantHealth(t, g, guard.Health{Authority: guard.AuthorityHealth{Answering: true}})
		wantReady(t, g.Health(), nil)
		wantLive(t, g.Health(), true)
		for d := range g.Devices() {
			t.Errorf("knows %+v", d)
		}
	})
}

// The oldest permission is the oldest that work goes on under: one that only waits to be reused may be older.
func TestHealth_CountsRunsAndTheAgeOfWhatTheyRunOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a, guard.WithInterval(undisturbed), guard.WithReuse(undisturbed))
		if err := g.Run(t.Context(), "idle", func(context.Context) error { return nil }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		launch(ctx, g, "one")
		synctest.Wait()
		answered := time.Now()
		time.Sleep(500 * time.Millisecond)
		launch(ctx, g, "one")
		wantHealth(t, g, guard.Health{
			Devices: 2, Watched: 1, Runs: 2, OldestPermission: 500 * time.Millisecond,
			Authority: guard.AuthorityHealth{Answering: true, LastAnswer: answered},
		})
		launch(ctx, g, "two")
		answered = time.Now()
		wantHealth(t, g, guard.Health{
			Devices: 3, Watched: 2, Runs: 3, OldestPermission: 500 * time.Millisecond,
			Authority: guard.AuthorityHealth{Answering: true, LastAnswer: answered},
		})
		cancel()
		wantHealth(t, g, guard.Health{Devices: 3, Authority: guard.AuthorityHealth{Answering: true, LastAnswer: answered}})
		time.Sleep(3 * undisturbed)
		wantHealth(t, g, guard.Health{Authority: guard.AuthorityHealth{Answering: true, LastAnswer: g.Health().Authority.LastAnswer}})
	})
}

func TestHealth_TheOldestPermissionIsTheOldestOfAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, newAuthority(), guard.WithInterval(undisturbed))
		for i := range 100 {
			launch(t.Context(), g, fmt.Sprint(i))
			time.Sleep(time.Millisecond)
		}
		if h := g.Health(); h.OldestPermission != 100*time.Millisecond {
			t.Errorf("%v", h.OldestPermission)
		}
	})
}

func TestHealth_TellsSinceWhenTheAuthorityDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		a.fail(errors.New("connection refused"))
		time.Sleep(time.Second)
		began := time.Now()
		refuse(t, g, "d")
		wantHealth(t, g, guard.Health{Authority: guard.AuthorityHealth{LastFailure: began, FailingSince: began}})
		wantReady(t, g.Health(), guard.ErrUnavailable)
		wantLive(t, g.Health(), true)

		a.hang()
		refuse(t, g, "d") // and so is one that was given up
		gaveUp := time.Now()
		if gaveUp.Sub(began) != 3*time.Second {
			t.Fatalf("given up after %v", gaveUp.Sub(began))
		}
		wantHealth(t, g, guard.Health{Authority: guard.AuthorityHealth{LastFailure: gaveUp, FailingSince: began}})

		a.deny(guard.CodeDeviceRevoked) // which is an answer
		time.Sleep(time.Second)
		refuse(t, g, "d")
		answered := time.Now()
		time.Sleep(time.Second)
		wantHealth(t, g, guard.Health{Authority: guard.AuthorityHealth{Answering: true, LastFailure: gaveUp, LastAnswer: answered}})
		wantReady(t, g.Health(), nil)

		a.answer(guard.Decision{Code: guard.CodeSystemUnavailable}, nil) // which is none
		again := time.Now()
		refuse(t, g, "d")
		wantHealth(t, g, guard.Health{Authority: guard.AuthorityHealth{LastFailure: again, FailingSince: again, LastAnswer: answered}})
	})
}

// A server that is sent no requests while it is not ready asks nothing, and must not stay so for ever.
func TestHealth_AFailureThatNobodyHasTriedSinceMakesUnreadyForOneStopBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		a.fail(errors.New("connection refused"))
		for range 3 {
			refuse(t, g, "d")
			wantReady(t, g.Health(), guard.ErrUnavailable)
			time.Sleep(g.StopBound())
			wantReady(t, g.Health(), guard.ErrUnavailable)
			time.Sleep(2 * time.Nanosecond)
			wantReady(t, g.Health(), nil)
			if g.Health().Authority.Answering {
				t.Error("the authority answers, says Health")
			}
		}
		asked := a.count()
		keep(t.Context(), g, "d") // which asks once an interval: then it is known
		for range 100 {
			time.Sleep(time.Second)
			wantReady(t, g.Health(), guard.ErrUnavailable)
		}
		if a.count() < asked+9 {
			t.Errorf("asked %d times", a.count()-asked)
		}
	})
}

// A question that all its callers gave up is no answer (S3), and no failure either.
func TestHealth_AQuestionThatNobodyWantsIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		a.hang()
		ctx, cancel := context.WithCancel(t.Context())
		r := launch(ctx, g, "d")
		wantHealth(t, g, guard.Health{Devices: 1, Authority: guard.AuthorityHealth{Answering: true, InFlight: 1}})
		cancel()
		_ = r.finish()
		wantHealth(t, g, guard.Health{Authority: guard.AuthorityHealth{Answering: true}})
	})
}

// Where every call hangs that a start could make, nobody can find out whether the authority is back.
func TestHealth_IsNotReadyWhileNothingCanBeAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a, guard.WithMaxRequests(4))
		release := a.stick(t, fails(errors.New("never")))
		refuse(t, g, "0", "1")
		time.Sleep(time.Minute)
		wantReady(t, g.Health(), nil) // there is a third
		refuse(t, g, "2")
		time.Sleep(time.Minute)
		wantReady(t, g.Health(), guard.ErrUnavailable)
		release()
		synctest.Wait()
		wantReady(t, g.Health(), nil)
	})
}

func TestHealth_CountsQuestionsInFlightWaitingAndHung(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a, guard.WithMaxRequests(4)) // three of them for starts
		release := a.stick(t, allows)
		for i := range 5 {
			launch(t.Context(), g, fmt.Sprint(i))
		}
		wantHealth(t, g, guard.Health{Devices: 5, Authority: guard.AuthorityHealth{Answering: true, InFlight: 3, Waiting: 2, Slots: 3}})
		failed := time.Now().Add(3 * time.Second)
		time.Sleep(4 * time.Second)
		wantHealth(t, g, guard.Health{
			Devices:   5, // what hangs, and what waits for a slot
			Authority: guard.AuthorityHealth{LastFailure: failed, FailingSince: failed, Waiting: 2, Hung: 3, Slots: 3, Stuck: true},
		})
		release()
		time.Sleep(time.Second)
		a.allow()
		synctest.Wait()
		if h := g.Health(); h.Authority.Hung != 0 || h.Authority.Waiting != 0 || h.Runs != 2 || !h.Authority.Answering {
			t.Errorf("after that: %+v", h)
		}
	})
}

// Every code is counted by its name, and every one that the guard does not know together.
func TestHealth_CountsWhoIsRefusedByCode(t *testing.T) {
	codes := []guard.Code{
		guard.CodeOrgDisabled, guard.CodeSystemUnavailable, guard.CodePlanFrozen, guard.CodePlanNotActive,
		guard.CodeEntitlementExpired, guard.CodeDeviceRevoked, guard.CodeDeviceNotFound, guard.CodeOrgNotFound, guard.CodeInvalidOrgKey,
	}
	for _, code := range codes {
		bubble(t, string(code), func(t *testing.T) {
			a := newAuthority()
			g := newGuard(t, a)
			a.deny(code)
			keep(t.Context(), g, "a")
			keep(t.Context(), g, "a")
			keep(t.Context(), g, "b")
			refuse(t, g, "left alone")
			synctest.Wait()
			if h := g.Health(); !maps.Equal(h.Refused, map[guard.Code]int{code: 2}) || h.Devices != 2 {
				t.Errorf("refused: %v", h.Refused)
			}
			a.allow()
			g.Hint("")
			synctest.Wait()
			time.Sleep(g.Interval())
			if h := g.Health(); len(h.Refused) != 0 || h.Runs != 3 || h.OrganisationDenied != "" {
				t.Errorf("allowed again: %+v", h)
			}
		})
	}
}

func TestHealth_UnknownCodesDoNotMakeItGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		for i := range 500 {
			id := fmt.Sprint(i)
			a.deny(guard.Code("STRANGE_"+id), id)
			keep(t.Context(), g, id)
		}
		synctest.Wait()
		if h := g.Health(); !maps.Equal(h.Refused, map[guard.Code]int{guard.CodeOther: 500}) {
			t.Errorf("refused: %v", h.Refused)
		}
	})
}

// A start that could not ask is refused alone (S3): its device is counted while somebody is about it, and what
// runs there is not refused.
func TestHealth_CouldNotAskIsARefusalOnlyWhereNothingIsPermitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		launch(t.Context(), g, "runs")
		synctest.Wait()
		a.fail(errors.New("connection refused"))
		keep(t.Context(), g, "runs")
		keep(t.Context(), g, "waits")
		synctest.Wait()
		if h := g.Health(); !maps.Equal(h.Refused, map[guard.Code]int{guard.CodeSystemUnavailable: 1}) || h.Runs != 1 {
			t.Errorf("%+v", h)
		}
		a.deny(guard.CodeDeviceRevoked, "waits")
		time.Sleep(g.Interval())
		a.fail(errors.New("connection refused"), "waits")
		time.Sleep(g.Interval()) // the last word counts, though it denies nothing
		if h := g.Health(); h.Refused[guard.CodeSystemUnavailable] != 2 || len(h.Refused) != 1 {
			t.Errorf("%+v", h)
		}
	})
}

func TestHealth_WhatWasToldToStopIsCountedUntilItReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		free := make(chan struct{})
		defer close(free)
		deaf := func(context.Context) error { <-free; return nil }
		launchFunc(t.Context(), g, "d", deaf)
		launchFunc(t.Context(), g, "d", deaf)
		obeys := launch(t.Context(), g, "d")
		synctest.Wait()
		a.deny(guard.CodeDeviceRevoked)
		g.Hint("d")
		_ = obeys.finish()
		answered := time.Now()
		time.Sleep(time.Hour)
		wantHealth(t, g, guard.Health{
			Devices: 1, Stopping: 2, Refused: map[guard.Code]int{guard.CodeDeviceRevoked: 1},
			Authority: guard.AuthorityHealth{Answering: true, LastAnswer: answered},
		})
	})
}

func TestHealth_AnOrganisationWideDenialHoldsUntilAnAllow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		early := launch(t.Context(), g, "early")
		keep(t.Context(), g, "kept")
		synctest.Wait()
		a.set(after(time.Second, allows), "slow") // sent before the denial is learnt: it lifts nothing
		slow := launch(t.Context(), g, "slow")
		synctest.Wait()
		a.fail(errors.New("connection refused"), "kept", "late")
		a.deny(guard.CodeOrgDisabled, "first")
		refuse(t, g, "first")
		denied := a.last(t, "first")
		_ = early.finish()
		_ = slow.finish()
		time.Sleep(g.Interval())
		keep(t.Context(), g, "late") // it was never about when the organisation was denied
		synctest.Wait()
		h := g.Health()
		if h.OrganisationDenied != guard.CodeOrgDisabled || h.OrganisationRequestID != denied.id() {
			t.Errorf("%q by %q, want %s", h.OrganisationDenied, h.OrganisationRequestID, denied.id())
		}
		if !maps.Equal(h.Refused, map[guard.Code]int{guard.CodeOrgDisabled: 2}) { // that one stands, and «could not ask» changes nothing
			t.Errorf("refused: %v", h.Refused)
		}
		a.deny(guard.CodeDeviceRevoked, "own")
		keep(t.Context(), g, "own") // what the authority said of it afterwards is its own
		synctest.Wait()
		if h := g.Health(); !maps.Equal(h.Refused, map[guard.Code]int{guard.CodeOrgDisabled: 2, guard.CodeDeviceRevoked: 1}) {
			t.Errorf("refused: %v", h.Refused)
		}
		a.allow("any")
		if err := g.Run(t.Context(), "any", func(context.Context) error { return nil }); err != nil {
			t.Fatal(err)
		}
		h = g.Health()
		if h.OrganisationDenied != "" || h.OrganisationRequestID != "" || h.Refused[guard.CodeOrgDisabled] != 0 {
			t.Errorf("an ALLOW has come: %+v", h)
		}
		if h.Refused[guard.CodeSystemUnavailable] != 2 {
			t.Errorf("refused: %v", h.Refused)
		}
	})
}

func TestHealth_OfAClosedGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		free, drained := make(chan struct{}), make(chan struct{})
		launchFunc(t.Context(), g, "d", func(context.Context) error { <-free; return nil })
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			_ = g.Shutdown(ctx)
			close(drained)
		}()
		synctest.Wait()
		if h := g.Health(); !h.Closed || h.Runs != 1 {
			t.Errorf("draining: %+v", h)
		}
		wantReady(t, g.Health(), guard.ErrClosed)
		wantLive(t, g.Health(), true)
		cancel()
		<-drained
		if h := g.Health(); !h.Closed || h.Runs != 0 || h.Stopping != 1 {
			t.Errorf("closed: %+v", h)
		}
		wantLive(t, g.Health(), true)
		close(free)
		synctest.Wait()
		wantLive(t, g.Health(), false)
		if err := g.Health().Live(); !errors.Is(err, guard.ErrClosed) {
			t.Error(err)
		}
		wantReady(t, g.Health(), guard.ErrClosed)
	})
}

func TestHealth_AsksNothingAndStartsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g, d := observed(t, a)
		launch(t.Context(), g, "runs")
		a.deny(guard.CodeDeviceRevoked, "waits")
		keep(t.Context(), g, "waits")
		synctest.Wait()
		asked, told := a.count(), len(d.read())
		for range 1000 {
			_ = g.Health()
			_ = slices.Collect(g.Devices())
		}
		synctest.Wait()
		if a.count() != asked || len(d.read()) != told {
			t.Errorf("asked %d times, told %d events", a.count()-asked, len(d.read())-told)
		}
	})
}

func TestHealth_CountsTheEventsThatWereLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		defer close(free)
		g := newGuard(t, newAuthority(), guard.WithObserver(func(context.Context, guard.Event) { <-free }))
		if lost := g.Health().EventsDropped; lost != 0 {
			t.Errorf("lost %d", lost)
		}
		for range 3000 {
			g.Hint("d")
		}
		synctest.Wait()
		if lost := g.Health().EventsDropped; lost < 1900 || lost > 2000 {
			t.Errorf("lost %d", lost)
		}
	})
}

// The names in JSON are what dashboards are built on.
func TestHealth_ItsJSON(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		value any
		want  string
	}{
		{guard.Health{At: at, Authority: guard.AuthorityHealth{Answering: true}, Refused: map[guard.Code]int{}}, `{"at":"2026-01-02T03:04:05Z","closed":false,"stop_bound_ns":0,` +
			`"authority":{"answering":true,"in_flight":0,"waiting":0,"hung":0,"slots":0,"stuck":false},"devices":0,"watched":0,"runs":0,"stopping":0,` +
			`"oldest_permission_ns":0,"refused":{},"behind_ns":0,"events_dropped":0}`},
		{guard.Health{
			At: at, Closed: true, StopBound: 1, Devices: 2, Watched: 3, Runs: 4, Stopping: 5, OldestPermission: 6,
			Refused: map[guard.Code]int{guard.CodePlanFrozen: 7}, OrganisationDenied: guard.CodePlanFrozen, OrganisationRequestID: "r", Behind: 8, EventsDropped: 9,
			Authority: guard.AuthorityHealth{LastAnswer: at, LastFailure: at, FailingSince: at, InFlight: 10, Waiting: 11, Hung: 12, Slots: 13, Stuck: true},
		}, `{"at":"2026-01-02T03:04:05Z","closed":true,"stop_bound_ns":1,"authority":{"answering":false,"last_answer":"2026-01-02T03:04:05Z",` +
			`"last_failure":"2026-01-02T03:04:05Z","failing_since":"2026-01-02T03:04:05Z","in_flight":10,"waiting":11,"hung":12,"slots":13,"stuck":true},` +
			`"devices":2,"watched":3,"runs":4,"stopping":5,"oldest_permission_ns":6,"refused":{"PLAN_FROZEN":7},` +
			`"organisation_denied":"PLAN_FROZEN","organisation_request_id":"r","behind_ns":8,"events_dropped":9}`},
		{guard.DeviceHealth{DeviceID: "d"}, `{"device":"d","runs":0,"stopping":0,"waiting":0,"in_flight":false,"queued":false}`},
		{guard.DeviceHealth{
			DeviceID: "d", Runs: 1, Stopping: 2, Waiting: 3, PermissionAge: 4, StopLine: at, RequestID: "r", DenialCode: guard.CodeDeviceRevoked,
			DenialRequestID: "s", DenialReason: "t", InFlight: true, Queued: true, Hung: 5,
		}, `{"device":"d","runs":1,"stopping":2,"waiting":3,"permission_age_ns":4,"stop_line":"2026-01-02T03:04:05Z","request_id":"r",` +
			`"denial_code":"DEVICE_REVOKED","denial_request_id":"s","denial_reason":"t","in_flight":true,"queued":true,"hung":5}`},
	} {
		text, err := json.Marshal(c.value)
		if err != nil || string(text) != c.want {
			t.Errorf("%v, got\n%s\nwant\n%s", err, text, c.want)
		}
	}
}
