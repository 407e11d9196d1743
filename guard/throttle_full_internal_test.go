package guard

import (
	"fmt"
	"testing"
	"testing/synctest"
)

// Also where there is no room for more devices, one that is remembered is logged again when its code is another.
func TestThrottleIsFullAndTheCodeChangesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		throttle := newThrottle()
		for i := range rememberedAnHour {
			throttle.pass(refusedAs(fmt.Sprint(i), CodeDeviceRevoked), true)
		}
		for _, code := range []Code{CodeDeviceNotFound, CodeDeviceRevoked} {
			if pass, _ := throttle.pass(refusedAs("0", code), true); !pass {
				t.Errorf("%s is held back, and is not what was logged before", code)
			}
		}
	})
}
