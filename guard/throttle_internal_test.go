package guard

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func refusedAs(device string, code Code) *Event {
	return &Event{Kind: EventRefused, DeviceID: device, Decision: Decision{Code: code}}
}

// Strangers' ids cannot fill the memory, however many and however long they are. Of those that it has no room for, none
// is held back.
func TestThrottle_IsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		throttle := newThrottle()
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		long := strings.Repeat("x", 1000)
		for round := range 2 {
			for i := range rememberedAnHour + 1000 {
				pass, _ := throttle.pass(refusedAs(fmt.Sprint(i, long), Code(fmt.Sprint("STRANGE", i))), true)
				if want := round == 0 || i >= rememberedAnHour; pass != want {
					t.Fatalf("round %d, device %d: logged %v", round, i, pass)
				}
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 8<<20 {
			t.Errorf("it has grown by %d bytes", grown)
		}
		if len(throttle.refused) != rememberedAnHour || len(throttle.held) != 1 || throttle.held[CodeOther] != rememberedAnHour {
			t.Errorf("%d devices, held back %v", len(throttle.refused), throttle.held)
		}
	})
}

// When all is told and nobody is refused any more, nothing is kept, and an event costs no look at the clock.
func TestThrottle_ForgetsWhenItIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		throttle := newThrottle()
		for range 30 {
			throttle.pass(refusedAs("d", CodeSystemUnavailable), true)
			throttle.pass(refusedAs("d", CodeDeviceRevoked), true)
		}
		started := &Event{Kind: EventStarted, DeviceID: "d"}
		time.Sleep(time.Minute - 1)
		if _, told := throttle.pass(started, false); len(told) != 0 {
			t.Errorf("told %v within the minute", told)
		}
		if len(throttle.refused) != 0 {
			t.Error("the device was allowed, and its refusedAs is remembered")
		}
		time.Sleep(1)
		if _, told := throttle.pass(started, false); fmt.Sprint(told) != "[{DEVICE_REVOKED 29} {SYSTEM_UNAVAILABLE 20}]" {
			t.Errorf("told %v", told)
		}
		time.Sleep(time.Hour)
		if _, told := throttle.pass(started, false); len(told) != 0 {
			t.Errorf("told %v again", told)
		}
		if throttle.minute != (time.Time{}) || throttle.hour != (time.Time{}) || throttle.held != nil || throttle.logged != nil || throttle.refused != nil {
			t.Errorf("kept %+v", throttle)
		}
	})
}
