package cronwrap

import (
	"cmp"
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/robfig/cron/v3"
)

// SkipIfStillRunning is cron's wrapper of that name, but one whose job can run again after a panic, or after
// runtime.Goexit: cron v3.0.1 keeps its token then, and never runs the job again. As with cron's own, skips
// are logged to logger at Info, each entry is on its own, and the wrapper belongs inside of cron.Recover.
// A job of this package stays one in it, and its name (WithName), if it has one, is logged under the key «job».
// SkipIfStillRunning panics if logger is nil, and the wrapper if the job is.
func SkipIfStillRunning(logger cron.Logger) cron.JobWrapper {
	if isNil(logger) {
		mistake("SkipIfStillRunning: the Logger is nil")
	}
	return func(j cron.Job) cron.Job {
		if isNil(j) {
			mistake("SkipIfStillRunning: the cron.Job is nil")
		}
		if ours, ok := j.(guarded); ok {
			lend := func(at time.Time) { ours.each(func(j *job) { j.lend(at) }) }
			return &guardedSkip{skip{run: ours.runIn, lend: lend, logger: logger, name: nameOf(ours)}, ours}
		}
		return &skip{run: func(context.Context, tick) { j.Run() }, logger: logger}
	}
}

// nameOf is the name of the job, or of the first inside of it that has one.
func nameOf(ours guarded) (name string) {
	ours.each(func(j *job) { name = cmp.Or(name, j.name) })
	return name
}

type skip struct {
	run    func(outer context.Context, as tick)
	lend   func(at time.Time) // of a tick that is skipped, to the run that waits to be caught up; nil: there is none
	logger cron.Logger
	name   string // of a job of this package; empty: none
	busy   atomic.Bool
}

// Run runs the job, if it does not run already.
func (s *skip) Run() { s.runIn(context.Background(), tick{}) }

func (s *skip) runIn(outer context.Context, as tick) {
	if !s.busy.CompareAndSwap(false, true) {
		if s.lend != nil {
			s.lend(as.at)
		}
		s.skipped()
		return
	}
	defer s.busy.Store(false)
	s.run(outer, as)
}

func (s *skip) skipped() {
	if s.name == "" {
		s.logger.Info("skip")
		return
	}
	s.logger.Info("skip", "job", s.name)
}

// guardedSkip is skip around a job of this package.
type guardedSkip struct {
	skip

	job guarded
}

func (s *guardedSkip) each(f func(j *job)) { s.job.each(f) }

// String is the job's.
func (s *guardedSkip) String() string { return fmt.Sprint(s.job) }

// GoString is String, for %#v.
func (s *guardedSkip) GoString() string { return s.String() }
