package guardotel_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardotel"
	"github.com/execguard/execguard/guard/guardtest"
)

const (
	interval = 10 * time.Second
	timeout  = 3 * time.Second
)

// everyCode is what an authority may deny with; the last is of tomorrow.
var everyCode = []guard.Code{
	guard.CodeOrgDisabled, guard.CodeSystemUnavailable, guard.CodePlanFrozen, guard.CodePlanNotActive,
	guard.CodeEntitlementExpired, guard.CodeDeviceRevoked, guard.CodeDeviceNotFound, guard.CodeOrgNotFound,
	guard.CodeInvalidOrgKey, guard.CodeInvalidDeviceID, "MOON_IN_THE_WRONG_PHASE",
}

// labelled is the values of execguard.decision.code and error.type for a code.
func labelled(c guard.Code) (code, failure string) {
	if c == "MOON_IN_THE_WRONG_PHASE" {
		return "OTHER", "_OTHER"
	}
	return string(c), string(c)
}

// sdk is the providers that a test looks into.
type sdk struct {
	reader  *sdkmetric.ManualReader
	meters  *sdkmetric.MeterProvider
	spans   *tracetest.SpanRecorder
	tracers *sdktrace.TracerProvider
}

func newSDK(opts ...sdkmetric.Option) *sdk {
	s := &sdk{reader: sdkmetric.NewManualReader(), spans: tracetest.NewSpanRecorder()}
	s.meters = sdkmetric.NewMeterProvider(append(opts, sdkmetric.WithReader(s.reader))...)
	s.tracers = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(s.spans))
	return s
}

func (s *sdk) options(more ...guardotel.Option) []guardotel.Option {
	return append([]guardotel.Option{guardotel.WithMeterProvider(s.meters), guardotel.WithTracerProvider(s.tracers)}, more...)
}

func (s *sdk) telemetry(t testing.TB, more ...guardotel.Option) *guardotel.Telemetry {
	t.Helper()
	tel, err := guardotel.New(s.options(more...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tel.Close(); err != nil {
			t.Error(err)
		}
	})
	return tel
}

// lab is a guard that is seen, and what was seen.
type lab struct {
	*sdk
	authority *guardtest.Validator
	tel       *guardotel.Telemetry
	guard     *guard.Guard
	began     time.Time
}

func newLab(t *testing.T, opts ...guardotel.Option) *lab {
	t.Helper()
	l := &lab{sdk: newSDK(), authority: guardtest.NewValidator("d", "e"), began: time.Now()}
	l.tel = l.telemetry(t, opts...)
	g, err := guard.New(l.authority, guard.WithInterval(interval), guard.WithTimeout(timeout), guard.WithObserver(l.tel.Observe))
	if err != nil {
		t.Fatal(err)
	}
	l.guard = g
	t.Cleanup(func() { g.Close() })
	return l
}

// run runs nothing under the device.
func (l *lab) run(t *testing.T, device string) error {
	t.Helper()
	return l.guard.Run(t.Context(), device, func(context.Context) error { return nil })
}

// stop has a run stopped by how, which goes on for a while after that.
func (l *lab) stop(t *testing.T, after time.Duration, work error, how func()) {
	t.Helper()
	done, began := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		_ = l.guard.Run(t.Context(), "d", func(ctx context.Context) error {
			close(began)
			<-ctx.Done()
			time.Sleep(after)
			return work
		})
	}()
	<-began
	synctest.Wait()
	how()
	<-done
	synctest.Wait()
}

// answer is an answer of the script's that takes time.
func answer(after time.Duration, d guard.Decision) guard.ValidatorFunc {
	return guardtest.Delay(after, guardtest.Reply(d, nil))
}

func allowed(id string) guard.Decision {
	return guard.Decision{Allowed: true, Code: guard.CodeAllow, RequestID: id}
}

