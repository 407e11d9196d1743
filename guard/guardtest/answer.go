package guardtest

import (
	"context"
	"runtime"
	"time"

	"github.com/execguard/execguard/guard"
)

// Reply answers at once and exactly with d and err, whatever the context, so that answers no
// authority should give can be given: a decision that contradicts itself, one for another
// device, an error beside an allowed decision.
func Reply(d guard.Decision, err error) guard.ValidatorFunc {
	return func(context.Context, string) (guard.Decision, error) { return d, err }
}

// Delay waits for d before it answers with then. It returns the context's cause when that ends
// first.
func Delay(d time.Duration, then guard.ValidatorFunc) guard.ValidatorFunc {
	return func(ctx context.Context, deviceID string) (guard.Decision, error) {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			return then(ctx, deviceID)
		case <-ctx.Done():
			return gone(ctx)
		}
	}
}

// Hang never answers. It returns the context's cause when that ends.
func Hang() guard.ValidatorFunc {
	return func(ctx context.Context, _ string) (guard.Decision, error) {
		<-ctx.Done()
		return gone(ctx)
	}
}

// Hold ignores its context: it blocks until release is closed, or something is sent on it, and
// then answers with then. A test that leaves it blocked leaks the goroutine it was called on.
func Hold(release <-chan struct{}, then guard.ValidatorFunc) guard.ValidatorFunc {
	return func(ctx context.Context, deviceID string) (guard.Decision, error) {
		<-release
		return then(ctx, deviceID)
	}
}

// Panic panics with v.
func Panic(v any) guard.ValidatorFunc {
	return func(context.Context, string) (guard.Decision, error) {
		panic(v) //nolint:forbidigo // a validator that panics is what was asked for
	}
}

// Goexit ends the goroutine that asks, with its deferred calls.
func Goexit() guard.ValidatorFunc {
	return func(context.Context, string) (guard.Decision, error) {
		runtime.Goexit()
		return guard.Decision{}, nil // not reached
	}
}

// gone is the answer to a caller that has left.
func gone(ctx context.Context) (guard.Decision, error) {
	return guard.Decision{Code: guard.CodeSystemUnavailable}, context.Cause(ctx)
}
