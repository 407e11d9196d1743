package guard_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// constant is a back-off that always waits the same.
type constant time.Duration

func (c constant) NextBackOff() time.Duration { return time.Duration(c) }
func (constant) Reset()                       {}

// retries opts in to retries after a constant wait.
func retries(wait, budget time.Duration) guard.Option {
	return guard.WithRetry(func() guard.BackOff { return constant(wait) }, budget)
}

// setting is a way in which a guard may be told how long to wait.
type setting struct {
	name           string
	timeout, bound time.Duration
	opts           []guard.Option
}

func settings(t *testing.T) []setting {
	const s, ms = time.Second, time.Millisecond
	return []setting{
		{"by default", 3 * s, 13 * s, nil},
		{"short", 10 * ms, 60 * ms, []guard.Option{guard.WithInterval(50 * ms), guard.WithTimeout(10 * ms)}},
		{"timeout beyond the interval", 30 * s, 31 * s, []guard.Option{guard.WithInterval(s), guard.WithTimeout(30 * s)}},
		{"retries", 3 * s, 33 * s, []guard.Option{retries(s, 20*s)}},
		{"retries at once", 3 * s, 14 * s, []guard.Option{retries(10*ms, s)}},
		{"retries, budget shorter than a call", s, 12 * s, []guard.Option{guard.WithTimeout(s), retries(0, s)}},
		{"reuse", 3 * s, 13 * s, []guard.Option{guard.WithReuse(5 * s)}},
		{"reuse and retries", 3 * s, 23 * s, []guard.Option{guard.WithReuse(10 * s), retries(s, 10*s)}},
		{"one request at a time", 3 * s, 13 * s, []guard.Option{guard.WithMaxRequests(1)}},
		{"two at a time, retries", 3 * s, 23 * s, []guard.Option{guard.WithMaxRequests(2), retries(s, 10*s)}},
		{"an observer that blocks", 3 * s, 13 * s, []guard.Option{guard.WithObserver(blocked(t))}},
	}
}

// blocked is an observer that blocks on what is told through the queue, until the test is over.
func blocked(t *testing.T) func(context.Context, guard.Event) {
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	return func(_ context.Context, e guard.Event) {
		if e.Kind == guard.EventValidated {
			<-over
		}
	}
}

// silences are the ways of not answering. Those that fail at once must not fail so often in an
// instant that it never ends: a wait of nought is retried without a pause.
var silences = map[string]func(t *testing.T, a *authority){
	"ignores its context":    func(t *testing.T, a *authority) { a.stick(t, allows) },
	"obeys its context":      func(_ *testing.T, a *authority) { a.hang() },
	"allows late":            func(_ *testing.T, a *authority) { a.set(deaf(40*time.Second, allows)) },
	"allows just late":       func(_ *testing.T, a *authority) { a.set(deaf(3*time.Second+1, allows)) },
	"fails late and is deaf": func(_ *testing.T, a *authority) { a.set(deaf(40*time.Second, fails(errors.New("late")))) },
	"fails":                  func(_ *testing.T, a *authority) { a.set(deaf(time.Millisecond, fails(errors.New("refused")))) },
	"sticks once, then fails": func(t *testing.T, a *authority) {
		stuck, release := sticks(allows)
		t.Cleanup(release)
		a.set(inTurn(stuck, deaf(time.Millisecond, fails(errors.New("refused")))))
	},
}

// No way of not answering lets work live past the line that the last ALLOW has drawn.
func TestS4_NoSilenceLetsWorkLivePastTheStopLine(t *testing.T) {
	for i := range settings(t) {
		for name, silence := range silences {
			bubble(t, settings(t)[i].name+"/"+name, func(t *testing.T) {
				s, a := settings(t)[i], newAuthority()
				g := newGuard(t, a, s.opts...)
				if g.StopBound() != s.bound {
					t.Errorf("the stop bound is %v, want %v", g.StopBound(), s.bound)
				}
				var runs []*watched
				for i := range 5 {
					runs = append(runs, watch(t, g, device(i)))
				}
				time.Sleep(3 * s.bound) // some revalidations go well
				silence(t, a)
				for range 40 {
					time.Sleep(s.bound / 10)
					for _, r := range runs {
						r.check(t, a, s)
					}
				}
			})
		}
	}
}

