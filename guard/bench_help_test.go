package guard_test

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
)

// undisturbed is an interval in which no benchmark meets a renewal: the longest that there is.
const undisturbed = 24 * time.Hour

// deviceIDs returns n ids of a UUID's length that differ from their first letters on.
func deviceIDs(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("%08x-5eed-4000-8000-%012x", uint32(i)*2654435769, i)
	}
	return ids
}

// benchGuard makes a guard that is closed with the benchmark.
func benchGuard(b *testing.B, v guard.Validator, opts ...guard.Option) *guard.Guard {
	b.Helper()
	g, err := guard.New(v, opts...)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = g.Close() })
	return g
}

// stride leads from one call's number to the next one's, so that neighbours in time are none in
// memory.
const stride = 7919

// both measures op on one core and on all of them. op gets a number that is another each time.
func both(b *testing.B, name string, op func(i int)) {
	b.Helper()
	b.Run(name+"/seq", func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			op(i)
			i += stride
		}
	})
	b.Run(name+"/par", func(b *testing.B) {
		b.ReportAllocs()
		var starts atomic.Int64
		b.RunParallel(func(pb *testing.PB) {
			i := int(starts.Add(331))
			for pb.Next() {
				op(i)
				i += stride
			}
		})
	})
}

// rounds measures a step that has to be prepared anew each time. round prepares it at its leisure
// and returns how long the step alone took; a step is of n items, each with its share of the time
// in the metric per.
func rounds(b *testing.B, n int, per string, round func() time.Duration) {
	b.Helper()
	var spent time.Duration
	for b.Loop() {
		spent += round()
	}
	step := float64(spent) / float64(b.N)
	b.ReportMetric(step, "ns/op")
	b.ReportMetric(step/float64(n), per)
}

// footprint returns how many bytes of heap and of stacks more are in use after hold than before.
func footprint(hold func()) (heap, stack float64) {
	before := settledMemory()
	hold()
	after := settledMemory()
	return float64(after.HeapAlloc) - float64(before.HeapAlloc), float64(after.StackInuse) - float64(before.StackInuse)
}

// settledMemory looks at the memory when two collections have gone over it: what the first finds
// unreachable through a finalizer or a pool only the second gives back.
func settledMemory() *runtime.MemStats {
	runtime.GC()
	runtime.GC()
	m := new(runtime.MemStats)
	runtime.ReadMemStats(m)
	return m
}
