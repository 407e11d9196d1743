package guardotel

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/execguard/execguard/guard"
)

// start makes the span of what an event tells to be over. Its parent is the span that ctx has, which is the
// caller's where the event is told on the caller's goroutine. All attributes are there from the start, for samplers.
// ctx has the span, so that what is measured can name it as an exemplar.
func (t *Telemetry) start(ctx context.Context, name string, e *guard.Event, l *label, now time.Time) (context.Context, trace.Span) {
	if t.tracer == nil {
		return ctx, nil
	}
	return t.tracer.Start(ctx, name, //nolint:spancheck // finish ends it
		trace.WithTimestamp(now.Add(-e.Took)), trace.WithAttributes(t.spanAttrs(e, l)...))
}

func (t *Telemetry) spanAttrs(e *guard.Event, l *label) []attribute.KeyValue {
	attrs := append(make([]attribute.KeyValue, 0, len(l.attrs)+5), l.attrs...)
	attrs = append(attrs, attribute.String(keyDevice, text(e.DeviceID)))
	if t.labels.code(e.Decision.Code) != e.Decision.Code {
		attrs = append(attrs, attribute.String(keyCodeOriginal, text(string(e.Decision.Code))))
	}
	if id := e.Decision.RequestID; id != "" {
		attrs = append(attrs, attribute.String(keyRequestID, text(id)))
	}
	if id := e.AllowedBy; id != "" {
		attrs = append(attrs, attribute.String(keyAllowedBy, text(id)))
	}
	if e.Kind == guard.EventStopped {
		attrs = append(attrs, attribute.Float64(keyStop, e.After.Seconds()))
	}
	return attrs
}

// finish ends the span at now. The status has no description: error.type says what there is to say.
func finish(span trace.Span, l *label, now time.Time) {
	if span == nil {
		return
	}
	if l.failed != "" {
		span.SetStatus(codes.Error, "")
	}
	span.End(trace.WithTimestamp(now))
}
