package guard_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// unwindings are the ways in which a function ends without returning.
var unwindings = map[string]func(){
	"panic":  func() { panic("own") },
	"Goexit": runtime.Goexit,
}

// keeping is a Keep on a goroutine of its own.
type keeping struct {
	done chan struct{} // closed when Keep has returned
	err  error         // what it returned; read it after done
	at   time.Time     // when; likewise

	mu     sync.Mutex
	starts []time.Time // when the function was called
	stops  []error     // the causes with which its context had ended when it returned
	inside int
	most   int // how many calls of the function there were at once
}

// keep calls Keep with a function that runs until its context ends and returns nil, as if it had
// done all it had to do. The caller sees to it that it ends, as with launch.
func keep(ctx context.Context, g *guard.Guard, device string) *keeping {
	return keepFunc(ctx, g, device, func(ctx context.Context) error {
		<-ctx.Done()
		return nil
	})
}

// keepFunc is keep with a function of the caller's.
func keepFunc(ctx context.Context, g *guard.Guard, device string, fn func(context.Context) error) *keeping {
	k := &keeping{done: make(chan struct{})}
	go func() {
		defer close(k.done)
		k.err = g.Keep(ctx, device, func(ctx context.Context) error {
			k.enter()
			defer k.leave(ctx)
			return fn(ctx)
		})
		k.at = time.Now()
	}()
	return k
}

func (k *keeping) enter() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.starts = append(k.starts, time.Now())
	k.inside++
	k.most = max(k.most, k.inside)
}

func (k *keeping) leave(ctx context.Context) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.inside--
	k.stops = append(k.stops, context.Cause(ctx))
}

// calls returns how often the function has been called.
func (k *keeping) calls() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.starts)
}

// runs tells whether the function is under way.
func (k *keeping) runs() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.inside > 0
}

func (k *keeping) finish() error {
	<-k.done
	return k.err
}

func TestKeep_RunsTheFunctionAgainAfterADenial(t *testing.T) {
	for name, set := range map[string]func(a *authority){
		"revoked":          func(a *authority) { a.deny(guard.CodeDeviceRevoked) },
		"organisation off": func(a *authority) { a.deny(guard.CodeOrgDisabled) },
		"an unknown code":  func(a *authority) { a.deny("SOMETHING_NEW") },
		"down":             func(a *authority) { a.fail(errors.New("down")) },
		"silent":           func(a *authority) { a.hang() },
		"nonsense":         func(a *authority) { a.answer(guard.Decision{Allowed: true, DeviceID: "other"}, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				g := newGuard(t, a)
				k := keep(t.Context(), g, "d")
				for i := range 10 {
					time.Sleep(rand.N(time.Minute))
					synctest.Wait()
					if !k.runs() || k.calls() != i+1 {
						t.Fatalf("round %d: runs: %t, %d calls", i, k.runs(), k.calls())
					}
					set(a)
					time.Sleep(13*time.Second + rand.N(time.Minute)) // B1, B2
					synctest.Wait()
					if k.runs() || closed(k.done) {
						t.Fatalf("round %d: runs: %t, Keep has returned: %t", i, k.runs(), closed(k.done))
					}
					a.allow()
					time.Sleep(10 * time.Second) // an interval holds a question that was sent since
					synctest.Wait()
				}
				for _, why := range k.stops {
					if !errors.Is(why, guard.ErrDenied) || !errors.Is(why, context.Canceled) {
						t.Errorf("the function was stopped because of %v", why)
					}
				}
				if k.most != 1 {
					t.Errorf("the function was called %d times at once", k.most)
				}
			})
		})
	}
}

