package cronwrap

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// errStopped is what the contexts of jobs end with at Stop. It matches context.Canceled, as causes should:
// net/http hands them on, and callers everywhere test for that.
var errStopped = fmt.Errorf("cronwrap: the Cron was stopped: %w", context.Canceled)

// Stop stops c, cancels the runs of the jobs of this package that are in it, runs by hand and those that wait to be caught
// up included, and waits until every run has ended; then it returns nil. When ctx ends first it returns an
// error that wraps the cause of ctx and names the jobs that still run, by WithName or else by their entry.
// c can be started again afterwards. Do not call Stop from a job of c: it would wait for itself.
//
// ctx is how long Stop may wait. The context of the signal that ends the program will not do, as it has ended by
// then; context.WithTimeout(context.Background(), …) will.
//
// Runs that begin while Stop waits are skipped. If Stop had to leave a run behind, ticks that
// cron.DelayIfStillRunning keeps behind it may come after Stop, as after cron's own.
//
// Stop finds the jobs that were added, and those that New has made in c's chain where all wrappers outside of it are of this
// package. It does not cancel a job that New has made inside of another wrapper, such as cron.Recover, nor one whose
// entry was removed: only the end of WithContext's context does that. Nor does it know of another Cron that the same
// job is in: the runs there are cancelled too.
func Stop(ctx context.Context, c *cron.Cron) error {
	if c == nil {
		return errNoCron
	}
	stopped := c.Stop() // and only then are the runs cancelled, so that no tick comes between
	jobs := find(c)
	ended := []<-chan struct{}{stopped.Done()}
	for _, f := range jobs {
		ended = append(ended, f.job.halt())
	}
	if ctx.Err() != nil { // cron says that nothing runs on a goroutine of its own, a little later
		wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		_ = await(wait, ended)
		cancel()
	}
	err := await(ctx, ended)
	if err != nil {
		err = fmt.Errorf("cronwrap: still running: %s: %w", stillRunning(jobs), err)
	}
	for _, f := range jobs {
		f.job.unhalt()
	}
	return err
}

// grace is what a Stop waits whose context is over already: so it can tell that nothing runs.
const grace = 10 * time.Millisecond

// await waits for all of them, or for the end of ctx, whose cause it returns.
func await(ctx context.Context, all []<-chan struct{}) error {
	for _, done := range all {
		select {
		case <-done:
			continue
		default: // and only then ctx: what has ended has ended, however late it is
		}
		select {
		case <-done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// found is a job of ours in a Cron.
type found struct {
	job   *job
	label string
}

// find returns the jobs of ours in c, each once.
func find(c *cron.Cron) []found {
	var jobs []found
	known := map[*job]bool{}
	for _, e := range c.Entries() {
		for _, part := range []cron.Job{e.WrappedJob, e.Job} {
			ours, ok := part.(guarded)
			if !ok {
				continue
			}
			ours.each(func(j *job) {
				if !known[j] {
					known[j] = true
					jobs = append(jobs, found{j, j.label(e.ID)})
				}
			})
		}
	}
	return jobs
}

func (j *job) label(id cron.EntryID) string {
	if j.name != "" {
		return strconv.Quote(j.name)
	}
	return "entry " + strconv.Itoa(int(id))
}

// stillRunning names the jobs that run.
func stillRunning(jobs []found) string {
	var names []string
	for _, f := range jobs {
		if f.job.running() && !slices.Contains(names, f.label) {
			names = append(names, f.label)
		}
	}
	if names == nil {
		return "a job that Stop cannot cancel"
	}
	return strings.Join(names, ", ")
}

func (j *job) running() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.runs > 0
}

// halt cancels the runs of the job, and every run that begins before unhalt. The channel is closed when none is left.
func (j *job) halt() <-chan struct{} {
	idle, cancel := j.halting()
	cancel(errStopped) // without the lock: it ends contexts of anybody's
	return idle
}

func (j *job) halting() (<-chan struct{}, context.CancelCauseFunc) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.halts++
	j.current()
	if j.idle == nil {
		j.idle = make(chan struct{})
	}
	idle := j.idle
	if j.runs == 0 {
		close(j.idle)
		j.idle = nil
	}
	return idle, j.cancel
}

// unhalt is the end of a Stop. After the last one, runs begin with a context of their own again.
func (j *job) unhalt() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.halts--; j.halts == 0 {
		j.epoch, j.cancel = nil, nil
	}
}