// watched is a run that notes when its context ended.
type watched struct {
	*running
	id    string
	ended time.Time // read it after done
}

func watch(t *testing.T, g *guard.Guard, id string) *watched {
	w := &watched{id: id}
	w.running = launchFunc(t.Context(), g, id, func(ctx context.Context) error {
		<-ctx.Done()
		w.ended = time.Now()
		if err := guard.Checkpoint(ctx); err == nil && errors.Is(context.Cause(ctx), guard.ErrDenied) {
			t.Errorf("%s: the context says %v and Checkpoint says yes", id, context.Cause(ctx))
		}
		return nil
	})
	return w
}

// check holds the run to the line: the stop bound after the last request that was answered in
// time with an ALLOW.
func (w *watched) check(t *testing.T, a *authority, s setting) {
	t.Helper()
	var sent time.Time
	for _, c := range a.asked(w.id) {
		if c.decision.Allowed && c.ended == nil && c.returned.Sub(c.sent) <= s.timeout {
			sent = c.sent
		}
	}
	end := time.Now()
	if w.returned() {
		end = w.ended
		wantDenied(t, w.finish(), w.id, guard.CodeSystemUnavailable, true)
	}
	if past := end.Sub(sent) - s.bound; past > 0 {
		t.Fatalf("%s went on for %v past its stop line", w.id, past)
	}
}

// A validator that hangs is given up after the timeout: the watch's question then denies, with
// or without an eye on its context.
func TestS4_AHungWatchDeniesAtItsTimeout(t *testing.T) {
	for _, name := range []string{"ignores its context", "obeys its context"} {
		bubble(t, name, func(t *testing.T) {
			a := newAuthority()
			g := newGuard(t, a)
			w := watch(t, g, "dev")
			synctest.Wait()
			silences[name](t, a)
			err := w.finish()
			wantDenied(t, err, "dev", guard.CodeSystemUnavailable, true)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the denial does not match DeadlineExceeded: %v", err)
			}
			if after := w.ended.Sub(a.last(t).sent); after != 3*time.Second {
				t.Errorf("stopped %v after the question, want the timeout, 3s", after)
			}
		})
	}
}

// With retries the budget is used up, and not a nanosecond more.
func TestS4_HungRetriesEndWithTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a, retries(time.Second, 20*time.Second))
		w := watch(t, g, "dev")
		synctest.Wait()
		a.hang()
		wantDenied(t, w.finish(), "dev", guard.CodeSystemUnavailable, true)
		if after := w.ended.Sub(a.asked()[1].sent); after != 23*time.Second {
			t.Errorf("stopped %v after the first try, want timeout and budget, 23s", after)
		}
		if n := a.count() - 1; n != 6 { // at 0, 4, 8, 12, 16 and 20 s
			t.Errorf("%d tries, want 6", n)
		}
		synctest.Wait()
		if c := a.last(t); c.returned.Sub(c.sent) != 3*time.Second {
			t.Errorf("the last try took %v, want 3s", c.returned.Sub(c.sent))
		}
	})
}