// S1 and S5 hold for the second start as for the first: what restores was asked for after the
// denial, and the function starts on the answer.
func TestKeep_StartsAgainOnNothingButAnAllowAskedForAfterTheDenial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a, guard.WithReuse(10*time.Second))
		k := keep(t.Context(), g, "d")
		time.Sleep(rand.N(time.Minute))
		for range 20 {
			a.deny(guard.CodeDeviceRevoked)
			time.Sleep(rand.N(20 * time.Second))
			a.allow()
			time.Sleep(rand.N(20 * time.Second))
		}
		synctest.Wait()
		for i, started := range k.starts {
			if !slices.ContainsFunc(a.asked(), func(c asked) bool { return c.sent.Equal(started) }) {
				t.Errorf("start %d of %d has no request of its own", i, len(k.starts))
			}
		}
	})
}

func TestKeep_AsksOnceAnIntervalFromARandomPointAndKeepsThatPhase(t *testing.T) {
	var firsts []time.Duration
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			a := newAuthority()
			a.set(after(rand.N(3*time.Second), denies(guard.CodeDeviceRevoked)))
			ctx, cancel := context.WithCancel(t.Context())
			k := keep(ctx, newGuard(t, a), "d")
			time.Sleep(4 * time.Minute)
			cancel()
			_ = k.finish()
			calls := a.asked()
			first := calls[1].sent.Sub(calls[0].returned)
			if first < 0 || first > 10*time.Second {
				t.Errorf("the first question of the wait came %v after the refusal", first)
			}
			firsts = append(firsts, first)
			for i := 2; i < len(calls); i++ {
				if gap := calls[i].sent.Sub(calls[i-1].sent); gap != 10*time.Second {
					t.Errorf("question %d came %v after the one before", i, gap)
				}
			}
			if len(calls) < 24 {
				t.Errorf("%d questions in 24 intervals", len(calls))
			}
		})
	}
	wantSpread(t, firsts, 10*time.Second)
}

// wantSpread fails unless the points lie in every tenth of what they were drawn from, and no
// more than a third of them in any.
func wantSpread(t *testing.T, points []time.Duration, over time.Duration) {
	t.Helper()
	var tenths [10]int
	for _, p := range points {
		tenths[min(int(10*p/over), 9)]++
	}
	for i, n := range tenths {
		if n == 0 || n > len(points)/3 {
			t.Errorf("%d of %d points lie in tenth %d: %v", n, len(points), i, tenths)
		}
	}
}

// A watch has a phase. A Keep that is stopped asks on at the same, so that an outage leaves the
// devices spread as they were (L5).
func TestKeep_AStoppedKeepKeepsThePhaseOfItsWatch(t *testing.T) {
	for name, outage := range map[string]behaviour{
		"revoked": denies(guard.CodeDeviceRevoked),
		"down":    fails(errors.New("down")),
		"silent":  hangs,
	} {
		t.Run(name, func(t *testing.T) {
			for range 20 {
				synctest.Test(t, func(t *testing.T) {
					a := newAuthority()
					k := keep(t.Context(), newGuard(t, a), "d")
					time.Sleep(10*time.Second + rand.N(time.Minute))
					synctest.Wait()
					phase := a.last(t).sent
					a.set(outage)
					time.Sleep(time.Minute)
					a.allow()
					time.Sleep(time.Minute)
					for _, after := range sentAfter(a, phase) {
						if after%(10*time.Second) != 0 {
							t.Errorf("a question %v after one of the watch's", after)
						}
					}
					if n := a.count(); k.calls() != 2 || n < 12 {
						t.Errorf("%d calls, %d requests", k.calls(), n)
					}
				})
			}
		})
	}
}

func TestKeep_NeverAsksBeforeRetryAfter(t *testing.T) {
	for _, code := range []guard.Code{guard.CodeDeviceRevoked, guard.CodeSystemUnavailable, guard.CodePlanFrozen} {
		for _, wants := range []time.Duration{time.Second, 9 * time.Second, 25 * time.Second, time.Hour} {
			for _, first := range []behaviour{allows, answers(guard.Decision{Code: code, RetryAfter: wants}, nil)} {
				t.Run(fmt.Sprint(code, wants), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						a := newAuthority()
						a.set(inTurn(first, answers(guard.Decision{Code: code, RetryAfter: wants}, nil)))
						ctx, cancel := context.WithCancel(t.Context())
						k := keep(ctx, newGuard(t, a), "d")
						time.Sleep(6 * (wants + 10*time.Second))
						cancel()
						_ = k.finish()
						calls := a.asked()
						if len(calls) < 6 {
							t.Errorf("asked %d times only", len(calls))
						}
						for i := 1 + k.calls(); i < len(calls); i++ {
							gap := calls[i].sent.Sub(calls[i-1].returned)
							if gap < wants || gap > wants+10*time.Second {
								t.Errorf("question %d came %v after the denial, which asked for %v", i, gap, wants)
							}
						}
					})
				})
			}
		}
	}
}

