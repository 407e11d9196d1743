package guardotel_test

import (
	"context"
	"fmt"
	"slices"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardotel"
	"github.com/execguard/execguard/guard/guardtest"
)

// A guard that is seen: with an exporter in the place of the manual reader and the recorder, this is what stands in a
// program's main.
func Example() {
	reader, recorder := metric.NewManualReader(), tracetest.NewSpanRecorder()
	meters := metric.NewMeterProvider(metric.WithReader(reader))
	tracers := trace.NewTracerProvider(trace.WithSpanProcessor(recorder))

	tel, err := guardotel.New(guardotel.WithMeterProvider(meters), guardotel.WithTracerProvider(tracers))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer tel.Close()                                     // after the guard: its last runs are still counted
	authority := guardtest.NewValidator("worker:demo:01") // MachineID, say
	g, err := guard.New(authority, guard.WithObserver(tel.Observe))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()
	if err := tel.Bind(g); err != nil {
		fmt.Println(err)
		return
	}

	work := func(context.Context) error { return nil }
	_ = g.Run(context.Background(), "worker:demo:01", work)
	_ = g.Run(context.Background(), "worker:demo:01", work)
	_ = g.Run(context.Background(), "worker:demo:02", work) // nobody has registered it

	for _, s := range recorder.Ended() {
		if s.Name() == "execguard.run" {
			fmt.Println(s.Name(), s.Status().Code)
		}
	}
	show(reader)
	// Output:
	// execguard.run Unset
	// execguard.run Unset
	// execguard.run Error
	// execguard.permission.age.limit: 13 s
	// execguard.runs: 1 {run} refused DEVICE_NOT_FOUND
	// execguard.runs: 2 {run} finished ALLOW
}

// show prints two of the metrics.
func show(reader *metric.ManualReader) {
	var all metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &all); err != nil {
		fmt.Println(err)
	}
	var lines []string
	for _, m := range all.ScopeMetrics[0].Metrics {
		switch data := m.Data.(type) {
		case metricdata.Sum[int64]:
			for _, p := range data.DataPoints {
				outcome, ok := p.Attributes.Value("execguard.run.outcome")
				code, _ := p.Attributes.Value("execguard.decision.code")
				if ok {
					lines = append(lines, fmt.Sprintln(m.Name+":", p.Value, m.Unit, outcome.AsString(), code.AsString()))
				}
			}
		case metricdata.Gauge[float64]:
			if m.Name == "execguard.permission.age.limit" {
				lines = append(lines, fmt.Sprintln(m.Name+":", data.DataPoints[0].Value, m.Unit))
			}
		}
	}
	slices.Sort(lines)
	for _, line := range lines {
		fmt.Print(line)
	}
}
