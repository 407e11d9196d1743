package guard

import (
	"context"
	"reflect"
)

// derived is what a run has been asked for besides: the standard context behind its own, and the
// hooks for its stop. It is never changed, but replaced.
type derived struct {
	ctx  context.Context //nolint:containedctx // it stands for one; nil: nobody has asked for it
	end  context.CancelCauseFunc
	hook *hook // the latest; nil: there is none
}

// adopt makes ctx the standard context of r, unless there is one, and returns what there is.
func (r *run) adopt(ctx context.Context, end context.CancelCauseFunc) *derived {
	for {
		before := r.derived.Load()
		c := &derived{ctx: ctx, end: end}
		if before != nil {
			if before.ctx != nil {
				return before
			}
			c.hook = before.hook
		}
		if r.derived.CompareAndSwap(before, c) {
			return c
		}
	}
}

// plain tells of the commonest contexts that cancelling their children calls nobody's code.
func plain(ctx context.Context) bool {
	t := reflect.TypeOf(ctx)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Name() {
	case "cancelCtx", "timerCtx", "backgroundCtx", "withoutCancelCtx":
		return t.PkgPath() == "context"
	}
	return false
}

// link is a caller's context as the child has it as a parent. A child that is cancelled asks its
// parent once more for what it had asked when it was made; the parent may be of somebody's own
// type, and what tells runs to stop keeps deadlines and must not call anybody's code (S4). So
// the link has asked for it, and remembers the answer.
type link struct {
	context.Context //nolint:containedctx // the caller's; a link is a context

	done       <-chan struct{}
	key, found any // what the standard library finds its own contexts by
}

func newLink(parent context.Context) *link {
	p := &probe{Context: parent}
	_ = context.Cause(p)
	return &link{Context: parent, done: parent.Done(), key: p.key, found: parent.Value(p.key)}
}

// Done is context.Context's.
func (l *link) Done() <-chan struct{} { return l.done }

// Value is context.Context's.
func (l *link) Value(key any) any {
	if key == l.key {
		return l.found
	}
	return l.Context.Value(key)
}

// probe is a context that has ended, to be asked for its cause: it learns the key by which the
// standard library looks for one.
type probe struct {
	context.Context //nolint:containedctx // a probe is a context

	key any
}

// Err is context.Context's.
func (p *probe) Err() error { return context.Canceled }

// Value is context.Context's.
func (p *probe) Value(key any) any {
	p.key = key
	return nil
}
