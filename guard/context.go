package guard

import (
	"context"
	"fmt"

	"github.com/execguard/execguard/contextx"
)

// runKey is where a context keeps the run it stands in.
var runKey = contextx.NewKey[*run]("guard.run")

var (
	errNoRun = fmt.Errorf("%w: this context stands in no guarded run", ErrDenied)
	errOver  = fmt.Errorf("%w: the guarded run that this context stood in is over", ErrDenied)
)

// DecisionFrom returns the decision that allowed the run in which ctx stands, the innermost one
// where runs are nested, and false where it stands in none.
func DecisionFrom(ctx context.Context) (Decision, bool) {
	r, ok := runKey.From(ctx)
	if !ok {
		return Decision{}, false
	}
	return r.allowed.decision, true
}

// Checkpoint returns nil while the permission of every run in which ctx stands is live: nested
// runs, of whatever guards, and contexts derived from a run's or detached from it with
// context.WithoutCancel count. Call it before each side effect: it costs about one look at the
// clock, allocates nothing and never asks the authority. It says nothing of ctx's own end.
//
// Otherwise it returns the denial, or ErrClosed once the guard was closed; a context of no run,
// or of a run that is over, matches ErrDenied. A no is final: Run returns that denial.
func Checkpoint(ctx context.Context) error {
	r, ok := runKey.From(ctx)
	if !ok {
		return errNoRun
	}
	for ; r != nil; r = r.outer {
		if err := r.check(); err != nil {
			return err
		}
	}
	return nil
}
