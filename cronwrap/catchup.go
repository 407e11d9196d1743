package cronwrap

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/execguard/execguard/guard"
)

// A tick that is to be caught up waits where cron has started it, on its own goroutine: so
// SkipIfStillRunning and cron's Stop see that there is a run. It is the job's holder then, and there is
// only one: what is missed meanwhile only lends it its time.

// postponed tells whether the tick goes without a run of its own, because one is waiting to be caught up.
func (a *attempt) postponed() bool {
	if !a.job.held() || !a.byCron() { // in that order: to know who has called costs more
		return false
	}
	if !a.job.lend(a.at) {
		return false
	}
	a.ctx = a.job.base
	a.log(slog.LevelWarn, "cronwrap: skipped: a missed run is waiting for the device")
	return true
}

func (j *job) held() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.holder != nil
}

// lend leaves a tick's time to the holder, if there is one.
func (j *job) lend(at time.Time) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.holder != nil {
		j.missed = later(j.missed, at)
	}
	return j.holder != nil
}

// hold makes the attempt the holder; false: there is one.
func (a *attempt) hold() bool {
	j := a.job
	j.mu.Lock()
	defer j.mu.Unlock()
	j.missed = later(j.missed, a.at)
	if j.holder != nil && j.holder != a {
		return false
	}
	j.holder = a
	return true
}

// resume is call for the holder: it takes the time of the latest tick that it stands for, and from here on
// ticks are on their own again.
func (a *attempt) resume(ctx context.Context) error {
	if a.called {
		return errAgain
	}
	at := a.job.release()
	if a.entry != nil { // ticks that were skipped before they came here
		at = later(at, a.entry.times.last())
	}
	if at.After(a.at) {
		a.at = at
		ctx = scheduled.With(ctx, at)
	}
	a.log(slog.LevelInfo, "cronwrap: allowed again: catching up")
	return a.call(ctx)
}

// release ends the holding, and returns the time of the latest tick that was missed.
func (j *job) release() time.Time {
	j.mu.Lock()
	defer j.mu.Unlock()
	at := j.missed
	j.holder, j.missed = nil, time.Time{}
	return at
}

// askLater is ask for an attempt that was refused with d: it waits until the device is allowed.
func (a *attempt) askLater(d guard.Decision) error {
	a.sleep(a.job.pause(d, a.called))
	a.called, a.work = false, nil
	switch {
	case a.ctx.Err() != nil:
		return context.Cause(a.ctx)
	case a.job.exact != nil:
		return a.keep(a.job.exact)
	default:
		return a.job.runner.Run(a.ctx, a.job.device, a.resume)
	}
}

// errKept ends a Keep whose function has been called: to wait once more is run's affair.
var errKept = errors.New("cronwrap: caught up")

// keep is Run by way of Keep, which waits with others of the same device, and hears hints. It returns what Run would.
func (a *attempt) keep(g *guard.Guard) error {
	ctx, cancel := context.WithCancelCause(a.ctx)
	defer cancel(nil)
	var within context.Context
	err := g.Keep(ctx, a.job.device, func(ctx context.Context) error {
		defer cancel(errKept)
		within = ctx //nolint:fatcontext // it is looked at when the run is over
		return a.resume(ctx)
	})
	denied := (*guard.DeniedError)(nil)
	if within != nil && errors.As(guard.Checkpoint(within), &denied) {
		return &cutError{denied, a.work} // which Keep has only stopped to wait out
	}
	return err
}

// cutError is what Run would have returned of a run that was stopped. It is an error of its own, because most functions
// return what Checkpoint told them, and that is the very denial.
type cutError struct{ stop, work error }

func (e *cutError) Error() string {
	if e.work == nil || errors.Is(e.work, context.Canceled) || e.work.Error() == e.stop.Error() {
		return e.stop.Error()
	}
	return e.stop.Error() + "; the function returned: " + e.work.Error()
}

func (e *cutError) Unwrap() error { return e.stop }

// pause is how long to wait after d before the next question. A Keep waits by itself, but asks at once: not before the
// authority's RetryAfter, nor where a permission has run out, which may be a matter of milliseconds each time.
func (j *job) pause(d guard.Decision, ran bool) time.Duration {
	wait := min(max(d.RetryAfter, 0), longest)
	if j.exact == nil {
		return max(wait, j.interval) + rand.N(j.interval/2+1)
	}
	if wait > 0 || ran && d.Code == guard.CodeSystemUnavailable {
		wait += rand.N(j.interval)
	}
	return wait
}

// longest is the most that is made of an authority's RetryAfter, as the guard does.
const longest = 24 * time.Hour

// sleep waits for d, or until the attempt's context has ended.
func (a *attempt) sleep(d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-a.ctx.Done():
	}
}
