package guard_test

import (
	"errors"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// The organisation's denial goes before a failure to ask, also on the device
// that it was learnt from.
func TestTheOrganisationsDenialGoesBeforeAFailureToAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		a.deny(guard.CodeOrgDisabled)
		keep(t.Context(), g, "d")
		synctest.Wait()
		a.fail(errors.New("connection refused"))
		time.Sleep(2 * g.Interval())
		if h := g.Health(); !maps.Equal(h.Refused, map[guard.Code]int{guard.CodeOrgDisabled: 1}) || h.Authority.Answering {
			t.Errorf("%+v", h)
		}
	})
}
