package cronwrap

import (
	"log/slog"

	"github.com/robfig/cron/v3"
)

// Logger has cron, and its wrappers, log to l: what it tells as Info at that level, what it tells as an error
// at Error, with the key «error». cron's own loggers drop the former unless they are told not to, and with it
// every tick that was skipped. Logger panics if l is nil.
func Logger(l *slog.Logger) cron.Logger {
	if l == nil {
		mistake("Logger: the slog.Logger is nil")
	}
	return logger{l}
}

type logger struct{ l *slog.Logger }

// Info is cron.Logger's.
func (l logger) Info(msg string, keysAndValues ...any) { l.l.Info(msg, keysAndValues...) }

// Error is cron.Logger's.
func (l logger) Error(err error, msg string, keysAndValues ...any) {
	l.l.Error(msg, append([]any{"error", err}, keysAndValues...)...)
}
