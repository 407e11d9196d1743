package guard_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
)

// BenchmarkStop is what the guard adds to its bounds (B4): from the instant at which the denial
// has come, with n runs of one device in flight, until the last function has returned. Beside it
// the floor: as many goroutines that wake up because a channel was closed.
func BenchmarkStop(b *testing.B) {
	for _, n := range []int{1, 1000, 100_000} {
		b.Run(fmt.Sprintf("guard/%d", n), func(b *testing.B) { stopRuns(b, n) })
		b.Run(fmt.Sprintf("floor/%d", n), func(b *testing.B) { wakeGoroutines(b, n) })
	}
}

func stopRuns(b *testing.B, n int) {
	b.Helper()
	var revoked atomic.Bool
	g, err := guard.New(guard.ValidatorFunc(func(context.Context, string) (guard.Decision, error) {
		if revoked.Load() {
			return guard.Decision{Code: guard.CodeDeviceRevoked}, nil
		}
		return guard.Decision{Allowed: true, Code: guard.CodeAllow}, nil
	}), guard.WithInterval(time.Hour), guard.WithReuse(time.Hour))
	if err != nil {
		b.Fatal(err)
	}
	defer g.Close()
	for b.Loop() {
		b.StopTimer()
		revoked.Store(false)
		var running, ended sync.WaitGroup
		running.Add(n)
		for range n {
			ended.Go(func() {
				_ = g.Run(b.Context(), "d", func(ctx context.Context) error {
					running.Done()
					<-ctx.Done()
					return nil
				})
			})
		}
		running.Wait()
		revoked.Store(true)
		b.StartTimer()
		if d, err := g.Validate(b.Context(), "d"); d.Allowed || err != nil {
			b.Fatal(d, err)
		}
		ended.Wait()
	}
}

func wakeGoroutines(b *testing.B, n int) {
	b.Helper()
	for b.Loop() {
		b.StopTimer()
		stop := make(chan struct{})
		var running, ended sync.WaitGroup
		running.Add(n)
		for range n {
			ended.Go(func() {
				running.Done()
				<-stop
			})
		}
		running.Wait()
		b.StartTimer()
		close(stop)
		ended.Wait()
	}
}
