package guard_test

import (
	"context"
	"runtime"
	"strconv"
	"testing"
	"time"
)

// BenchmarkFloor is what the others are set against: the standard library's own way of doing the
// part that nobody can leave out.
func BenchmarkFloor(b *testing.B) {
	parent, stop := context.WithCancel(b.Context())
	defer stop()
	both(b, "WithCancelCause", func(int) {
		ctx, cancel := context.WithCancelCause(parent)
		_ = asksNothing(ctx)
		cancel(nil)
	})
	var at time.Time
	b.Run("time.Now", func(b *testing.B) {
		for b.Loop() {
			at = time.Now()
		}
	})
	// S6: a start and an end look at both clocks, which is what time.Now does.
	b.Run("two-looks", func(b *testing.B) {
		for b.Loop() {
			at = time.Now()
			at = time.Now()
		}
	})
	if at.IsZero() {
		b.Error("the clocks were not looked at")
	}
	b.Run("http", benchFloorHTTP)
	b.Run("list", func(b *testing.B) { rounds(b, many, "ns/run", walkList) })
}

// benchFloorHTTP asks without a guard.
func benchFloorHTTP(b *testing.B) {
	client := newWireClient(b)
	for _, workers := range []int{8, 64} {
		ids := deviceIDs(workers)
		b.Run(strconv.Itoa(workers), func(b *testing.B) {
			drive(b, workers, func(w int) error {
				_, err := client.Validate(context.Background(), ids[w])
				return err
			})
		})
	}
}

// walkList cancels as many contexts as a storm tells runs, one by one.
func walkList() time.Duration {
	cancels := make([]context.CancelCauseFunc, many)
	for i := range cancels {
		var ctx context.Context
		ctx, cancels[i] = context.WithCancelCause(context.Background())
		_ = ctx.Err()
	}
	runtime.GC()
	began := time.Now()
	for _, cancel := range cancels {
		cancel(context.DeadlineExceeded)
	}
	return time.Since(began)
}
