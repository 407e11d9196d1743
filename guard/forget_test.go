package guard

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// held is what a guard holds for its devices.
type held struct {
	devices, entries, watched, queued, taken int
}

func holds(g *Guard) held {
	h := held{devices: len(g.registry.all())}
	g.schedule.mu.Lock()
	h.entries, h.watched = len(g.schedule.entries), g.schedule.watched
	g.schedule.mu.Unlock()
	g.slots.mu.Lock()
	h.queued, h.taken = g.slots.urgent.Len()+g.slots.starts.Len(), g.slots.used
	g.slots.mu.Unlock()
	return h
}

// wantNothingHeld is called in a bubble in which nothing goes on any more.
func wantNothingHeld(t *testing.T, g *Guard, when string) {
	t.Helper()
	synctest.Wait()
	if h := holds(g); h != (held{}) {
		t.Errorf("%s the guard holds %+v, want nothing", when, h)
	}
	g.schedule.mu.Lock()
	defer g.schedule.mu.Unlock()
	if g.schedule.set != never {
		t.Errorf("%s the timer of the guard is set", when)
	}
}

// fickle answers at random, and after a random time; some of its calls ignore their context. At
// most so many calls are deaf: a call that does not return keeps its device.
func fickle(ctx context.Context, _ string) (Decision, error) {
	latency := time.NewTimer(rand.N(200 * time.Millisecond))
	defer latency.Stop()
	select {
	case <-latency.C:
	case <-ctx.Done():
	}
	switch rand.N(8) {
	case 0:
		return Decision{Code: CodeDeviceNotFound}, nil
	case 1:
		return Decision{}, errors.New("down")
	case 2:
		<-ctx.Done()
		return Decision{}, ctx.Err()
	case 3:
		time.Sleep(5 * time.Second)
	case 4:
		return Decision{Code: CodeSystemUnavailable, RetryAfter: 4 * time.Second}, nil
	case 5:
		if rand.N(50) == 0 {
			return Decision{Code: CodePlanFrozen}, nil
		}
	case 6:
		panic("no answer")
	}
	return Decision{Allowed: true, Code: CodeAllow}, nil
}

var forgetOptions = map[string][]Option{
	"plain":              nil,
	"reuse":              {WithReuse(10 * time.Second)},
	"retry":              {WithRetry(nil, 5*time.Second)},
	"reuse and retry":    {WithReuse(5 * time.Second), WithRetry(nil, 10*time.Second)},
	"observed":           {WithObserver(func(context.Context, Event) {}), WithReuse(10 * time.Second)},
	"one slot":           {WithMaxRequests(1)},
	"one slot and reuse": {WithMaxRequests(1), WithReuse(10 * time.Second), WithRetry(nil, 5*time.Second)},
}

// L4: a device without run, caller or permission to reuse is forgotten within two intervals.
func TestL4_ADeviceIsForgottenWithinTwoIntervals(t *testing.T) {
	for name, opts := range forgetOptions {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, err := New(ValidatorFunc(fickle), opts...)
				if err != nil {
					t.Fatal(err)
				}
				var wg sync.WaitGroup
				for range 500 {
					device := fmt.Sprint("d", rand.N(50))
					at, patience, life := rand.N(time.Minute), rand.N(30*time.Second), rand.N(20*time.Second)
					kind := rand.N(10)
					wg.Go(func() {
						time.Sleep(at)
						ctx, cancel := context.WithTimeout(t.Context(), patience)
						defer cancel()
						fn := func(ctx context.Context) error {
							select {
							case <-ctx.Done():
							case <-time.After(life):
							}
							return nil
						}
						switch kind {
						case 0:
							_, _ = g.Validate(ctx, device)
						case 1:
							_ = g.Keep(ctx, device, fn)
						case 2:
							g.Hint(device)
						case 3:
							g.Hint("")
						default:
							_ = g.Run(ctx, device, fn)
						}
					})
				}
				wg.Wait()
				time.Sleep(20*time.Second + 5*time.Second) // two intervals, once the deaf calls have returned
				wantNothingHeld(t, g, "two intervals after the last caller")
			})
		})
	}
}

