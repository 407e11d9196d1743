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

// Every call hangs that a start may make, while a watch with a slot of its own is answered: nothing can start.
func TestNotReadyWhileAllStartsHangThoughAWatchIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a, guard.WithMaxRequests(4))
		launch(t.Context(), g, "works")
		synctest.Wait()
		release := a.stick(t, fails(errors.New("never")), "0", "1", "2")
		refuse(t, g, "0", "1", "2")
		time.Sleep(time.Minute)
		refuse(t, g, "a start")
		h := g.Health()
		if h.Authority.Hung != 3 || h.Authority.Slots != 3 {
			t.Fatalf("%+v", h)
		}
		wantReady(t, h, guard.ErrUnavailable)
		release()
	})
}

// Watches hang in slots of starts and their own, but one is left that a start may take.
func TestReadyWhereASlotIsLeftToStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a, guard.WithMaxRequests(4))
		for i := range 3 {
			launch(t.Context(), g, fmt.Sprint(i))
		}
		synctest.Wait()
		release := a.stick(t, fails(errors.New("never")), "0", "1", "2")
		time.Sleep(2 * time.Minute)
		h := g.Health()
		if h.Authority.Hung != 3 {
			t.Fatalf("%+v", h)
		}
		wantReady(t, h, nil) // a minute after the last failure a start could find out
		if err := g.Run(t.Context(), "a start", func(context.Context) error { return nil }); err != nil {
			t.Errorf("the start that was possible: %v", err)
		}
		release()
	})
}

// A Keep that was refused because no slot became free waits to be allowed again, and is counted.
func TestAKeepThatGotNoSlotIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a, guard.WithMaxRequests(4))
		release := a.stick(t, fails(errors.New("never")), "0", "1", "2")
		refuse(t, g, "0", "1", "2")
		keep(t.Context(), g, "kept")
		time.Sleep(g.Interval() + time.Second)
		synctest.Wait()
		h := g.Health()
		if h.Refused[guard.CodeSystemUnavailable] != 1 {
			t.Errorf("refused: %v, of %+v", h.Refused, h)
			for d := range g.Devices() {
				t.Errorf("%+v", d)
			}
		}
		release()
	})
}

// Every ALLOW has run out before it comes: nothing can start, and Ready says so.
func TestNotReadyWhereEveryAllowHasRunOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		a.answer(guard.Decision{Allowed: true, Code: guard.CodeAllow, ExpiresAt: time.Now().Add(-time.Minute)}, nil)
		refuse(t, g, "d")
		wantReady(t, g.Health(), guard.ErrUnavailable)
	})
}
