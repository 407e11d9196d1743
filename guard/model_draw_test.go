package guard_test

import (
	"time"

	"pgregory.net/rapid"

	"github.com/execguard/execguard/guard"
)

// What is drawn lies on whole microseconds but for these, so that two things seldom happen in the
// same nanosecond unless they follow from each other: the model cannot tell which of them the
// guard has seen first, and then asks less of it. Steps may share an instant; that is drawn on
// purpose.
const (
	grain      = time.Microsecond
	answerTick = 307 * time.Nanosecond
	endTick    = 11 * time.Nanosecond
	lagTick    = 5 * time.Nanosecond
	checkTick  = 3 * time.Nanosecond
)

// modelSchedules draws schedules. Whatever comes first in a list is what a failure is shortened to.
func modelSchedules() *rapid.Generator[modelSchedule] {
	return rapid.Custom(func(t *rapid.T) modelSchedule {
		s := modelSchedule{modelSettings: drawSettings(t)}
		d := drawing{t: t, modelSettings: s.modelSettings}
		d.steps, d.pace = d.kinds(), d.paces()
		step := rapid.Custom(func(t *rapid.T) modelStep { return d.with(t).step() })
		for range rapid.SampledFrom([]int{1, 2, 4, 6}).Draw(t, "acts") { // of half a dozen steps on average
			s.steps = append(s.steps, rapid.SliceOfN(step, 0, 24).Draw(t, "steps")...)
		}
		s.rest = d.wait("rest")
		return s
	})
}

func drawSettings(t *rapid.T) modelSettings {
	s := modelSettings{
		devices:  rapid.SampledFrom([]int{1, 1, 2, 2, 3, 4}).Draw(t, "devices"),
		interval: rapid.SampledFrom([]time.Duration{10 * time.Second, time.Second, 3 * time.Second, 200 * time.Millisecond}).Draw(t, "interval"),
		requests: rapid.SampledFrom([]int{64, 64, 8, 4, 3, 2, 1}).Draw(t, "requests"),
		observed: rapid.Bool().Draw(t, "observed"),
	}
	part := func(label string, tenths ...int) time.Duration {
		return s.interval * time.Duration(rapid.SampledFrom(tenths).Draw(t, label)) / 10
	}
	s.timeout = part("timeout", 3, 3, 1, 10, 15)
	if s.budget = part("budget", 0, 0, 0, 5, 10, 20); s.budget != 0 {
		s.pause = s.interval * time.Duration(rapid.SampledFrom([]int{0, 5, 20}).Draw(t, "pause")) / 100
	}
	s.maxAge = part("maxAge", 0, 0, 0, 3, 10)
	return s
}

// drawing draws the parts of a step.
type drawing struct {
	modelSettings
	t     *rapid.T
	steps []string // what they may do
	pace  []string // how long it may be from one to the next
}

// kinds draws what happens in a schedule at all: not in each does the wall clock jump, or the guard
// end early.
func (d drawing) kinds() []string {
	kinds := []string{
		doRun, doAuthority, doRun, doAuthority, doRun, doAuthority, doKeep, doValidate, doHint, doCancel,
	}
	if d.oneIn(3, "jumps") {
		kinds = append(kinds, doJump, doJump)
	}
	if d.oneIn(4, "ends") {
		kinds = append(kinds, d.pick("end", doShutdown, doClose))
	}
	return kinds
}

func (d drawing) with(t *rapid.T) drawing {
	d.t = t
	return d
}

func (d drawing) pick(label string, of ...string) string {
	return rapid.SampledFrom(of).Draw(d.t, label)
}

// upTo draws a duration, more often a short one.
func (d drawing) upTo(most time.Duration, label string) time.Duration {
	return time.Duration(rapid.IntRange(0, int(most/grain)).Draw(d.t, label)) * grain
}

// oneIn is true once in n times.
func (d drawing) oneIn(n int, label string) bool {
	times := make([]bool, n)
	times[n-1] = true
	return rapid.SampledFrom(times).Draw(d.t, label)
}

// How long something lasts.
var modelWaits = []string{"nothing", "a moment", "a part", "an interval", "intervals"}

// paces draws whether things come fast upon each other, or slowly, or both.
func (d drawing) paces() []string {
	return rapid.SampledFrom([][]string{modelWaits, modelWaits, modelWaits[:3], modelWaits[2:]}).Draw(d.t, "pace")
}

// wait draws how long something lasts, on any scale.
func (d drawing) wait(label string) time.Duration { return d.waitOf(label, modelWaits) }

func (d drawing) waitOf(label string, scales []string) time.Duration {
	switch d.pick(label+" of", scales...) {
	case "a moment":
		return d.upTo(d.interval/100, label)
	case "a part":
		return d.upTo(d.interval/2, label)
	case "an interval":
		return d.interval/2 + d.upTo(d.interval, label)
	case "intervals":
		return d.upTo(4*d.interval, label)
	}
	return 0
}

func (d drawing) device() int { return rapid.IntRange(0, d.devices-1).Draw(d.t, "device") }

