package asynqmw_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/asynqmw"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

// These tests call the middleware as asynq would, on fake time: what counts is when questions are asked.

// handled has a handler called under a middleware, for tasks on their last attempt, until ctx ends.
func handled(ctx context.Context, use asynq.MiddlewareFunc, h asynq.Handler, tasks int) (errs func() []error) {
	var running sync.WaitGroup
	all := &list[error]{}
	for range tasks {
		running.Go(func() { all.add(use(h).ProcessTask(ctx, asynq.NewTask(kind, nil))) })
	}
	return func() []error {
		running.Wait()
		return all.get()
	}
}

// Eight held tasks of one device share their questions: one an interval.
func TestHeldTasksShareQuestions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const long = 10 * time.Second
		g, v := newGuard(t, guard.WithInterval(long))
		no := guardtest.Reply(guard.Decision{Code: guard.CodeDeviceRevoked}, nil)
		v.Always(device, guardtest.Delay(10*time.Millisecond, no)) // or nobody could share it
		w := done()
		errs := handled(marked(nil), asynqmw.New(g, asynqmw.Fixed(device)), w, 8)
		time.Sleep(10 * long)
		if n := len(v.Calls()); n < 10 || n > 14 { // a few at the start (L1), ten intervals
			t.Errorf("%d questions in ten intervals", n)
		}
		w.want(t, "", 0)
		v.Allow(device)
		if all := errs(); len(all) != 8 || slices.ContainsFunc(all, func(err error) bool { return err != nil }) {
			t.Errorf("%v", all)
		}
		if n := len(w.visits("")); n != 8 {
			t.Errorf("%d of 8 were handled", n)
		}
	})
}

// A held task is its own goroutine, asynq's, and no other.
func TestHeldTaskIsOneGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const tasks = 200
		g, v := newGuard(t)
		v.Deny(device, guard.CodeDeviceRevoked)
		ctx, cancel := context.WithDeadline(marked(nil), time.Now().Add(time.Hour))
		defer cancel()
		before := runtime.NumGoroutine()
		errs := handled(ctx, asynqmw.New(g, asynqmw.Fixed(device)), done(), tasks)
		time.Sleep(10 * interval)
		synctest.Wait()
		if n := runtime.NumGoroutine() - before; n < tasks/2 || n > tasks+5 {
			t.Errorf("%d goroutines for %d held tasks", n, tasks)
		}
		v.Allow(device)
		errs()
	})
}

// The authority's Retry-After is kept by a held task too, from its first refusal on.
func TestHeldTaskKeepsRetryAfter(t *testing.T) {
	for name, wrap := range runners() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const wait = time.Minute
				g, v := newGuard(t)
				v.Next(device, guardtest.Reply(guard.Decision{Code: guard.CodeSystemUnavailable, RetryAfter: wait}, nil))
				errs := handled(marked(nil), asynqmw.New(wrap(g), asynqmw.Fixed(device)), done(), 1)
				if all := errs(); all[0] != nil {
					t.Error(all[0])
				}
				calls := v.Calls()
				if len(calls) < 2 {
					t.Fatalf("asked %d times", len(calls))
				}
				if after := calls[1].Sent.Sub(calls[0].Returned); after < wait || after > wait+5*time.Second {
					t.Errorf("asked again after %v, the authority said %v", after, wait)
				}
			})
		})
	}
}

// runners are a Guard and what is none.
func runners() map[string]func(g *guard.Guard) guard.Runner {
	return map[string]func(g *guard.Guard) guard.Runner{
		"a Guard":     func(g *guard.Guard) guard.Runner { return g },
		"around one":  func(g *guard.Guard) guard.Runner { return &ownRunner{Guard: g} },
		"without one": func(g *guard.Guard) guard.Runner { return runOnly{g} },
	}
}

// runOnly has one method, Run.
type runOnly struct{ r guard.Runner }

func (o runOnly) Run(ctx context.Context, deviceID string, fn func(context.Context) error) error {
	return o.r.Run(ctx, deviceID, fn)
}

