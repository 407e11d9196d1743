package guard_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/execguard/execguard/guard"
)

// The caller's context is ended with the very cause of somebody else's run: this one is live for all that, until
// its own device is denied.
func TestStoppedAfterTheCauseOfAnotherRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newAuthority(), newAuthority()
		g, elsewhere := newGuard(t, a), newGuard(t, b)
		other := launch(t.Context(), elsewhere, "e")
		caller, leave := context.WithCancelCause(t.Context())
		release := make(chan struct{})
		r := launchFunc(caller, g, "d", func(context.Context) error { <-release; return nil })
		synctest.Wait()
		b.deny(guard.CodeDeviceRevoked)
		_, _ = elsewhere.Validate(t.Context(), "e")
		_ = other.finish()
		leave(context.Cause(other.ctx))
		synctest.Wait()
		if err := guard.Stopped(r.ctx); err != nil {
			t.Errorf("live, and stopped: %v", err)
		}
		a.deny(guard.CodePlanFrozen)
		_, _ = g.Validate(context.Background(), "d")
		synctest.Wait()
		wantDenial(t, guard.Stopped(r.ctx), "d", guard.CodePlanFrozen)
		close(release)
		wantDenial(t, r.finish(), "d", guard.CodePlanFrozen)
	})
}