// At once, where nothing is held for reuse and no call is out.
func TestL4_WithoutReuseADeviceIsForgottenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, answer := range map[string]Decision{
			"allowed": {Allowed: true, Code: CodeAllow},
			"denied":  {Code: CodeDeviceNotFound},
			"unknown": {},
		} {
			g, err := New(ValidatorFunc(func(context.Context, string) (Decision, error) { return answer, nil }))
			if err != nil {
				t.Fatal(err)
			}
			_ = g.Run(t.Context(), "d", func(context.Context) error { return nil })
			_, _ = g.Validate(t.Context(), "d")
			g.Hint("d")
			wantNothingHeld(t, g, name)
		}
	})
}

// The bounds of a permission to reuse that was renewed ahead of demand: nobody came again.
func TestL4_APermissionThatNobodyReusesIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, err := New(ValidatorFunc(func(context.Context, string) (Decision, error) {
			return Decision{Allowed: true, Code: CodeAllow}, nil
		}), WithReuse(10*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		for i := range 1000 {
			device := fmt.Sprint("d", i)
			_ = g.Run(t.Context(), device, func(context.Context) error { return nil })
			time.Sleep(rand.N(20 * time.Millisecond))
			_ = g.Run(t.Context(), device, func(context.Context) error { return nil })
		}
		if h := holds(g); h.devices == 0 {
			t.Error("nothing is held for reuse")
		}
		time.Sleep(20 * time.Second)
		wantNothingHeld(t, g, "two intervals later")
	})
}

// L4: strangers' ids cannot fill the memory, whatever they are answered.
func TestL4_StrangersIDsDoNotFillTheMemory(t *testing.T) {
	for name, answer := range map[string]func(ctx context.Context) (Decision, error){
		"denied":     func(context.Context) (Decision, error) { return Decision{Code: CodeDeviceNotFound}, nil },
		"frozen":     func(context.Context) (Decision, error) { return Decision{Code: CodePlanFrozen}, nil },
		"failing":    func(context.Context) (Decision, error) { return Decision{}, errors.New("down") },
		"panicking":  func(context.Context) (Decision, error) { panic("down") },
		"unanswered": func(ctx context.Context) (Decision, error) { <-ctx.Done(); return Decision{}, ctx.Err() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, err := New(ValidatorFunc(func(ctx context.Context, _ string) (Decision, error) { return answer(ctx) }),
					WithReuse(10*time.Second), WithRetry(nil, time.Second))
				if err != nil {
					t.Fatal(err)
				}
				const callers = 20
				var wg sync.WaitGroup
				for c := range callers {
					wg.Go(func() {
						for i := range 200 {
							ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
							_ = g.Run(ctx, fmt.Sprintf("%d-%d", c, i), func(context.Context) error { return nil })
							cancel()
							g.Hint(fmt.Sprintf("nobody-%d-%d", c, i))
							// Each caller holds the one device that he asks about; a call that was
							// cancelled may still be on its way back.
							if h := holds(g); h.devices > 2*callers {
								t.Errorf("%d devices are held for %d callers", h.devices, callers)
								return
							}
						}
					})
				}
				wg.Wait()
				wantNothingHeld(t, g, "when the strangers have gone")
			})
		})
	}
}

