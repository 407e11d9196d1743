package guardotel_test

import (
	"errors"
	"strings"
	"testing"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardotel"
)

func TestNew_NamesEveryOptionThatItRefuses(t *testing.T) {
	tel, err := guardotel.New(
		guardotel.WithMeterProvider((*sdkmetric.MeterProvider)(nil)), guardotel.WithTracerProvider((*sdktrace.TracerProvider)(nil)),
		guardotel.WithName(""), nil,
	)
	if tel != nil || err == nil {
		t.Fatalf("%v, %v", tel, err)
	}
	for _, words := range []string{"WithMeterProvider", "WithTracerProvider", "WithName", "an Option is nil"} {
		if !strings.Contains(err.Error(), words) {
			t.Errorf("%v does not name %s", err, words)
		}
	}
	for _, o := range []guardotel.Option{guardotel.WithMeterProvider(nil), guardotel.WithTracerProvider(nil)} {
		if _, err := guardotel.New(o); err == nil {
			t.Error("nil is no provider")
		}
	}
}

func TestNew_NamesEveryInstrumentThatCannotBeMade(t *testing.T) {
	_, err := guardotel.New(guardotel.WithMeterProvider(&broken{}))
	if err == nil || strings.Count(err.Error(), "no more instruments") != 13 {
		t.Error(err)
	}
}

// broken is a provider whose meters make nothing.
type broken struct{ noop.MeterProvider }

func (broken) Meter(string, ...metric.MeterOption) metric.Meter { return brokenMeter{} }

type brokenMeter struct{ noop.Meter }

var errFull = errors.New("no more instruments")

func (brokenMeter) Int64Counter(string, ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	return nil, errFull
}

func (brokenMeter) Float64Histogram(string, ...metric.Float64HistogramOption) (metric.Float64Histogram, error) {
	return nil, errFull
}

func (brokenMeter) Int64ObservableUpDownCounter(
	string, ...metric.Int64ObservableUpDownCounterOption,
) (metric.Int64ObservableUpDownCounter, error) {
	return nil, errFull
}

func (brokenMeter) Int64ObservableGauge(string, ...metric.Int64ObservableGaugeOption) (metric.Int64ObservableGauge, error) {
	return nil, errFull
}

func (brokenMeter) Float64ObservableGauge(string, ...metric.Float64ObservableGaugeOption) (metric.Float64ObservableGauge, error) {
	return nil, errFull
}

func (brokenMeter) Int64ObservableCounter(string, ...metric.Int64ObservableCounterOption) (metric.Int64ObservableCounter, error) {
	return nil, errFull
}

func TestNew_TakesTheGlobalProviders(t *testing.T) {
	defer otel.SetMeterProvider(noop.NewMeterProvider())
	defer otel.SetTracerProvider(tracenoop.NewTracerProvider())
	s := newSDK()
	otel.SetMeterProvider(s.meters)
	otel.SetTracerProvider(s.tracers)
	tel, err := guardotel.New()
	if err != nil {
		t.Fatal(err)
	}
	defer tel.Close()
	tel.Observe(t.Context(), guard.Event{Kind: guard.EventFinished, Decision: allowed("r")})
	s.want(t, nil, "execguard.runs{decision.code=ALLOW run.outcome=finished} 1")
	if n := len(s.spans.Ended()); n != 1 {
		t.Errorf("%d spans", n)
	}
}

func TestBind_ToAMeterThatRefuses(t *testing.T) {
	tel, err := guardotel.New(guardotel.WithMeterProvider(deaf{}))
	if err != nil {
		t.Fatal(err)
	}
	if err := tel.Bind(&guard.Guard{}); !errors.Is(err, errFull) {
		t.Error(err)
	}
	if err := tel.Close(); err != nil {
		t.Error(err)
	}
}

// deaf is a provider whose meters take no callback.
type deaf struct{ noop.MeterProvider }

func (deaf) Meter(string, ...metric.MeterOption) metric.Meter { return deafMeter{} }

type deafMeter struct{ noop.Meter }

func (deafMeter) RegisterCallback(metric.Callback, ...metric.Observable) (metric.Registration, error) {
	return nil, errFull
}

// What was taken back is let go of: a provider may live longer than a guard.
func TestClose_TakesBackOnce(t *testing.T) {
	registered := &registration{}
	tel, err := guardotel.New(guardotel.WithMeterProvider(lending{to: registered}))
	if err != nil {
		t.Fatal(err)
	}
	if err := tel.Bind(&guard.Guard{}); err != nil {
		t.Fatal(err)
	}
	if err := tel.Close(); !errors.Is(err, errFull) {
		t.Errorf("Close hides that it did not work: %v", err)
	}
	if err := tel.Close(); err != nil || registered.taken != 1 {
		t.Errorf("%v, taken back %d times", err, registered.taken)
	}
}

type registration struct {
	noop.Registration
	taken int
}

func (r *registration) Unregister() error {
	r.taken++
	return errFull
}

type lending struct {
	noop.MeterProvider
	to *registration
}

func (l lending) Meter(string, ...metric.MeterOption) metric.Meter { return lendingMeter{to: l.to} }

type lendingMeter struct {
	noop.Meter
	to *registration
}

func (l lendingMeter) RegisterCallback(metric.Callback, ...metric.Observable) (metric.Registration, error) {
	return l.to, nil
}
