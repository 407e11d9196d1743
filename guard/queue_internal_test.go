package guard

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// R3, as it is read: «a Keep, and a hint on behalf of one, waits for its turn after» RetryAfter;
// S6: a permission ends on whichever clock says so first. A hint has brought a question forward for
// a run in flight, and it waits for a slot; by the time there is one, the wall clock has ended the
// run, no timer has noticed, and only the Keep that made it is left.
func TestKeep_ASlotThatComesAfterTheLineIsNotUsedAgainstRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wall, answer, release := &wallClock{}, atomic.Pointer[Decision]{}, make(chan struct{})
		var kept atomic.Int32
		answer.Store(&Decision{Allowed: true, Code: CodeAllow})
		g, err := New(ValidatorFunc(func(_ context.Context, id string) (Decision, error) {
			if id == "slow" {
				<-release
				return Decision{Code: CodeDeviceNotFound}, nil
			}
			kept.Add(1)
			return *answer.Load(), nil
		}), WithMaxRequests(1))
		if err != nil {
			t.Fatal(err)
		}
		g.clock.wall = wall.nanos
		defer g.Close()
		var calls atomic.Int32
		go func() {
			_ = g.Keep(t.Context(), "kept", func(ctx context.Context) error {
				calls.Add(1)
				<-ctx.Done()
				return nil
			})
		}()
		synctest.Wait()
		answer.Store(&Decision{Code: CodeSystemUnavailable, RetryAfter: time.Hour})
		_ = g.Run(t.Context(), "kept", func(context.Context) error { return nil }) // refused alone
		go func() { _ = g.Run(t.Context(), "slow", func(context.Context) error { return nil }) }()
		synctest.Wait()
		g.Hint("kept")
		wall.step(g.StopBound())
		answer.Store(&Decision{Allowed: true, Code: CodeAllow})
		close(release)
		synctest.Wait()
		if h := holds(g); h.taken != 0 || h.queued != 0 || calls.Load() != 1 {
			t.Errorf("the guard holds %+v; %d calls", h, calls.Load())
		}
		time.Sleep(time.Hour - g.StopBound() - 1)
		if n := kept.Load(); n != 2 {
			t.Errorf("asked %d times before the end of RetryAfter, want 2", n)
		}
		time.Sleep(g.StopBound() + g.interval)
		if n := calls.Load(); n != 2 {
			t.Errorf("%d calls when the authority was willing again, want 2", n)
		}
	})
}

// L4, as it is read: «A Keep that waits loses its turn where no slot is free and the authority is
// silent.» Silent is who has decided nothing for a timeout, and not who could not decide once; and
// nobody else loses a place by it.
func TestL4_WhoLosesItsTurnToASilentAuthority(t *testing.T) {
	g, err := New(ValidatorFunc(func(context.Context, string) (Decision, error) { return Decision{}, nil }))
	if err != nil {
		t.Fatal(err)
	}
	g.answered.Store(int64(time.Hour))
	d := &device{guard: g}
	d.live = &d.first
	for name, tc := range map[string]struct {
		failing bool
		since   time.Duration
		q       question
		may     bool
	}{
		"a Keep, and the authority decides":         {false, time.Minute, question{}, true},
		"a Keep, and it could not decide just now":  {true, time.Second, question{}, true},
		"a Keep, and it is silent":                  {true, 4 * time.Second, question{}, false},
		"a start, and it is silent":                 {true, 4 * time.Second, question{starts: 1}, true},
		"a renewal, and it is silent":               {true, 4 * time.Second, question{ahead: true}, true},
		"a hint on behalf of one, and it is silent": {true, 4 * time.Second, question{hint: true}, true},
	} {
		g.failing.Store(tc.failing)
		if may := d.mayQueue(&tc.q, time.Hour+tc.since); may != tc.may {
			t.Errorf("%s: it may wait for a slot: %v, want %v", name, may, tc.may)
		}
	}
}
