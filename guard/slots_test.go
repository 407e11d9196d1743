package guard_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// strangers are n devices that nobody knows, each about to start something.
func strangers(ctx context.Context, g *guard.Guard, prefix string, n int) []*running {
	rs := make([]*running, n)
	for i := range rs {
		rs[i] = launch(ctx, g, fmt.Sprint(prefix, i))
	}
	return rs
}

func TestL4_TheBoundIsNeverExceeded(t *testing.T) {
	for name, b := range map[string]behaviour{
		"quick":                after(10*time.Millisecond, allows),
		"slow":                 after(2*time.Second, allows),
		"silent":               hangs,
		"deaf":                 deaf(5*time.Second, allows),
		"deaf for very long":   deaf(time.Minute, allows),
		"slow to be cancelled": sluggish(5 * time.Second),
	} {
		for _, n := range []int{1, 2, 3, 4, 7, 64} {
			t.Run(fmt.Sprint(name, ", ", n), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a := newAuthority()
					m := newGauge(a)
					g := newGuard(t, m, guard.WithMaxRequests(n))
					strangers(t.Context(), g, "running", 20)
					time.Sleep(5 * time.Second)
					a.set(b)
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					for i := range 300 {
						device := fmt.Sprint("d", rand.N(150))
						impatient, cancel := context.WithTimeout(ctx, rand.N(20*time.Second))
						defer cancel()
						switch i % 3 {
						case 0:
							launch(impatient, g, device)
						case 1:
							go func() { _, _ = g.Validate(impatient, device) }()
						case 2:
							go func() { _ = g.Keep(impatient, device, untilDone) }()
						}
						time.Sleep(rand.N(50 * time.Millisecond))
						if i%50 == 0 {
							g.Hint("")
						}
					}
					time.Sleep(time.Minute)
					if most, _ := m.peaks(); most > n {
						t.Errorf("%d requests in flight, the bound is %d", most, n)
					} else if n <= 7 && most < n {
						t.Errorf("at most %d requests in flight: this test does not reach its bound of %d", most, n)
					}
				})
			})
		}
	}
}

// Starts get no more than three quarters, however many there are, and whatever is hinted.
func TestL4_AQuarterOfTheSlotsIsForWatchesAlone(t *testing.T) {
	for _, tc := range []struct{ n, starts int }{{1, 1}, {2, 1}, {3, 2}, {4, 3}, {8, 6}, {64, 48}} {
		for name, hint := range map[string]string{"no hint": "-", "everything hinted": ""} {
			t.Run(fmt.Sprint(tc.n, ", ", name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a := newAuthority()
					g := newGuard(t, a, guard.WithMaxRequests(tc.n))
					const watched = 5
					var rs []*running
					for i := range watched { // one after the other, or they would wait for slots
						rs = append(rs, launch(t.Context(), g, fmt.Sprint("watched", i)))
						synctest.Wait()
					}
					a.hang()
					for i := range watched {
						a.allow(fmt.Sprint("watched", i))
					}
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					strangers(ctx, g, "stranger", 200)
					synctest.Wait()
					if hint == "" {
						g.Hint(hint)
						synctest.Wait()
					}
					for range 40 {
						inFlight := 0
						for _, c := range a.asked() {
							if c.returned.IsZero() && strings.HasPrefix(c.device, "stranger") {
								inFlight++
							}
						}
						if inFlight != tc.starts {
							t.Fatalf("%d starts in flight, want %d of %d", inFlight, tc.starts, tc.n)
						}
						time.Sleep(50 * time.Millisecond) // less than their timeout in all
					}
					for _, r := range rs {
						if r.cancelled() {
							t.Errorf("a run was stopped: %v", context.Cause(r.ctx))
						}
					}
				})
			})
		}
	}
}

