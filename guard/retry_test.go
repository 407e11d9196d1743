package guard_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// steps makes back-offs that wait as listed, the last one for ever.
func steps(waits ...time.Duration) func() guard.BackOff {
	return func() guard.BackOff { return &stepping{waits: waits} }
}

// stepping has no lock: the race detector sees a back-off that is shared.
type stepping struct {
	waits []time.Duration
	n     int
}

func (s *stepping) NextBackOff() time.Duration {
	s.n++
	return s.waits[min(s.n, len(s.waits))-1]
}

func (s *stepping) Reset() { s.n = 0 }

// backOffFunc is a back-off of one function.
type backOffFunc func() time.Duration

func (f backOffFunc) NextBackOff() time.Duration { return f() }
func (f backOffFunc) Reset()                     {}

// unavailables are the ways in which an authority cannot be asked, and after what time a guard
// with a timeout of 3 s knows.
func unavailables() map[string]struct {
	b     behaviour
	after time.Duration
} {
	return map[string]struct {
		b     behaviour
		after time.Duration
	}{
		"SYSTEM_UNAVAILABLE":                   {b: denies(guard.CodeSystemUnavailable)},
		"SYSTEM_UNAVAILABLE beside an error":   {b: answers(guard.Decision{Code: guard.CodeSystemUnavailable}, errors.New("503"))},
		"transport error":                      {b: fails(errors.New("connection refused"))},
		"transport error, late":                {b: after(time.Second, fails(errors.New("connection reset"))), after: time.Second},
		"no answer until the timeout":          {b: hangs, after: 3 * time.Second},
		"deadline of the validator's own":      {b: fails(context.DeadlineExceeded)},
		"deadline exceeded, wrapped, and late": {b: after(2*time.Second, fails(fmt.Errorf("post: %w", context.DeadlineExceeded))), after: 2 * time.Second},
	}
}

// offsets gives when each call about the devices was sent.
func offsets(a *authority, start time.Time, devices ...string) []time.Duration {
	var ds []time.Duration
	for _, c := range a.asked(devices...) {
		ds = append(ds, c.sent.Sub(start))
	}
	return ds
}

func wantOffsets(t *testing.T, a *authority, start time.Time, want ...time.Duration) {
	t.Helper()
	if got := offsets(a, start); !slices.Equal(got, want) {
		t.Errorf("requests were sent at %v, want %v", got, want)
	}
}

// wantRefused checks the error of a start that could not ask.
func wantRefused(t *testing.T, err error, code guard.Code) {
	t.Helper()
	denied := (*guard.DeniedError)(nil)
	if !errors.As(err, &denied) || denied.Decision.Code != code || denied.InFlight {
		t.Errorf("Run returned %v, want a refusal with %s", err, code)
	}
	if errors.Is(err, guard.ErrUnavailable) != (code == guard.CodeSystemUnavailable) {
		t.Errorf("errors.Is(%v, ErrUnavailable) is wrong", err)
	}
}

// never is a function that a test does not want to be called.
func never(t *testing.T) func(context.Context) error {
	return func(context.Context) error {
		t.Error("the function was called")
		return nil
	}
}

func nothing(context.Context) error { return nil }

func TestR1_OffByDefaultAStartIsRefusedByTheFirstFailure(t *testing.T) {
	for name, tc := range unavailables() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				a.set(inTurn(tc.b, allows))
				g, start := newGuard(t, a), time.Now()
				wantRefused(t, g.Run(t.Context(), "d", never(t)), guard.CodeSystemUnavailable)
				if took := time.Since(start); took != tc.after {
					t.Errorf("refused after %v, want %v", took, tc.after)
				}
				time.Sleep(time.Hour)
				wantOffsets(t, a, start, 0)
			})
		})
	}
}

func TestR1_OffByDefaultARunIsStoppedByTheFirstFailure(t *testing.T) {
	for name, tc := range unavailables() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				a.set(inTurn(allows, tc.b, allows))
				g := newGuard(t, a)
				r := launch(t.Context(), g, "d")
				err := r.finish()
				asked := a.asked()
				if len(asked) != 2 {
					t.Fatalf("%d requests, want the start's and the watch's first", len(asked))
				}
				if took := r.at.Sub(asked[1].sent); took != tc.after {
					t.Errorf("stopped %v after the watch's request, want %v", took, tc.after)
				}
				if denied := (*guard.DeniedError)(nil); !errors.As(err, &denied) || !denied.InFlight || !errors.Is(err, guard.ErrUnavailable) {
					t.Errorf("Run returned %v, want a stop with SYSTEM_UNAVAILABLE", err)
				}
				time.Sleep(time.Hour)
				if n := a.count(); n != 2 {
					t.Errorf("%d requests an hour later, want 2", n)
				}
			})
		})
	}
}

