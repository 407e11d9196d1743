package guardotel_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardotel"
)

// everything has each instrument used.
func everything(t *testing.T, opts ...guardotel.Option) *lab {
	t.Helper()
	l := newLab(t, opts...)
	if err := l.tel.Bind(l.guard); err != nil {
		t.Fatal(err)
	}
	l.guard.Hint("d")
	_ = l.run(t, "d")
	_ = l.run(t, "nobody")
	l.stop(t, timeout+time.Second, nil, func() { l.authority.Deny("d", guard.CodeDeviceRevoked) })
	return l
}

func TestMetrics_TheirKindsUnitsAndDocumentation(t *testing.T) {
	document, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		found := everything(t).collect(t)
		for name, want := range map[string]string{
			"execguard.decisions":            "counter {decision}",
			"execguard.validate.duration":    "histogram s",
			"execguard.runs":                 "counter {run}",
			"execguard.run.overruns":         "counter {run}",
			"execguard.run.stop.duration":    "histogram s",
			"execguard.hints":                "counter {hint}",
			"execguard.run.active":           "updowncounter {run}",
			"execguard.device.active":        "updowncounter {device}",
			"execguard.device.refused":       "updowncounter {device}",
			"execguard.permission.age.max":   "gauge s",
			"execguard.permission.age.limit": "gauge s",
			"execguard.authority.answering":  "gauge 1",
			"execguard.event.dropped":        "counter {event}",
		} {
			m, ok := found[name]
			delete(found, name)
			if got := kind(m.Data) + " " + m.Unit; !ok || got != want || !strings.HasSuffix(m.Description, ".") {
				t.Errorf("%s is a %s, want %s: %q", name, got, want, m.Description)
			}
			if !documented(string(document), append(strings.Fields(want), name)...) {
				t.Errorf("doc.go has no line with %s, %s", name, want)
			}
		}
		for name := range found {
			t.Errorf("%s is in no table", name)
		}
	})
}

// documented looks for a line that has all the words.
func documented(text string, words ...string) bool {
	for line := range strings.Lines(text) {
		has := strings.Fields(line)
		missing := 0
		for _, w := range words {
			if !strings.Contains(" "+strings.Join(has, " ")+" ", " "+w+" ") {
				missing++
			}
		}
		if missing == 0 {
			return true
		}
	}
	return false
}

func kind(data metricdata.Aggregation) string {
	switch data := data.(type) {
	case metricdata.Sum[int64]:
		if data.IsMonotonic {
			return "counter"
		}
		return "updowncounter"
	case metricdata.Gauge[int64], metricdata.Gauge[float64]:
		return "gauge"
	case metricdata.Histogram[float64]:
		return "histogram"
	}
	return fmt.Sprintf("%T", data)
}

// Durations are seconds: OpenTelemetry's own boundaries would put all of them into two buckets.
func TestMetrics_TheBucketsAreForSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		found := everything(t).collect(t)
		for name, ends := range map[string][2]float64{
			"execguard.validate.duration": {.005, 10}, "execguard.run.stop.duration": {.001, 300},
		} {
			bounds := found[name].Data.(metricdata.Histogram[float64]).DataPoints[0].Bounds
			if len(bounds) < 10 || bounds[0] != ends[0] || bounds[len(bounds)-1] != ends[1] {
				t.Errorf("%s: %v", name, bounds)
			}
		}
	})
}

func TestMetrics_HaveTheGuardsName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, line := range points(everything(t, guardotel.WithName("payments")).collect(t)) {
			if !strings.Contains(line, "guard.name=payments") {
				t.Error(line)
			}
		}
	})
}

func TestMetrics_HaveTheDeviceOnlyIfAskedFor(t *testing.T) {
	fromHealth := []string{
		"execguard.run.active", "execguard.device.", "execguard.permission.", "execguard.authority.", "execguard.event.",
	}
	for _, asked := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var opts []guardotel.Option
			if asked {
				opts = append(opts, guardotel.WithDeviceLabel())
			}
			for _, line := range points(everything(t, opts...).collect(t)) {
				counted := false
				for _, prefix := range fromHealth {
					counted = counted || strings.HasPrefix(line, prefix)
				}
				if strings.Contains(line, "device.id=") != (asked && !counted) {
					t.Error(line)
				}
			}
		})
	}
}

// An exemplar of a measurement is the span of the same event.
func TestMetrics_NameTheirSpans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		_ = l.run(t, "d")
		synctest.Wait()
		found := l.collect(t)
		for name, span := range map[string]string{"execguard.runs": "execguard.run", "execguard.decisions": "execguard.validate"} {
			examples := found[name].Data.(metricdata.Sum[int64]).DataPoints[0].Exemplars
			if len(examples) != 1 {
				t.Fatalf("%s: %d exemplars", name, len(examples))
			}
			for _, s := range l.spans.Ended() {
				if id := s.SpanContext().SpanID(); s.Name() == span && string(id[:]) != string(examples[0].SpanID) {
					t.Errorf("%s names %x, want %v", name, examples[0].SpanID, id)
				}
			}
		}
	})
}
