package guard

import (
	"context"
	"log/slog"
	"strings"
)

// phaseSuppressed is the phase of the records that tell what was held back. No Event has it.
const phaseSuppressed EventKind = "suppressed"

// logTo makes an observer that logs.
func logTo(l *slog.Logger) func(context.Context, Event) {
	t := newThrottle()
	return func(ctx context.Context, e Event) {
		level := e.level()
		enabled := l.Enabled(ctx, level)
		pass, held := t.pass(&e, enabled)
		for _, h := range held {
			logHeld(l, h)
		}
		if enabled && pass {
			logEvent(ctx, l, level, &e)
		}
	}
}

func logEvent(ctx context.Context, l *slog.Logger, level slog.Level, e *Event) {
	attrs := append(make([]slog.Attr, 0, 7), keys(e.DeviceID, e.Decision.Code, e.Decision.RequestID, e.Kind)...)
	attrs = append(attrs, slog.Duration("took", e.Took))
	if e.Kind == EventStopped || e.Kind == EventOverran {
		attrs = append(attrs, slog.Duration("after", e.After))
	}
	switch {
	case e.Err != nil:
		attrs = append(attrs, slog.String("error", e.Err.Error()))
	case e.Decision.Reason != "":
		attrs = append(attrs, slog.String("reason", e.Decision.Reason))
	}
	l.LogAttrs(ctx, level, "execguard: "+string(e.Kind), attrs...)
}

func logHeld(l *slog.Logger, h heldBack) {
	attrs := append(keys("", h.code, "", phaseSuppressed), slog.Uint64("count", h.count))
	l.LogAttrs(context.Background(), slog.LevelWarn, "execguard: "+string(phaseSuppressed), attrs...)
}

// The keys of the guard's records and of LogHandler's attributes.
const (
	keyDevice    = "device"
	keyCode      = "code"
	keyRequestID = "request_id"
	keyPhase     = "phase"
)

// keys are what every record has.
func keys(device string, code Code, requestID string, phase EventKind) []slog.Attr {
	return []slog.Attr{
		slog.String(keyDevice, device), slog.String(keyCode, string(code)),
		slog.String(keyRequestID, requestID), slog.String(keyPhase, string(phase)),
	}
}

func (e Event) level() slog.Level {
	switch {
	case e.Kind == EventOverran:
		return slog.LevelError
	case e.Kind == EventRefused, e.Kind == EventStopped, e.Kind == EventValidated && e.doubtful():
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// doubtful tells whether somebody should look at an answer: nobody has decided, or offline has in the
// authority's place, or what was decided is not kept for when that is offline.
func (e Event) doubtful() bool {
	reason := e.Decision.Reason
	return e.Err != nil || e.Decision.Code == CodeSystemUnavailable ||
		strings.HasPrefix(reason, offlineWord) || strings.Contains(reason, notKept)
}
