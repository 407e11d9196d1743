package clerk_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/clerk"
)

// exponential is a back-off of a tenth of a second and more, which ends after most; 0: never.
func exponential(most time.Duration) func() guard.BackOff {
	return func() guard.BackOff {
		return backoff.NewExponentialBackOff(
			backoff.WithInitialInterval(100*time.Millisecond), backoff.WithRandomizationFactor(0), backoff.WithMaxElapsedTime(most))
	}
}

// R3: a wait that does not fit what is left of a back-off's own time is not begun, and one that just
// fits is. By itself the back-off knows of no Retry-After.
func TestRetryFitsTheBackOff(t *testing.T) {
	const second = time.Second
	slowly := canned(429, refusalOf("slowly"), "Retry-After", "40")
	for name, c := range map[string]struct {
		most time.Duration
		came []time.Duration
	}{
		"too short for one wait":  {39 * second, []time.Duration{0}},
		"just long enough":        {40 * second, []time.Duration{0, 40 * second}},
		"too short for two waits": {79 * second, []time.Duration{0, 40 * second}},
		"long enough for two":     {80 * second, []time.Duration{0, 40 * second, 80 * second}},
		"endless":                 {0, []time.Duration{0, 40 * second, 80 * second, 120 * second}},
	} {
		synctest.Test(t, func(t *testing.T) {
			client, f := flakyClient(t, "get", 3, slowly, clerk.WithRetry(exponential(c.most)))
			_, err := client.Get(t.Context(), theirs)
			if (err == nil) != (c.most == 0) {
				t.Errorf("%s: %v", name, err)
			}
			wantTimes(t, f.came, c.came...)
			if took := time.Since(f.begun); took != c.came[len(c.came)-1] {
				t.Errorf("%s: given up after %v", name, took)
			}
		})
	}
}

// A Retry-After of more than a minute is waited for where the context has an end, and not where it has
// none; a minute is not more than one.
func TestLongRetryAfterNeedsADeadline(t *testing.T) {
	for name, c := range map[string]struct {
		after    string
		deadline time.Duration // 0: none
		came     []time.Duration
	}{
		"two minutes, and a deadline": {"120", time.Hour, []time.Duration{0, 2 * time.Minute}},
		"more than a minute":          {"61", 0, []time.Duration{0}},
		"a minute":                    {"60", 0, []time.Duration{0, time.Minute}},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx := t.Context()
			if c.deadline > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, c.deadline)
				defer cancel()
			}
			client, f := flakyClient(t, "get", 1, canned(429, refusalOf("slowly"), "Retry-After", c.after), clerk.WithRetry(stepping(1)))
			if _, err := client.Get(ctx, theirs); (err == nil) != (len(c.came) == 2) {
				t.Errorf("%s: %v", name, err)
			}
			wantTimes(t, f.came, c.came...)
		})
	}
}

// A back-off may ask for no wait at all.
func TestRetryAtOnce(t *testing.T) {
	client, f := flakyClient(t, "get", 1, canned(503, refusalOf("down")), clerk.WithRetry(stepping(0)))
	if _, err := client.Get(t.Context(), theirs); err != nil || len(f.came) != 2 {
		t.Errorf("%v after %d requests", err, len(f.came))
	}
}

// When the back-off ends, the last failure is the error, as it came.
func TestLastFailureIsReturned(t *testing.T) {
	client, _ := flakyClient(t, "get", 9, canned(503, refusalOf("down")), clerk.WithRetry(stepping(0, 0)))
	_, err := client.Get(t.Context(), theirs)
	if want := "clerk: get machine: HTTP 503: down: msg (trace " + trace + ")"; err == nil || err.Error() != want || errors.Is(err, context.Canceled) {
		t.Errorf("%v, want %s", err, want)
	}
}
