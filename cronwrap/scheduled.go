package cronwrap

import (
	"context"
	"runtime"
	"strings"
	"time"

	"github.com/execguard/execguard/contextx"
)

// scheduled is where a context keeps the time of its tick.
var scheduled = contextx.NewKey[time.Time]("cronwrap.scheduled")

// Scheduled returns the time at which the tick was to be, in the Cron's location, and not the time at which it
// began: so it can serve as an idempotency key, and as the period that a report is about. A run that is caught up has
// the time of the latest tick that was missed. The second result is false outside of a job, in a job that was not added
// by Add, and in a run by hand.
//
// It is an instant: in the night in which clocks are set back, two ticks show the same time of day, and differ
// in their offset. Format it with the offset (time.RFC3339), or in UTC. With «@every» the times count from when
// the Cron was started, and so are not the same in two processes.
func Scheduled(ctx context.Context) (time.Time, bool) {
	at, _ := scheduled.From(ctx)
	return at, !at.IsZero()
}

// tick is what is known of a run.
type tick struct {
	entry  *entry    // of Add; nil: it is none of an entry's
	at     time.Time // when it was to be; zero: that is not known
	origin origin
}

// origin is who has called Run.
type origin int8

const (
	unknown origin = iota // and not asked for yet
	cronItself
	somebody
)

// byCron tells whether it was cron that has started the run, and not somebody by hand: Entry.Job, Entry.WrappedJob
// and the job itself are called in the same way by both. Nothing but the goroutine differs. Cron starts one for
// each tick, which the stack shows; to go by Schedule.Next alone would give the time of a tick that
// SkipIfStillRunning has skipped to the next run by hand.
func (t *tick) byCron() bool {
	if t.origin == unknown {
		t.origin = somebody
		if startedByCron() {
			t.origin = cronItself
		}
	}
	return t.origin == cronItself
}

const (
	cronPackage = "github.com/robfig/cron/v3.(*Cron)."
	deepest     = 1 << 14 // frames; a job that is called from deeper is called by hand
)

// startedByCron tells whether this goroutine is one that cron has started for a tick.
func startedByCron() bool {
	var pcs [24]uintptr
	for skip := 3; skip < deepest; skip += len(pcs) - 2 { // so that the last two are always found together
		n := runtime.Callers(skip, pcs[:])
		if n == len(pcs) {
			continue
		}
		for _, pc := range pcs[max(n-2, 0):n] { // the lowest is the runtime's own
			if f := runtime.FuncForPC(pc - 1); f != nil && isStartJob(f.Name()) {
				return true
			}
		}
		break
	}
	return false
}

func isStartJob(function string) bool {
	method, ok := strings.CutPrefix(function, cronPackage)
	return ok && strings.Contains(method, "startJob")
}

// calledByCron tells whether the caller's caller is the Cron's scheduler.
func calledByCron() bool {
	var pcs [1]uintptr
	if runtime.Callers(3, pcs[:]) == 0 {
		return false
	}
	f := runtime.FuncForPC(pcs[0] - 1)
	return f != nil && strings.HasPrefix(f.Name(), cronPackage)
}
