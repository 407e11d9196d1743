package guard

import (
	"context"
	"log/slog"
	"slices"
)

// LogHandler returns a handler that adds to the application's own records where they come from: device, the id of the
// device under whose permission the code runs, and request_id, that of the decision that allowed it. They are read
// from the context, so log with InfoContext and the like: ctx is the function's or derived from it, and of nested runs
// the innermost counts. A record outside of runs goes to next as it is.
//
// The two stand at the top, beside the message, whatever groups the logger has open, as in the records of
// WithLogger. A record or a logger that has a top-level device of its own keeps that, and gets
// neither; one with a request_id of its own gets the device alone. A nil next discards everything.
func LogHandler(next slog.Handler) slog.Handler {
	if next == nil {
		return slog.DiscardHandler
	}
	return &logHandler{outer: next, full: next}
}

// logHandler keeps two ways to next: outside of runs, and where no group is open, records take full.
type logHandler struct {
	full  slog.Handler // next with all attributes and groups
	outer slog.Handler // next with the attributes from before the first group
	taken taken        // what these attributes are named
	open  []group      // the groups since, outermost first
}

// group is an open group and the attributes that were given in it.
type group struct {
	name  string
	attrs []slog.Attr
}

// taken is which of the names are there already.
type taken struct{ device, requestID bool }

// note looks at one attribute.
func (t *taken) note(a slog.Attr) bool {
	switch a.Key {
	case keyDevice:
		t.device = true
	case keyRequestID:
		t.requestID = true
	case "": // the attributes of a group without a name stand where it does
		if v := a.Value.Resolve(); v.Kind() == slog.KindGroup {
			for _, in := range v.Group() {
				t.note(in)
			}
		}
	}
	return true
}

// Enabled is slog.Handler's.
func (h *logHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.full.Enabled(ctx, level)
}

// Handle is slog.Handler's.
func (h *logHandler) Handle(ctx context.Context, r slog.Record) error {
	run, ok := runKey.From(ctx)
	if !ok {
		return h.full.Handle(ctx, r)
	}
	has := h.taken
	if len(h.open) == 0 {
		r.Attrs(has.note)
	}
	add := run.logAttrs(has)
	switch {
	case len(add) == 0:
		return h.full.Handle(ctx, r)
	case len(h.open) == 0:
		r = r.Clone()
		r.AddAttrs(add...)
		return h.full.Handle(ctx, r)
	}
	return h.outer.Handle(ctx, h.nest(r, add))
}

// logAttrs are the attributes that a record of this run lacks.
func (r *run) logAttrs(has taken) []slog.Attr {
	switch device, id := r.batch.device.id, r.allowed.decision.RequestID; {
	case has.device:
		return nil
	case has.requestID:
		return []slog.Attr{slog.String(keyDevice, device)}
	default:
		return []slog.Attr{slog.String(keyDevice, device), slog.String(keyRequestID, id)}
	}
}

// nest is r with its attributes in the groups that are open, and add outside of them.
func (h *logHandler) nest(r slog.Record, add []slog.Attr) slog.Record {
	inner := make([]slog.Attr, 0, r.NumAttrs())
	r.Attrs(func(a slog.Attr) bool {
		inner = append(inner, a)
		return true
	})
	for _, g := range slices.Backward(h.open) {
		inner = []slog.Attr{{Key: g.name, Value: slog.GroupValue(slices.Concat(g.attrs, inner)...)}}
	}
	nested := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	nested.AddAttrs(append(inner, add...)...)
	return nested
}

// WithAttrs is slog.Handler's.
func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	if len(attrs) == 0 {
		return h
	}
	with := *h
	with.full = h.full.WithAttrs(attrs)
	if last := len(h.open) - 1; last >= 0 {
		with.open = slices.Clone(h.open)
		with.open[last].attrs = slices.Concat(h.open[last].attrs, attrs)
		return &with
	}
	with.outer = with.full
	for _, a := range attrs {
		with.taken.note(a)
	}
	return &with
}

// WithGroup is slog.Handler's.
func (h *logHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	with := *h
	with.full = h.full.WithGroup(name)
	with.open = append(slices.Clone(h.open), group{name: name})
	return &with
}
