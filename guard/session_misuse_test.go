package guard_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// A Runner has to call its function once. One that tries again finds the work done, and hangs nowhere.
func TestSession_ARunnerThatCallsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runnerFunc(func(ctx context.Context, _ string, fn func(context.Context) error) error {
			var err error
			for range 3 {
				err = fn(ctx)
			}
			return err
		})
		_, s := open(t.Context(), t, r, "dev")
		s.End(errWork)
		if err := s.Wait(); !errors.Is(err, errWork) {
			t.Errorf("Wait: %v", err)
		}
	})
}

// keyError is an error of somebody's that keeps a secret where fmt would find it.
type keyError struct{ key string }

func (keyError) Error() string { return "bad key" }

// S8: fmt does not look into a session.
func TestS8_ASessionPrintsNothingOfItsWork(t *testing.T) {
	_, s := open(t.Context(), t, newGuard(t, newAuthority()), "dev")
	s.End(keyError{"sk_secret"})
	_ = s.Wait()
	for _, f := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(f, s); strings.Contains(text, "sk_secret") {
			t.Errorf("%s prints %s", f, text)
		}
	}
}

// A nil *Guard, of a New whose error nobody looked at, is refused on the caller's goroutine.
func TestSession_ANilGuard(t *testing.T) {
	var g *guard.Guard
	run, s, err := guard.Begin(t.Context(), g, "dev")
	wantNoSession(t, run, s, err)
}

// «Denied while it ran: ... also find the function's error»: End comes after the denial, as a
// function returns after it.
func TestSession_EndAfterTheDenialCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		run, s, err := guard.Begin(t.Context(), g, "dev")
		if err != nil {
			t.Fatal(err)
		}
		a.deny(guard.CodeDeviceRevoked)
		g.Hint("dev")
		<-run.Done()
		s.End(errWork)
		err = s.Wait()
		wantDenied(t, err, "dev", guard.CodeDeviceRevoked, true)
		if !errors.Is(err, errWork) {
			t.Errorf("what the work came to is not found in %v", err)
		}
	})
}

// Work that goes on after a denial is waited for, and told of.
func TestSession_WorkThatGoesOnOverruns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, d := newAuthority(), &diary{}
		g := newGuard(t, a, guard.WithObserver(d.observe))
		run, s, err := guard.Begin(t.Context(), g, "dev")
		if err != nil {
			t.Fatal(err)
		}
		a.deny(guard.CodeDeviceRevoked)
		g.Hint("dev")
		<-run.Done()
		over := make(chan error, 1)
		go func() { over <- s.Wait() }()
		time.Sleep(time.Hour)
		if n := len(d.read(guard.EventOverran)); n != 1 || len(over) != 0 {
			t.Errorf("told of %d overruns, want 1; Wait has returned %d times", n, len(over))
		}
		s.End(nil)
		wantDenied(t, <-over, "dev", guard.CodeDeviceRevoked, true)
	})
}