// However many start, and however slowly they are answered, what runs is asked about on time.
func TestL4_AStormOfStartsDoesNotStarveWhatRuns(t *testing.T) {
	for name, b := range map[string]behaviour{
		"slow":   after(2900*time.Millisecond, allows),
		"silent": hangs,
		"deaf":   deaf(9*time.Second, denies(guard.CodeDeviceNotFound)),
	} {
		for _, n := range []int{2, 4, 16} {
			t.Run(fmt.Sprint(name, ", ", n), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					const watched = 20
					a := newAuthority()
					g := newGuard(t, a, guard.WithMaxRequests(n))
					rs := strangers(t.Context(), g, "watched", watched)
					time.Sleep(20 * time.Second)
					start := time.Now()
					a.set(b)
					for i := range watched {
						a.set(after(20*time.Millisecond, allows), fmt.Sprint("watched", i))
					}
					var wg sync.WaitGroup
					for i := range 300 {
						wg.Go(func() {
							ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
							defer cancel()
							for ctx.Err() == nil {
								_ = g.Run(ctx, fmt.Sprint("stranger", i), nothing)
								time.Sleep(100 * time.Millisecond)
							}
						})
					}
					wg.Wait()
					for i, r := range rs {
						if r.cancelled() || !r.started() {
							t.Errorf("run %d was stopped: %v", i, r.err)
						}
						asked := slices.DeleteFunc(a.asked(fmt.Sprint("watched", i)), func(c asked) bool { return c.sent.Before(start) })
						for j := 1; j < len(asked); j++ {
							// A watch may have to wait for another's request, which takes 20 ms.
							if gap := asked[j].sent.Sub(asked[j-1].sent); gap > 10*time.Second+watched*20*time.Millisecond {
								t.Errorf("run %d was asked about after %v, want 10 s", i, gap)
							}
						}
					}
				})
			})
		}
	}
}

// The slot that comes free goes to a watch that came last, before the starts that came first:
// the slot of a start, and that of another watch.
func TestL4_WatchesGoFirst(t *testing.T) {
	for _, freed := range []string{"start", "watch"} {
		t.Run("the slot of a "+freed, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				g := newGuard(t, a, guard.WithMaxRequests(2))
				launch(t.Context(), g, "watched")
				synctest.Wait()
				launch(t.Context(), g, "watch")
				for a.count("watched") < 2 {
					time.Sleep(time.Millisecond)
				}
				due := a.last(t, "watched").sent.Add(10 * time.Second)
				time.Sleep(time.Until(due) - time.Second)
				releases := map[string]func(){}
				for _, device := range []string{"start", "watch"} {
					releases[device] = a.stick(t, allows, device)
				}
				launch(t.Context(), g, "start")
				synctest.Wait()
				g.Hint("watch")
				synctest.Wait()
				if n := a.inFlight(); n != 2 {
					t.Fatalf("%d in flight, want every slot taken", n)
				}
				strangers(t.Context(), g, "stranger", 50)
				time.Sleep(time.Until(due) + 500*time.Millisecond)
				before := a.count()
				releases[freed]()
				synctest.Wait()
				if asked := a.asked(); len(asked) == before || asked[before].device != "watched" {
					t.Errorf("the slot went to %v, want the watch", asked[before:])
				}
			})
		})
	}
}

// A start on a device with a run in flight shares the watch's question, and its place.
func TestL4_AStartThatWaitsIsPromotedByTheWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a, guard.WithMaxRequests(1))
		launch(t.Context(), g, "d")
		for a.count() < 2 {
			time.Sleep(time.Millisecond)
		}
		due := a.last(t).sent.Add(10 * time.Second)
		time.Sleep(time.Until(due) - 2*time.Second)
		release := a.stick(t, allows, "busy")
		launch(t.Context(), g, "busy")
		synctest.Wait()
		strangers(t.Context(), g, "stranger", 20)
		synctest.Wait()
		second := launch(t.Context(), g, "d") // behind the strangers
		time.Sleep(time.Until(due) + 500*time.Millisecond)
		if second.started() {
			t.Fatal("there was no slot")
		}
		before := a.count()
		release()
		synctest.Wait()
		if asked := a.asked(); len(asked) == before || asked[before].device != "d" || !second.started() {
			t.Errorf("the slot went to %v, want d's watch and start", asked[before:])
		}
	})
}

func TestL4_WaitingForASlotIsNotPartOfTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		a.set(after(2900*time.Millisecond, allows))
		release := a.stick(t, allows, "busy")
		g, start := newGuard(t, a, guard.WithMaxRequests(1)), time.Now()
		launch(t.Context(), g, "busy")
		synctest.Wait()
		r := launch(t.Context(), g, "d")
		time.Sleep(9900 * time.Millisecond)
		release()
		time.Sleep(2900 * time.Millisecond)
		synctest.Wait()
		if !r.started() {
			t.Fatalf("not started after a wait of less than an interval and a request of less than a timeout: %v", r.err)
		}
		last := a.last(t, "d")
		if sent := last.sent.Sub(start); sent != 9900*time.Millisecond || !last.deadline.Equal(last.sent.Add(3*time.Second)) {
			t.Errorf("sent after %v with %v to go, want 9.9 s and the whole timeout", sent, last.deadline.Sub(last.sent))
		}
	})
}

