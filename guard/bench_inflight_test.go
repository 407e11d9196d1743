package guard_test

import (
	"context"
	"runtime"
	"testing"
	"time"
)

// BenchmarkInFlight has 100k runs in flight, of one device or of 1000, and denies all of them.
// B/run and stack-B/run are what a run holds together with the goroutine that called it; that of
// «caller» has no guard, so the difference is the guard's. ns/op is from the question that brings
// the first denial until the last function has returned, and cancel-ns that part of it after
// which the guard had learnt the last one.
func BenchmarkInFlight(b *testing.B) {
	for _, c := range []struct {
		name    string
		devices int
	}{{"1", 1}, {"1k", 1000}} {
		ids := deviceIDs(c.devices)
		b.Run(c.name, func(b *testing.B) {
			benchInFlight(b, func(parent context.Context) (*flight, func()) {
				s := newSquadron(b, parent)
				s.untilCancelled()
				s.permit(ids)
				s.launchMany(ids, many)
				return &s.flight, func() { s.deny(ids) }
			})
		})
		b.Run("caller/"+c.name, func(b *testing.B) {
			benchInFlight(b, func(context.Context) (*flight, func()) { return launchBare(b, ids) })
		})
	}
}

func benchInFlight(b *testing.B, takeOff func(parent context.Context) (f *flight, deny func())) {
	b.Helper()
	parent, stop := context.WithCancel(context.Background())
	defer stop()
	f, deny := takeOff(parent) // so that from here on goroutines are used again
	deny()
	f.ended.Wait()

	var heap, stack, denied float64
	rounds(b, many, "ns/run", func() time.Duration {
		h, s := footprint(func() { f, deny = takeOff(parent) })
		heap, stack = heap+h/many, stack+s/many
		runtime.GC()
		began := time.Now()
		deny()
		denied += float64(time.Since(began))
		f.ended.Wait()
		return time.Since(began)
	})
	b.ReportMetric(heap/float64(b.N), "B/run")
	b.ReportMetric(stack/float64(b.N), "stack-B/run")
	b.ReportMetric(denied/float64(b.N), "cancel-ns")
}

// launchBare has as many goroutines wait as are in flight, a context for each device.
func launchBare(b *testing.B, ids []string) (f *flight, cancel func()) {
	b.Helper()
	contexts := make(map[string]context.Context, len(ids))
	cancels := make([]context.CancelFunc, 0, len(ids))
	for _, id := range ids {
		ctx, cancel := context.WithCancel(context.Background())
		contexts[id] = ctx
		cancels = append(cancels, cancel)
	}
	run := func(_ context.Context, id string, fn func(context.Context) error) error { return fn(contexts[id]) }
	f = &flight{b: b, run: run, landed: func(err error) bool { return err == context.Canceled }}
	f.untilCancelled()
	f.launchMany(ids, many)
	return f, func() {
		for _, cancel := range cancels {
			cancel()
		}
	}
}
