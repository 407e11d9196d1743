package guard_test

import (
	"fmt"
	"testing"

	"github.com/execguard/execguard/guard"
)

// Strangers' ids cannot fill the memory: beyond ten thousand, every device is latched until it is
// allowed itself, and whoever was refused stays so.
func TestFallback_L4_TheMemoryIsBounded(t *testing.T) {
	const bound = 10_000
	w := newTwin()
	stranger := func(i int) string { return fmt.Sprintf("stranger-%d", i) }
	w.online.deny(guard.CodeDeviceNotFound)
	for i := range bound {
		_, _ = w.Validate(t.Context(), stranger(i))
	}
	_, _ = w.Validate(t.Context(), stranger(0)) // is known, and costs nothing new
	w.unplug()
	w.wantFile(t, "dev")
	w.online.deny(guard.CodeDeviceNotFound)
	w.wantOnline(t, stranger(bound), guard.CodeDeviceNotFound)
	w.unplug()
	for _, id := range []string{"dev", stranger(0), stranger(bound / 2), stranger(bound), "unheard"} {
		w.wantNeither(t, id, "more devices than are remembered")
	}
	w.online.allow()
	w.wantOnline(t, "dev", guard.CodeAllow)
	w.unplug()
	w.wantFile(t, "dev")
	w.wantNeither(t, stranger(0))
}

// What was freed is bounded too. A device that is allowed again and again stays free, one that has
// not been for long is latched again.
func TestFallback_L4_TheFreedAreBounded(t *testing.T) {
	const bound = 10_000
	w := newTwin()
	w.online.deny(guard.CodeOrgDisabled)
	w.wantOnline(t, "dev", guard.CodeOrgDisabled)
	w.online.allow()
	w.wantOnline(t, "once", guard.CodeAllow)
	for i := range 3 * bound {
		_, _ = w.Validate(t.Context(), fmt.Sprintf("device-%d", i))
		if i%(bound/2) == 0 {
			_, _ = w.Validate(t.Context(), "steady")
		}
	}
	w.unplug()
	w.wantFile(t, "steady")
	w.wantFile(t, fmt.Sprintf("device-%d", 3*bound-1))
	w.wantFile(t, fmt.Sprintf("device-%d", 2*bound))
	w.wantNeither(t, "once", "ORG_DISABLED")
	w.wantNeither(t, "device-0", "ORG_DISABLED")
}
