package guard_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/execguard/execguard/guard"
)

// A modelJudge holds a record against the contract. It is written from CONTRACT.md alone: it knows
// what was sent, answered, started and stopped when, and nothing of how the guard goes about it.
//
// Two things in one instant of fake time may have come to the guard in either order. The model
// then takes what is allowed in either; where it says sure, there is only one.
type modelJudge struct {
	*modelRecord
	said    []string // what is broken, each with the sentence of the contract
	byID    map[string]*modelCall
	byTime  []*modelCall              // those that have returned, in that order
	denials []*modelCall              // those whose answer is a denial that counts, in that order
	busy    map[time.Duration]bool    // instants in which a call may be given up by somebody's doing
	closing moment                    // when the first Close or Shutdown began
	of      map[string][]*modelCall   // by device, in the order of sending
	ran     map[string][]*modelRun    // by device
	wanted  map[string][]*modelCaller // by device
}

// judgeModel returns what a record breaks of the contract.
func judgeModel(r *modelRecord) []string {
	if r.stuck != "" {
		return []string{"nothing is left behind: " + r.stuck}
	}
	j := newModelJudge(r)
	for _, x := range j.runs {
		j.start(x)
		j.stop(x)
		j.checkpoints(x)
	}
	for _, k := range j.callers {
		j.outcome(k)
		j.waiting(k)
		j.told(k)
	}
	for _, c := range j.calls {
		j.load(c)
		j.givenUp(c)
	}
	j.unasked()
	j.shutdowns()
	j.alive()
	return j.said
}

func newModelJudge(r *modelRecord) *modelJudge {
	j := &modelJudge{
		modelRecord: r, byID: map[string]*modelCall{}, busy: map[time.Duration]bool{},
		of: map[string][]*modelCall{}, ran: map[string][]*modelRun{}, wanted: map[string][]*modelCaller{},
	}
	for _, c := range r.calls {
		j.byID[c.id] = c
		j.of[c.device] = append(j.of[c.device], c)
		if c.returned.came() {
			j.byTime = append(j.byTime, c)
		}
	}
	slices.SortFunc(j.byTime, func(a, b *modelCall) int { return a.returned.n - b.returned.n })
	for _, c := range j.byTime {
		if c.verdict() == modelDenial && (c.answered() || c.timedOut()) {
			j.denials = append(j.denials, c)
		}
	}
	for _, k := range r.callers {
		j.wanted[k.device] = append(j.wanted[k.device], k)
	}
	j.findBusy()
	return j
}

// findBusy finds the instants in which somebody gives up, but for the functions that return
// because their context has ended: that follows from something else.
func (j *modelJudge) findBusy() {
	for _, k := range j.callers {
		if k.cancelled.came() {
			j.busy[k.cancelled.at] = true
		}
	}
	for _, x := range j.runs {
		j.ran[x.device] = append(j.ran[x.device], x)
		if x.left == nil || x.work.quiet || x.ended.at != x.returned.at {
			j.busy[x.returned.at] = true
		}
	}
	for _, e := range j.ends {
		j.busy[e.begun.at], j.busy[e.done.at] = true, true
		if !j.closing.came() || e.begun.n < j.closing.n {
			j.closing = e.begun
		}
	}
}

func (j *modelJudge) sayf(sentence, format string, args ...any) {
	j.said = append(j.said, sentence+": "+fmt.Sprintf(format, args...))
}

// sentence is the part of the contract that something said is about.
func modelSentence(said string) string {
	sentence, _, _ := strings.Cut(said, ":")
	return sentence
}

func (c *modelCall) String() string {
	s := fmt.Sprintf("%s about %s [sent %v, returned %v", c.id, c.device, c.sent.at, c.returned.at)
	if c.ended.came() {
		s += fmt.Sprintf(", given up %v", c.ended.at)
	}
	return s + ", " + c.answer.String() + "]"
}

func (k *modelCaller) String() string {
	return fmt.Sprintf("%s %s [called %v, returned %v with %v]", k.do, k.device, k.called.at, k.returned.at, k.err)
}

func (x *modelRun) String() string {
	return fmt.Sprintf("%v's function [started %v on %s, ended %v with %v, returned %v]",
		x.caller, x.started.at, x.decision.RequestID, x.ended.at, x.why, x.returned.at)
}

// modelVerdict is what an answer amounts to.
type modelVerdict int

const (
	modelUnavailable modelVerdict = iota
	modelAllow
	modelDenial
)

