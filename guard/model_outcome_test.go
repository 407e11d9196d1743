package guard_test

import (
	"context"
	"errors"
	"slices"

	"github.com/execguard/execguard/guard"
)

// outcome holds what Run, Keep and Validate did to the table «What a run returns».
func (j *modelJudge) outcome(k *modelCaller) {
	switch {
	case !k.returned.came():
		j.sayf("table", "never returned: %v", k)
	case k.do == doValidate:
		j.validated(k)
	case len(k.runs) == 0:
		j.notStarted(k, k.err)
	default:
		if k.do == doRun && len(k.runs) > 1 {
			j.sayf("table, called once", "%d times: %v", len(k.runs), k)
		}
		j.again(k)
		j.over(k, k.runs[len(k.runs)-1])
	}
}

// notStarted holds an error to the record whose function was not called, or not called again.
func (j *modelJudge) notStarted(k *modelCaller, err error) {
	denied := (*guard.DeniedError)(nil)
	switch {
	case err == nil:
		j.sayf("table", "neither called nor refused: %v", k)
	case j.isCause(k, err):
	case errors.Is(err, guard.ErrClosed):
		if !j.closing.came() || j.closing.n > k.returned.n {
			j.sayf("S7", "closed before Close: %v", k)
		}
	case !errors.As(err, &denied):
		j.sayf("table", "no reason that the record knows: %v", k)
	case k.device == modelDevice(blankDevice):
		if denied.Decision.Code != guard.CodeInvalidDeviceID {
			j.sayf("S2", "a blank id: %v", k)
		}
	case k.do == doKeep && denied.Decision.Code != guard.CodeInvalidDeviceID:
		j.sayf("Keep", "it does not wait: %v", k)
	default:
		if denied.InFlight || errors.Is(err, context.Canceled) {
			j.sayf("table, denied before the start", "InFlight or Canceled: %v", k)
		}
		if why := j.unfounded(denied, k.device, k.called, k.returned, nil); why != "" {
			j.sayf("a start is refused for a reason", "%s: %v", why, k)
		}
	}
}

// isCause tells whether an error is the cause of the caller's context.
func (j *modelJudge) isCause(k *modelCaller, err error) bool {
	if o := k.outer; o != nil {
		outer := (*guard.DeniedError)(nil)
		if errors.As(o.left, &outer) {
			return errors.Is(err, outer) && !errors.Is(err, context.Canceled)
		}
		return o.left != nil && (err == o.left || errors.Is(o.left, err))
	}
	return k.cancelled.came() && k.cancelled.n < k.returned.n && err == k.reason
}

// validated holds Validate's answer to the record.
func (j *modelJudge) validated(k *modelCaller) {
	d, denied := k.decision, (*guard.DeniedError)(nil)
	switch {
	case d.Allowed:
		c := j.byID[d.RequestID]
		if k.err != nil || d.Code != guard.CodeAllow || c == nil || c.verdict() != modelAllow || c.device != k.device ||
			!c.answered() || c.sent.n < k.called.n || c.returned.n > k.returned.n {
			j.sayf("S1", "Validate allowed on %v: %v, %+v", c, k, d)
		}
		return
	case k.device == modelDevice(blankDevice) && k.err == nil:
		if d.Code != guard.CodeInvalidDeviceID {
			j.sayf("S2", "a blank id: %+v", d)
		}
	case k.err == nil:
		if why := j.unsaid(d, k.device, k.called, k.returned); why != "" {
			j.sayf("Validate is refused for a reason", "%s: %v, %+v", why, k, d)
		}
	default:
		j.notStarted(k, k.err)
	}
	if errors.As(k.err, &denied) != (k.err != nil && d.RequestID != "") && errors.As(k.err, &denied) && denied.Decision != d {
		j.sayf("Validate", "%+v beside %v", d, k.err)
	}
}

// again holds a Keep to calling its function again only where a denial had stopped it.
func (j *modelJudge) again(k *modelCaller) {
	for i, x := range k.runs {
		if i+1 == len(k.runs) {
			break
		}
		switch stopped := j.ownDenial(x, x.left); {
		case !x.returned.came() || x.returned.n > k.runs[i+1].started.n:
			j.sayf("Keep", "called while the last call has not returned: %v", k)
		case stopped != nil && stopped.Decision.Code == guard.CodeInvalidDeviceID:
			j.sayf("Keep", "it goes on after INVALID_DEVICE_ID: %v", x)
		case stopped == nil && !j.mayBeDenied(x):
			j.sayf("Keep", "called again, though its function was not denied: %v", x)
		}
	}
}