func TestR2_AStartThatCouldNotAskIsRetried(t *testing.T) {
	for name, tc := range unavailables() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				a.set(inTurn(tc.b, tc.b, allows))
				g, start := newGuard(t, a, guard.WithRetry(steps(100*time.Millisecond, 250*time.Millisecond), 10*time.Second)), time.Now()
				if err := g.Run(t.Context(), "d", nothing); err != nil {
					t.Fatalf("Run: %v", err)
				}
				wantOffsets(t, a, start, 0, tc.after+100*time.Millisecond, 2*tc.after+350*time.Millisecond)
				if took := time.Since(start); took != 2*tc.after+350*time.Millisecond {
					t.Errorf("started after %v", took)
				}
			})
		})
	}
}

func TestR2_ARunRidesOutWhatIsRetried(t *testing.T) {
	for name, tc := range unavailables() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				a.set(inTurn(allows, tc.b, tc.b, allows))
				g := newGuard(t, a, guard.WithRetry(steps(100*time.Millisecond), 10*time.Second))
				r := launch(t.Context(), g, "d")
				time.Sleep(30 * time.Second)
				if !r.started() || r.cancelled() {
					t.Fatal("the run was stopped by an outage that its retries rode out")
				}
				asked := a.asked()
				for i := 2; i <= 3; i++ {
					if gap := asked[i].sent.Sub(asked[i-1].sent); gap != tc.after+100*time.Millisecond {
						t.Errorf("try %d was sent %v after the one before, want %v", i, gap, tc.after+100*time.Millisecond)
					}
				}
				// Retries do not move the phase of the watch.
				if gap := asked[4].sent.Sub(asked[1].sent); gap != 10*time.Second {
					t.Errorf("the watch asked again after %v, want 10 s", gap)
				}
			})
		})
	}
}

func TestR2_AnAuthoritativeDenialIsNeverRetried(t *testing.T) {
	for _, code := range []guard.Code{
		guard.CodeDeviceRevoked, guard.CodeDeviceNotFound, guard.CodeOrgDisabled, guard.CodePlanFrozen, guard.CodePlanNotActive,
		guard.CodeEntitlementExpired, guard.CodeOrgNotFound, guard.CodeInvalidOrgKey, guard.CodeInvalidDeviceID, "A_CODE_OF_TOMORROW",
	} {
		for name, b := range map[string]behaviour{
			"plain":            denies(code),
			"beside an error":  answers(guard.Decision{Code: code}, errors.New("http 500")),
			"with Retry-After": answers(guard.Decision{Code: code, RetryAfter: time.Second}, nil),
		} {
			t.Run(string(code)+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a := newAuthority()
					a.set(inTurn(b, allows))
					g, start := newGuard(t, a, guard.WithRetry(steps(100*time.Millisecond), 10*time.Second)), time.Now()
					wantRefused(t, g.Run(t.Context(), "d", never(t)), code)
					time.Sleep(time.Minute)
					wantOffsets(t, a, start, 0)

					// The watch, and a retry of the watch.
					fail := fails(errors.New("down"))
					for _, outage := range [][]behaviour{{}, {fail, fail}} {
						before := a.count()
						a.set(inTurn(slices.Concat([]behaviour{allows}, outage, []behaviour{b, allows})...))
						r := launch(t.Context(), g, "d")
						if err := r.finish(); !errors.Is(err, guard.ErrDenied) || errors.Is(err, guard.ErrUnavailable) {
							t.Errorf("Run returned %v, want %s", err, code)
						}
						if last := a.last(t); !last.returned.Equal(r.at) {
							t.Errorf("stopped at %v, the denial came at %v", r.at, last.returned)
						}
						time.Sleep(time.Minute)
						if n := a.count() - before; n != len(outage)+2 {
							t.Errorf("%d requests, want %d", n, len(outage)+2)
						}
					}
				})
			})
		}
	}
}

