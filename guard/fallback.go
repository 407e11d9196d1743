package guard

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// offlineWord begins the Reason of an ALLOW that offline has given.
const offlineWord = "offline"

// errHalf ends the question to the online authority while there is time for the offline one.
var errHalf = fmt.Errorf("guard: the online authority did not answer in half of the time left: %w", context.DeadlineExceeded)

// Fallback returns a Validator that asks online, and where that could not be asked, offline: a
// signed file, say. What online decides stands, be it an ALLOW or a denial. Only on «could not ask»
// (CodeSystemUnavailable, or an answer that makes no sense) is offline asked, and its ALLOW stands in
// for the authority's. Then Decision.Reason begins with "offline" and names what kept online from
// answering; it says whatever offline said of itself, ExpiresAt above all. Where offline does not
// allow either, the answer is online's «could not ask», with offline's reason beside it: a file's
// denial is not the authority's word and stops no other device.
//
// Pulling the cable revives nobody: after online has denied a device, offline is not used for it
// until online has allowed it in a call that began after the denial was learnt (S5). An
// organisation-wide denial holds so for every device, and each is freed by an ALLOW of its own. An
// offline that is a Witness is told of each such answer, so that it can keep it beyond the process.
// Of refused and freed devices ten thousand each are remembered by name; beyond, offline is not used
// for a device until online has allowed it again.
//
// Validate asks online for at most half of the time that its ctx has left, and all of it where ctx
// has no deadline, and returns when those it asked have. When ctx is over, offline is not asked. A
// validator that panics or ends its goroutine could not be asked.
//
// In the wrong order the authority is asked only where the file could not be: not at all. With an
// argument that is nil or flawed, New refuses the Validator, and without New it denies everything.
func Fallback(online, offline Validator) Validator {
	f := &fallback{broken: errors.Join(flawOf("guard.Fallback: online", online), flawOf("guard.Fallback: offline", offline))}
	if f.broken != nil {
		return f
	}
	f.online, f.offline = online.Validate, offline.Validate
	if w, ok := offline.(Witness); ok {
		f.witness.tell = w.Witness
	}
	return f
}

// fallback keeps method values: fmt cannot look into them, and a validator may hold a secret.
type fallback struct {
	online, offline ValidatorFunc
	witness         witness
	latch           latch
	broken          error
}

// Flaw is what New asks for.
func (f *fallback) Flaw() error { return f.broken }

// String names nothing of the validators, which may hold a secret.
func (f *fallback) String() string { return "guard.Fallback" }

// GoString is String, so that %#v prints no secret either.
func (f *fallback) GoString() string { return f.String() }

// Validate is Validator's.
func (f *fallback) Validate(ctx context.Context, deviceID string) (Decision, error) {
	switch {
	case f.broken != nil:
		return unavailable(Decision{}, f.broken, f.broken.Error()).answer()
	case ctx.Err() != nil:
		return unasked(ctx)
	}
	begun, asked := f.latch.begin(), time.Now()
	a := f.askOnline(ctx, deviceID)
	told := testimony{deviceID, a.Decision, asked}
	switch {
	case a.Allowed:
		return f.allowed(ctx, told, a, begun)
	case a.decided():
		return f.refused(ctx, told, a)
	case ctx.Err() != nil:
		return a.left(ctx).answer()
	}
	v := f.askOffline(ctx, deviceID, a.verdict)
	if ctx.Err() != nil {
		if v.Allowed {
			v = a.verdict // it came too late for this caller
		}
		v = v.left(ctx)
	}
	return v.answer()
}

// askOnline asks the authority, which gets half of the time.
func (f *fallback) askOnline(ctx context.Context, deviceID string) answer {
	if deadline, ok := ctx.Deadline(); ok {
		half, cancel := context.WithTimeoutCause(ctx, time.Until(deadline)/2, errHalf)
		defer cancel()
		ctx = half
	}
	return consult(ctx, f.online, "online validator", deviceID)
}

// allowed frees the device, unless the caller has given up the question or the ALLOW is over
// already. The ALLOW itself stands as it came: what it is worth to the caller the caller knows.
func (f *fallback) allowed(ctx context.Context, t testimony, a answer, begun uint64) (Decision, error) {
	if ctx.Err() != nil || a.runOut() {
		return a.said, a.err
	}
	d := a.said
	err := f.witness.told(ctx, t, func() bool { return f.latch.allow(t.deviceID, begun) })
	if err != nil {
		d.Reason = joined("; ", d.Reason, notKept+": "+textOf(err))
	}
	return d, a.err
}

// refused keeps offline from being used for the device, whether or not the caller still waits.
func (f *fallback) refused(ctx context.Context, t testimony, a answer) (Decision, error) {
	f.latch.refuse(t.deviceID, a.Code) // at once, and not only when the Witness has time
	err := f.witness.told(ctx, t, func() bool { return true })
	if err != nil {
		return a.said, and(a.reason, notKept, err)
	}
	return a.said, a.err
}

// askOffline is what comes of a question that online could not answer, as v says.
func (f *fallback) askOffline(ctx context.Context, deviceID string, v *verdict) *verdict {
	if why := f.latch.holds(deviceID); why != "" {
		return v.neither(why, nil)
	}
	a := consult(ctx, f.offline, "offline validator", deviceID)
	why := f.latch.holds(deviceID) // again: somebody else may have been denied meanwhile
	switch {
	case !a.Allowed:
		return v.neither(refusalText(a.verdict), a.reason)
	case why != "":
		return v.neither(why, nil)
	case a.runOut():
		return v.neither("the ALLOW had run out", nil)
	}
	a.Reason = offlineWord + ": " + joined("; ", a.Reason, "the authority could not be asked: "+v.Reason)
	return a.verdict
}

// neither is «could not ask» where offline did not allow either.
func (v *verdict) neither(why string, err error) *verdict {
	d := v.Decision
	d.Reason += "; offline: " + why
	return &verdict{Decision: d, reason: and(v.reason, "offline", err)}
}

// refusalText is a denial in words.
func refusalText(v *verdict) string {
	if !v.decided() {
		return v.Reason
	}
	return joined(": ", string(v.Code), v.Reason)
}

// Witness hands the answer of an authority above this one to offline, in turn with online's own.
func (f *fallback) Witness(ctx context.Context, deviceID string, online Decision, asked time.Time) error {
	return f.witness.told(ctx, testimony{deviceID, online, asked}, func() bool { return true })
}
