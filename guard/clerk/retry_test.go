package clerk_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/clerk"
	"github.com/google/go-cmp/cmp"
)

// steps is a back-off that waits each of its steps once, and then no more.
type steps struct{ left []time.Duration }

func (s *steps) NextBackOff() time.Duration {
	if len(s.left) == 0 {
		return -1
	}
	next := s.left[0]
	s.left = s.left[1:]
	return next
}

func (s *steps) Reset() {}

func stepping(d ...time.Duration) func() guard.BackOff {
	return func() guard.BackOff { return &steps{left: d} }
}

// flaky fails so many requests with an answer, and answers the others as all is well. It notes when
// each came.
type flaky struct {
	name   string
	fails  int
	answer transport

	begun time.Time
	came  []time.Duration
}

func (f *flaky) RoundTrip(r *http.Request) (*http.Response, error) {
	f.came = append(f.came, time.Since(f.begun))
	if len(f.came) <= f.fails {
		return f.answer(r)
	}
	return reply(r, 200, success(f.name)), nil
}

func flakyClient(t *testing.T, name string, fails int, answer transport, opts ...clerk.Option) (*clerk.Client, *flaky) {
	f := &flaky{name: name, fails: fails, answer: answer, begun: time.Now()}
	return offline(t, f, opts...), f
}

func wantTimes(t *testing.T, got []time.Duration, want ...time.Duration) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("requests: %s", diff)
	}
}

// R1: without the option nothing is sent twice, whatever went wrong.
func TestNoRetryByDefault(t *testing.T) {
	for name, c := range calls() {
		client, f := flakyClient(t, name, 1, canned(503, refusalOf("down")))
		if _, err := c.do(t.Context(), client); !errors.Is(err, guard.ErrUnavailable) || len(f.came) != 1 {
			t.Errorf("%s: %v after %d requests", name, err, len(f.came))
		}
	}
}

// With it reads are sent again, as the back-off says, and what changes something is not.
func TestRetryReadsOnly(t *testing.T) {
	for name, c := range calls() {
		for what, answer := range map[string]transport{
			"503":       canned(503, refusalOf("down")),
			"429":       canned(429, refusalOf("slowly")),
			"nonsense":  canned(200, "<html>"),
			"no answer": func(*http.Request) (*http.Response, error) { return nil, errors.New("no route") },
		} {
			synctest.Test(t, func(t *testing.T) {
				client, f := flakyClient(t, name, 2, answer, clerk.WithRetry(stepping(time.Second, 2*time.Second)))
				_, err := c.do(t.Context(), client)
				if c.reads {
					wantTimes(t, f.came, 0, time.Second, 3*time.Second)
				} else {
					wantTimes(t, f.came, 0)
				}
				if (err == nil) != c.reads {
					t.Errorf("%s, %s: %v", name, what, err)
				}
			})
		}
	}
}

// R2: an answer of the service's own is never asked for again.
func TestRefusalsAreNotRetried(t *testing.T) {
	for _, status := range []int{400, 401, 403, 404, 409, 422} {
		for name, c := range calls() {
			client, f := flakyClient(t, name, 1, canned(status, refusalOf("no")), clerk.WithRetry(stepping(time.Second, time.Second)))
			if _, err := c.do(t.Context(), client); wantError[*clerk.Error](t, err).Status != status || len(f.came) != 1 {
				t.Errorf("%s %d: %v after %d requests", name, status, err, len(f.came))
			}
		}
	}
}

// A Validator asks once: retries are its guard's, which knows the stop line.
func TestValidatorsAreNotRetried(t *testing.T) {
	client, f := flakyClient(t, "get", 1, canned(503, refusalOf("down")), clerk.WithRetry(stepping(time.Second)))
	d, err := client.Validator().Validate(t.Context(), theirs)
	wantUndecided(t, d, err)
	if len(f.came) != 1 {
		t.Errorf("%d requests", len(f.came))
	}
}

// R3: Retry-After is a floor under the wait, as seconds and as a date, of every kind of failure.
func TestRetryAfterIsAFloor(t *testing.T) {
	for _, answer := range []transport{canned(429, refusalOf("slowly"), "Retry-After", "5"), canned(503, "<html>", "Retry-After", "5")} {
		synctest.Test(t, func(t *testing.T) {
			client, f := flakyClient(t, "get", 2, answer, clerk.WithRetry(stepping(time.Second, 9*time.Second)))
			if _, err := client.Get(t.Context(), theirs); err != nil {
				t.Error(err)
			}
			wantTimes(t, f.came, 0, 5*time.Second, 14*time.Second)
		})
	}
	synctest.Test(t, func(t *testing.T) {
		at := time.Now().Add(8 * time.Second).UTC().Format(http.TimeFormat)
		client, f := flakyClient(t, "get", 1, canned(429, refusalOf("slowly"), "Retry-After", at), clerk.WithRetry(stepping(time.Second)))
		if _, err := client.Get(t.Context(), theirs); err != nil {
			t.Error(err)
		}
		wantTimes(t, f.came, 0, 8*time.Second)
	})
}