// mayBeDenied tells whether a denial may have been learnt while x ran.
func (j *modelJudge) mayBeDenied(x *modelRun) bool {
	return j.ownDenial(x, x.left) != nil || j.silent(x.device, x.started, x.returned, nil) || j.ranOut(x.device, x.started, x.returned) || j.hung(x.device, x.returned) ||
		slices.ContainsFunc(j.denials, func(d *modelCall) bool {
			return d.concerns(x.device) && d.returned.at >= x.started.at && d.returned.at <= x.returned.at
		})
}

// over holds what came of a run to the table.
func (j *modelJudge) over(k *modelCaller, x *modelRun) {
	if x.after == nil || !errors.Is(x.checked, guard.ErrDenied) && !errors.Is(x.checked, guard.ErrClosed) {
		j.sayf("a run that is over", "context %v, Checkpoint %v: %v", x.after, x.checked, x)
	}
	unwound := k.panicked != nil || k.exited
	denied := (*guard.DeniedError)(nil)
	refused := errors.As(k.err, &denied) && !denied.InFlight
	waited := k.do == doKeep && j.mayBeDenied(x)
	switch {
	case unwound != j.unwinds(x) || k.panicked != nil && k.panicked != any(x):
		j.sayf("table, unwinding", "panicked %v, exited %v: %v", k.panicked, k.exited, x)
	case unwound:
	case waited && (k.returned.at != x.returned.at || refused || j.isCause(k, k.err) || errors.Is(k.err, guard.ErrClosed)):
		j.notStarted(k, k.err)
	case k.returned.at != x.returned.at:
		j.sayf("table", "it returned later than its function: %v", x)
	case modelSame(k.err, x.own):
		j.unchanged(x)
	case errors.Is(k.err, guard.ErrClosed):
		if !j.closing.came() || j.closing.n > k.returned.n {
			j.sayf("S7", "closed before Close: %v", x)
		}
		j.kept(k, x)
	default:
		j.stopped(k, x)
	}
}

// modelSame is ==, for errors that functions here return.
func modelSame(a, b error) bool { return a == b }

// unwinds tells whether the function does not return.
func (j *modelJudge) unwinds(x *modelRun) bool {
	return x.work.ends == endsPanic || x.work.ends == endsGoexit ||
		slices.ContainsFunc(j.callers, func(k *modelCaller) bool { return k.outer == x && k.exited })
}

// unchanged holds a run that returned its function's own error to not having been denied.
func (j *modelJudge) unchanged(x *modelRun) {
	for _, due := range j.dues(x) {
		if due.ours && due.at < x.returned.at {
			j.sayf("table, cut short", "%s %s at %v, but it returned its function's own error: %v", due.why, due.of, due.at, x)
			return
		}
	}
	if c := j.byID[x.decision.RequestID]; c != nil && !slices.ContainsFunc(j.allows(x.device), func(a *modelCall) bool {
		return a.returned.n >= c.returned.n && a.returned.at <= x.returned.at && !j.dead(a, x.returned)
	}) {
		j.sayf("S6", "returned its own error after its line: %v", x)
	}
	if denied := j.ownDenial(x, x.left); denied != nil && !j.inherited(x, x.left) {
		j.sayf("table, denied while it ran", "returned its function's own error: %v", x)
	}
}

// stopped holds the denial of a run in flight to the record.
func (j *modelJudge) stopped(k *modelCaller, x *modelRun) {
	denied := (*guard.DeniedError)(nil)
	if !errors.As(k.err, &denied) {
		j.sayf("table", "neither its own error nor a denial: %v", x)
		return
	}
	if k.do == doKeep && denied.Decision.Code != guard.CodeInvalidDeviceID {
		j.sayf("Keep", "it does not wait: %v", x)
	}
	if !denied.InFlight || errors.Is(k.err, context.Canceled) {
		j.sayf("table, denied while it ran", "not InFlight, or Canceled: %v", x)
	}
	if why := j.unfounded(denied, x.device, x.started, x.returned, x); why != "" {
		j.sayf("a run is denied for a reason", "%s: %v", why, x)
	}
	if first := j.ownDenial(x, x.left); first != nil && !j.inherited(x, x.left) && first.Decision != denied.Decision {
		j.sayf("table, denied while it ran", "the cause was another denial, %v: %v", first, x)
	}
	j.kept(k, x)
}

