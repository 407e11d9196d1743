package guardotel

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/execguard/execguard/guard"
)

// scope is the name of the meter and of the tracer.
const scope = "github.com/execguard/execguard/guard/guardotel"

// Telemetry turns what one Guard tells into metrics and spans. It is made by New. Its methods may be called
// from several goroutines at once.
type Telemetry struct {
	labels  *labels
	metrics *metrics
	tracer  trace.Tracer // nil: nobody would see a span
	meter   metric.Meter

	mu     sync.Mutex
	bound  metric.Registration // nil: no Guard is bound
	closed bool
}

// New makes a Telemetry, with the global providers unless options name others. It registers nothing yet and
// starts nothing. The error names every option that was refused and every instrument that
// the provider would not make.
func New(opts ...Option) (*Telemetry, error) {
	c, err := newConfig(opts)
	if err != nil {
		return nil, err
	}
	t := &Telemetry{labels: newLabels(c), meter: c.meters.Meter(scope), tracer: c.tracers.Tracer(scope)}
	if _, silent := t.tracer.(noop.Tracer); silent {
		t.tracer = nil
	}
	t.metrics, err = newMetrics(t.meter)
	if err != nil {
		return nil, err
	}
	return t, nil
}

// Observe is what guard.WithObserver is given. It blocks no longer than the providers do: with a
// processor that exports within a span's end (SDK: WithSyncer) that is a call over the network for each run.
// It goes on after Close, because runs may end later.
func (t *Telemetry) Observe(ctx context.Context, e guard.Event) {
	now := e.At
	if now.IsZero() { // not a Guard's own
		now = time.Now()
	}
	switch e.Kind {
	case guard.EventValidated:
		t.validated(ctx, &e, now)
	case guard.EventFinished, guard.EventStopped, guard.EventRefused:
		t.ended(ctx, &e, now)
	case guard.EventOverran:
		t.metrics.overruns.Add(ctx, 1, t.labels.of(stopping, &e).add...)
	case guard.EventHinted:
		t.metrics.hints.Add(ctx, 1, t.labels.of(nothing, &e).add...)
	case guard.EventStarted: // runs in flight are Health's
	}
}

func (t *Telemetry) validated(ctx context.Context, e *guard.Event, now time.Time) {
	l := t.labels.of(decision, e)
	ctx, span := t.start(ctx, "execguard.validate", e, l, now)
	t.metrics.decisions.Add(ctx, 1, l.add...)
	t.metrics.validate.Record(ctx, e.Took.Seconds(), l.record...)
	finish(span, l, now)
}

func (t *Telemetry) ended(ctx context.Context, e *guard.Event, now time.Time) {
	l := t.labels.of(outcomeOf(e.Kind), e)
	ctx, span := t.start(ctx, "execguard.run", e, l, now)
	t.metrics.runs.Add(ctx, 1, l.add...)
	if e.Kind == guard.EventStopped {
		t.metrics.stop.Record(ctx, e.After.Seconds(), t.labels.of(stopping, e).record...)
	}
	finish(span, l, now)
}

// Bind has g asked for its Health at each collection, until Close. g is the Guard that has Observe as its
// observer; another one, or a second, is a mistake, of which Bind can tell only the second. Until Close the
// meter provider keeps g.
func (t *Telemetry) Bind(g *guard.Guard) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case g == nil:
		return errors.New("guardotel: Bind(nil): the Guard is nil")
	case t.closed:
		return errors.New("guardotel: Bind after Close")
	case t.bound != nil:
		return errors.New("guardotel: Bind: another Guard is bound; make a Telemetry for each, with a name (WithName)")
	}
	bound, err := t.metrics.gauges.register(t.meter, t.labels, g)
	t.bound = bound
	return err
}

// Close ends what Bind began: when it has returned, the Guard is asked no more, and nothing holds it. It neither
// flushes nor shuts down a provider; that is for who made it. Further calls do nothing and return nil.
func (t *Telemetry) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	bound := t.bound
	t.bound = nil
	if bound == nil {
		return nil
	}
	return bound.Unregister()
}

// String keeps fmt from looking into the providers, which may hold the keys of exporters.
func (t *Telemetry) String() string { return "guardotel.Telemetry" }

// GoString is String, for %#v.
func (t *Telemetry) GoString() string { return t.String() }
