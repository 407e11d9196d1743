package cronwrap

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/execguard/execguard/guard"
)

// errNotRun is why nothing is known of a tick, where the Runner does not say so.
var errNotRun = errors.New("cronwrap: the Runner returned without an outcome of the job")

// lose makes known that the run was refused or stopped, and says whether it is to be caught up, and what the
// authority had decided then.
func (a *attempt) lose(err error) (d guard.Decision, again bool) {
	if p, ok := a.work.(*panicError); ok { //nolint:errorlint // ours, as it is
		a.reportPanic(p)
	}
	denied, catchUp := (*guard.DeniedError)(nil), a.job.catchUp
	switch {
	case errors.As(err, &denied):
		d = denied.Decision
	case errors.Is(err, guard.ErrClosed):
		a.log(slog.LevelWarn, a.lost("guard closed"), slog.String("error", err.Error()))
		return d, false
	case !a.called && a.ctx.Err() != nil:
		a.log(slog.LevelInfo, "cronwrap: skipped: its context has ended", slog.String("error", context.Cause(a.ctx).Error()))
		return d, false
	default:
		// Whatever the Runner may have meant, that is «could not ask».
		if err == nil {
			err = errNotRun
		}
		d = guard.Decision{Code: guard.CodeSystemUnavailable}
		catchUp = catchUp && !a.called // it may well have done its work: nobody says that it was stopped
	}
	catchUp = catchUp && (!a.called || a.job.stoppable()) // a plain job has run to its end, and missed nothing
	again = catchUp && d.Code != guard.CodeInvalidDeviceID && a.ctx.Err() == nil && a.byCron()
	if a.called || !a.waited || !again { // that who waits is refused once more is nothing new
		a.logDenial(d, err, again)
	}
	return d, again
}

// logDenial logs what the guard has refused or stopped.
func (a *attempt) logDenial(d guard.Decision, err error, again bool) {
	what := a.lost("denied")
	switch {
	case again && a.called:
		what += ", to be caught up"
	case again:
		what = "cronwrap: denied: to be caught up"
	}
	a.log(slog.LevelWarn, what, slog.String("code", string(d.Code)),
		slog.String("request_id", d.RequestID), slog.String("error", err.Error()))
}

// lost says what a denial, or the end of the guard, did to the run.
func (a *attempt) lost(why string) string {
	switch {
	case !a.called:
		return "cronwrap: " + why + ": skipped"
	case a.job.stoppable():
		return "cronwrap: " + why + " while it ran: stopped"
	default:
		return "cronwrap: " + why + " while it ran: a plain job cannot be stopped, and has run to its end"
	}
}

// stoppable tells whether the job has a context to obey.
func (j *job) stoppable() bool {
	_, ours := j.plain.(guarded)
	return ours || j.plain == nil
}

// failed hands on the job's own error.
func (a *attempt) failed(err error) {
	if p, ok := err.(*panicError); ok { //nolint:errorlint // ours, as it is
		a.reportPanic(p)
		return
	}
	cause := context.Cause(a.ctx)
	ended := cause != nil && (errors.Is(err, context.Canceled) || errors.Is(err, cause)) // Stop, or the end of what is outside
	denied := errors.Is(cause, guard.ErrDenied) || errors.Is(cause, guard.ErrClosed)     // of a run outside, which tells of it
	switch {
	case a.job.onError != nil && !(ended && denied):
		a.handOn(err)
	case ended:
		a.log(slog.LevelInfo, "cronwrap: ended with its context", slog.String("error", err.Error()))
	default:
		a.log(slog.LevelError, "cronwrap: failed", slog.String("error", err.Error()))
	}
}

// log writes one record about the attempt.
func (a *attempt) log(level slog.Level, what string, more ...slog.Attr) {
	l := a.job.logger
	if l == nil {
		l = slog.Default() //nolint:forbidigo // the default that WithLogger names; cron's own logs too, and a skipped tick must be seen
	}
	attrs := []slog.Attr{slog.String("device", a.job.device)}
	if a.job.name != "" {
		attrs = append(attrs, slog.String("job", a.job.name))
	}
	if !a.at.IsZero() {
		attrs = append(attrs, slog.Time("scheduled", a.at))
	}
	l.LogAttrs(a.ctx, level, what, append(attrs, more...)...)
}

// later is the later of two times of ticks.
func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
