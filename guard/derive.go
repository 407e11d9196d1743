package guard

import (
	"context"
	"reflect"
)

// derived is the standard context behind a run's. It is never changed.
type derived struct {
	ctx context.Context //nolint:containedctx // it stands for one
	end context.CancelCauseFunc
}

// plain tells of the commonest contexts that cancelling their children calls nobody's code.
func plain(ctx context.Context) bool {
	switch reflect.TypeOf(ctx).String() {
	case "*context.cancelCtx", "*context.timerCtx", "context.backgroundCtx", "context.withoutCancelCtx":
		return true
	}
	return false
}

// link is a caller's context as the child has it as a parent. A child that is cancelled asks its
// parent once more for what it had asked when it was made; the parent may be of somebody's own
// type, and what tells runs to stop keeps deadlines and must not call anybody's code (S4). So
// the link remembers the answer.
type link struct {
	context.Context //nolint:containedctx // the caller's; a link is a context

	done       <-chan struct{}
	key, found any // what the standard library asks for; written before the link is shared
	made       bool
}

func newLink(parent context.Context) *link {
	l := &link{Context: parent, done: parent.Done()}
	_ = context.Cause(l) // asks for the same as a child does
	l.made = true
	return l
}

// Done is context.Context's.
func (l *link) Done() <-chan struct{} { return l.done }

// Value is context.Context's.
func (l *link) Value(key any) any {
	if l.made && key == l.key {
		return l.found
	}
	found := l.Context.Value(key)
	if !l.made {
		l.key, l.found = key, found
	}
	return found
}