func TestR2_ARetryThatIsDeniedEndsTheRetrying(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		a.set(inTurn(fails(errors.New("down")), denies(guard.CodeDeviceRevoked), allows))
		g, start := newGuard(t, a, guard.WithRetry(steps(time.Second), 10*time.Second)), time.Now()
		wantRefused(t, g.Run(t.Context(), "d", never(t)), guard.CodeDeviceRevoked)
		time.Sleep(time.Minute)
		wantOffsets(t, a, start, 0, time.Second)
	})
}

func TestR2_NeverPastTheCallersContext(t *testing.T) {
	gone := errors.New("the caller has gone")
	for _, tc := range []struct {
		name string
		b    behaviour
		end  time.Duration
		sent []time.Duration
	}{
		{"while a try waits", fails(errors.New("down")), 250 * time.Millisecond, []time.Duration{0, 100 * time.Millisecond, 200 * time.Millisecond}},
		{"while a try is in flight", hangs, 3200 * time.Millisecond, []time.Duration{0, 3100 * time.Millisecond}},
		{"before the first try is back", hangs, time.Second, []time.Duration{0}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				a.set(tc.b)
				g, start := newGuard(t, a, guard.WithRetry(steps(100*time.Millisecond), time.Hour)), time.Now()
				ctx, cancel := context.WithTimeoutCause(t.Context(), tc.end, gone)
				defer cancel()
				if err := g.Run(ctx, "d", never(t)); err != gone { //nolint:errorlint // it must be that very error
					t.Errorf("Run returned %v, want the caller's cause", err)
				}
				if took := time.Since(start); took != tc.end {
					t.Errorf("returned after %v, want %v", took, tc.end)
				}
				time.Sleep(2 * time.Hour)
				wantOffsets(t, a, start, tc.sent...)
			})
		})
	}
}

func TestR2_NeverPastTheBudget(t *testing.T) {
	const budget = time.Second
	for _, tc := range []struct {
		name string
		b    behaviour
		wait time.Duration
		know time.Duration // when the first failure is known
		most int
	}{
		{"failing at once", fails(errors.New("down")), 90 * time.Millisecond, 0, 12},
		{"hanging", hangs, 90 * time.Millisecond, 300 * time.Millisecond, 4},
		{"failing late", after(200*time.Millisecond, fails(errors.New("down"))), 90 * time.Millisecond, 200 * time.Millisecond, 5},
		{"one step", fails(errors.New("down")), 700 * time.Millisecond, 0, 2},
		{"ignoring the context", deaf(time.Hour, allows), 90 * time.Millisecond, 300 * time.Millisecond, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				a.set(tc.b)
				g := newGuard(t, a, guard.WithTimeout(300*time.Millisecond), guard.WithRetry(steps(tc.wait), budget))
				start := time.Now()
				wantRefused(t, g.Run(t.Context(), "d", never(t)), guard.CodeSystemUnavailable)
				end := start.Add(tc.know + budget)
				if time.Now().After(end) {
					t.Errorf("refused after %v, want at most %v", time.Since(start), tc.know+budget)
				}
				time.Sleep(2 * time.Hour)
				asked := a.asked()
				if len(asked) < 2 || len(asked) > tc.most {
					t.Errorf("%d tries, want 2 to %d", len(asked), tc.most)
				}
				for _, c := range asked {
					if !c.sent.Before(end) {
						t.Errorf("try %d was sent after %v, the budget ended after %v", c.n, c.sent.Sub(start), end.Sub(start))
					}
					if c.deadline.After(end) {
						t.Errorf("try %d may last until %v, the budget ended after %v", c.n, c.deadline.Sub(start), end.Sub(start))
					}
				}
			})
		})
	}
}

func TestR2_TheBudgetEndsWhileATryWaitsForASlot(t *testing.T) {
	for _, free := range []time.Duration{1500 * time.Millisecond, 2500 * time.Millisecond, 30 * time.Second} {
		t.Run(free.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const budget = time.Second
				a := newAuthority()
				a.set(inTurn(fails(errors.New("down")), allows), "d")
				release := a.stick(t, allows, "other")
				g := newGuard(t, a, guard.WithMaxRequests(1), guard.WithInterval(time.Minute),
					guard.WithRetry(steps(500*time.Millisecond), budget))
				start := time.Now()
				r := launchFunc(t.Context(), g, "d", never(t))
				synctest.Wait()
				launch(t.Context(), g, "other") // takes the slot while d's try waits out its back-off
				time.Sleep(free)
				release()
				wantRefused(t, r.finish(), guard.CodeSystemUnavailable)
				if took := r.at.Sub(start); took > budget {
					t.Errorf("refused after %v, the budget is %v", took, budget)
				}
				time.Sleep(time.Minute)
				for _, sent := range offsets(a, start, "d") {
					if sent >= budget {
						t.Errorf("a try was sent %v after the first failure, the budget is %v", sent, budget)
					}
				}
			})
		})
	}
}

