package guard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// All returns a Validator that asks all of validators at the same time and allows only what every
// one of them allows, until the earliest ExpiresAt. RequestID then holds theirs, joined by ",", and
// Reason theirs, joined by "; ". All are asked about the same device id: where services have different ids
// for it, one of them has to be mapped, as licentric.WithFingerprint does.
//
// When one denies, the others' contexts are cancelled and its denial is the answer; of several that
// denied before they could know of each other, that of the first in the list. A denial that came
// only after the cancelling does not count. Where none has denied, but not all could be asked, the
// answer is CodeSystemUnavailable with the reason and the error of the first of those, and the
// longest RetryAfter. A validator that panics or ends its goroutine could not be asked.
//
// Validate starts a goroutine for each validator and returns when all have: one that ignores its
// context makes the answer late, and a Guard gives it up like any other.
//
// The Validator is a Witness too, and tells those of validators that are, so that All can be
// Fallback's offline. Without validators, or with one that is nil, New refuses it, and without New
// it denies everything.
func All(validators ...Validator) Validator {
	a := &all{broken: flawOfAll(validators)}
	if a.broken != nil {
		return a
	}
	for _, v := range validators {
		a.validators = append(a.validators, v.Validate)
		if w, ok := v.(Witness); ok {
			a.witnesses = append(a.witnesses, w.Witness)
		}
	}
	return a
}

func flawOfAll(validators []Validator) error {
	if len(validators) == 0 {
		return errors.New("guard.All: there are no validators")
	}
	var flaws []error
	for i, v := range validators {
		flaws = append(flaws, flawOf(fmt.Sprintf("guard.All: validators[%d]", i), v))
	}
	return errors.Join(flaws...)
}

// all keeps method values: fmt cannot look into them, and a validator may hold a secret.
type all struct {
	validators []ValidatorFunc
	witnesses  []tellFunc
	broken     error
}

// Flaw is what New asks for.
func (a *all) Flaw() error { return a.broken }

// String names nothing of the validators, which may hold a secret.
func (a *all) String() string { return "guard.All" }

// GoString is String, so that %#v prints no secret either.
func (a *all) GoString() string { return a.String() }

// Validate is Validator's.
func (a *all) Validate(ctx context.Context, deviceID string) (Decision, error) {
	switch {
	case a.broken != nil:
		return unavailable(Decision{}, a.broken, a.broken.Error()).answer()
	case ctx.Err() != nil:
		return unasked(ctx)
	}
	v := conclusion(deviceID, a.ask(ctx, deviceID))
	if ctx.Err() != nil && !v.decided() {
		if v.Allowed {
			v = unavailable(v.Decision, nil, "the context was over before all had allowed")
		}
		v = v.left(ctx)
	}
	return v.answer()
}

// ask asks every validator. A denial that may be a consequence of another is made «could not ask».
func (a *all) ask(ctx context.Context, deviceID string) []answer {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	answers := make([]answer, len(a.validators))
	var denied atomic.Bool
	var asking sync.WaitGroup
	for i, v := range a.validators {
		asking.Go(func() {
			a := &answers[i]
			defer func() { // deferred, because v may end its goroutine
				switch {
				case !a.decided():
				case denied.Load():
					a.verdict = unavailable(a.Decision, a.reason, "cancelled because another validator had denied")
				default:
					denied.Store(true) // before the others can notice
					cancel(a.deniedError(deviceID))
				}
			}()
			v.ask(ctx, "validator", deviceID, a)
		})
	}
	asking.Wait()
	return answers
}

// conclusion is what the answers amount to.
func conclusion(deviceID string, answers []answer) *verdict {
	if i := slices.IndexFunc(answers, func(a answer) bool { return a.decided() }); i >= 0 {
		return answers[i].verdict
	}
	i := slices.IndexFunc(answers, func(a answer) bool { return !a.Allowed })
	if i < 0 {
		return conjunction(deviceID, answers)
	}
	v := *answers[i].verdict
	for _, a := range answers {
		v.RetryAfter = max(v.RetryAfter, a.RetryAfter)
	}
	return &v
}

// conjunction is the ALLOW of those who all allow.
func conjunction(deviceID string, answers []answer) *verdict {
	both := Decision{Allowed: true, Code: CodeAllow}
	var requests, reasons []string
	for _, a := range answers {
		requests, reasons = append(requests, a.RequestID), append(reasons, a.Reason)
		both.RetryAfter = max(both.RetryAfter, a.RetryAfter)
		if a.DeviceID != "" {
			both.DeviceID = deviceID
		}
		if end := a.ExpiresAt; !end.IsZero() && (both.ExpiresAt.IsZero() || end.Before(both.ExpiresAt)) {
			both.ExpiresAt = end
		}
	}
	both.RequestID, both.Reason = joined(",", requests...), joined("; ", reasons...)
	return &verdict{Decision: both}
}

// joined joins what is not empty.
func joined(by string, words ...string) string {
	return strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), by)
}

// Witness tells those of the validators that are witnesses, each of them whatever becomes of the others.
func (a *all) Witness(ctx context.Context, deviceID string, online Decision, asked time.Time) error {
	var errs []error
	for _, tell := range a.witnesses {
		errs = append(errs, witnessed(ctx, tell, testimony{deviceID, online, asked}))
	}
	return errors.Join(errs...)
}