// Once the authority may be asked again, it is once an interval as before, from the first question
// on: not at the end of RetryAfter and then again at a turn that comes a moment later.
func TestKeep_AsksOnceAnIntervalAfterARetryAfterToo(t *testing.T) {
	const wants = 25 * time.Second
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			a := newAuthority()
			a.set(inTurn(denies(guard.CodeDeviceRevoked), denies(guard.CodeDeviceRevoked),
				answers(guard.Decision{Code: guard.CodeDeviceRevoked, RetryAfter: wants}, nil), denies(guard.CodeDeviceRevoked)))
			ctx, cancel := context.WithCancel(t.Context())
			k := keep(ctx, newGuard(t, a), "d")
			time.Sleep(2 * time.Minute)
			cancel()
			_ = k.finish()
			calls := a.asked()
			if gap := calls[3].sent.Sub(calls[2].returned); gap < wants || gap > wants+10*time.Second {
				t.Errorf("asked %v after a denial that asked for %v", gap, wants)
			}
			for i := 4; i < len(calls); i++ {
				if gap := calls[i].sent.Sub(calls[i-1].sent); gap != 10*time.Second {
					t.Fatalf("question %d came %v after the one before", i, gap)
				}
			}
		})
	}
}

// The one that gives up had brought the question forward for himself alone.
func TestKeep_NeverAsksBeforeRetryAfterForACallerThatGaveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		a.set(after(2*time.Second, answers(guard.Decision{Code: guard.CodeDeviceRevoked, RetryAfter: time.Minute}, nil)))
		g := newGuard(t, a)
		keep(t.Context(), g, "d")
		time.Sleep(time.Second)
		go func() { _, _ = g.Validate(t.Context(), "d") }() // waits for the question after the Keep's
		time.Sleep(2 * time.Second)                         // it is in flight, and the Keep waits
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := g.Validate(ctx, "d"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Validate: %v", err)
		}
		time.Sleep(50 * time.Second)
		if n := a.count(); n != 2 {
			t.Errorf("%d requests, want those of the Keep and of the caller that waited", n)
		}
	})
}

func TestKeep_ManyThatWaitForOneDeviceShareTheQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		a.set(after(time.Second, denies(guard.CodeDeviceRevoked)))
		g := newGuard(t, a)
		var ks []*keeping
		for range 100 {
			ks = append(ks, keep(t.Context(), g, "d"))
		}
		time.Sleep(5 * time.Second)
		before := a.count()
		if before > 3 { // two for the hundred that came (L1), and perhaps the first turn
			t.Errorf("%d requests for the first answers", before)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := a.count() - before; n < 60 || n > 61 {
			t.Errorf("%d requests in 60 intervals", n)
		}
		a.allow()
		time.Sleep(11 * time.Second)
		synctest.Wait()
		calls := a.asked()
		allowed := calls[slices.IndexFunc(calls, func(c asked) bool { return c.returned.Equal(c.sent) })]
		for _, k := range ks {
			if k.calls() != 1 || !k.starts[0].Equal(allowed.sent) {
				t.Fatalf("a Keep had %d calls, at %v, allowed at %v", k.calls(), k.starts, allowed.sent)
			}
		}
		before = a.count()
		time.Sleep(10 * time.Minute)
		if n := a.count() - before; n < 60 || n > 61 {
			t.Errorf("%d requests in 60 intervals of the watch", n)
		}
	})
}