func (d drawing) step() modelStep {
	s := modelStep{after: d.waitOf("after", d.pace), do: d.pick("do", d.steps...), device: d.device()}
	switch s.do {
	case doRun:
		s.work = d.work("patient", "patient", "short", "short", "checking", "lagging", "quiet", "nested")
		if d.oneIn(50, "blank") {
			s.device = blankDevice
		}
	case doKeep:
		s.work = d.work("patient", "patient", "patient", "patient", "short", "lagging")
	case doAuthority:
		s.device, s.answer = d.maybeEvery(), d.answer()
	case doHint:
		s.device = d.maybeEvery()
	case doCancel:
		s.pick = rapid.IntRange(0, 9).Draw(d.t, "pick")
	case doShutdown:
		s.by = d.wait("limit")
	case doJump:
		s.by = d.jump()
	}
	return s
}

func (d drawing) maybeEvery() int {
	if d.oneIn(4, "every") {
		return everyDevice
	}
	return d.device()
}

// jump draws by how much the wall clock jumps.
func (d drawing) jump() time.Duration {
	by := rapid.SampledFrom([]time.Duration{
		d.interval / 2, d.interval, d.stopBound(), 2 * d.stopBound(), 50 * time.Millisecond, time.Millisecond, time.Second,
		time.Hour, 24 * time.Hour,
	}).Draw(d.t, "by") + d.upTo(10*time.Millisecond, "and")
	if d.oneIn(3, "back") {
		return -by
	}
	return by
}

func (d drawing) work(kinds ...string) modelWork {
	w := modelWork{ends: d.pick("ends", endsNil, endsErr, endsError, endsCause, endsError, endsErr, endsPanic, endsGoexit)}
	switch d.pick("kind", kinds...) {
	case "short":
		w.lasts = d.wait("lasts") + endTick
	case "checking":
		w.checks = d.interval/16 + d.upTo(d.interval, "checks") + checkTick
	case "lagging":
		w.lag = d.wait("lag") + lagTick
		w.checks = d.sometimesChecks()
	case "quiet":
		w.quiet, w.lasts = true, d.wait("lasts")+endTick
		w.checks = d.sometimesChecks()
	case "nested":
		inner := d.work("patient", "short", "checking", "lagging")
		w.inner, w.about = &inner, d.device()
		w.checks = d.interval/7 + checkTick
	}
	return w
}

func (d drawing) sometimesChecks() time.Duration {
	return rapid.SampledFrom([]time.Duration{0, d.interval/7 + checkTick}).Draw(d.t, "checks")
}

func (d drawing) answer() modelAnswer {
	a := modelAnswer{allowed: true, code: guard.CodeAllow}
	switch d.pick("answer", "well", "deny", "allow", "organisation", "unavailable", "malformed", "well", "expiring", "deny", "allow") {
	case "well":
		return a // at once
	case "deny":
		a.allowed = false
		a.code = rapid.SampledFrom([]guard.Code{
			guard.CodeDeviceRevoked, guard.CodeDeviceNotFound, guard.CodeInvalidDeviceID, "SOMETHING_NEW",
		}).Draw(d.t, "code")
		a.failed = d.oneIn(4, "failed")
	case "organisation":
		a.allowed = false
		a.code = rapid.SampledFrom([]guard.Code{
			guard.CodeOrgDisabled, guard.CodePlanFrozen, guard.CodePlanNotActive, guard.CodeEntitlementExpired,
			guard.CodeOrgNotFound, guard.CodeInvalidOrgKey,
		}).Draw(d.t, "code")
	case "unavailable":
		a.allowed, a.code = false, rapid.SampledFrom([]guard.Code{"", guard.CodeSystemUnavailable}).Draw(d.t, "code")
		a.failed = a.code == "" || rapid.Bool().Draw(d.t, "failed")
	case "malformed":
		a = d.malformed()
	case "expiring":
		a.expires = d.wait("expires") + grain
	}
	if !a.allowed && d.oneIn(4, "retryAfter") {
		a.retryAfter = d.wait("retryAfter")
	}
	return d.timed(a)
}

// malformed draws from all that can be said and done, ALLOWs among them.
func (d drawing) malformed() modelAnswer {
	return modelAnswer{
		allowed: rapid.Bool().Draw(d.t, "allowed"),
		code: rapid.SampledFrom([]guard.Code{
			guard.CodeAllow, "", guard.CodeDeviceRevoked, guard.CodePlanFrozen, "allow", guard.CodeSystemUnavailable,
		}).Draw(d.t, "code"),
		other:  rapid.Bool().Draw(d.t, "other"),
		failed: rapid.Bool().Draw(d.t, "failed"),
		fault:  d.pick("fault", "", "", "", endsPanic, endsGoexit),
	}
}

func (d drawing) timed(a modelAnswer) modelAnswer {
	switch d.pick("time", "at once", "at once", "at once", "slow", "slow", "too slow", "never", "deaf", "late") {
	case "slow":
		a.takes = d.upTo(d.timeout-grain, "takes") + answerTick
	case "too slow":
		a.takes = d.timeout + d.wait("takes") + answerTick
	case "never":
		a.takes = -1
	case "late":
		a.takes, a.deaf = d.timeout+d.upTo(d.interval, "takes")+answerTick, true
	case "deaf":
		a.takes, a.deaf = d.timeout/2+d.wait("takes")+answerTick, true
	}
	return a
}