// kept looks for the function's error in what Run returned.
func (j *modelJudge) kept(k *modelCaller, x *modelRun) {
	own := (*modelOwnError)(nil)
	if work := x.own; errors.As(work, &own) && !errors.Is(k.err, work) {
		j.sayf("table, the function's error", "it is lost: %v", x)
	}
	if errors.Is(k.err, context.Canceled) {
		j.sayf("table, the function's error", "it matches Canceled: %v", x)
	}
}

// checkpoints holds Checkpoint's answers to S6 and to what Run returned.
func (j *modelJudge) checkpoints(x *modelRun) {
	for _, p := range x.polls {
		if p.checked == nil {
			for y := x; y != nil; y = y.caller.outer {
				j.passed(y, p)
			}
			continue
		}
		if !errors.Is(p.checked, guard.ErrDenied) && !errors.Is(p.checked, guard.ErrClosed) {
			j.sayf("Checkpoint", "%v: %v", p.checked, x)
		}
		if !j.final(x) {
			j.sayf("Checkpoint, a no is final", "%v at %v: %v", p.checked, p.at, x)
		}
	}
}

// passed holds a Checkpoint that said nothing to the permission of a run in which it stood.
func (j *modelJudge) passed(y *modelRun, p modelPoll) {
	for _, due := range j.dues(y) {
		if due.ours && due.at < p.at {
			j.sayf("Checkpoint", "nil at %v, but %s %s at %v: %v", p.at, due.why, due.of, due.at, y)
			return
		}
	}
	c := j.byID[y.decision.RequestID]
	if c == nil {
		return
	}
	for _, a := range j.allows(y.device) {
		if a.returned.n >= c.returned.n && a.returned.at <= p.at && !j.dead(a, p.moment) {
			return
		}
	}
	j.sayf("S6", "Checkpoint is nil at %v, after the line: %v", p.at, y)
}

// final tells whether one of the runs that x stands in was stopped by the guard. A Keep does not
// say.
func (j *modelJudge) final(x *modelRun) bool {
	for y := x; y != nil; y = y.caller.outer {
		k := y.caller
		if k.do == doKeep || k.panicked != nil || k.exited ||
			errors.Is(k.err, guard.ErrDenied) || errors.Is(k.err, guard.ErrClosed) {
			return true
		}
	}
	return false
}

// told holds the events of a caller to their order: every start has its one end.
func (j *modelJudge) told(k *modelCaller) {
	if !j.observed {
		return
	}
	open, starts := false, 0
	for _, kind := range k.events {
		started, end := kind == guard.EventStarted, kind == guard.EventStopped || kind == guard.EventFinished
		if started && open || end && !open {
			j.sayf("events", "%v: %v", k.events, k)
		}
		open = started || open && !end
		if started {
			starts++
		}
	}
	if open || starts < len(k.runs) {
		j.sayf("events", "%v, %d functions: %v", k.events, len(k.runs), k)
	}
}

// shutdowns holds Shutdown to S7.
func (j *modelJudge) shutdowns() {
	for _, e := range j.ends {
		switch {
		case e.do == doClose && e.err != nil, e.err != nil && e.err != errModelLimit:
			j.sayf("S7", "%s returned %v", e.do, e.err)
		case !e.done.came():
			j.sayf("S7", "%s has not returned", e.do)
		case e.do == doShutdown:
			j.shutdown(e)
		}
	}
}

func (j *modelJudge) shutdown(e *modelEnd) {
	last := e.begun.at
	for _, x := range j.runs {
		if !x.returned.came() || x.returned.at > e.begun.at {
			last = max(last, x.returned.at)
		}
	}
	switch limit := e.begun.at + e.limit; {
	case e.err == nil && e.done.at != last:
		j.sayf("S7", "Shutdown begun %v returned %v, the last function %v", e.begun.at, e.done.at, last)
	case e.err != nil && (e.limit == 0 || e.done.at != limit || last < limit):
		j.sayf("S7", "Shutdown begun %v returned %v at %v, limit %v, the last function %v", e.begun.at, e.err, e.done.at, limit, last)
	}
}
