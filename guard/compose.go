package guard

import (
	"context"
	"errors"
	"sync"
	"time"
)

// What the validators that are made of others have in common: All and Fallback.

// flawed is a Validator that was made without an error being returned, for its constructor has none
// to return.
type flawed interface {
	// Flaw is what is wrong with what it was made of, nil where nothing is. New, Fallback and All
	// refuse such a Validator.
	Flaw() error
}

// flawOf says what is wrong with v as an argument.
func flawOf(argument string, v Validator) error {
	if isNil(v) {
		return errors.New(argument + " is nil")
	}
	if f, ok := v.(flawed); ok && f.Flaw() != nil {
		return and(nil, argument, f.Flaw())
	}
	return nil
}

// answer is what came of asking one validator: what it said, and what that is worth (S2).
type answer struct {
	*verdict

	said Decision
	err  error
}

// ask asks f as a guard would. It has to be called on a goroutine that f may end.
func (f ValidatorFunc) ask(ctx context.Context, who, deviceID string, a *answer) {
	defer func() {
		if a.verdict == nil {
			a.verdict = unanswered(who, recover())
			a.said, a.err = a.Decision, a.reason
		}
	}()
	a.said, a.err = f(ctx, deviceID)
	a.verdict = judge(deviceID, a.said, a.err)
}

// consult asks v on a goroutine of its own, which it waits for: whoever is asked next must be even
// where v ends its goroutine.
func consult(ctx context.Context, v ValidatorFunc, who, deviceID string) answer {
	var a answer
	var asking sync.WaitGroup
	asking.Go(func() { v.ask(ctx, who, deviceID, &a) })
	asking.Wait()
	return a
}

// decided tells of an authority's own no, in contrast to «could not ask».
func (v *verdict) decided() bool { return !v.Allowed && v.Code != CodeSystemUnavailable }

// runOut tells of an ALLOW whose end has come.
func (v *verdict) runOut() bool {
	return v.Allowed && !v.ExpiresAt.IsZero() && time.Until(v.ExpiresAt.Round(0)) <= 0
}

// answer gives v as a Validator returns it.
func (v *verdict) answer() (Decision, error) { return v.Decision, v.reason }

// left is «could not ask» as the answer to a caller whose context is over: that is found in it.
func (v *verdict) left(ctx context.Context) *verdict {
	over := context.Cause(ctx)
	if over == nil {
		over = ctx.Err() // a context of somebody's own, whose cause the standard library does not know
	}
	if errors.Is(v.reason, over) || errors.Is(v.reason, ctx.Err()) {
		return v
	}
	return &verdict{Decision: v.Decision, reason: and(v.reason, "the context is over", over)}
}

// unasked is the answer to a caller whose context was over before.
func unasked(ctx context.Context) (Decision, error) {
	return unavailable(Decision{}, nil, "the context was over before the authority was asked").left(ctx).answer()
}

// and adds to an error a second one and what it is about. Either may be nil.
func and(first error, about string, second error) error {
	if second == nil {
		return first
	}
	return &bothError{first: hide(first), about: about, second: hide(second)}
}

// bothError is two errors in one line, either of which errors.Is and errors.As find.
type bothError struct {
	first  *hidden // nil: there is but the second
	about  string
	second *hidden
}

func (e *bothError) Error() string {
	text := e.about + ": " + e.second.err.Error()
	if e.first != nil {
		text = e.first.err.Error() + "; " + text
	}
	return text
}

func (e *bothError) Unwrap() []error {
	if e.first == nil {
		return []error{e.second.err}
	}
	return []error{e.first.err, e.second.err}
}
