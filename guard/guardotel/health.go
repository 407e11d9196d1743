package guardotel

import (
	"context"
	"slices"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/execguard/execguard/guard"
)

// gauges are the instruments that are read from Health.
type gauges struct {
	runs      metric.Int64ObservableUpDownCounter
	devices   metric.Int64ObservableUpDownCounter
	refused   metric.Int64ObservableUpDownCounter
	answering metric.Int64ObservableGauge
	age       metric.Float64ObservableGauge
	limit     metric.Float64ObservableGauge
	dropped   metric.Int64ObservableCounter
}

func (m *maker) gauges() gauges {
	return gauges{
		runs:      m.upDown("execguard.run.active", "{run}", "Runs in flight."),
		devices:   m.upDown("execguard.device.active", "{device}", "Devices with runs in flight."),
		refused:   m.upDown("execguard.device.refused", "{device}", "Devices that are denied and that somebody is about, by code."),
		answering: m.answering(),
		age:       m.seconds("execguard.permission.age.max", "Since the request of the oldest permission with runs in flight."),
		limit:     m.seconds("execguard.permission.age.limit", "The age at which work is stopped."),
		dropped:   m.dropped(),
	}
}

func (m *maker) upDown(name, unit, about string) metric.Int64ObservableUpDownCounter {
	i, err := m.meter.Int64ObservableUpDownCounter(name, metric.WithUnit(unit), metric.WithDescription(about))
	m.note(err)
	return i
}

func (m *maker) seconds(name, about string) metric.Float64ObservableGauge {
	i, err := m.meter.Float64ObservableGauge(name, metric.WithUnit("s"), metric.WithDescription(about))
	m.note(err)
	return i
}

func (m *maker) answering() metric.Int64ObservableGauge {
	i, err := m.meter.Int64ObservableGauge("execguard.authority.answering", metric.WithUnit("1"),
		metric.WithDescription("Whether the last question brought a decision."))
	m.note(err)
	return i
}

func (m *maker) dropped() metric.Int64ObservableCounter {
	i, err := m.meter.Int64ObservableCounter("execguard.event.dropped", metric.WithUnit("{event}"),
		metric.WithDescription("Events that the guard could not tell of, because its observers were too slow."))
	m.note(err)
	return i
}

// register has all of them read from one Health at each collection.
func (i *gauges) register(meter metric.Meter, l *labels, g *guard.Guard) (metric.Registration, error) {
	base := l.ready[labelKey{about: nothing}]
	running := newLabel(append(slices.Clone(l.base), attribute.String(keyState, "running")))
	halting := newLabel(append(slices.Clone(l.base), attribute.String(keyState, "stopping")))
	return meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		h := g.Health()
		o.ObserveInt64(i.runs, int64(h.Runs), running.see...)
		o.ObserveInt64(i.runs, int64(h.Stopping), halting.see...)
		o.ObserveInt64(i.devices, int64(h.Watched), base.see...)
		o.ObserveInt64(i.answering, oneIf(h.Authority.Answering), base.see...)
		o.ObserveFloat64(i.age, h.OldestPermission.Seconds(), base.see...)
		o.ObserveFloat64(i.limit, h.StopBound.Seconds(), base.see...)
		o.ObserveInt64(i.dropped, int64(h.EventsDropped), base.see...) //nolint:gosec // a count
		i.observeRefused(o, l, h.Refused)
		return nil
	}, i.runs, i.devices, i.refused, i.answering, i.age, i.limit, i.dropped)
}

// observeRefused tells of every code, so that one that is gone reads 0 and not as it last was.
func (i *gauges) observeRefused(o metric.Observer, l *labels, by map[guard.Code]int) {
	for _, code := range labelCodes() {
		if code != guard.CodeAllow {
			o.ObserveInt64(i.refused, int64(by[code]), l.ready[labelKey{stopping, code}].see...)
		}
	}
}

func oneIf(yes bool) int64 {
	if yes {
		return 1
	}
	return 0
}