// Nobody who waits is forgotten: of two callers one may find the device just as the other lets go.
func TestL4_ADeviceThatIsForgottenIsFoundAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		g, err := New(ValidatorFunc(func(context.Context, string) (Decision, error) {
			asked.Add(1)
			return Decision{Allowed: true, Code: CodeAllow}, nil
		}))
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		var ran atomic.Int64
		for range 8 {
			wg.Go(func() {
				for range 2000 {
					if err := g.Run(t.Context(), "d", func(context.Context) error { ran.Add(1); return nil }); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		if ran.Load() != 16000 || asked.Load() > 16000 {
			t.Errorf("%d runs on %d requests", ran.Load(), asked.Load())
		}
		wantNothingHeld(t, g, "afterwards")
	})
}

// The same, step by step: a caller has found the device and waits for its lock when it goes.
func TestL4_ADeviceThatGoesWhileACallerWaitsForItIsLookedUpAgain(t *testing.T) {
	g, err := New(ValidatorFunc(func(context.Context, string) (Decision, error) {
		return Decision{Allowed: true, Code: CodeAllow}, nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	s := g.registry.stripe("d")
	s.mu.Lock()
	d := s.get(g, "d")
	done := make(chan error, 1)
	go func() { done <- g.Run(t.Context(), "d", func(context.Context) error { return nil }) }()
	pause(t.Context(), 20*time.Millisecond) // it waits for the lock by now, or is late and finds another device
	d.settle(g.clock.now())
	gone := d.gone
	s.mu.Unlock()
	if !gone {
		t.Error("a device that nobody holds has not been forgotten")
	}
	within(t, 20*time.Second, "Run has returned", func() {
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A question may wait for long: for a slot, or for the hour that the authority wants to be left
// alone. Who has given up meanwhile is not held until it is answered.
func TestL4_CallersWhoGaveUpAreNotHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, err := New(ValidatorFunc(func(context.Context, string) (Decision, error) {
			return Decision{Code: CodeSystemUnavailable, RetryAfter: time.Hour}, nil
		}), WithRetry(nil, 2*time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		var patient sync.WaitGroup
		patient.Go(func() { _ = g.Run(t.Context(), "d", func(context.Context) error { return nil }) })
		for range 5000 {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			_ = g.Run(ctx, "d", func(context.Context) error { return nil })
			cancel()
		}
		d := g.registry.one("d")[0]
		d.stripe.mu.Lock()
		if q := d.next; q == nil || q.callers != 1 || len(q.waiters) > 100 {
			t.Errorf("the question of one caller who still waits holds %d", len(q.waiters))
		}
		d.stripe.mu.Unlock()
		_ = g.Close()
		patient.Wait()
	})
}

// What a run has been given is let go of when it is over, not when its device is.
func TestL4_RunsThatAreOverAreNotHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, err := New(ValidatorFunc(func(context.Context, string) (Decision, error) {
			return Decision{Allowed: true, Code: CodeAllow}, nil
		}))
		if err != nil {
			t.Fatal(err)
		}
		_ = g.Run(t.Context(), "d", func(ctx context.Context) error {
			for range 1000 {
				_ = g.Run(ctx, "d", func(context.Context) error { return nil })
			}
			d := g.registry.one("d")[0]
			d.stripe.mu.Lock()
			defer d.stripe.mu.Unlock()
			if len(d.live.runs) != 1 || d.leaving.Load() != 0 || d.held != 0 {
				t.Errorf("%d runs are live, %d stopped, %d held; want the outer one", len(d.live.runs), d.leaving.Load(), d.held)
			}
			return nil
		})
		wantNothingHeld(t, g, "afterwards")
	})
}

// A caller may be answered at the instant at which he gives up. Counted twice, he would take
// another one's place, whose question would then be nobody's.
func TestL3_WhoIsAnsweredWhileHeGivesUpIsCountedOnce(t *testing.T) {
	q := &question{}
	leaves, stays := q.add(0, true), q.add(0, false)
	q.answerSome(&verdict{}, 0, 0, func(w *waiter) bool { return w == leaves })
	leaves.leave()
	if q.callers != 1 || q.starts != 1 || len(q.waiters) != 1 || q.waiters[0] != stays {
		t.Errorf("%d callers, %d starts, %d waiters", q.callers, q.starts, len(q.waiters))
	}
}

// L4: what there was to hold for a crowd of runs does not stay when they are over, though the
// device stays, in demand.
func TestL4_ACrowdOfRunsLeavesNoMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, err := New(ValidatorFunc(func(context.Context, string) (Decision, error) {
			return Decision{Allowed: true, Code: CodeAllow}, nil
		}), WithReuse(10*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		over := make(chan struct{})
		for range 3000 {
			go func() {
				_ = g.Run(t.Context(), "d", func(context.Context) error {
					<-over
					return nil
				})
			}()
		}
		synctest.Wait()
		d := g.registry.one("d")[0]
		if n := len(d.live.runs); n != 3000 {
			t.Fatalf("%d runs are in flight", n)
		}
		close(over)
		synctest.Wait()
		if n := cap(d.live.runs); n > 1024 || d.gone || d.running() {
			t.Errorf("there is room for %d runs when none is in flight; forgotten: %v", n, d.gone)
		}
	})
}
