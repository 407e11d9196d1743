package guard_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

// An outage that offline bridges does not fill a disk either: WithLogger says that repeated warnings are held back.
func TestAnOutageWithFallbackDoesNotFillADisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		j.level.Set(slog.LevelWarn)
		down := guardtest.Reply(guard.Decision{}, errors.New("no route"))
		g := newGuard(t, guard.Fallback(down, guardtest.NewValidator("d")), guard.WithLogger(slog.New(j)))
		for range 600 { // ten a second, for a minute
			if err := g.Run(t.Context(), "d", func(context.Context) error { return nil }); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := len(j.take("validated")); n > 20 || n == 0 {
			t.Errorf("%d warnings about one device in a minute, of 600 runs", n)
		}
	})
}

// A second outage within the hour is told of too: no revocation reaches the work in it.
func TestASecondOutageWithFallbackIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		j.level.Set(slog.LevelWarn)
		a := newAuthority()
		g := newGuard(t, guard.Fallback(a, guardtest.NewValidator("d")), guard.WithLogger(slog.New(j)))
		launch(t.Context(), g, "d")
		for range 2 {
			a.fail(errors.New("no route"))
			time.Sleep(10 * time.Minute)
			if n := len(j.take("validated")); n == 0 {
				t.Error("ten minutes of work by an offline word, and no warning")
			}
			a.allow()
			time.Sleep(10 * time.Minute)
			j.take()
		}
	})
}

// The warning that a denial is not kept, and the refusal by it, are two facts.
func TestADenialThatIsNotKeptDoesNotHideTheRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		j.level.Set(slog.LevelWarn)
		online := guardtest.Reply(guard.Decision{Code: guard.CodeDeviceRevoked}, nil)
		g := newGuard(t, guard.Fallback(online, forgetful{guardtest.NewValidator("d")}), guard.WithLogger(slog.New(j)))
		if _, err := g.Validate(t.Context(), "d"); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		refuse(t, g, "d")
		lines := j.take()
		seen := map[string]int{}
		for _, l := range lines {
			seen[l.phase]++
		}
		if seen["validated"] == 0 || seen["refused"] == 0 {
			t.Errorf("logged %v of %+v, want a warning and a refusal", seen, lines)
		}
	})
}

// A device that was allowed in between, by Validate or a watch, and is refused again is logged again.
func TestARefusalAfterAnAllowIsLoggedThoughNothingStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g, j := logging(t, a, slog.LevelWarn)
		for range 2 {
			a.deny(guard.CodeDeviceRevoked)
			refuse(t, g, "d")
			if n := len(j.take("refused")); n != 1 {
				t.Errorf("%d refusals are logged", n)
			}
			a.allow()
			if d, err := g.Validate(t.Context(), "d"); err != nil || !d.Allowed {
				t.Fatal(d, err)
			}
			synctest.Wait()
		}
	})
}