func TestR2_NeverPastTheStopLine(t *testing.T) {
	for name, b := range map[string]behaviour{
		"failing at once": fails(errors.New("down")),
		"hanging":         hangs,
		"failing late":    after(2900*time.Millisecond, fails(errors.New("down"))),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				a.set(inTurn(allows, b))
				g := newGuard(t, a, guard.WithRetry(steps(100*time.Millisecond), 5*time.Second))
				start := time.Now()
				r := launch(t.Context(), g, "d")
				err := r.finish()
				line := start.Add(g.StopBound())
				if r.at.After(line) {
					t.Errorf("stopped after %v, the line was at %v", r.at.Sub(start), g.StopBound())
				}
				if !errors.Is(err, guard.ErrUnavailable) {
					t.Errorf("Run returned %v", err)
				}
				time.Sleep(time.Hour)
				if last := a.last(t); !last.sent.Before(line) || last.sent.After(r.at) {
					t.Errorf("a try was sent after %v, the run was stopped after %v", last.sent.Sub(start), r.at.Sub(start))
				}
			})
		})
	}
}

// The watch's question waits so long for a slot that its budget would reach beyond the line.
func TestR2_NeverPastTheStopLineWithBudgetLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		a.set(inTurn(allows, fails(errors.New("down"))), "d")
		release := a.stick(t, allows, "other")
		g := newGuard(t, a, guard.WithMaxRequests(1), guard.WithRetry(steps(20*time.Millisecond), 5*time.Second))
		start := time.Now()
		line := start.Add(g.StopBound())
		r := launch(t.Context(), g, "d")
		synctest.Wait()
		launchFunc(t.Context(), g, "other", never(t))
		time.Sleep(time.Until(line) - 100*time.Millisecond)
		if a.count("d") != 1 || r.cancelled() {
			t.Fatalf("%d requests, cancelled %t; want the watch to wait for a slot", a.count("d"), r.cancelled())
		}
		release()
		_ = r.finish()
		if !r.at.Equal(line) {
			t.Errorf("stopped after %v, want %v: tries were to be had until the line", r.at.Sub(start), g.StopBound())
		}
		time.Sleep(time.Hour)
		asked := a.asked("d")
		if len(asked) < 3 {
			t.Errorf("%d requests, want the watch's and its retries", len(asked))
		}
		if last := asked[len(asked)-1]; !last.sent.Before(line) {
			t.Errorf("a try was sent after %v, the line was at %v", last.sent.Sub(start), g.StopBound())
		}
	})
}

func TestR3_RetryAfterIsAFloor(t *testing.T) {
	for _, tc := range []struct {
		name    string
		floor   time.Duration
		backOff time.Duration
		want    time.Duration
	}{
		{"above the back-off", 700 * time.Millisecond, 10 * time.Millisecond, 700 * time.Millisecond},
		{"below the back-off", 700 * time.Millisecond, 900 * time.Millisecond, 900 * time.Millisecond},
		{"of 2 s over a back-off that does not wait", 2 * time.Second, 0, 2 * time.Second},
		{"negative", -time.Hour, 300 * time.Millisecond, 300 * time.Millisecond},
	} {
		for _, with := range []struct {
			name string
			code guard.Code
			err  error
		}{
			{"decision", guard.CodeSystemUnavailable, nil},
			{"decision and error", guard.CodeSystemUnavailable, errors.New("429")},
			{"error alone", "", errors.New("429")},
		} {
			t.Run(tc.name+", "+with.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a := newAuthority()
					busy := answers(guard.Decision{Code: with.code, RetryAfter: tc.floor}, with.err)
					a.set(inTurn(busy, busy, allows))
					g, start := newGuard(t, a, guard.WithRetry(steps(tc.backOff), 5*time.Second)), time.Now()
					if err := g.Run(t.Context(), "d", nothing); err != nil {
						t.Fatalf("Run: %v", err)
					}
					wantOffsets(t, a, start, 0, tc.want, 2*tc.want)
				})
			})
		}
	}
}

func TestR3_NobodyBringsARetryBelowItsFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		busy := answers(guard.Decision{Code: guard.CodeSystemUnavailable, RetryAfter: 4 * time.Second}, nil)
		a.set(inTurn(allows, busy, allows))
		g := newGuard(t, a, guard.WithRetry(steps(0), 5*time.Second))
		r := launch(t.Context(), g, "d")
		for a.count() < 2 {
			time.Sleep(time.Millisecond)
		}
		busyAt := a.last(t).sent
		newcomer := launch(t.Context(), g, "d")
		g.Hint("d")
		time.Sleep(2 * time.Second)
		g.Hint("")
		another := launch(t.Context(), g, "d")
		time.Sleep(time.Until(busyAt.Add(4*time.Second)) - time.Nanosecond)
		if n := a.count(); n != 2 {
			t.Errorf("%d requests before Retry-After is over, want 2", n)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if n := a.count(); n != 3 {
			t.Errorf("%d requests when Retry-After is over, want 3", n)
		}
		if r.cancelled() || !newcomer.started() || !another.started() {
			t.Errorf("cancelled %t, started %t and %t", r.cancelled(), newcomer.started(), another.started())
		}
	})
}

func TestR3_AWaitThatDoesNotFitEndsAtOnce(t *testing.T) {
	busy := func(floor time.Duration) behaviour {
		return answers(guard.Decision{Code: guard.CodeSystemUnavailable, RetryAfter: floor}, nil)
	}
	down := fails(errors.New("down"))
	for _, tc := range []struct {
		name  string
		waits []time.Duration
		bs    []behaviour
		sent  []time.Duration
	}{
		{"Retry-After", []time.Duration{0}, []behaviour{busy(6 * time.Second)}, []time.Duration{0}},
		{"Retry-After by a nanosecond", []time.Duration{0}, []behaviour{busy(5*time.Second + 1)}, []time.Duration{0}},
		{"Retry-After of a century", []time.Duration{0}, []behaviour{busy(1<<63 - 1)}, []time.Duration{0}},
		{"back-off", []time.Duration{6 * time.Second}, []behaviour{down}, []time.Duration{0}},
		{"back-off of a century", []time.Duration{1<<63 - 1}, []behaviour{down}, []time.Duration{0}},
		{"what is left of it", []time.Duration{3 * time.Second}, []behaviour{down}, []time.Duration{0, 3 * time.Second}},
		{
			"Retry-After and what is left",
			[]time.Duration{time.Second},
			[]behaviour{down, down, busy(4 * time.Second)},
			[]time.Duration{0, time.Second, 2 * time.Second},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				a.set(inTurn(tc.bs...))
				g, start := newGuard(t, a, guard.WithRetry(steps(tc.waits...), 5*time.Second)), time.Now()
				wantRefused(t, g.Run(t.Context(), "d", never(t)), guard.CodeSystemUnavailable)
				if took, want := time.Since(start), tc.sent[len(tc.sent)-1]; took != want {
					t.Errorf("refused after %v, want %v: at once", took, want)
				}
				time.Sleep(time.Hour)
				wantOffsets(t, a, start, tc.sent...)

				// A run in flight.
				a.set(inTurn(append([]behaviour{allows}, tc.bs...)...))
				before := a.count()
				r := launch(t.Context(), g, "d")
				_ = r.finish()
				asked := a.asked()[before:]
				if len(asked) != len(tc.sent)+1 || !r.at.Equal(asked[len(asked)-1].sent) {
					t.Errorf("stopped %v after the last of %d requests, want at once after %d",
						r.at.Sub(asked[len(asked)-1].sent), len(asked), len(tc.sent)+1)
				}
			})
		})
	}
}

func TestR4_EachQuestionGetsAFreshBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		var mu sync.Mutex
		var made []*stepping
		newBackOff := func() guard.BackOff {
			b := &stepping{waits: []time.Duration{100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond}}
			mu.Lock()
			defer mu.Unlock()
			made = append(made, b)
			return b
		}
		g := newGuard(t, a, guard.WithRetry(newBackOff, 5*time.Second))
		down := fails(errors.New("down"))
		for range 3 {
			a.set(inTurn(down, down, down, allows))
			before, start := a.count(), time.Now()
			if err := g.Run(t.Context(), "d", nothing); err != nil {
				t.Fatal(err)
			}
			want := []time.Duration{0, 100 * time.Millisecond, 300 * time.Millisecond, 700 * time.Millisecond}
			if got := offsets(a, start)[before:]; !slices.Equal(got, want) {
				t.Errorf("tries at %v, want %v", got, want)
			}
		}
		if len(made) != 3 {
			t.Errorf("%d back-offs for three questions", len(made))
		}

		// Questions of many devices at once: the race detector would see one that is shared.
		a.set(fails(errors.New("down")))
		var rs []*running
		for i := range 50 {
			rs = append(rs, launchFunc(t.Context(), g, fmt.Sprint("many-", i), never(t)))
		}
		for _, r := range rs {
			wantRefused(t, r.finish(), guard.CodeSystemUnavailable)
		}
		if len(made) != 53 {
			t.Errorf("%d back-offs for 53 questions", len(made))
		}
	})
}

// The waits of backoff/v4 start at half a second, grow by half, and each is jittered by half.
func TestR4_NilIsTheExponentialBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		a.fail(errors.New("down"))
		g, start := newGuard(t, a, guard.WithRetry(nil, time.Hour)), time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		for i := range 20 {
			launchFunc(ctx, g, fmt.Sprint("d", i), never(t))
		}
		time.Sleep(40 * time.Minute)
		cancel()
		seconds := map[time.Duration]bool{}
		for i := range 20 {
			sent := offsets(a, start, fmt.Sprint("d", i))
			if len(sent) < 30 {
				t.Fatalf("%d tries in 40 minutes: it must not give up after a quarter of an hour", len(sent))
			}
			seconds[sent[1]] = true
			mean := 500 * time.Millisecond
			for n := 1; n < len(sent); n++ {
				if wait := sent[n] - sent[n-1]; wait < mean/2-1 || wait > mean*3/2+1 {
					t.Errorf("device %d, wait %d is %v, want %v to %v", i, n, wait, mean/2, mean*3/2)
				}
				mean = min(mean*3/2, time.Minute)
			}
		}
		if len(seconds) < 10 {
			t.Errorf("20 devices waited %d different times: no jitter", len(seconds))
		}
	})
}

func TestR4_StopEndsTheRetrying(t *testing.T) {
	for name, waits := range map[string][]time.Duration{
		"at once":       {-1},
		"after a try":   {time.Second, -1},
		"any negative":  {time.Second, -time.Hour},
		"the most":      {-1 << 63},
		"after several": {time.Second, 0, time.Second, -1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				a.answer(guard.Decision{Code: guard.CodeSystemUnavailable, RetryAfter: time.Millisecond}, nil)
				g, start := newGuard(t, a, guard.WithRetry(steps(waits...), time.Hour)), time.Now()
				wantRefused(t, g.Run(t.Context(), "d", never(t)), guard.CodeSystemUnavailable)
				want, at := []time.Duration{}, time.Duration(0)
				for _, wait := range waits {
					want = append(want, at)
					at += max(wait, time.Millisecond)
				}
				if took := time.Since(start); took != want[len(want)-1] {
					t.Errorf("refused after %v, want %v", took, want[len(want)-1])
				}
				time.Sleep(2 * time.Hour)
				wantOffsets(t, a, start, want...)
			})
		})
	}
}

// brokenBackOffs are back-offs that break in the user's code. Each tells when to break: the first
// use is 1.
func brokenBackOffs() map[string]func(broken func(use int) bool) func() guard.BackOff {
	once := func(f func()) func(func(int) bool) func() guard.BackOff {
		return func(broken func(int) bool) func() guard.BackOff {
			var uses atomic.Int64
			return func() guard.BackOff {
				return backOffFunc(func() time.Duration {
					if broken(int(uses.Add(1))) {
						f()
					}
					return 100 * time.Millisecond
				})
			}
		}
	}
	inNew := func(f func() guard.BackOff) func(func(int) bool) func() guard.BackOff {
		return func(broken func(int) bool) func() guard.BackOff {
			var uses atomic.Int64
			return func() guard.BackOff {
				if broken(int(uses.Add(1))) {
					return f()
				}
				return &stepping{waits: []time.Duration{100 * time.Millisecond}}
			}
		}
	}
	return map[string]func(func(int) bool) func() guard.BackOff{
		"NextBackOff panics":         once(func() { panic("sk_live_secret") }),
		"NextBackOff ends goroutine": once(runtime.Goexit),
		"the function panics":        inNew(func() guard.BackOff { panic("sk_live_secret") }),
		"the function ends goroutine": inNew(func() guard.BackOff {
			runtime.Goexit()
			return nil
		}),
		"the function returns nil":       inNew(func() guard.BackOff { return nil }),
		"the function returns typed nil": inNew(func() guard.BackOff { return (*stepping)(nil) }),
	}
}

