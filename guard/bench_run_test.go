package guard_test

import (
	"context"
	"slices"
	"testing"

	"github.com/execguard/execguard/guard"
)

// What the protected function does with its context: nothing, or what most short ones do. They
// are variables, so that they are called as a user's function is.
var (
	asksNothing = func(context.Context) error { return nil }
	asksErr     = func(ctx context.Context) error { return ctx.Err() }
	asksDone    = func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		default:
			return nil
		}
	}
)

// BenchmarkRun is a whole guarded call: on a permission that may be reused, on a question of its
// own, and on one that it shares with others.
func BenchmarkRun(b *testing.B) {
	b.Run("lease", benchLease)
	b.Run("strict", benchStrict)
	b.Run("coalesced", benchCoalesced)
}

// benchLease has each call find a live permission: of another of 1000 devices, or (one) of the
// same each time.
func benchLease(b *testing.B) {
	const devices = 1000
	ids := deviceIDs(devices)
	one := slices.Repeat(ids[:1], devices)
	cancellable, stop := context.WithCancel(context.Background())
	defer stop()
	g := benchGuard(b, new(inProcess), guard.WithInterval(undisturbed), guard.WithReuse(undisturbed))
	for _, id := range ids {
		if err := g.Run(cancellable, id, asksNothing); err != nil {
			b.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		ctx  context.Context
		ids  []string
		fn   func(context.Context) error
	}{
		{"background/noop", context.Background(), ids, asksNothing},
		{"cancellable/noop", cancellable, ids, asksNothing},
		{"cancellable/Err", cancellable, ids, asksErr},
		{"cancellable/Done", cancellable, ids, asksDone},
		{"cancellable/noop-one", cancellable, one, asksNothing},
	} {
		both(b, c.name, func(i int) {
			if err := g.Run(c.ctx, c.ids[i%devices], c.fn); err != nil {
				b.Error(err)
			}
		})
	}
}