func TestL4_AStartWithoutASlotAfterAnIntervalIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		release := a.stick(t, allows, "busy")
		g, start := newGuard(t, a, guard.WithMaxRequests(1)), time.Now()
		launch(t.Context(), g, "busy")
		synctest.Wait()
		rs := strangers(t.Context(), g, "d", 10)
		var validated time.Time
		var decision guard.Decision
		var err error
		go func() {
			decision, err = g.Validate(t.Context(), "v")
			validated = time.Now()
		}()
		time.Sleep(10*time.Second - time.Nanosecond)
		synctest.Wait()
		for _, r := range rs {
			if r.returned() {
				t.Errorf("refused before an interval was over: %v", r.err)
			}
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		for _, r := range rs {
			if !r.returned() || r.at.Sub(start) != 10*time.Second {
				t.Fatal("not refused after an interval without a slot")
			}
			wantRefused(t, r.err, guard.CodeSystemUnavailable)
			if denied := (*guard.DeniedError)(nil); errors.As(r.err, &denied) && denied.Decision.Reason == "" {
				t.Error("refused without a reason")
			}
		}
		if validated.Sub(start) != 10*time.Second || decision.Code != guard.CodeSystemUnavailable || !errors.Is(err, guard.ErrUnavailable) {
			t.Errorf("Validate gave %v, %v after %v", decision, err, validated.Sub(start))
		}
		if n := a.count(); n != 1 {
			t.Errorf("%d requests, want the one that hangs", n)
		}
		release()
		for i := range 10 {
			if err := g.Run(t.Context(), fmt.Sprint("d", i), nothing); err != nil {
				t.Errorf("when slots are free again: %v", err)
			}
		}
	})
}

// The interval begins with the wait for the slot: what was waited for an earlier request about the
// device is another wait (L1).
func TestL4_TheIntervalBeginsWithTheWaitForTheSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		a.set(after(2*time.Second, allows), "d")
		release := a.stick(t, allows, "busy")
		g, start := newGuard(t, a, guard.WithMaxRequests(1)), time.Now()
		launchFunc(t.Context(), g, "d", nothing)
		synctest.Wait()
		next := launch(t.Context(), g, "d")         // waits for the request in flight
		launchFunc(t.Context(), g, "busy", nothing) // waits for its slot, and gets it
		time.Sleep(11 * time.Second)
		if next.returned() {
			t.Fatalf("refused after a wait of 9 s for a slot: %v", next.err)
		}
		wantRefused(t, next.finish(), guard.CodeSystemUnavailable)
		if took := next.at.Sub(start); took != 12*time.Second {
			t.Errorf("refused after %v, want 2 s for a request and 10 s for a slot", took)
		}
		release()
	})
}

// Who joins a question that waits for a slot already has an interval of his own to wait.
func TestL4_ALateJoinerIsNotRefusedBeforeHisInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		release := a.stick(t, allows, "busy")
		g, start := newGuard(t, a, guard.WithMaxRequests(1)), time.Now()
		launch(t.Context(), g, "busy")
		synctest.Wait()
		first := launch(t.Context(), g, "d")
		time.Sleep(4 * time.Second)
		second := launch(t.Context(), g, "d")
		time.Sleep(4 * time.Second)
		third := launch(t.Context(), g, "d")
		for i, r := range []*running{first, second} {
			wantRefused(t, r.finish(), guard.CodeSystemUnavailable)
			if want := time.Duration(i)*4*time.Second + 10*time.Second; r.at.Sub(start) != want {
				t.Errorf("caller %d was refused after %v, want %v", i, r.at.Sub(start), want)
			}
		}
		time.Sleep(3 * time.Second)
		release()
		synctest.Wait()
		if !third.started() || a.count("d") != 1 {
			t.Errorf("started %t on %d requests: %v", third.started(), a.count("d"), third.err)
		}
	})
}

