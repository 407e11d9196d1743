package guardotel

import (
	"errors"

	"go.opentelemetry.io/otel/metric"
)

// metrics are the instruments.
type metrics struct {
	decisions metric.Int64Counter
	validate  metric.Float64Histogram
	runs      metric.Int64Counter
	overruns  metric.Int64Counter
	stop      metric.Float64Histogram
	hints     metric.Int64Counter
	gauges    gauges
}

// maker makes instruments and keeps the errors. An instrument that came with an error is not used.
type maker struct {
	meter    metric.Meter
	problems []error
}

func newMetrics(meter metric.Meter) (*metrics, error) {
	m := &maker{meter: meter}
	made := &metrics{
		decisions: m.counter("execguard.decisions", "{decision}", "Answers to questions about a device, by code."),
		validate: m.histogram("execguard.validate.duration", "How long a question to the authority took.",
			.005, .01, .025, .05, .075, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10),
		runs:     m.counter("execguard.runs", "{run}", "Runs that are over, by how they ended."),
		overruns: m.counter("execguard.run.overruns", "{run}", "Runs that went on for a timeout after they were told to stop."),
		stop: m.histogram("execguard.run.stop.duration", "How long a run went on after it was told to stop.",
			.001, .005, .01, .05, .1, .5, 1, 5, 10, 30, 60, 300),
		hints:  m.counter("execguard.hints", "{hint}", "Hints that something has changed at the authority."),
		gauges: m.gauges(),
	}
	return made, errors.Join(m.problems...)
}

func (m *maker) counter(name, unit, about string) metric.Int64Counter {
	i, err := m.meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(about))
	m.note(err)
	return i
}

// histogram makes one of durations. OpenTelemetry's own boundaries are for milliseconds.
func (m *maker) histogram(name, about string, boundaries ...float64) metric.Float64Histogram {
	i, err := m.meter.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(about),
		metric.WithExplicitBucketBoundaries(boundaries...))
	m.note(err)
	return i
}

func (m *maker) note(err error) {
	if err != nil {
		m.problems = append(m.problems, err)
	}
}