// R3: a wait that does not fit the context ends the retrying at once, with the failure itself.
func TestRetryFitsTheContext(t *testing.T) {
	for limit, tries := range map[time.Duration]int{4 * time.Second: 1, 5 * time.Second: 1, 6 * time.Second: 2} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			client, f := flakyClient(t, "get", 9, canned(429, refusalOf("slowly"), "Retry-After", "5"), clerk.WithRetry(nil))
			_, err := client.Get(ctx, theirs)
			if failed := wantError[*clerk.Error](t, err); failed.Status != 429 || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v", err)
			}
			if took := time.Since(f.begun); len(f.came) != tries || took != time.Duration(tries-1)*5*time.Second {
				t.Errorf("%v: %d requests in %v", limit, len(f.came), took)
			}
		})
	}
}

// A caller who leaves while it waits is let go at once, and told both: that it left, and why it
// waited.
func TestRetryEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		reason := errors.New("a reason of the caller's")
		time.AfterFunc(2*time.Second, func() { cancel(reason) })
		client, f := flakyClient(t, "get", 9, canned(503, refusalOf("down")), clerk.WithRetry(stepping(time.Hour)))
		_, err := client.Get(ctx, theirs)
		if !errors.Is(err, context.Canceled) || !errors.Is(err, reason) || !errors.Is(err, guard.ErrUnavailable) || !strings.Contains(err.Error(), "HTTP 503") {
			t.Errorf("%v", err)
		}
		if took := time.Since(f.begun); took != 2*time.Second || len(f.came) != 1 {
			t.Errorf("%d requests in %v", len(f.came), took)
		}
	})
}

// The back-off of a call counts instead of the client's, either way round.
func TestRetryOfOneCall(t *testing.T) {
	for name, c := range map[string]struct {
		ofClient []clerk.Option
		ofCall   []clerk.CallOption
		want     int
	}{
		"of the client":      {[]clerk.Option{clerk.WithRetry(stepping(1))}, nil, 2},
		"of the call":        {nil, []clerk.CallOption{clerk.WithRetry(stepping(1, 1))}, 3},
		"of both":            {[]clerk.Option{clerk.WithRetry(stepping(1))}, []clerk.CallOption{clerk.WithRetry(stepping(1, 1))}, 3},
		"not of the call":    {[]clerk.Option{clerk.WithRetry(stepping(1))}, []clerk.CallOption{clerk.WithoutRetry()}, 1},
		"taken back":         {[]clerk.Option{clerk.WithRetry(stepping(1)), clerk.WithoutRetry()}, nil, 1},
		"nil is nothing":     {nil, []clerk.CallOption{nil}, 1},
		"a back-off of none": {nil, []clerk.CallOption{clerk.WithRetry(func() guard.BackOff { return nil })}, 1},
	} {
		for call, do := range map[string]func(ctx context.Context, c *clerk.Client) error{
			"list": func(ctx context.Context, cl *clerk.Client) error {
				_, err := collect(cl.List(ctx, clerk.ListParams{}, c.ofCall...))
				return err
			},
			"get": func(ctx context.Context, cl *clerk.Client) error {
				_, err := cl.Get(ctx, theirs, c.ofCall...)
				return err
			},
			"secret key": func(ctx context.Context, cl *clerk.Client) error {
				_, err := cl.SecretKey(ctx, theirs, c.ofCall...)
				return err
			},
			"verify token": func(ctx context.Context, cl *clerk.Client) error {
				_, err := cl.VerifyToken(ctx, opaque, c.ofCall...)
				return err
			},
		} {
			client, f := flakyClient(t, call, 9, canned(503, refusalOf("down")), c.ofClient...)
			if err := do(t.Context(), client); err == nil || len(f.came) != c.want {
				t.Errorf("%s, %s: %v after %d requests, want %d", name, call, err, len(f.came), c.want)
			}
		}
	}
}

// R4: each read gets a back-off of its own, and one that does not fail needs none. A walk that pauses
// goes on with fresh ones.
func TestFreshBackOffs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var made atomic.Int32
		newBackOff := func() guard.BackOff {
			made.Add(1)
			return backoff.WithMaxRetries(backoff.NewConstantBackOff(time.Second), 2)
		}
		f := &flaky{name: "get", fails: 2, answer: canned(503, refusalOf("down")), begun: time.Now()}
		client := offline(t, f, clerk.WithRetry(newBackOff))
		for round := range 3 {
			f.came = nil
			if _, err := client.Get(t.Context(), theirs); err != nil || int(made.Load()) != round+1 || len(f.came) != 3 {
				t.Errorf("round %d: %v, %d back-offs, %d requests", round, err, made.Load(), len(f.came))
			}
		}
		f.fails, f.came = 0, nil
		if _, err := client.Get(t.Context(), theirs); err != nil || made.Load() != 3 {
			t.Errorf("%v, %d back-offs", err, made.Load())
		}
	})
}

// The default back-off ends after about a minute, and every try has the client's timeout.
func TestDefaultBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, f := flakyClient(t, "get", 1<<30, func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, fmt.Errorf("gave up: %w", r.Context().Err())
		}, clerk.WithRetry(nil), clerk.WithTimeout(3*time.Second))
		_, err := client.Get(t.Context(), theirs)
		if took := time.Since(f.begun); !errors.Is(err, context.DeadlineExceeded) || took < 30*time.Second || took > 90*time.Second || len(f.came) < 5 {
			t.Errorf("%v: %d requests in %v", err, len(f.came), took)
		}
	})
}