// Where no request can be sent at all, because calls that ignore their context hold every slot,
// the line is drawn all the same, to the nanosecond.
func TestS4_TheLineIsDrawnWithoutAnySlot(t *testing.T) {
	for name, opts := range map[string][]guard.Option{
		"plain":   {guard.WithMaxRequests(1)},
		"retries": {guard.WithMaxRequests(1), retries(time.Second, 20*time.Second)},
		"reuse":   {guard.WithMaxRequests(1), guard.WithReuse(5 * time.Second)},
	} {
		bubble(t, name, func(t *testing.T) {
			a := newAuthority()
			g := newGuard(t, a, opts...)
			a.stick(t, allows, "stuck")
			a.set(deaf(2*time.Second, allows), "dev") // the line counts from the request
			w := watch(t, g, "dev")
			time.Sleep(2 * time.Second)
			launchFunc(t.Context(), g, "stuck", mustNotRun(t)) // takes the slot for good
			synctest.Wait()
			wantDenied(t, w.finish(), "dev", guard.CodeSystemUnavailable, true)
			if after := w.ended.Sub(a.asked("dev")[0].sent); after != g.StopBound() {
				t.Errorf("stopped %v after the only ALLOW's request, want %v", after, g.StopBound())
			}
			if n := a.count("dev"); n != 1 {
				t.Errorf("asked %d times, want once", n)
			}
		})
	}
}

// The device's own hung calls do not hold the line up either.
func TestS4_TheLineIsDrawnWhenNothingMayBeAskedAnyMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a, guard.WithInterval(time.Hour))
		w := watch(t, g, "dev")
		synctest.Wait()
		a.stick(t, allows)
		for range 2 {
			wantDenied(t, g.Run(t.Context(), "dev", mustNotRun(t)), "dev", guard.CodeSystemUnavailable, false)
		}
		known, at := a.count(), time.Now()
		err := g.Run(t.Context(), "dev", mustNotRun(t))
		wantDenied(t, err, "dev", guard.CodeSystemUnavailable, false)
		if time.Since(at) != 0 || a.count() != known {
			t.Errorf("refused after %v and %d requests, want at once and unasked", time.Since(at), a.count()-known)
		}
		wantRunning(t, w.running, "starts hang")
		wantDenied(t, w.finish(), "dev", guard.CodeSystemUnavailable, true)
		if after := w.ended.Sub(a.asked()[0].sent); after > g.StopBound() {
			t.Errorf("stopped %v after the only ALLOW's request, want at most %v", after, g.StopBound())
		}
	})
}

// A start waits for a silent authority no longer than the contract says: one timeout behind
// another's, one of its own, and the budget.
func TestS4_AStartDoesNotWaitForASilentAuthority(t *testing.T) {
	for name, opts := range map[string][]guard.Option{
		"plain":   nil,
		"retries": {retries(time.Second, 20*time.Second)},
	} {
		for _, silence := range []string{"ignores its context", "obeys its context"} {
			bubble(t, name+"/"+silence, func(t *testing.T) {
				a := newAuthority()
				g := newGuard(t, a, opts...)
				silences[silence](t, a)
				var runs []*running
				var called []time.Time
				for range 7 {
					called = append(called, time.Now())
					runs = append(runs, launchFunc(t.Context(), g, "dev", mustNotRun(t)))
					time.Sleep(700 * time.Millisecond)
				}
				for i, r := range runs {
					wantDenied(t, r.finish(), "dev", guard.CodeSystemUnavailable, false)
					if took, most := r.at.Sub(called[i]), g.StopBound()-10*time.Second+3*time.Second; took > most {
						t.Errorf("start %d waited %v, want at most %v", i, took, most)
					}
				}
			})
		}
	}
}

// Nothing that waits for a hung call is kept from closing, and nothing is left when it returns.
func TestS4_CloseDoesNotWaitForAHungCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		w := watch(t, g, "dev")
		synctest.Wait()
		a.stick(t, allows)
		time.AfterFunc(time.Second, func() { _ = g.Close() })
		at := time.Now()
		if err := g.Run(t.Context(), "dev", mustNotRun(t)); !errors.Is(err, guard.ErrClosed) {
			t.Errorf("got %v, want ErrClosed", err)
		}
		if err := w.finish(); !errors.Is(err, guard.ErrClosed) {
			t.Errorf("got %v, want ErrClosed", err)
		}
		if time.Since(at) != time.Second {
			t.Errorf("closed after %v, want 1s", time.Since(at))
		}
	})
}