// The Keep was refused and waits for its turn, hours away, when another's question, sent since,
// finds the device allowed.
func TestKeep_StartsOnAnAllowThatAnotherHasAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		a.set(after(2*time.Second, denies(guard.CodeDeviceRevoked)))
		g := newGuard(t, a, guard.WithInterval(24*time.Hour))
		k := keep(t.Context(), g, "d")
		time.Sleep(time.Second)
		a.set(after(2*time.Second, allows))
		d, err := g.Validate(t.Context(), "d") // waits for the question after the Keep's
		if err != nil || !d.Allowed {
			t.Fatalf("Validate: %+v, %v", d, err)
		}
		synctest.Wait()
		if k.calls() != 1 || a.count() != 2 {
			t.Errorf("%d calls, %d requests", k.calls(), a.count())
		}
	})
}

// S1, as it is read: a Keep that waits starts on an ALLOW only if that was asked for after the Keep
// was refused. The permission of a run in flight, which goes on when a start could not ask, is older.
func TestKeep_DoesNotStartOnWhatWasAllowedBeforeItWasRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a, guard.WithInterval(time.Hour))
		r := launch(t.Context(), g, "d")
		synctest.Wait()
		a.fail(errors.New("down"))
		k := keep(t.Context(), g, "d")
		synctest.Wait()
		wantRunning(t, r, "a start that could not ask is refused alone")
		if k.calls() != 0 || a.count("d") != 2 {
			t.Errorf("the Keep was refused, and has called its function %d times; %d requests", k.calls(), a.count("d"))
		}
		a.allow()
		time.Sleep(time.Hour)
		synctest.Wait()
		if k.calls() != 1 {
			t.Errorf("%d calls since the device was allowed anew", k.calls())
		}
	})
}

// What Keep returns of a function that was not denied is the function's own error, unchanged.
func TestKeep_EndsWithWhatTheFunctionReturnedUndenied(t *testing.T) {
	foreign := &guard.DeniedError{DeviceID: "elsewhere", Decision: guard.Decision{Code: guard.CodeDeviceRevoked}}
	for _, want := range []error{nil, errors.New("own"), context.Canceled, foreign, guard.ErrDenied, guard.ErrClosed} {
		t.Run(fmt.Sprint(want), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				k := keepFunc(t.Context(), newGuard(t, a), "d", func(context.Context) error {
					time.Sleep(time.Minute)
					return want
				})
				if err := k.finish(); err != want { //nolint:errorlint // unchanged
					t.Errorf("Keep: %v", err)
				}
				if k.calls() != 1 {
					t.Errorf("%d calls", k.calls())
				}
				asked := a.count()
				time.Sleep(time.Hour)
				if a.count() != asked {
					t.Error("the device is asked about after Keep has returned")
				}
			})
		})
	}
}

// The first call cleans up while the device is allowed again, by a question of another's: its no is
// final, and only the next call goes on.
func TestKeep_ACallThatWasStoppedStaysStoppedThoughTheDeviceIsAllowedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		first := true
		k := keepFunc(t.Context(), g, "d", func(ctx context.Context) error {
			if err := guard.Checkpoint(ctx); err != nil {
				t.Errorf("Checkpoint at the start: %v", err)
			}
			<-ctx.Done()
			if !first {
				return nil
			}
			first = false
			a.allow()
			if d, err := g.Validate(t.Context(), "d"); err != nil || !d.Allowed {
				t.Errorf("Validate: %+v, %v", d, err)
			}
			run := launch(t.Context(), g, "d") // so that there is a live permission
			synctest.Wait()
			if err := guard.Checkpoint(ctx); !errors.Is(err, guard.ErrDenied) || !run.started() {
				t.Errorf("Checkpoint of the call that was stopped: %v; another run has started: %t", err, run.started())
			}
			return nil
		})
		synctest.Wait()
		a.deny(guard.CodeDeviceRevoked)
		g.Hint("d")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if k.calls() != 2 || !k.runs() {
			t.Errorf("%d calls", k.calls())
		}
	})
}

