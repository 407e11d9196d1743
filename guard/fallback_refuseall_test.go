package guard_test

import (
	"fmt"
	"testing"

	"github.com/execguard/execguard/guard"
)

// A second denial of the whole organisation holds for those too who were freed long ago after the first.
func TestASecondDenialOfAllHoldsForThoseFreedLongAgo(t *testing.T) {
	w := newTwin()
	w.online.deny(guard.CodeOrgDisabled)
	w.wantOnline(t, "dev", guard.CodeOrgDisabled)
	w.online.allow()
	w.wantOnline(t, "long-ago", guard.CodeAllow)
	for i := range 10_000 { // fills freed, so that long-ago is among the older
		_, _ = w.Validate(t.Context(), fmt.Sprintf("device-%d", i))
	}
	w.online.deny(guard.CodeOrgDisabled)
	w.wantOnline(t, "dev", guard.CodeOrgDisabled)
	w.unplug()
	w.wantNeither(t, "long-ago", "ORG_DISABLED")
}