func TestR4_ABackOffThatBreaksFailsClosed(t *testing.T) {
	for name, make := range brokenBackOffs() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				a.fail(errors.New("down"))
				var broken atomic.Bool
				g := newGuard(t, a, guard.WithMaxRequests(1), guard.WithRetry(make(func(int) bool { return broken.Load() }), 5*time.Second))
				broken.Store(true)
				start := time.Now()
				for range 3 { // no slot is lost, none of them hangs
					err := g.Run(t.Context(), "d", never(t))
					wantRefused(t, err, guard.CodeSystemUnavailable)
				}
				if took := time.Since(start); took != 0 {
					t.Errorf("refused after %v, want at once", took)
				}

				// A run in flight when it breaks is stopped, at the watch's question.
				broken.Store(false)
				a.set(inTurn(allows, fails(errors.New("down"))))
				r := launch(t.Context(), g, "d")
				synctest.Wait()
				broken.Store(true)
				if err := r.finish(); !errors.Is(err, guard.ErrUnavailable) {
					t.Errorf("Run returned %v", err)
				}
				if lived := r.at.Sub(start); lived > g.StopBound() {
					t.Errorf("the run lived %v, beyond its stop bound", lived)
				}

				// Once it is well again, so is the guard.
				broken.Store(false)
				a.set(inTurn(fails(errors.New("down")), allows))
				if err := g.Run(t.Context(), "d", nothing); err != nil {
					t.Errorf("Run: %v", err)
				}
			})
		})
	}
}

func TestR4_ABackOffThatBreaksInARetryFailsClosed(t *testing.T) {
	for name, make := range brokenBackOffs() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				a.fail(errors.New("down"))
				g := newGuard(t, a, guard.WithRetry(make(func(use int) bool { return use >= 2 }), 5*time.Second))
				start := time.Now()
				wantRefused(t, g.Run(t.Context(), "d", never(t)), guard.CodeSystemUnavailable)
				if took := time.Since(start); took > 5*time.Second {
					t.Errorf("refused after %v, beyond the budget", took)
				}
			})
		})
	}
}

func TestR4_ABackOffThatBlocksHoldsUpNoLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		var blocked atomic.Bool
		release := make(chan struct{})
		g := newGuard(t, a, guard.WithRetry(func() guard.BackOff {
			return backOffFunc(func() time.Duration {
				if blocked.Load() {
					<-release
				}
				return 100 * time.Millisecond
			})
		}, 2*time.Second))
		r, neighbour := launch(t.Context(), g, "d"), launch(t.Context(), g, "e")
		synctest.Wait()
		start := time.Now()
		line := start.Add(g.StopBound())
		blocked.Store(true)
		err := g.Run(t.Context(), "d", never(t))
		wantRefused(t, err, guard.CodeSystemUnavailable)
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("refused after %v, want at most the timeout", took)
		}
		for _, r := range []*running{r, neighbour} {
			if err := r.finish(); !errors.Is(err, guard.ErrUnavailable) {
				t.Errorf("Run returned %v", err)
			}
			if r.at.After(line) {
				t.Errorf("the run was stopped after %v, beyond its line", r.at.Sub(start))
			}
		}
		if closing := time.Now(); g.Close() != nil || !time.Now().Equal(closing) {
			t.Error("Close was held up")
		}
		// A call that was given up before it was sent is not sent any more (L3).
		before := a.count()
		close(release)
		synctest.Wait()
		if n := a.count() - before; n != 0 {
			t.Errorf("%d requests on behalf of nobody", n)
		}
	})
}

// A back-off may use the guard: no lock is held while it is asked.
func TestR4_ABackOffMayUseTheGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		a.set(inTurn(fails(errors.New("down")), allows))
		var g *guard.Guard
		g = newGuard(t, a, guard.WithRetry(func() guard.BackOff {
			return backOffFunc(func() time.Duration {
				g.Hint("d")
				g.Hint("")
				return 100 * time.Millisecond
			})
		}, 2*time.Second))
		if err := g.Run(t.Context(), "d", nothing); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}