// Only what it returned the last time counts: the errors of the calls that were cut short do not.
func TestKeep_GivesTheErrorOfTheLastCallAlone(t *testing.T) {
	cut, own := errors.New("cut short"), errors.New("own")
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		k := keepFunc(t.Context(), g, "d", func(ctx context.Context) error {
			select {
			case <-ctx.Done():
				return cut
			case <-time.After(time.Minute):
				return own
			}
		})
		synctest.Wait()
		a.deny(guard.CodeDeviceRevoked)
		g.Hint("d")
		synctest.Wait()
		a.allow()
		if err := k.finish(); err != own { //nolint:errorlint // unchanged
			t.Errorf("Keep: %v", err)
		}
		if k.calls() != 2 {
			t.Errorf("%d calls", k.calls())
		}
	})
}

func TestKeep_WorkThatReturnedNilOnADenialIsDoneAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		calls := 0
		k := keepFunc(t.Context(), g, "d", func(ctx context.Context) error {
			if calls++; calls < 4 {
				<-ctx.Done()
			}
			return nil
		})
		for range 3 {
			synctest.Wait()
			a.deny(guard.CodeDeviceRevoked)
			g.Hint("d")
			synctest.Wait()
			a.allow()
			time.Sleep(10 * time.Second)
		}
		if err := k.finish(); err != nil || calls != 4 {
			t.Errorf("Keep: %v after %d calls", err, calls)
		}
	})
}

func TestKeep_EndsAtOnceWithTheCauseOfItsContextWhileItWaits(t *testing.T) {
	why := errors.New("why")
	for name, b := range map[string]behaviour{
		"for its turn":  denies(guard.CodeDeviceRevoked),
		"for long":      answers(guard.Decision{Code: guard.CodeDeviceRevoked, RetryAfter: time.Hour}, nil),
		"for an answer": hangs,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				a.set(b)
				ctx, cancel := context.WithCancelCause(t.Context())
				k := keep(ctx, newGuard(t, a), "d")
				time.Sleep(rand.N(time.Minute))
				cancel(why)
				cancelled := time.Now()
				if err := k.finish(); err != why || !k.at.Equal(cancelled) { //nolint:errorlint // itself
					t.Errorf("Keep: %v, %v after the end of its context", err, k.at.Sub(cancelled))
				}
				asked := a.count()
				time.Sleep(2 * time.Hour)
				if a.count() != asked || k.calls() != 0 {
					t.Errorf("%d requests afterwards, %d calls", a.count()-asked, k.calls())
				}
			})
		})
	}
}

func TestKeep_WithAContextThatHasEndedAsksNothing(t *testing.T) {
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	a := newAuthority()
	k := keep(ctx, newGuard(t, a), "d")
	if err := k.finish(); err != why || a.count() != 0 || k.calls() != 0 { //nolint:errorlint // itself
		t.Errorf("Keep: %v, %d requests, %d calls", err, a.count(), k.calls())
	}
}

func TestKeep_GivesTheFunctionsErrorWhenItsContextEndsWhileItRuns(t *testing.T) {
	own := errors.New("own")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		k := keepFunc(ctx, newGuard(t, newAuthority()), "d", func(ctx context.Context) error {
			<-ctx.Done()
			return own
		})
		time.Sleep(rand.N(time.Minute))
		cancel()
		if err := k.finish(); err != own { //nolint:errorlint // unchanged
			t.Errorf("Keep: %v", err)
		}
	})
}

// Both have happened: it was stopped, and while it still cleaned up its caller left. It would
// wait, but for the context.
func TestKeep_EndsWithTheCauseWhereItsContextEndsAfterTheDenial(t *testing.T) {
	why := errors.New("why")
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		ctx, cancel := context.WithCancelCause(t.Context())
		k := keepFunc(ctx, g, "d", func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(time.Minute)
			return nil
		})
		synctest.Wait()
		a.deny(guard.CodeDeviceRevoked)
		g.Hint("d")
		time.Sleep(time.Second)
		cancel(why)
		asked := a.count()
		if err := k.finish(); err != why { //nolint:errorlint // itself
			t.Errorf("Keep: %v", err)
		}
		if a.count() != asked {
			t.Errorf("%d requests on behalf of a caller that has left", a.count()-asked)
		}
	})
}