// A run in flight that gets no slot for its watch goes on to its stop line and no further.
func TestL4_ARunWhoseWatchGetsNoSlotEndsAtItsLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		a.stick(t, allows, "busy")
		g, start := newGuard(t, a, guard.WithMaxRequests(1)), time.Now()
		r := launch(t.Context(), g, "d")
		synctest.Wait()
		launch(t.Context(), g, "busy")
		time.Sleep(time.Second)
		starter := launch(t.Context(), g, "d")
		err := r.finish()
		if lived := r.at.Sub(start); lived != g.StopBound() {
			t.Errorf("stopped after %v, want the stop line, %v", lived, g.StopBound())
		}
		if denied := (*guard.DeniedError)(nil); !errors.As(err, &denied) || !denied.InFlight || !errors.Is(err, guard.ErrUnavailable) {
			t.Errorf("Run returned %v", err)
		}
		wantRefused(t, starter.finish(), guard.CodeSystemUnavailable)
		if waited := starter.at.Sub(start); waited > 11*time.Second {
			t.Errorf("a start on the same device was refused after %v, want an interval", waited-time.Second)
		}
	})
}

func TestL4_ACallThatWasGivenUpKeepsItsSlotUntilItReturns(t *testing.T) {
	for name, giveUp := range map[string]func(cancel func()){
		"by its callers": func(cancel func()) { cancel() },
		"by the timeout": func(func()) { time.Sleep(3 * time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				release := a.stick(t, allows, "stuck0", "stuck1")
				m := newGauge(a)
				g := newGuard(t, m, guard.WithMaxRequests(3), guard.WithInterval(time.Minute))
				ctx, cancel := context.WithCancel(t.Context())
				strangers(ctx, g, "stuck", 2)
				synctest.Wait()
				giveUp(cancel)
				synctest.Wait()
				others := strangers(t.Context(), g, "other", 10)
				time.Sleep(30 * time.Second)
				for _, r := range others {
					if r.started() {
						t.Fatal("started with a slot that a stuck call holds")
					}
				}
				release()
				synctest.Wait()
				for _, r := range others {
					if !r.started() {
						t.Errorf("the slot did not come back: %v", r.err)
					}
				}
				if most, _ := m.peaks(); most > 3 {
					t.Errorf("%d requests in flight, the bound is 3", most)
				}
				cancel()
			})
		})
	}
}

func TestL4_ADeviceWithTwoCallsThatHangIsRefusedUnasked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		release := a.stick(t, allows, "d")
		g, start := newGuard(t, a), time.Now()
		for i := range 2 {
			wantRefused(t, g.Run(t.Context(), "d", never(t)), guard.CodeSystemUnavailable)
			if took := time.Since(start); took != time.Duration(i+1)*3*time.Second {
				t.Errorf("refused after %v", took)
			}
		}
		for range 10 {
			before := time.Now()
			err := g.Run(t.Context(), "d", never(t))
			wantRefused(t, err, guard.CodeSystemUnavailable)
			if decision, err := g.Validate(t.Context(), "d"); decision.Code != guard.CodeSystemUnavailable || !errors.Is(err, guard.ErrUnavailable) {
				t.Errorf("Validate gave %v, %v", decision, err)
			}
			if denied := (*guard.DeniedError)(nil); errors.As(err, &denied) && denied.Decision.Reason == "" {
				t.Error("refused without a reason")
			}
			if took := time.Since(before); took != 0 {
				t.Errorf("refused after %v, want at once", took)
			}
			time.Sleep(time.Minute)
		}
		if n := a.count("d"); n != 2 {
			t.Errorf("%d requests, want the two that hang", n)
		}
		if _ = startsOn(t, g, "another"); a.inFlight() != 2 {
			t.Error("another device is concerned")
		}
		release()
		synctest.Wait()
		a.allow("d")
		_ = startsOn(t, g, "d")
	})
}

// The watch of a device whose calls hang ends its runs: at the first timeout without retries.
func TestL4_TwoCallsThatHangStopTheRunsToo(t *testing.T) {
	for _, budget := range []time.Duration{0, 30 * time.Second} {
		t.Run(budget.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				var opts []guard.Option
				if budget > 0 {
					opts = append(opts, guard.WithRetry(steps(time.Second), budget))
				}
				g, start := newGuard(t, a, opts...), time.Now()
				r := launch(t.Context(), g, "d")
				synctest.Wait()
				a.stick(t, allows)
				_ = r.finish()
				if lived := r.at.Sub(start); lived > g.StopBound() {
					t.Errorf("stopped after %v, the bound is %v", lived, g.StopBound())
				}
				time.Sleep(time.Minute)
				if n := a.inFlight("d"); n > 2 {
					t.Errorf("%d calls of one device hang, want at most 2", n)
				}
			})
		})
	}
}

