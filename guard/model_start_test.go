package guard_test

import (
	"errors"

	"github.com/execguard/execguard/guard"
)

// start holds the start of a function to S1, S2, S5 and S7.
func (j *modelJudge) start(x *modelRun) {
	c := j.byID[x.decision.RequestID]
	switch {
	case c == nil || c.device != x.device || c.verdict() != modelAllow:
		j.sayf("S2", "started on no ALLOW of its device (%v): %v", c, x)
		return
	case !c.answered() || c.returned.n > x.started.n:
		j.sayf("S1", "started on %v, which was not answered: %v", c, x)
	case c.sent.n < x.caller.called.n && !j.reusable(c, x):
		j.sayf("S1", "started on %v, which was sent before: %v", c, x)
	case j.dead(c, x.started):
		j.sayf("S4", "started on %v, which had run out: %v", c, x)
	}
	for _, d := range j.denials {
		if d.concerns(x.device) && j.sure(d) && d.returned.n > c.sent.n && d.returned.at < x.started.at {
			j.sayf("S5", "started on %v although %v was learnt later: %v", c, d, x)
		}
	}
	for _, y := range j.ran[x.device] {
		if j.ownDenial(y, y.why) != nil && c.sent.at < y.ended.at && y.ended.at < x.started.at {
			j.sayf("S5", "started on %v after a denial that stopped %v: %v", c, y, x)
		}
	}
	for _, e := range j.ends {
		if e.begun.at < x.started.at {
			j.sayf("S7", "started after %s: %v", e.do, x)
		}
	}
}

// reusable tells whether an ALLOW that is older than the caller may be stood on.
func (j *modelJudge) reusable(c *modelCall, x *modelRun) bool {
	if least, _ := j.age(c.sent, x.started); j.maxAge == 0 || least > j.maxAge {
		return false
	}
	for _, h := range j.hints { // B3: a hint ends reuse
		if (h.device == "" || h.device == x.device) && h.begun.n > c.sent.n && h.done.n < x.caller.called.n {
			return false
		}
	}
	return true
}

// ownDenial is the denial in a cause, if it is one of the run's own device.
func (j *modelJudge) ownDenial(x *modelRun, cause error) *guard.DeniedError {
	denied := (*guard.DeniedError)(nil)
	if errors.As(cause, &denied) && denied.DeviceID == x.device {
		return denied
	}
	return nil
}