func TestKeep_EndsWithErrClosed(t *testing.T) {
	for name, b := range map[string]behaviour{"while it runs": allows, "while it waits": denies(guard.CodeDeviceRevoked)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				a.set(b)
				g := newGuard(t, a)
				k := keep(t.Context(), g, "d")
				time.Sleep(rand.N(time.Minute))
				closedAt := time.Now()
				_ = g.Close()
				wantClosed(t, "Keep", k.finish())
				if !k.at.Equal(closedAt) {
					t.Errorf("Keep returned %v after Close", k.at.Sub(closedAt))
				}
			})
		})
	}
}

func TestKeep_EndsAtOnceOnAnInvalidDeviceID(t *testing.T) {
	invalid := func(t *testing.T, err error, inFlight bool) {
		t.Helper()
		denied := (*guard.DeniedError)(nil)
		if !errors.As(err, &denied) || denied.Decision.Code != guard.CodeInvalidDeviceID || denied.InFlight != inFlight {
			t.Errorf("Keep: %v", err)
		}
	}
	for _, id := range []string{"", " ", "\t\n"} {
		a := newAuthority()
		k := keep(t.Context(), newGuard(t, a), id)
		invalid(t, k.finish(), false)
		if a.count() != 0 || k.calls() != 0 {
			t.Errorf("Keep(%q): %d requests, %d calls", id, a.count(), k.calls())
		}
	}
	t.Run("by the authority", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := newAuthority()
			a.deny(guard.CodeInvalidDeviceID)
			began := time.Now()
			k := keep(t.Context(), newGuard(t, a), "d")
			invalid(t, k.finish(), false)
			if a.count() != 1 || k.calls() != 0 || time.Since(began) != 0 {
				t.Errorf("%d requests, %d calls, %v", a.count(), k.calls(), time.Since(began))
			}
		})
	})
	t.Run("by the authority, while it runs", func(t *testing.T) {
		own := errors.New("own")
		synctest.Test(t, func(t *testing.T) {
			a := newAuthority()
			k := keepFunc(t.Context(), newGuard(t, a), "d", func(ctx context.Context) error {
				<-ctx.Done()
				return own
			})
			time.Sleep(rand.N(time.Minute))
			a.deny(guard.CodeInvalidDeviceID)
			err := k.finish()
			invalid(t, err, true)
			if !errors.Is(err, own) {
				t.Errorf("the function's own error is lost: %v", err)
			}
		})
	})
}

func TestKeep_APanicOrGoexitPasses(t *testing.T) {
	for name, end := range unwindings {
		for _, afterADenial := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, after a denial: %t", name, afterADenial), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a := newAuthority()
					g := newGuard(t, a)
					if afterADenial {
						a.deny(guard.CodeDeviceRevoked)
					}
					var value any
					returned, done := false, make(chan struct{})
					go func() {
						defer close(done)
						defer func() { value = recover() }()
						_ = g.Keep(t.Context(), "d", func(context.Context) error {
							end()
							return nil
						})
						returned = true
					}()
					time.Sleep(time.Minute)
					a.allow()
					<-done
					if returned || name == "panic" && value != "own" || name == "Goexit" && value != nil {
						t.Errorf("Keep returned: %t, recovered %v", returned, value)
					}
					asked := a.count()
					time.Sleep(time.Hour)
					if a.count() != asked {
						t.Error("the guard has not let go of the run")
					}
				})
			})
		}
	}
}

func TestKeep_ANilFunctionIsRefused(t *testing.T) {
	a := newAuthority()
	if err := newGuard(t, a).Keep(t.Context(), "d", nil); err == nil || errors.Is(err, guard.ErrDenied) || a.count() != 0 {
		t.Errorf("Keep: %v, %d requests", err, a.count())
	}
}

