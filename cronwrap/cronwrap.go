package cronwrap

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/execguard/execguard/guard"
)

// New returns a wrapper that runs a plain cron.Job only when the device may execute. That is all that can
// be done for one: it has no context, so nothing stops it once it runs, and it goes on to its end
// when the device is denied meanwhile, which is logged. Job makes one that can be stopped.
//
// A job of this package that New wraps directly, or around SkipIfStillRunning, is stopped by both its
// guards. A panic of the plain job goes on unwinding, to cron.Recover, if that is outside of this; the
// guard has let go of it by then. New panics if r or an option is nil, and the wrapper if the job is.
//
// In cron's chain New belongs after everything else, so that ticks which are skipped anyway ask nobody; but
// Entry.Job.Run goes round the chain, and so round New. Job is guarded there too. Where a wrapper that is not of this
// package, such as cron.Recover, is outside of New, Stop cannot find the job: give New a WithContext, and end that
// context before Stop.
func New(r guard.Runner, deviceID string, opts ...Option) cron.JobWrapper {
	c := newConfig("New", r, deviceID, opts)
	return func(plain cron.Job) cron.Job {
		if isNil(plain) {
			mistake("New: the cron.Job is nil")
		}
		if _, ok := plain.(probe); ok {
			return plain // which Add submits only to have its spec read
		}
		return &job{config: c, fn: startOf(plain), plain: plain}
	}
}

// startOf makes a function of a job that may know no context.
func startOf(plain cron.Job) func(ctx context.Context) error {
	if ours, ok := plain.(guarded); ok {
		return func(ctx context.Context) error {
			ours.runIn(ctx, tick{})
			return nil
		}
	}
	return func(context.Context) error {
		plain.Run()
		return nil
	}
}

// Job makes a cron.Job of a function with a context and an error. It runs when the device may execute, and its
// context ends when the device no longer may, with the denial as its cause, or when Stop is called. It is
// guarded on every path: as a tick, by Entry.WrappedJob.Run, by Entry.Job.Run, and when Run is called on it.
//
// An error goes to WithErrorHandler, or is logged. A denial is no error of the job's: it is logged as a warning
// with the code and the request id, and the tick is skipped, or caught up (WithCatchUp). A panic is caught,
// logged with its stack, and is an error like any other. Job panics if r, fn or an option is nil.
func Job(r guard.Runner, deviceID string, fn func(ctx context.Context) error, opts ...Option) cron.Job {
	if fn == nil {
		mistake("Job: the function is nil")
	}
	return &job{config: newConfig("Job", r, deviceID, opts), fn: fn}
}

// guarded is a job of this package. Each of them hands on what cron.Job has no place for.
type guarded interface {
	cron.Job
	// runIn is Run inside of another run, whose context is outer; context.Background(): there is none. What is known
	// of the tick already is in as.
	runIn(outer context.Context, as tick)
	// each calls f for the jobs that this is made of.
	each(f func(j *job))
}

// job is what Job and New make.
type job struct {
	config
	fn    func(ctx context.Context) error
	plain cron.Job // what New has wrapped; nil: it was made by Job

	mu     sync.Mutex
	epoch  context.Context         //nolint:containedctx // of all runs until the next Stop; if tied, until the last ends; nil: not made yet
	cancel context.CancelCauseFunc // of the epoch
	halts  int                     // Stops that go on
	runs   int                     // that go on, waiting ones included
	spare  *attempt                // one that is over, kept for the next run, which would allocate two objects without it
	idle   chan struct{}           // closed when there is none; nil: nobody waits for that
	holder *attempt                // the one that waits to be caught up
	missed time.Time               // the latest tick that it stands for, where that is known
}

// Run runs the job if the device may execute.
func (j *job) Run() { j.runIn(context.Background(), tick{}) }

func (j *job) runIn(outer context.Context, as tick) {
	a, epoch := j.enter()
	defer a.end()
	a.tick = as
	if outer != context.Background() && a.at.IsZero() {
		a.at, _ = Scheduled(outer) // of the tick that the outer run is
	}
	if j.catchUp && a.postponed() {
		return
	}
	if outer != context.Background() {
		within, cancel := j.nest(outer, epoch)
		defer cancel()
		epoch = within
	}
	a.run(epoch)
}

func (j *job) each(f func(j *job)) {
	f(j)
	if inner, ok := j.plain.(guarded); ok {
		inner.each(f)
	}
}

// enter counts a run, and returns the context that it begins with.
func (j *job) enter() (*attempt, context.Context) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.runs++
	a := j.spare
	if j.spare = nil; a == nil {
		a = &attempt{job: j}
		a.fn = a.call
	}
	return a, j.current()
}

// leave is the end of a run. An idle job lets go of its place in WithContext's context.
func (j *job) leave(a *attempt) {
	if cancel := j.left(a); cancel != nil {
		cancel(nil)
	}
}

// left returns what ends the epoch, if that is to end.
func (j *job) left(a *attempt) (cancel context.CancelCauseFunc) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.holder == a {
		j.holder, j.missed = nil, time.Time{}
	}
	if a.over && j.exact != nil { // a Runner of somebody's might still call its function
		a.over, a.called, a.waited, a.work = false, false, false, nil // the rest is set before it is read
		j.spare = a
	}
	if j.runs--; j.runs > 0 {
		return nil
	}
	if j.idle != nil {
		close(j.idle)
		j.idle = nil
	}
	if j.tied && j.halts == 0 { // else the epoch is a Stop's
		cancel, j.epoch, j.cancel = j.cancel, nil, nil
	}
	return cancel
}

// current returns the context of the epoch. A context for each run would cost more than the guard; only where base can end
// it is worth that, lest jobs that come and go pile up there. The caller holds mu.
func (j *job) current() context.Context {
	if j.epoch == nil {
		j.epoch, j.cancel = context.WithCancelCause(j.base)
	}
	return j.epoch
}

// String keeps fmt from looking into the job.
func (j *job) String() string {
	what := "cronwrap.Job"
	if j.plain != nil {
		what = "cronwrap.New"
	}
	if j.name != "" {
		what += "(" + strconv.Quote(j.name) + ")"
	}
	return what
}

// GoString is String, for %#v.
func (j *job) GoString() string { return j.String() }
