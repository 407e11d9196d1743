package guard

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// S6: a session that is ended after its line gets the denial even if no timer has fired, whatever
// End is given: that is found in it.
func TestS6_ASessionThatEndsAfterItsLine(t *testing.T) {
	own := errors.New("own")
	for _, tc := range clockSteps {
		for _, work := range []error{nil, own} {
			synctest.Test(t, func(t *testing.T) {
				g, wall, a := newSteppedGuard(t)
				began := time.Now()
				run, s, err := Begin(t.Context(), g, "d")
				if err != nil {
					t.Fatalf("Begin: %v", err)
				}
				synctest.Wait()
				wall.step(tc.step)
				if run.Err() != nil {
					t.Error("the context has ended already: this tests nothing")
				}
				s.End(work)
				err = s.Wait()
				wantRanOut(t, err)
				if errors.Is(err, own) != (work != nil) {
					t.Errorf("%v: what End was given is lost or made up", err)
				}
				if time.Since(began) != 0 || a.count() != 1 || run.Err() == nil {
					t.Errorf("%v gone by, %d requests, the context: %v", time.Since(began), a.count(), run.Err())
				}
			})
		}
	}
}

func TestS6_ASessionThatEndsJustBeforeItsLineIsNotDenied(t *testing.T) {
	own := errors.New("own")
	for _, work := range []error{nil, own} {
		synctest.Test(t, func(t *testing.T) {
			g, wall, _ := newSteppedGuard(t)
			_, s, err := Begin(t.Context(), g, "d")
			if err != nil {
				t.Fatalf("Begin: %v", err)
			}
			synctest.Wait()
			wall.step(g.StopBound() - 1)
			s.End(work)
			if err := s.Wait(); err != work {
				t.Errorf("Wait: %v, want %v", err, work)
			}
		})
	}
}

// S6: contexts follow within one second of a jump, also where nobody ends the session; and what
// Checkpoint has found first is final.
func TestS6_AnOpenSessionFollowsAJump(t *testing.T) {
	for _, look := range []bool{false, true} {
		for _, tc := range clockSteps {
			synctest.Test(t, func(t *testing.T) {
				g, wall, a := newSteppedGuard(t)
				run, s, err := Begin(t.Context(), g, "d")
				if err != nil {
					t.Fatalf("Begin: %v", err)
				}
				AfterStop(run, func() { s.End(nil) })
				a.set(silent)
				synctest.Wait()
				wall.step(tc.step)
				jumped := time.Now()
				if look {
					wantDenialNow(t, Checkpoint(run))
				}
				err = s.Wait()
				wantRanOut(t, err)
				if late := time.Since(jumped); late > time.Second || look && late != 0 {
					t.Errorf("over %v after the jump", late)
				}
			})
		}
	}
}

func wantDenialNow(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, ErrDenied) {
		t.Errorf("Checkpoint: %v, want a denial", err)
	}
}

// S6, S1: a jump while Begin waits for the answer leaves no permission to begin on.
func TestS6_ASessionDoesNotBeginOnAPermissionThatHasRunOut(t *testing.T) {
	for _, tc := range clockSteps {
		synctest.Test(t, func(t *testing.T) {
			var wall *wallClock
			g, wall, _ := newSteppedGuard(t, WithObserver(func(_ context.Context, e Event) {
				if e.Kind == EventStarted {
					wall.step(tc.step)
				}
			}))
			run, s, err := Begin(t.Context(), g, "d")
			denied := (*DeniedError)(nil)
			if !errors.As(err, &denied) || denied.InFlight || !errors.Is(err, ErrUnavailable) || run != nil || s != nil {
				t.Errorf("Begin: %v, %v, %v", run, s, err)
			}
		})
	}
}

// A session that is over leaves nothing in the guard, however it came to its end.
func TestSession_LeavesNothingInTheGuard(t *testing.T) {
	for name, end := range map[string]func(g *Guard, a *clockAuthority, s *Session){
		"End": func(_ *Guard, _ *clockAuthority, s *Session) { s.End(nil) },
		"denial": func(g *Guard, a *clockAuthority, _ *Session) {
			a.set(func(context.Context) (Decision, error) { return Decision{Code: CodeDeviceRevoked}, nil })
			g.Hint("d")
		},
		"Close": func(g *Guard, _ *clockAuthority, _ *Session) { _ = g.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, _, a := newSteppedGuard(t, WithObserver(func(context.Context, Event) {}))
				run, s, err := Begin(t.Context(), g, "d")
				if err != nil {
					t.Fatalf("Begin: %v", err)
				}
				AfterStop(run, func() { s.End(nil) })
				end(g, a, s)
				_ = s.Wait()
				wantNothingLeft(t, g)
			})
		})
	}
}
