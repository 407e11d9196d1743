package guardotel_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	meternoop "go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardotel"
	"github.com/execguard/execguard/guard/guardtest"
)

// providers are what a Telemetry may be given.
func providers() []struct {
	name string
	opts []guardotel.Option
} {
	meters := guardotel.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader())))
	noMeters, noTracers := guardotel.WithMeterProvider(meternoop.NewMeterProvider()), guardotel.WithTracerProvider(tracenoop.NewTracerProvider())
	tracers := func(s sdktrace.Sampler) guardotel.Option {
		return guardotel.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSampler(s)))
	}
	return []struct {
		name string
		opts []guardotel.Option
	}{
		{"noop", []guardotel.Option{noMeters, noTracers}},
		{"global-unset", nil},
		{"metrics", []guardotel.Option{meters, noTracers}},
		{"metrics-by-device", []guardotel.Option{meters, noTracers, guardotel.WithDeviceLabel()}},
		{"metrics-and-unsampled-spans", []guardotel.Option{meters, tracers(sdktrace.NeverSample())}},
		{"metrics-and-spans", []guardotel.Option{meters, tracers(sdktrace.AlwaysSample())}},
	}
}

// BenchmarkObserve is what a Telemetry adds to a run: the two events that are told on its goroutine.
func BenchmarkObserve(b *testing.B) {
	for _, p := range providers() {
		b.Run(p.name, func(b *testing.B) {
			tel := made(b, p.opts)
			ctx := b.Context()
			b.ReportAllocs()
			for b.Loop() {
				tel.Observe(ctx, guard.Event{Kind: guard.EventStarted, DeviceID: "d", Decision: ofARun, AllowedBy: "r"})
				tel.Observe(ctx, guard.Event{Kind: guard.EventFinished, DeviceID: "d", Decision: ofARun, AllowedBy: "r", Took: 1})
			}
		})
	}
}

var ofARun = allowed("r")

// With providers that do nothing, what a Telemetry adds is nothing to the garbage collector.
func TestObserve_AllocatesNothingForNobody(t *testing.T) {
	tel, ctx := made(t, providers()[0].opts), t.Context()
	for _, kind := range []guard.EventKind{
		guard.EventValidated, guard.EventStarted, guard.EventFinished, guard.EventStopped, guard.EventRefused, guard.EventOverran, guard.EventHinted,
	} {
		e := guard.Event{Kind: kind, DeviceID: "d", Decision: ofARun}
		if n := testing.AllocsPerRun(100, func() { tel.Observe(ctx, e) }); n != 0 {
			t.Errorf("%s: %v allocations", kind, n)
		}
	}
}

// BenchmarkRun is a run on a permission that is there already, so that nothing hides what is added to it: without an
// observer, with one that does nothing, and with a Telemetry.
func BenchmarkRun(b *testing.B) {
	b.Run("without", func(b *testing.B) { benchRun(b) })
	b.Run("empty-observer", func(b *testing.B) { benchRun(b, guard.WithObserver(func(context.Context, guard.Event) {})) })
	for _, p := range providers() {
		b.Run(p.name, func(b *testing.B) { benchRun(b, guard.WithObserver(made(b, p.opts).Observe)) })
	}
}

func made(t testing.TB, opts []guardotel.Option) *guardotel.Telemetry {
	t.Helper()
	tel, err := guardotel.New(opts...)
	if err != nil {
		t.Fatal(err)
	}
	return tel
}

func benchRun(b *testing.B, opts ...guard.Option) {
	b.Helper()
	g, err := guard.New(guardtest.NewValidator("d"), append(opts, guard.WithInterval(time.Hour), guard.WithReuse(time.Hour))...)
	if err != nil {
		b.Fatal(err)
	}
	defer g.Close()
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if err := g.Run(ctx, "d", nothingToDo); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCollect is one collection of a guard with 10,000 devices that run.
func BenchmarkCollect(b *testing.B) {
	const devices = 10_000
	s := newSDK()
	tel := s.telemetry(b)
	authority := guardtest.NewValidator()
	authority.Allow("")
	g, err := guard.New(authority, guard.WithInterval(time.Hour))
	if err != nil {
		b.Fatal(err)
	}
	defer g.Close()
	if err := tel.Bind(g); err != nil {
		b.Fatal(err)
	}
	var all sync.WaitGroup
	defer all.Wait()
	began, free := make(chan struct{}), make(chan struct{})
	defer close(free)
	for i := range devices {
		all.Go(func() {
			if err := g.Run(b.Context(), fmt.Sprint(i), func(context.Context) error {
				began <- struct{}{}
				<-free
				return nil
			}); err != nil {
				b.Error(err)
				began <- struct{}{}
			}
		})
	}
	for range devices {
		<-began
	}
	for b.Loop() {
		_ = s.collect(b)
	}
}
