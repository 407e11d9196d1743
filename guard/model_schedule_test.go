package guard_test

import (
	"fmt"
	"strings"
	"time"

	"github.com/execguard/execguard/guard"
)

// A modelSchedule is all that is done to one guard and its authority. It is plain data: drawn at
// random, shortened when it finds something, and printed.
type modelSchedule struct {
	modelSettings
	steps []modelStep
	rest  time.Duration // from the last step to the end, when the guard is closed
}

// modelSettings are the guard's options, and how many devices there are.
type modelSettings struct {
	devices  int
	interval time.Duration
	timeout  time.Duration
	budget   time.Duration // 0: no retry
	pause    time.Duration // the back-off's constant wait; 0: exponential
	maxAge   time.Duration // 0: no reuse
	requests int
	observed bool
}

func (s modelSettings) stopBound() time.Duration { return s.interval + s.timeout + s.budget }

// What a step does.
const (
	doRun       = "run"
	doKeep      = "keep"
	doValidate  = "validate"
	doAuthority = "authority" // from now on the authority answers so
	doHint      = "hint"
	doCancel    = "cancel" // a caller's context
	doJump      = "jump"   // of the wall clock: a step, or a suspended machine that resumes
	doShutdown  = "shutdown"
	doClose     = "close"
)

// everyDevice is a step's device where it concerns all.
const everyDevice = -1

type modelStep struct {
	after  time.Duration // the step before
	do     string
	device int
	work   modelWork     // run, keep
	answer modelAnswer   // authority
	pick   int           // cancel: which of those that have not returned
	by     time.Duration // jump: how far; shutdown: when its context ends, 0 for never
}

// How a function ends.
const (
	endsNil    = "nil"
	endsError  = "an error of its own"
	endsErr    = "ctx.Err()"
	endsCause  = "context.Cause(ctx)"
	endsPanic  = "a panic"
	endsGoexit = "Goexit"
)

// modelWork is what a function does.
type modelWork struct {
	lasts  time.Duration // 0: until its context ends
	quiet  bool          // it never asks for Done, and looks at Err only when it calls Checkpoint
	lag    time.Duration // it goes on for so long after it has seen its context end
	checks time.Duration // it calls Checkpoint each so often; 0: never
	ends   string
	inner  *modelWork // runs this first, for the device innerOf, under its own context
	about  int        // the inner one's device
}

// modelAnswer is how the authority treats a call.
type modelAnswer struct {
	allowed    bool
	code       guard.Code
	other      bool          // it speaks of another device
	failed     bool          // an error comes beside it
	fault      string        // endsPanic or endsGoexit, in the place of an answer
	takes      time.Duration // below 0: until the call's context ends
	deaf       bool          // whatever becomes of the call's context
	retryAfter time.Duration
	expires    time.Duration // from the call on, by the wall clock; 0: no end is named
}

// GoString is what rapid prints of a schedule that was drawn.
func (s modelSchedule) GoString() string { return s.String() }

func (s modelSchedule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d devices, interval %v, timeout %v, budget %v (back-off %v), reuse %v, %d requests, observed %v",
		s.devices, s.interval, s.timeout, s.budget, s.pause, s.maxAge, s.requests, s.observed)
	at := time.Duration(0)
	for _, step := range s.steps {
		at += step.after
		fmt.Fprintf(&b, "\n  %12v %v", at, step)
	}
	fmt.Fprintf(&b, "\n  %12v the end", at+s.rest)
	return b.String()
}

func (s modelStep) String() string {
	device := modelDevice(s.device)
	switch s.do {
	case doRun, doKeep:
		return s.do + " " + device + ": " + s.work.String()
	case doAuthority:
		return s.do + " " + device + ": " + s.answer.String()
	case doCancel:
		return fmt.Sprintf("%s caller %d", s.do, s.pick)
	case doJump, doShutdown:
		return fmt.Sprintf("%s %v", s.do, s.by)
	case doClose:
		return s.do
	}
	return s.do + " " + device
}

// modelDevice is a device's id. There is a blank one: the last of all.
func modelDevice(n int) string {
	switch n {
	case everyDevice:
		return ""
	case blankDevice:
		return " "
	}
	return fmt.Sprintf("d%d", n)
}

const blankDevice = 99

func (w modelWork) String() string {
	var b strings.Builder
	if w.inner != nil {
		fmt.Fprintf(&b, "[run %s: %v], ", modelDevice(w.about), w.inner)
	}
	if b.WriteString("until its context ends"); w.lasts != 0 {
		fmt.Fprintf(&b, " or for %v", w.lasts)
	}
	for _, more := range []struct {
		said bool
		as   string
	}{
		{w.quiet, ", not asking for Done"},
		{w.lag != 0, fmt.Sprintf(", goes on for %v", w.lag)},
		{w.checks != 0, fmt.Sprintf(", Checkpoint each %v", w.checks)},
	} {
		if more.said {
			b.WriteString(more.as)
		}
	}
	return b.String() + ", ends with " + w.ends
}

func (a modelAnswer) String() string {
	var b strings.Builder
	switch {
	case a.fault != "":
		b.WriteString(a.fault)
	default:
		fmt.Fprintf(&b, "{%v %q}", a.allowed, a.code)
	}
	for _, more := range []struct {
		said bool
		as   string
	}{
		{a.other, " about another device"},
		{a.failed, " beside an error"},
		{a.takes > 0, fmt.Sprintf(" after %v", a.takes)},
		{a.takes < 0, " never"},
		{a.deaf, ", deaf"},
		{a.retryAfter != 0, fmt.Sprintf(", RetryAfter %v", a.retryAfter)},
		{a.expires != 0, fmt.Sprintf(", expires in %v", a.expires)},
	} {
		if more.said {
			b.WriteString(more.as)
		}
	}
	return b.String()
}
