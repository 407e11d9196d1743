package guard_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// foreign is what a caller's context may be cancelled with: what somebody else's run has returned.
func foreign() *guard.DeniedError {
	return &guard.DeniedError{DeviceID: "elsewhere", Decision: guard.Decision{Code: guard.CodeDeviceRevoked}, InFlight: true}
}

// endings are causes with which a caller's context ends, and the guard has no part in any of them.
func endings() map[string]error {
	return map[string]error{
		"no cause":         nil,
		"its own":          errors.New("gone"),
		"a foreign denial": foreign(), // as errgroup cancels its context
		"a foreign end":    guard.ErrClosed,
	}
}

// learn has the guard learn what the authority says of the device now.
func learn(t *testing.T, g *guard.Guard, device string) {
	t.Helper()
	if _, err := g.Validate(context.WithoutCancel(t.Context()), device); err != nil {
		t.Errorf("Validate: %v", err)
	}
	synctest.Wait()
}

// notStopped fails unless Stopped gives nil, also for contexts that were made of this one.
func notStopped(t *testing.T, ctx context.Context, why string) {
	t.Helper()
	for name, of := range hookedContexts {
		if err := guard.Stopped(of(ctx)); err != nil {
			t.Errorf("%s, %s: stopped by %v", why, name, err)
		}
	}
}

func TestStoppedOutsideOfARun(t *testing.T) {
	for name, cause := range endings() {
		bubble(t, name, func(t *testing.T) {
			ctx, end := context.WithCancelCause(t.Context())
			notStopped(t, ctx, "live")
			end(cause)
			notStopped(t, ctx, "ended")
		})
	}
}

// The answer is what context.Cause finds: the denial, and context.Canceled.
func TestStoppedInTheCourseOfARun(t *testing.T) {
	for name, of := range hookedContexts {
		bubble(t, name, func(t *testing.T) {
			a := newAuthority()
			g := newGuard(t, a)
			r := launchFunc(t.Context(), g, "d", func(ctx context.Context) error {
				notStopped(t, of(ctx), "live")
				<-ctx.Done()
				time.Sleep(time.Second)
				return nil
			})
			<-r.began
			ctx := of(r.ctx)
			a.deny(guard.CodeDeviceRevoked)
			learn(t, g, "d")
			wantDenied(t, wantCanceled(t, guard.Stopped(ctx)), "d", guard.CodeDeviceRevoked, true)
			if r.returned() {
				t.Fatal("the run is over")
			}
			if err := guard.Stopped(context.WithoutCancel(ctx)); err != nil {
				t.Errorf("a context that has not ended: stopped by %v", err)
			}
			_ = r.finish()
			wantDenied(t, wantCanceled(t, guard.Stopped(ctx)), "d", guard.CodeDeviceRevoked, true)
		})
	}
}

// wantCanceled holds a stop to context.Canceled, and gives the stop alone.
func wantCanceled(t *testing.T, err error) error {
	t.Helper()
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v does not match %v", err, context.Canceled)
	}
	if denied := (*guard.DeniedError)(nil); errors.As(err, &denied) {
		return denied
	}
	return err
}

func TestStoppedByAGuardThatIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, newAuthority())
		r := launch(t.Context(), g, "d")
		<-r.began
		_ = g.Close()
		_ = r.finish()
		err := wantCanceled(t, guard.Stopped(r.ctx))
		if !errors.Is(err, guard.ErrClosed) || errors.Is(err, guard.ErrDenied) {
			t.Errorf("stopped by %v, want %v", err, guard.ErrClosed)
		}
	})
}

// A context that the caller has ended was not stopped, whatever he has ended it with. The device may be
// denied afterwards: the run goes on until its function returns, and is stopped then.
func TestStoppedAfterTheCallersEnd(t *testing.T) {
	for name, cause := range endings() {
		bubble(t, name, func(t *testing.T) {
			a := newAuthority()
			g := newGuard(t, a)
			caller, leave := context.WithCancelCause(t.Context())
			release := make(chan struct{})
			r := launchFunc(caller, g, "d", func(context.Context) error {
				<-release
				return nil
			})
			<-r.began
			leave(cause)
			synctest.Wait()
			notStopped(t, r.ctx, "the caller has gone")
			a.deny(guard.CodeDeviceRevoked)
			learn(t, g, "d")
			wantDenied(t, wantDenialItself(t, guard.Stopped(r.ctx)), "d", guard.CodeDeviceRevoked, true)
			close(release)
			wantDenied(t, r.finish(), "d", guard.CodeDeviceRevoked, true)
		})
	}
}

