package guard_test

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
)

// watchLog is a validator that notes when it is called about which device.
type watchLog struct {
	client *wireClient
	began  time.Time

	mu    sync.Mutex
	calls []watchCall // in the order of their times
}

type watchCall struct {
	device string
	at     time.Duration // since began
}

// Validate is guard.Validator's.
func (l *watchLog) Validate(ctx context.Context, deviceID string) (guard.Decision, error) {
	l.mu.Lock()
	l.calls = append(l.calls, watchCall{deviceID, time.Since(l.began)})
	l.mu.Unlock()
	return l.client.Validate(ctx, deviceID)
}

// until returns the calls before a time.
func (l *watchLog) until(to time.Duration) []watchCall {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(l.calls), func(c watchCall) bool { return c.at >= to })
}

// watchFigures are the figures of several intervals by their units. Their medians are reported,
// so that an interval in which the machine did something else counts as one.
type watchFigures map[string][]float64

// lookOn adds the figures of an interval that begins now: how many calls came; peak-10ms, the most
// in any 10 ms of it; p99-ns, how late all but one of a hundred came, against an interval after
// the last about the same device; and the most goroutines there were, of several looks, beyond the
// others and the two that net/http has for each connection.
func (f watchFigures) lookOn(l *watchLog, interval time.Duration, others int) {
	from, spent := time.Since(l.began), startProcessorWatch()
	most := 0
	for range 20 {
		<-time.After(interval / 20)
		most = max(most, runtime.NumGoroutine()-others-2*int(l.client.open.Load()))
	}
	to := time.Since(l.began)
	calls := l.until(to)
	late := lateness(calls, from, interval)
	slices.Sort(late)
	calls = slices.DeleteFunc(calls, func(c watchCall) bool { return c.at < from })
	f.add("validates/interval", float64(len(calls))*float64(interval)/float64(to-from))
	f.add("peak-10ms", float64(busiest(calls, 10*time.Millisecond)))
	f.add("p99-ns", float64(percentile(late, 99)))
	f.add("goroutines", float64(most))
	if cpu, ok := spent.read(); ok {
		f.add("cpu-ns/validate", float64(cpu)/float64(len(calls)))
	}
}

func (f watchFigures) add(unit string, figure float64) { f[unit] = append(f[unit], figure) }

func (f watchFigures) report(b *testing.B) {
	b.Helper()
	for unit, figures := range f {
		slices.Sort(figures)
		b.ReportMetric(figures[len(figures)/2], unit)
	}
	b.ReportMetric(0, "ns/op") // how long it looked on
}

// busiest returns how many calls there are in the span that has the most of them.
func busiest(calls []watchCall, span time.Duration) int {
	most, first := 0, 0
	for i, c := range calls {
		for c.at-calls[first].at >= span {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// lateness returns for each call since a time how much later than an interval after the last one
// about the same device it came; 0 where it came sooner.
func lateness(calls []watchCall, from, interval time.Duration) []time.Duration {
	last := make(map[string]time.Duration)
	var late []time.Duration
	for _, c := range calls {
		if at, ok := last[c.device]; ok && c.at >= from {
			late = append(late, max(c.at-at-interval, 0))
		}
		last[c.device] = c.at
	}
	return late
}

// The figures are held to calls whose figures are known.
func TestBenchWatchFigures(t *testing.T) {
	const ms = time.Millisecond
	l := watchLog{calls: []watchCall{
		{"a", 0}, {"b", 4 * ms}, {"c", 8 * ms}, {"d", 10 * ms}, {"c", 101 * ms}, {"a", 103 * ms}, {"b", 104 * ms}, {"a", 200 * ms}, {"b", 211 * ms},
	}}
	if got := busiest(l.until(101*ms), 10*ms); got != 3 {
		t.Errorf("%d calls in the busiest 10 ms, want 3", got)
	}
	if got := len(l.until(10 * ms)); got != 3 {
		t.Errorf("%d calls before 10 ms, want 3", got)
	}
	if got, want := lateness(l.calls, 102*ms, 100*ms), []time.Duration{3 * ms, 0, 0, 7 * ms}; !slices.Equal(got, want) {
		t.Errorf("late by %v, want %v", got, want)
	}
}