// One device learns it, all stop; each comes back by a question of its own.
func TestKeep_AnOrganisationWideDenialStopsEveryKeepAndEachComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		var ks []*keeping
		for i := range 20 {
			ks = append(ks, keep(t.Context(), g, fmt.Sprint(i)))
		}
		time.Sleep(rand.N(time.Minute))
		synctest.Wait()
		a.deny(guard.CodeOrgDisabled)
		g.Hint("7")
		synctest.Wait()
		for i, k := range ks {
			if k.runs() {
				t.Errorf("Keep %d still runs", i)
			}
		}
		before := a.count()
		time.Sleep(100 * time.Second)
		synctest.Wait()
		if n := a.count() - before; n != 200 {
			t.Errorf("%d requests in 10 intervals of 20 devices that wait", n)
		}
		restored := time.Now()
		a.allow()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		for i, k := range ks {
			if k.calls() != 2 || !k.runs() {
				t.Fatalf("Keep %d: %d calls", i, k.calls())
			}
			device := sentAfter(a, restored, fmt.Sprint(i))
			if len(device) == 0 || k.starts[1].Sub(restored) != device[0] {
				t.Errorf("Keep %d started %v after the restoration, asked about after %v", i, k.starts[1].Sub(restored), device)
			}
		}
	})
}

// peak returns how many requests fell into one tenth of an interval at most.
func peak(a *authority, since time.Time, tenth time.Duration) (most int) {
	n := map[time.Duration]int{}
	for _, after := range sentAfter(a, since) {
		n[after/tenth]++
		most = max(most, n[after/tenth])
	}
	return most
}

// Two hundred daemons have found their phases; then the authority is away for a while. Neither
// while it is away nor when it comes back may they ask more often, or closer together.
func TestL5_AnOutageDoesNotBringKeepsIntoStep(t *testing.T) {
	const devices, interval = 200, 10 * time.Second
	away := func(d guard.Decision) behaviour { return answers(d, nil) }
	for name, outage := range map[string]func() behaviour{
		"errors":                  func() behaviour { return fails(errors.New("down")) },
		"silence":                 func() behaviour { return hangs },
		"revoked, all of them":    func() behaviour { return denies(guard.CodeDeviceRevoked) },
		"the organisation is off": func() behaviour { return denies(guard.CodeOrgDisabled) },
		"RetryAfter, in seconds": func() behaviour {
			return away(guard.Decision{Code: guard.CodeSystemUnavailable, RetryAfter: 30 * time.Second})
		},
		// All are told to come back at the same instant, and no one may come sooner.
		"RetryAfter, a date": func() behaviour {
			until := time.Now().Add(45 * time.Second)
			return func(context.Context, *asked) (guard.Decision, error) {
				return guard.Decision{Code: guard.CodeSystemUnavailable, RetryAfter: time.Until(until)}, nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				g := newGuard(t, a, guard.WithMaxRequests(1000))
				var ks []*keeping
				for i := range devices {
					ks = append(ks, keep(t.Context(), g, fmt.Sprint(i)))
				}
				time.Sleep(3 * interval)
				began := time.Now()
				time.Sleep(6 * interval)
				normal := peak(a, began, interval/10)
				a.set(outage())
				began = time.Now()
				time.Sleep(6 * interval)
				a.allow()
				time.Sleep(6 * interval)
				synctest.Wait()
				// Twenty are normal; a phase that is drawn anew changes that by a few, not by twenty.
				if most := peak(a, began, interval/10); most > normal+20 {
					t.Errorf("%d requests in a tenth of an interval, normally %d at most", most, normal)
				}
				if n := len(sentAfter(a, began)); n > 13*devices {
					t.Errorf("%d requests in 12 intervals of %d devices", n, devices)
				}
				for i, k := range ks {
					if !k.runs() {
						t.Fatalf("Keep %d did not come back", i)
					}
				}
			})
		})
	}
}
