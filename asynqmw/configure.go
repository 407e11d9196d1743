package asynqmw

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/contextx"
)

// Configure returns cfg, as a server that New guards needs it: a refusal is no failure (IsFailure), stays
// away until it makes sense to ask again (RetryDelayFunc), and is no error to report (ErrorHandler),
// unless the task stays in the archive. The three are asked as before about everything else. It also
// marks BaseContext, so that New knows. cfg.Logger, if there is one, is told what the middleware has to say;
// otherwise the default slog.Logger is; and neither what is below cfg.LogLevel.
//
// A middleware outside of New's must return its error as it is, or wrapped with %w: Configure does not know it otherwise.
func Configure(cfg asynq.Config) asynq.Config {
	cfg.BaseContext = marked(cfg.BaseContext, mark{logger: cfg.Logger, level: cfg.LogLevel})
	cfg.IsFailure = isFailure(cfg.IsFailure)
	cfg.RetryDelayFunc = retryDelay(cfg.RetryDelayFunc)
	if h := cfg.ErrorHandler; h != nil {
		cfg.ErrorHandler = asynq.ErrorHandlerFunc(func(ctx context.Context, t *asynq.Task, err error) {
			if r := asRefusal(err); r == nil || r.lost {
				h.HandleError(ctx, t, err)
			}
		})
	}
	return cfg
}

func isFailure(failure func(error) bool) func(error) bool {
	if failure == nil {
		failure = func(err error) bool { return err != nil }
	}
	return func(err error) bool { return asRefusal(err) == nil && failure(err) }
}

func retryDelay(delay asynq.RetryDelayFunc) asynq.RetryDelayFunc {
	if delay == nil {
		delay = asynq.DefaultRetryDelayFunc
	}
	return func(n int, err error, t *asynq.Task) time.Duration {
		if r := asRefusal(err); r != nil {
			return r.delay + time.Second // asynq cuts the time of a retry to whole seconds
		}
		return delay(n, err, t)
	}
}

// mark is what Configure leaves in the context of every task.
type mark struct {
	logger asynq.Logger
	level  asynq.LogLevel
}

var markKey = contextx.NewKey[mark]("asynqmw.Configure")

// configured tells whether the server's Config has passed Configure.
func configured(ctx context.Context) bool {
	_, ok := markKey.From(ctx)
	return ok
}

func marked(base func() context.Context, m mark) func() context.Context {
	if base == nil {
		ctx := markKey.With(context.Background(), m)
		return func() context.Context { return ctx }
	}
	return func() context.Context { return markKey.With(base(), m) }
}

// logger is what the middleware needs of asynq's.
type logger interface {
	Warn(args ...any)
	Error(args ...any)
}

// loggerOf is the server's own logger, or the default slog.Logger, down to the server's LogLevel.
func loggerOf(ctx context.Context) logger {
	m, _ := markKey.From(ctx)
	if m.logger == nil {
		return levelled{slogger{}, m.level}
	}
	return levelled{m.logger, m.level}
}

// levelled does what asynq does before it calls a server's logger.
type levelled struct {
	logger
	level asynq.LogLevel
}

func (l levelled) Warn(args ...any) {
	if l.level <= asynq.WarnLevel {
		l.logger.Warn(args...)
	}
}

func (l levelled) Error(args ...any) {
	if l.level <= asynq.ErrorLevel {
		l.logger.Error(args...)
	}
}

// slogger logs where the server has no logger of its own. asynq would write to the standard error.
type slogger struct{}

func (slogger) Warn(args ...any)  { defaultLogger().Warn(fmt.Sprint(args...)) }
func (slogger) Error(args ...any) { defaultLogger().Error(fmt.Sprint(args...)) }

func defaultLogger() *slog.Logger {
	return slog.Default() //nolint:forbidigo // as asynq itself logs where it was given no logger
}
