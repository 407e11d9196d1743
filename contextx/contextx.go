// Package contextx holds the mechanics of contexts that the standard library leaves out:
// typed keys, a context that ends with either of two, and a context for cleaning up after a
// cancel. It resembles the functions of package context that it is built on, and knows
// nothing of guarding.
//
// It does not promise to stop anything: as everywhere in Go, a context asks, and the function
// that holds it obeys.
package contextx

import (
	"context"
	"time"
)

// Key is the address of one value of type T in a context. Two keys are never equal, whatever
// their names; keep the pointer that NewKey returns in a package variable.
type Key[T any] struct{ name string }

// NewKey makes a key. The name is for people who print the context.
func NewKey[T any](name string) *Key[T] { return &Key[T]{name: name} }

// String returns the key's name.
func (k *Key[T]) String() string { return k.name }

// With returns a context that carries v under k.
func (k *Key[T]) With(ctx context.Context, v T) context.Context {
	return context.WithValue(ctx, k, v)
}

// From returns the value under k and true, or the zero value and false where ctx carries none.
func (k *Key[T]) From(ctx context.Context) (T, bool) {
	v, ok := ctx.Value(k).(T)
	return v, ok
}

// Merge returns a context with the values of ctx that ends as soon as ctx or other ends, with
// the cause of whichever was first. Its Err is context.Canceled where other was first, even
// where other ran out of time: ask context.Cause for the difference. Its deadline is the
// earlier one. Call the CancelFunc to let go of both.
func Merge(ctx, other context.Context) (context.Context, context.CancelFunc) {
	merged, cancel := context.WithCancelCause(ctx)
	follow := func() { cancel(context.Cause(other)) }
	if other.Err() != nil {
		// AfterFunc would call follow later, on a goroutine of its own, and the caller would
		// be handed a context that is not done yet.
		follow()
	}
	stop := context.AfterFunc(other, follow)
	return mergedContext{Context: merged, other: other}, func() {
		stop()
		cancel(nil)
	}
}

type mergedContext struct {
	context.Context //nolint:containedctx // it is a context
	other           context.Context
}

func (m mergedContext) Deadline() (time.Time, bool) {
	mine, ok := m.Context.Deadline()
	theirs, both := m.other.Deadline()
	if !ok || both && theirs.Before(mine) {
		return theirs, both
	}
	return mine, true
}

// Cleanup returns a context for what must still be done after ctx has ended, such as telling
// a server that the work was broken off: it has the values of ctx, does not end with it, and
// ends after the time given, at once if that is not positive. Call the CancelFunc when the cleaning is done.
func Cleanup(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), timeout)
}
