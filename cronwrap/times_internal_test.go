package cronwrap

import (
	"strings"
	"testing"
	"time"
)

// What Scheduled returns has no reading of the monotonic clock, with which == is not equality. The times of
// «@every» have one outside of a bubble.
func TestTimesAreWithoutTheMonotonicClock(t *testing.T) {
	fired := time.Now()
	if !strings.Contains(fired.String(), "m=") {
		t.Fatalf("%v has none anyway", fired)
	}
	for _, e := range []*times{{fired: fired}, {upcoming: fired}} {
		if at := e.take(time.Now()); !at.Equal(fired) || strings.Contains(at.String(), "m=") {
			t.Errorf("took %v, want %v without the end", at, fired)
		}
		if at := e.take(time.Now()); !at.IsZero() {
			t.Errorf("took %v twice", at)
		}
	}
}

// Only a goroutine of cron's is one of cron's: this is none.
func TestWhoHasCalled(t *testing.T) {
	if startedByCron() || calledByCron() {
		t.Error("this test was started by cron")
	}
	for name, want := range map[string]bool{
		"github.com/robfig/cron/v3.(*Cron).startJob.func1":             true,
		"github.com/robfig/cron/v3.(*Cron).run.(*Cron).startJob.func1": true, // were it inlined
		"github.com/robfig/cron/v3.(*Cron).run":                        false,
		"github.com/robfig/cron.(*Cron).startJob.func1":                false,
		"main.startJob.func1":                                          false,
	} {
		if got := isStartJob(name); got != want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