func TestL4_TenThousandWatchedDevicesAreNotTenThousandGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const devices = 10000
		a := newAuthority()
		a.set(after(5*time.Millisecond, allows))
		g := newGuard(t, a)
		before := runtime.NumGoroutine()
		rs := strangers(t.Context(), g, "d", devices)
		time.Sleep(11 * time.Second)
		for i, r := range rs {
			if !r.started() {
				t.Fatalf("run %d was not started: %v", i, r.err)
			}
		}
		asked := a.count()
		for range 100 { // an interval
			time.Sleep(100 * time.Millisecond)
			// Each run has its caller's goroutine, which is not the guard's.
			if n := runtime.NumGoroutine() - before - devices; n > 64+8 {
				t.Fatalf("%d goroutines of the guard's, for at most 64 requests", n)
			}
		}
		if n := a.count() - asked; n != devices {
			t.Errorf("%d requests in an interval about %d devices", n, devices)
		}
		for _, r := range rs {
			if r.cancelled() {
				t.Fatalf("a run was stopped: %v", context.Cause(r.ctx))
			}
		}
	})
}

// Devices that start together are asked about at random points, and stay there.
func TestL4_RequestsAreSpreadOverTheInterval(t *testing.T) {
	for name, opts := range map[string][]guard.Option{"plain": nil, "with reuse": {guard.WithReuse(10 * time.Second)}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const devices = 1000
				a := newAuthority()
				g := newGuard(t, a, opts...)
				strangers(t.Context(), g, "d", devices)
				synctest.Wait()
				start := time.Now()
				if n := a.count(); n != devices {
					t.Fatalf("%d requests for %d starts", n, devices)
				}
				time.Sleep(50 * time.Second)
				for i, n := range perSecond(a, start.Add(1), time.Now())[:49] {
					// Five standard deviations of a binomial distribution are 47.
					if n < devices/10-50 || n > devices/10+50 {
						t.Errorf("%d requests in second %d, want %d or so", n, i, devices/10)
					}
				}
				first := map[string]time.Time{}
				for _, c := range a.asked()[devices:] {
					if at, ok := first[c.device]; !ok {
						first[c.device] = c.sent
					} else if c.sent.Sub(at)%(10*time.Second) != 0 {
						t.Fatalf("%s was asked about %v after its watch's first", c.device, c.sent.Sub(at))
					}
				}
			})
		})
	}
}

func TestL4_OneSlotIsEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		a.set(after(50*time.Millisecond, allows))
		m := newGauge(a)
		g := newGuard(t, m, guard.WithMaxRequests(1))
		rs := strangers(t.Context(), g, "d", 100) // 5 s of 10 for their starts, and for each interval's watches
		time.Sleep(11 * time.Second)
		for i, r := range rs {
			if !r.started() {
				t.Errorf("run %d was not started: %v", i, r.err)
			}
		}
		time.Sleep(10 * time.Minute)
		for i, r := range rs {
			if r.cancelled() {
				t.Errorf("run %d was stopped: %v", i, r.err)
			}
		}
		a.deny(guard.CodeDeviceRevoked, "d7")
		revoked := time.Now()
		_ = rs[7].finish()
		if took := rs[7].at.Sub(revoked); took > 13*time.Second {
			t.Errorf("stopped %v after the revocation", took)
		}
		if most, _ := m.peaks(); most != 1 {
			t.Errorf("%d requests in flight", most)
		}
	})
}

// A Keep that waits asks once an interval, also while others start all the time: it has its place
// among them. Here each start has a slot after some eight seconds.
func TestL4_AStormOfStartsDoesNotStarveAKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a, guard.WithMaxRequests(8))
		a.deny(guard.CodeDeviceRevoked, "kept")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		kept := make(chan struct{})
		go func() {
			_ = g.Keep(ctx, "kept", func(ctx context.Context) error {
				close(kept)
				return untilDone(ctx)
			})
		}()
		time.Sleep(30 * time.Second)
		a.set(after(time.Second, allows))
		a.deny(guard.CodeDeviceRevoked, "kept")
		for i := range 50 {
			go func() {
				for ctx.Err() == nil {
					_ = g.Run(ctx, fmt.Sprint("stranger", i), nothing)
				}
			}()
		}
		before := a.count("kept")
		time.Sleep(10 * time.Minute)
		if n := a.count("kept") - before; n < 20 || n > 61 {
			t.Errorf("the Keep has asked %d times in 60 intervals", n)
		}
		a.allow("kept")
		time.Sleep(time.Minute)
		if !closed(kept) {
			t.Error("the device is allowed again, and the Keep has not come to know")
		}
	})
}