// collect is everything that the meter provider has.
func (s *sdk) collect(t testing.TB) map[string]metricdata.Metrics {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := s.reader.Collect(context.Background(), &all); err != nil {
		t.Fatal(err)
	}
	found := map[string]metricdata.Metrics{}
	for _, of := range all.ScopeMetrics {
		if of.Scope.Name != "github.com/execguard/execguard/guard/guardotel" {
			t.Errorf("the scope is %q", of.Scope.Name)
		}
		for _, m := range of.Metrics {
			found[m.Name] = m
		}
	}
	return found
}

// points are the points of metrics as text, sorted: name{labels} value.
func points(of map[string]metricdata.Metrics, names ...string) []string {
	var all []string
	for name, m := range of {
		if len(names) == 0 || slices.Contains(names, name) {
			for labels, value := range values(m.Data) {
				all = append(all, fmt.Sprintf("%s{%s} %s", name, labels, value))
			}
		}
	}
	slices.Sort(all)
	return all
}

// values are the points of a metric by their labels.
func values(data metricdata.Aggregation) map[string]string {
	found := map[string]string{}
	switch data := data.(type) {
	case metricdata.Sum[int64]:
		for _, p := range data.DataPoints {
			found[labels(p.Attributes)] = fmt.Sprint(p.Value)
		}
	case metricdata.Gauge[int64]:
		for _, p := range data.DataPoints {
			found[labels(p.Attributes)] = fmt.Sprint(p.Value)
		}
	case metricdata.Gauge[float64]:
		for _, p := range data.DataPoints {
			found[labels(p.Attributes)] = fmt.Sprint(p.Value)
		}
	case metricdata.Histogram[float64]:
		for _, p := range data.DataPoints {
			found[labels(p.Attributes)] = fmt.Sprintf("%d in %gs", p.Count, p.Sum)
		}
	default:
		found["?"] = fmt.Sprintf("%T", data)
	}
	return found
}

func labels(s attribute.Set) string { return joined(s.ToSlice()) }

// joined is attributes as text, sorted, without what all of ours begin with.
func joined(attrs []attribute.KeyValue) string {
	var all []string
	for _, a := range attrs {
		all = append(all, strings.TrimPrefix(string(a.Key), "execguard.")+"="+a.Value.String())
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// want compares the points of the metrics that it names with the lines.
func (s *sdk) want(t *testing.T, names []string, lines ...string) {
	t.Helper()
	slices.Sort(lines)
	if diff := cmp.Diff(lines, points(s.collect(t), names...)); diff != "" {
		t.Error(diff)
	}
}

// told is the spans that are over, as text: name from-to of parent {attributes} status.
func (l *lab) told(name string) []string {
	var all []string
	ended := l.spans.Ended()
	for _, s := range ended {
		if s.Name() == name {
			all = append(all, l.describe(s, ended))
		}
	}
	return all
}

func (l *lab) describe(s sdktrace.ReadOnlySpan, all []sdktrace.ReadOnlySpan) string {
	text := fmt.Sprintf("%v-%v", s.StartTime().Sub(l.began), s.EndTime().Sub(l.began))
	if s.Parent().IsValid() {
		text += " of " + parent(s, all)
	}
	text += " {" + joined(s.Attributes()) + "}"
	if s.Status().Code != codes.Unset || s.Status().Description != "" {
		text += " " + strings.TrimSpace(s.Status().Code.String()+" "+s.Status().Description)
	}
	if n := len(s.Events()) + len(s.Links()); n > 0 {
		text += fmt.Sprintf(" and %d events and links", n)
	}
	return text
}

func parent(s sdktrace.ReadOnlySpan, all []sdktrace.ReadOnlySpan) string {
	for _, other := range all {
		if other.SpanContext().SpanID() == s.Parent().SpanID() && other.SpanContext().TraceID() == s.SpanContext().TraceID() {
			return other.Name()
		}
	}
	return "somebody who has not ended"
}

func wantSpans(t *testing.T, got []string, lines ...string) {
	t.Helper()
	if diff := cmp.Diff(lines, got); diff != "" {
		t.Error(diff)
	}
}

var errOwn = errors.New("the function's own")
