package guardotel

import (
	"errors"
	"reflect"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

// Option changes one setting of a Telemetry.
type Option interface{ apply(c *config) }

type optionFunc func(c *config)

func (f optionFunc) apply(c *config) { f(c) }

type config struct {
	meters   metric.MeterProvider
	tracers  trace.TracerProvider
	name     string
	device   bool
	problems []error
}

// WithMeterProvider names who gets the metrics; that of go.opentelemetry.io/otel/metric/noop turns them
// off. The default is otel.GetMeterProvider().
func WithMeterProvider(p metric.MeterProvider) Option {
	return optionFunc(func(c *config) {
		c.meters = p
		if isNil(p) {
			c.refuse("WithMeterProvider(nil): the provider is nil")
		}
	})
}

// WithTracerProvider names who gets the spans; that of go.opentelemetry.io/otel/trace/noop turns them
// off. The default is otel.GetTracerProvider().
func WithTracerProvider(p trace.TracerProvider) Option {
	return optionFunc(func(c *config) {
		c.tracers = p
		if isNil(p) {
			c.refuse("WithTracerProvider(nil): the provider is nil")
		}
	})
}

// WithName tells the Guard from others of the process: every metric and span has the name as
// execguard.guard.name. Two Guards whose metrics go to one provider without names are added up, and of their
// gauges one counts. The default is no name.
func WithName(name string) Option {
	return optionFunc(func(c *config) {
		c.name = text(name)
		if name == "" {
			c.refuse(`WithName(""): the name is empty`)
		}
	})
}

// WithDeviceLabel gives up that the number of time series is bounded: every metric that an event makes has the
// device's id as execguard.device.id. Each device then costs its own series in each of those instruments, for each
// code and outcome, in this process until it ends and in the storage behind it; a device that
// was refused once counts, and so does an id that a stranger made up. The SDK stops at 2,000 series an
// instrument unless it is told otherwise, and puts what comes later into one. Each event then costs
// some allocations more. It is for few devices that are known. The default is that spans alone have the id.
func WithDeviceLabel() Option { return optionFunc(func(c *config) { c.device = true }) }

func newConfig(opts []Option) (*config, error) {
	c := &config{meters: otel.GetMeterProvider(), tracers: otel.GetTracerProvider()}
	for _, o := range opts {
		if isNil(o) {
			c.refuse("an Option is nil")
			continue
		}
		o.apply(c)
	}
	return c, errors.Join(c.problems...)
}

func (c *config) refuse(why string) { c.problems = append(c.problems, errors.New("guardotel: "+why)) }

// isNil finds a nil function and a nil pointer in the interface too.
func isNil(v any) bool {
	r := reflect.ValueOf(v)
	return v == nil || (r.Kind() == reflect.Func || r.Kind() == reflect.Pointer) && r.IsNil()
}