// What Run has returned elsewhere holds what the function there has returned, which may be the stop of that run.
func TestStoppedAfterTheEndOfSomebodyElsesRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newAuthority(), newAuthority()
		g, elsewhere := newGuard(t, a), newGuard(t, b)
		other := launchFunc(t.Context(), elsewhere, "e", func(ctx context.Context) error {
			<-ctx.Done()
			return context.Cause(ctx)
		})
		caller, leave := context.WithCancelCause(t.Context())
		release := make(chan struct{})
		r := launchFunc(caller, g, "d", func(context.Context) error {
			<-release
			return nil
		})
		synctest.Wait()
		b.deny(guard.CodeDeviceRevoked)
		learn(t, elsewhere, "e")
		leave(other.finish())
		notStopped(t, r.ctx, "the caller has gone")
		a.deny(guard.CodePlanFrozen)
		learn(t, g, "d")
		wantDenied(t, wantDenialItself(t, guard.Stopped(r.ctx)), "d", guard.CodePlanFrozen, true)
		close(release)
		_ = r.finish()
	})
}

func wantDenialItself(t *testing.T, err error) error {
	t.Helper()
	if err == nil {
		t.Fatal("the device was denied afterwards, and the run was not stopped")
	}
	return err
}

// The stop of a run is one of all that are in it, also after the context between the two has ended.
func TestStoppedInNestedRuns(t *testing.T) {
	for name, left := range map[string]bool{"by the outer's stop": false, "after the inner's context had ended": true} {
		for cause, why := range endings() {
			bubble(t, name+", "+cause, func(t *testing.T) {
				outer := newAuthority()
				g, within := newGuard(t, outer), newGuard(t, newAuthority())
				between, leave := context.WithCancelCause(t.Context())
				var r *running
				around := launchFunc(t.Context(), g, "d", func(ctx context.Context) error {
					between, leave = context.WithCancelCause(ctx)
					r = launchFunc(between, within, "e", func(context.Context) error {
						<-ctx.Done()
						time.Sleep(time.Second)
						return nil
					})
					return r.finish()
				})
				synctest.Wait()
				if left {
					leave(why)
					notStopped(t, r.ctx, "the context between has ended")
				}
				outer.deny(guard.CodeDeviceRevoked)
				learn(t, g, "d")
				denied := wantDenial(t, guard.Stopped(r.ctx), "d", guard.CodeDeviceRevoked)
				if !denied.InFlight || around.returned() {
					t.Errorf("stopped by %v", denied)
				}
				leave(nil)
				_ = around.finish()
				if !left { // the context's cause is the stop, which is still to be had
					wantDenial(t, wantCanceled(t, guard.Stopped(r.ctx)), "d", guard.CodeDeviceRevoked)
				}
			})
		}
	}
}

// The inner one's own stop comes first.
func TestStoppedInNestedRunsByTheInnersGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := newAuthority()
		g, within := newGuard(t, newAuthority()), newGuard(t, inner)
		var r *running
		around := launchFunc(t.Context(), g, "d", func(ctx context.Context) error {
			r = launch(ctx, within, "e")
			return r.finish()
		})
		synctest.Wait()
		inner.deny(guard.CodeDeviceRevoked)
		learn(t, within, "e")
		wantDenied(t, wantCanceled(t, guard.Stopped(r.ctx)), "e", guard.CodeDeviceRevoked, true)
		notStopped(t, around.ctx, "the outer run")
		_ = around.finish()
	})
}

// A run that is over was not stopped, whatever becomes of its device.
func TestStoppedInARunThatIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		r := launchFunc(t.Context(), g, "d", func(context.Context) error { return nil })
		if err := r.finish(); err != nil || r.ctx.Err() == nil {
			t.Fatalf("Run: %v, its context: %v", err, r.ctx.Err())
		}
		notStopped(t, r.ctx, "over")
		a.deny(guard.CodeDeviceRevoked)
		learn(t, g, "d")
		notStopped(t, r.ctx, "denied afterwards")
		_ = g.Close()
		notStopped(t, r.ctx, "closed afterwards")
	})
}
