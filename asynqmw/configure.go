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
// otherwise the default slog.Logger is.
//
// A middleware outside of New's must hand its error on, or wrapped by %w: Configure does not know it otherwise.
func Configure(cfg asynq.Config) asynq.Config {
	cfg.BaseContext = marked(cfg.BaseContext, mark{logger: cfg.Logger})
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
type mark struct{ logger asynq.Logger }

var markKey = contextx.NewKey[mark]("asynqmw.Configure")

func marked(base func() context.Context, m mark) func() context.Context {
	if base == nil {
		ctx := markKey.With(context.Background(), m)
		return func() context.Context { return ctx }
	}
	return func() context.Context { return markKey.With(base(), m) }
}

// loggerOf is the server's own logger, or asynq's interface to slog's default.
func loggerOf(ctx context.Context) asynq.Logger {
	if m, _ := markKey.From(ctx); m.logger != nil {
		return m.logger
	}
	return slogger{}
}

// slogger logs where the server has no logger of its own. asynq would write to the standard error.
type slogger struct{ asynq.Logger }

func (slogger) Warn(args ...any)  { defaultLogger().Warn(fmt.Sprint(args...)) }
func (slogger) Error(args ...any) { defaultLogger().Error(fmt.Sprint(args...)) }

func defaultLogger() *slog.Logger {
	return slog.Default() //nolint:forbidigo // as asynq itself logs where it was given no logger
}
