package cronwrap

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/robfig/cron/v3"
)

var (
	errNoCron = errors.New("cronwrap: the Cron is nil")
	errNoJob  = errors.New("cronwrap: the cron.Job is nil")
	// errRemoved is for somebody who removes whatever there is.
	errRemoved = errors.New("cronwrap: the entry was removed while it was being added")
)

// Add is c.AddJob, and tells a job of this package the times that its ticks were scheduled for (Scheduled), which
// cron keeps to itself. Other jobs it adds as they are. Where spec does not parse, nothing is added, and the error is c's own.
//
// The time belongs to the goroutine that cron starts for a tick. A wrapper in c's chain that runs the job on a goroutine
// of its own hides it. A slow wrapper outside of the job, such as cron.DelayIfStillRunning, or New with an authority that
// takes long to answer, can shift it: of the runs that were held back past the next tick, one has the time of the
// latest tick, and the others may have none.
//
// A job may be added more than once, with times of each entry's own; what is caught up (WithCatchUp) is caught
// up once for all of them.
//
// To have spec parsed as c parses it, Add adds a probe that does nothing, and removes it again: that takes an id, c's
// chain wraps the probe too, and c's log shows it added and removed. A parser of your own whose schedules have a
// state, such as an «@once», is therefore not for Add.
func Add(c *cron.Cron, spec string, j cron.Job) (cron.EntryID, error) {
	switch {
	case c == nil:
		return 0, errNoCron
	case isNil(j):
		return 0, errNoJob
	}
	if e, ok := j.(*entry); ok {
		j = e.job // of another Add
	}
	ours, ok := j.(guarded)
	if !ok {
		return c.AddJob(spec, j)
	}
	// The parser is c's own, and so is the field: only an entry shows what it has made of spec.
	id, err := c.AddJob(spec, probe{})
	if err != nil {
		return 0, err
	}
	schedule := c.Entry(id).Schedule
	c.Remove(id)
	if schedule == nil {
		return 0, errRemoved
	}
	e := &entry{job: ours, times: &times{schedule: schedule}}
	return c.Schedule(e.times, e), nil
}

// probe is submitted to have a spec parsed. It does nothing, if a tick should come in between.
type probe struct{}

func (probe) Run() {}

// entry is a job as Add submits it.
type entry struct {
	job   guarded
	times *times
}

// Run runs the job as the entry's.
func (e *entry) Run() { e.runIn(context.Background(), tick{}) }

// runIn finds out for which tick it is before anything else: the way up the stack is shortest here.
func (e *entry) runIn(outer context.Context, as tick) {
	if as.entry == nil { // else it is an entry's that was added with this one inside
		as.entry = e
		if now := time.Now(); e.times.due(now) && as.byCron() {
			as.at = e.times.take(now)
		}
	}
	e.job.runIn(outer, as)
}

func (e *entry) each(f func(j *job)) { e.job.each(f) }

// String is the job's.
func (e *entry) String() string { return fmt.Sprint(e.job) }

// GoString is String, for %#v.
func (e *entry) GoString() string { return e.String() }

// times is an entry's schedule, which notes what cron is told.
type times struct {
	schedule cron.Schedule

	mu       sync.Mutex
	fired    time.Time // the last tick that cron has started, and whose time nobody has; else zero
	upcoming time.Time // the next; zero: somebody has it already, or there is none
}

// Next is the schedule's. Cron asks for the next time when it has started a tick, and when it starts.
func (t *times) Next(after time.Time) time.Time {
	next := t.schedule.Next(after)
	if !calledByCron() {
		return next // somebody who wants to see the times to come
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.upcoming.IsZero() && !t.upcoming.After(after) {
		t.fired = t.upcoming
	}
	t.upcoming = next
	return next
}

// due tells whether there is a time to hand out.
func (t *times) due(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.fired.IsZero() || !t.upcoming.IsZero() && !t.upcoming.After(now)
}

// take hands out the time of the last tick that was due, each once. The tick may be here before cron
// asks for the next time, or after.
func (t *times) take(now time.Time) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := &t.fired
	if !t.upcoming.IsZero() && !t.upcoming.After(now) {
		at = &t.upcoming
	}
	taken := at.Round(0) // without the monotonic clock, so that == is equality
	*at = time.Time{}
	return taken
}

// last is the time of the last tick that cron has started, if nobody has it. It is left there: the tick may be on its way.
func (t *times) last() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.fired.Round(0)
}

// String is the schedule's.
func (t *times) String() string { return fmt.Sprint(t.schedule) }

// GoString is String, for %#v.
func (t *times) GoString() string { return t.String() }
