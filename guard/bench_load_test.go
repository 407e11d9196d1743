package guard_test

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// drive has a number of workers call op b.N times between them, each again as soon as its last
// call has returned, and reports what the calls took: ops/s, the percentiles of one, and the
// processor time of this process, which whatever else runs on the machine disturbs least.
func drive(b *testing.B, workers int, op func(worker int) error) {
	b.Helper()
	b.ReportAllocs()
	took := make([]time.Duration, b.N)
	var issued atomic.Int64
	var wg sync.WaitGroup
	spent := startProcessorWatch()
	b.ResetTimer()
	for w := range workers {
		wg.Go(func() {
			for i := issued.Add(1) - 1; i < int64(b.N); i = issued.Add(1) - 1 {
				began := time.Now()
				if err := op(w); err != nil {
					b.Error(err)
					return
				}
				took[i] = time.Since(began)
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	if cpu, ok := spent.read(); ok {
		b.ReportMetric(float64(cpu)/float64(b.N), "cpu-ns/op")
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
	reportPercentiles(b, took)
}

// reportPercentiles reports how long half of what took is at most, and 99 of a hundred.
func reportPercentiles(b *testing.B, took []time.Duration) {
	b.Helper()
	slices.Sort(took)
	b.ReportMetric(float64(percentile(took, 50)), "p50-ns")
	b.ReportMetric(float64(percentile(took, 99)), "p99-ns")
}

// percentile is the value that p of a hundred of the sorted do not exceed.
func percentile(sorted []time.Duration, p int) time.Duration {
	return sorted[max((len(sorted)*p+99)/100-1, 0)]
}

// processorWatch is running processor time.
type processorWatch struct {
	began time.Duration
	ok    bool
}

func startProcessorWatch() (w processorWatch) {
	w.began, w.ok = processorTime()
	return w
}

// read returns the processor time since w was started, where it is to be had.
func (w processorWatch) read() (time.Duration, bool) {
	now, ok := processorTime()
	return now - w.began, ok && w.ok
}

// The 99th of a hundred values is the last but one, and of a few the last.
func TestBenchPercentile(t *testing.T) {
	values := make([]time.Duration, 100)
	for i := range values {
		values[i] = time.Duration(i + 1)
	}
	for _, c := range []struct {
		n, p int
		want time.Duration
	}{{100, 99, 99}, {100, 50, 50}, {3, 50, 2}, {3, 99, 3}, {1, 50, 1}} {
		if got := percentile(values[:c.n], c.p); got != c.want {
			t.Errorf("of %d values the %dth percentile is %d, want %d", c.n, c.p, got, c.want)
		}
	}
}
