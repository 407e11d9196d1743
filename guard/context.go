package guard

import (
	"context"
	"fmt"
	"strconv"

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
	return *r.allowed.decision, true
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
	for {
		if err := r.check(); err != nil {
			return err
		}
		outer := r.around()
		if outer == r {
			return nil
		}
		r = outer
	}
}

// around returns the run that r is nested in, perhaps of another guard; r itself where there is none.
func (r *run) around() *run {
	if outer := r.outer.Load(); outer != nil {
		return outer
	}
	outer, ok := runKey.From(r.Context)
	if !ok {
		outer = r
	}
	r.outer.Store(outer)
	return outer
}

// A run is a context that makes nothing of what most functions never ask for. It ends with the
// caller's, when it is told to stop, or when Run has returned, and Err reads just that. The
// standard library finds causes and cancels children by its own type only: so the first who asks
// for Done, or looks after the end, gets one made, and from then on that one answers everything.
// What has been seen once stays so.

// Done is context.Context's. It calls the caller's context the first time.
func (r *run) Done() <-chan struct{} { return r.derive().ctx.Done() }

// Err is context.Context's.
func (r *run) Err() error {
	if c := r.standard(); c != nil {
		return c.ctx.Err()
	}
	return nil
}

// Value is context.Context's.
func (r *run) Value(key any) any {
	if key == runKey {
		return r
	}
	if c := r.standard(); c != nil {
		return c.ctx.Value(key)
	}
	return r.Context.Value(key)
}

// String names the run, and keeps fmt from looking into it.
func (r *run) String() string { return "guard.run(" + strconv.Quote(r.batch.device.id) + ")" }

// GoString is String, for %#v.
func (r *run) GoString() string { return r.String() }

// standard returns the standard context, made if r has ended; nil: it has not, and nobody has
// asked for one.
func (r *run) standard() *derived {
	c := r.made()
	if ended, _ := r.cause(); ended || c == nil && r.Context.Err() != nil {
		return r.derive()
	}
	return c
}

// made returns the standard context, if there is one.
func (r *run) made() *derived {
	if c := r.derived.Load(); c != nil && c.ctx != nil {
		return c
	}
	return nil
}

// derive makes the standard context, if there is none yet. It calls the caller's context, and so
// holds no lock.
func (r *run) derive() *derived {
	c := r.made()
	if c == nil {
		ctx, end := context.WithCancelCause(r.parent())
		if c = r.adopt(ctx, end); c.ctx != ctx {
			end(nil)
		}
	}
	// Either the run's end has found c there, or it is found here.
	if ended, why := r.cause(); ended {
		c.end(why)
	}
	return c
}

// parent is what the standard context is made from.
func (r *run) parent() context.Context {
	switch ended, _ := r.cause(); {
	case ended: // that is the cause, whatever comes after it, and the caller's context is to be left alone
		return context.WithoutCancel(r.Context)
	case plain(r.Context):
		return r.Context
	default:
		return newLink(r.Context)
	}
}

// cause tells whether r has ended otherwise than with the caller's context, and why, if it was
// told to stop.
func (r *run) cause() (ended bool, why error) {
	if r.state.Load() == finished {
		return true, nil
	}
	if s := r.batch.stop.Load(); s != nil {
		return true, s.why
	}
	return false, nil
}

// cancel ends the standard context, if there is one, after r has ended, and all that were derived
// from it. It calls nobody's code. Where somebody else is at it already, it waits for him: Err says
// that a context has ended before its children have, so it must not be asked instead.
func (r *run) cancel(why error) {
	if c := r.made(); c != nil {
		c.end(why)
	}
}