// A Runner that is no Guard is called again an interval apart, and up to half of one more: its own, or ten seconds.
func TestHeldByRunnerKeepsItsDistance(t *testing.T) {
	for name, step := range map[string]time.Duration{"around one": interval, "without one": 10 * time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, v := newGuard(t)
				v.Deny(device, guard.CodeDeviceRevoked)
				w := done()
				errs := handled(marked(nil), asynqmw.New(runners()[name](g), asynqmw.Fixed(device)), w, 1)
				time.Sleep(20 * step)
				v.Allow(device)
				errs()
				w.want(t, "", 1)
				distances, calls := map[time.Duration]bool{}, v.Calls()
				for i, c := range calls[1:] {
					after := c.Sent.Sub(calls[i].Returned)
					distances[after] = true
					if after < step || after > step*3/2 {
						t.Errorf("question %d comes %v after the one before", i+2, after)
					}
				}
				if len(distances) < 5 {
					t.Errorf("no jitter: %v", distances)
				}
			})
		})
	}
}

// A handler that begins late in the wait has all the time that there is, to the task's deadline.
func TestLateHandlerHasAllItsTime(t *testing.T) {
	failure := errors.New("on my own account")
	for name, wrap := range runners() {
		for _, outcome := range []error{nil, failure} {
			t.Run(fmt.Sprint(name, " ", outcome), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					g, v := newGuard(t)
					v.Deny(device, guard.CodeDeviceRevoked)
					ctx, cancel := context.WithTimeout(marked(nil), time.Minute)
					defer cancel()
					end, _ := ctx.Deadline()
					w := working(func(ctx context.Context, _ *asynq.Task) error {
						select {
						case <-time.After(time.Until(end) - time.Millisecond):
							return outcome
						case <-ctx.Done():
							t.Errorf("ended %v before the deadline: %v", time.Until(end), context.Cause(ctx))
							return ctx.Err()
						}
					})
					errs := handled(ctx, asynqmw.New(wrap(g), asynqmw.Fixed(device)), w, 1)
					time.Sleep(40 * time.Second)
					v.Allow(device)
					if all := errs(); all[0] != outcome {
						t.Errorf("asynq gets %v, want the handler's %v", all[0], outcome)
					}
					w.want(t, "", 1)
				})
			})
		}
	}
}

// Where nothing has begun, the wait ends a little before the deadline, and nothing begins afterwards.
func TestWaitEndsBeforeTheDeadline(t *testing.T) {
	for name, wrap := range runners() {
		for limit, early := range map[time.Duration]time.Duration{time.Minute: time.Second, time.Second: 100 * time.Millisecond} {
			t.Run(fmt.Sprint(name, " ", limit), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					g, v := newGuard(t)
					v.Deny(device, guard.CodeDeviceRevoked)
					log := &journal{}
					ctx, cancel := context.WithTimeout(marked(log), limit)
					defer cancel()
					w := done()
					all := handled(ctx, asynqmw.New(wrap(g), asynqmw.Fixed(device)), w, 1)()
					end, _ := ctx.Deadline()
					if left := time.Until(end); left > early || left < early*9/10 {
						t.Errorf("let go %v before the deadline, want %v", left, early)
					}
					if !errors.Is(all[0], guard.ErrDenied) || len(log.ours("")) != 1 {
						t.Errorf("%v, logged %q", all[0], log.ours(""))
					}
					w.want(t, "", 0)
				})
			})
		}
	}
}

// A handler that is stopped late, and returns when there is no time left to wait in, is let go at once.
func TestStoppedTooLateToWait(t *testing.T) {
	for name, wrap := range runners() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, v := newGuard(t)
				log := &journal{}
				ctx, cancel := context.WithTimeout(marked(log), time.Minute)
				defer cancel()
				end, _ := ctx.Deadline()
				v.Next(device, guardtest.Reply(guard.Decision{Code: guard.CodeDeviceRevoked}, nil)) // so that it is held first
				w := working(func(ctx context.Context, _ *asynq.Task) error {
					<-ctx.Done()
					time.Sleep(time.Until(end) - 500*time.Millisecond)
					return nil
				})
				errs := handled(ctx, asynqmw.New(wrap(g), asynqmw.Fixed(device)), w, 1)
				time.Sleep(40 * time.Second)
				v.Deny(device, guard.CodeDeviceRevoked)
				if err := errs()[0]; !errors.Is(err, guard.ErrDenied) {
					t.Errorf("asynq gets %v, want the denial", err)
				}
				if left := time.Until(end); left != 500*time.Millisecond {
					t.Errorf("let go %v before the deadline", left)
				}
				w.want(t, "", 1)
			})
		})
	}
}
