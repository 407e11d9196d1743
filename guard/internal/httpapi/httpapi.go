// Package httpapi holds what the clients of HTTP services in guard have in common: secrets that
// stay secret, the address of a service, a transport that follows nobody, answers of bounded
// length, and Retry-After.
//
// It resembles the inside of the clients that vendors generate from their APIs, cut into the few
// parts that do not depend on the API. It knows no service, builds no request, retries nothing
// and judges no answer: that is what a client is for.
package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Bound ends a call at the client's timeout. A context that ends earlier anyway, as a guard's
// does, is spared the timer.
func Bound(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if end, ok := ctx.Deadline(); ok && time.Until(end) <= timeout {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, timeout)
}

// Read reads the body to its end, without which the connection could not be used again, unless
// it is longer than most bytes: then closing it drops the connection.
func Read(body io.Reader, most int) ([]byte, error) {
	doc, err := io.ReadAll(io.LimitReader(body, int64(most)+1))
	if err == nil && len(doc) > most {
		err = fmt.Errorf("the answer is longer than %d MiB", most>>20)
	}
	return doc, err
}

// Lost is the error of a call of which no answer came, or none to its end, as the callers may see
// it: without the URL that net/http puts before it, with the end of ctx in it, and without the
// secrets.
func (s Secrets) Lost(ctx context.Context, err error) error {
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	// net/http returns the cause of an ended context, which may match neither of its two errors.
	if ended := ctx.Err(); ended != nil && !errors.Is(err, ended) {
		err = fmt.Errorf("%w: %w", ended, err)
	}
	return s.Tame(err)
}

// RetryAfter reads the header Retry-After: seconds or an HTTP date. It is cut at a day, so that
// a broken server cannot keep anybody away for ever, and so that adding it to a time cannot
// overflow.
func RetryAfter(value string) time.Duration {
	const most = 24 * time.Hour
	if value == "" {
		return 0
	}
	if seconds, err := strconv.ParseUint(value, 10, 64); err == nil {
		return time.Duration(min(seconds, uint64(most/time.Second))) * time.Second
	} else if errors.Is(err, strconv.ErrRange) {
		return most
	}
	date, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(time.Until(date), 0), most)
}
