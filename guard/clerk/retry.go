package clerk

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/internal/strictjson"
)

// CallOption changes how one call that reads works: List, Get, SecretKey or VerifyToken.
type CallOption interface {
	applyCall(r *reading)
}

// RetryOption may be given to New, for every read of that client, and to one call, where it counts
// instead of the client's.
type RetryOption interface {
	Option
	CallOption
}

// reading is what the options of a call have left behind.
type reading struct {
	newBackOff func() guard.BackOff // nil: no retry
}

type retryOption struct{ newBackOff func() guard.BackOff }

func (o retryOption) apply(cfg *config) error {
	cfg.newBackOff = o.newBackOff
	return nil
}

func (o retryOption) applyCall(r *reading) { r.newBackOff = o.newBackOff }

// WithRetry gives up that the first failure to ask is the answer: while the service cannot be asked,
// a read is sent again, until ctx ends or the back-off does. What changes something is never sent
// again, and neither is a question of a Validator, whose retries are the guard's (guard.WithRetry).
// newBackOff is called once for each read that fails, on several goroutines at once; a negative
// NextBackOff ends the retrying. A Retry-After of the service is a floor under each wait, and a wait
// that does not fit ctx or the time of an exponential back-off, or is for a Retry-After of over a minute
// where ctx has no deadline, ends the retrying at once. nil means the exponential back-off of
// cenkalti/backoff/v4, which ends after a minute. Default: nothing is sent again.
func WithRetry(newBackOff func() guard.BackOff) RetryOption {
	if newBackOff == nil {
		newBackOff = func() guard.BackOff {
			return backoff.NewExponentialBackOff(backoff.WithMaxElapsedTime(time.Minute))
		}
	}
	return retryOption{newBackOff}
}

// WithoutRetry has one call, or a client, send each read once.
func WithoutRetry() RetryOption { return retryOption{} }

// reading returns how a read of this client works.
func (c *Client) reading(opts []CallOption) reading {
	r := reading{newBackOff: c.newBackOff}
	for _, o := range opts {
		if o != nil {
			o.applyCall(&r)
		}
	}
	return r
}

// read sends what only reads, and again while it could not be asked and r says so. begin makes the
// exchange of one try.
func read[T any](
	ctx context.Context, c *Client, r reading, begin func() *exchange,
	call func(ctx context.Context) (T, error), check func(o strictjson.Object) string,
) (T, *exchange, error) {
	var backOff guard.BackOff
	for {
		x := begin()
		result, err := send(ctx, c, x, call, check)
		if err == nil || r.newBackOff == nil || !c.again(ctx, err) {
			return result, x, err
		}
		if backOff == nil { // a fresh one each use: they hold state (R4)
			backOff = r.newBackOff()
		}
		if backOff == nil || !waited(ctx, backOff, retryAfter(err)) {
			return result, x, x.givenUp(ctx, err)
		}
	}
}

// again tells whether asking again could help.
func (c *Client) again(ctx context.Context, err error) bool {
	return errors.Is(err, guard.ErrUnavailable) && ctx.Err() == nil && !c.closed.Load()
}

// longestFloor is the longest Retry-After that is waited for where ctx has no end of its own: a service
// must not be able to hold its callers for a day.
const longestFloor = time.Minute

// waited waits, not below floor (R3), and tells whether to go on. A wait that does not fit ctx or the
// back-off is not begun.
func waited(ctx context.Context, backOff guard.BackOff, floor time.Duration) bool {
	wait := backOff.NextBackOff()
	if wait < 0 {
		return false
	}
	wait = max(wait, floor)
	end, ends := ctx.Deadline()
	if ends && time.Until(end) <= wait || !ends && floor > longestFloor || !fits(backOff, wait) {
		return false
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// fits tells whether the time of an exponential back-off is long enough for the wait: by itself it
// knows of no floor.
func fits(backOff guard.BackOff, wait time.Duration) bool {
	b, ok := backOff.(*backoff.ExponentialBackOff)
	return !ok || b.MaxElapsedTime <= 0 || b.GetElapsedTime()+wait <= b.MaxElapsedTime
}

// givenUp is the error of a read that is not sent again: of the last try and, where ctx ended while
// it waited, of that too.
func (x *exchange) givenUp(ctx context.Context, last error) error {
	if ctx.Err() == nil || errors.Is(last, ctx.Err()) {
		return last
	}
	gone := x.lost(ctx, fmt.Errorf("%w while waiting to ask again: %w", context.Cause(ctx), last))
	gone.Errors = x.problems()
	return gone
}

// retryAfter is how long the service wants to be left alone.
func retryAfter(err error) time.Duration {
	if refused := (*Error)(nil); errors.As(err, &refused) {
		return refused.RetryAfter
	}
	if strange := (*BodyError)(nil); errors.As(err, &strange) {
		return strange.RetryAfter
	}
	return 0
}