// verdict is S2.
func (c *modelCall) verdict() modelVerdict {
	a := c.answer
	switch {
	case c.cut, a.fault != "", a.other:
	case a.allowed && a.code == "ALLOW" && !a.failed:
		return modelAllow
	case !a.allowed && a.code != "" && a.code != "ALLOW" && a.code != "SYSTEM_UNAVAILABLE":
		return modelDenial
	}
	return modelUnavailable
}

// wide tells whether the answer speaks of the whole organisation (S3).
func (c *modelCall) wide() bool { return slices.Contains(modelWideCodes, c.answer.code) }

var modelWideCodes = []guard.Code{
	"ORG_DISABLED", "PLAN_FROZEN", "PLAN_NOT_ACTIVE", "ENTITLEMENT_EXPIRED", "ORG_NOT_FOUND", "INVALID_ORG_KEY",
}

// concerns tells whether the call's denial is one for the device.
func (c *modelCall) concerns(device string) bool { return c.device == device || c.wide() }

func (c *modelCall) answered() bool { return c.returned.came() && !c.ended.came() }
func (c *modelCall) timedOut() bool {
	return c.ended.came() && errors.Is(c.why, context.DeadlineExceeded)
}
func (c *modelCall) unwanted() bool { return c.ended.came() && !c.timedOut() }

// outcome is when the guard has its answer, or gives it up at its timeout.
func (c *modelCall) outcome() moment {
	if c.ended.came() {
		return c.ended
	}
	return c.returned
}

// sure tells whether the guard cannot but count the answer that has come.
func (j *modelJudge) sure(c *modelCall) bool {
	if c.timedOut() && c.verdict() == modelDenial {
		return true
	}
	return c.answered() && !j.busy[c.returned.at] && c.returned.at < c.deadline && !j.jumped(c.sent, c.returned)
}

// jumped tells whether the wall clock did, ahead or back.
func (j *modelJudge) jumped(from, to moment) bool {
	return slices.ContainsFunc(j.jumps, func(m modelJump) bool { return m.n > from.n && m.n < to.n })
}

// slop is by how much the clocks may be off: a jump of less than a millisecond may be seen by nobody,
// neither when a request is sent nor when its line is looked for.
func (j *modelJudge) slop() time.Duration {
	if len(j.jumps) > 0 {
		return 2 * time.Millisecond
	}
	return 0
}

// age is how much time has passed at least, which is what either clock shows, and at most, where
// each jump ahead has been seen and none back (S6).
func (j *modelJudge) age(from, to moment) (least, most time.Duration) {
	least, most = max(to.at-from.at, to.wall-from.wall), to.at-from.at
	for _, jump := range j.jumps {
		if jump.n > from.n && jump.n < to.n {
			most += max(jump.by, 0)
		}
	}
	return least - j.slop(), most + j.slop()
}

// life is how long an ALLOW may be stood on (B2, S10).
func (j *modelJudge) life(c *modelCall) time.Duration {
	if c.answer.expires != 0 {
		return min(c.answer.expires, j.stopBound())
	}
	return j.stopBound()
}

// dead and mayBeDead tell whether an ALLOW's permission has run out.
func (j *modelJudge) dead(c *modelCall, now moment) bool {
	least, _ := j.age(c.sent, now)
	return least >= j.life(c)
}

func (j *modelJudge) mayBeDead(c *modelCall, now moment) bool {
	_, most := j.age(c.sent, now)
	return most >= j.life(c)
}

// line is when a run has to stop that stands on an ALLOW: to the nanosecond on the monotonic clock,
// and on the wall clock too but for the second after a jump ahead. A jump that was undone before the
// run started may have been seen by nobody.
func (j *modelJudge) line(c *modelCall, x *modelRun) time.Duration {
	line := c.sent.at + j.life(c)
	for i, jump := range j.jumps {
		if jump.n < c.sent.n || i+1 < len(j.jumps) && j.jumps[i+1].n < x.started.n {
			continue
		}
		ahead := (jump.wall - jump.at) - (c.sent.wall - c.sent.at)
		if at := max(c.sent.at+j.life(c)-ahead, jump.at+time.Second); i+1 == len(j.jumps) || at < j.jumps[i+1].at {
			line = min(line, at)
		}
	}
	for _, jump := range j.jumps {
		if late := jump.at + time.Second; jump.by > 0 && jump.at <= line && line < late {
			line = late
		}
	}
	return line + j.slop()
}

// allows are the ALLOWs for a device that have been answered, in that order.
func (j *modelJudge) allows(device string) []*modelCall {
	var cs []*modelCall
	for _, c := range j.byTime {
		if c.device == device && c.verdict() == modelAllow && c.answered() {
			cs = append(cs, c)
		}
	}
	return cs
}
