package guard_test

import (
	"context"
	"encoding/json"
	"strconv"
	"testing"

	"github.com/execguard/execguard/guard"
)

// BenchmarkHealth looks at a guard with so many devices, each with a run in flight.
func BenchmarkHealth(b *testing.B) {
	for _, devices := range []int{100, 10_000} {
		b.Run(strconv.Itoa(devices), func(b *testing.B) { benchHealth(b, devices) })
	}
}

func benchHealth(b *testing.B, devices int) {
	b.Helper()
	ids := deviceIDs(devices)
	g := benchGuard(b, new(inProcess), guard.WithInterval(undisturbed), guard.WithReuse(undisturbed))
	ctx, stop := context.WithCancel(context.Background())
	began, ended := make(chan struct{}), make(chan error)
	for _, id := range ids {
		go func() {
			ended <- g.Run(ctx, id, func(ctx context.Context) error {
				began <- struct{}{}
				<-ctx.Done()
				return nil
			})
		}()
		<-began
	}
	defer func() {
		stop()
		for range ids {
			<-ended
		}
	}()
	b.Run("Health", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if h := g.Health(); h.Runs != devices {
				b.Fatalf("%+v", h)
			}
		}
	})
	b.Run("Devices", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			n := 0
			for range g.Devices() {
				n++
			}
			if n != devices {
				b.Fatal(n)
			}
		}
	})
	b.Run("Devices/JSON", func(b *testing.B) {
		for b.Loop() {
			for d := range g.Devices() {
				if _, err := json.Marshal(d); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}
