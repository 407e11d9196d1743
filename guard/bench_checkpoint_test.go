package guard_test

import (
	"context"
	"testing"

	"github.com/execguard/execguard/guard"
)

// BenchmarkCheckpoint is the look that work takes before each of its side effects.
func BenchmarkCheckpoint(b *testing.B) {
	b.Run("live", func(b *testing.B) {
		g := benchGuard(b, new(inProcess), guard.WithInterval(undisturbed))
		err := g.Run(context.Background(), deviceIDs(1)[0], func(ctx context.Context) error {
			b.ReportAllocs()
			for b.Loop() {
				if err := guard.Checkpoint(ctx); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Error(err)
		}
	})
}
