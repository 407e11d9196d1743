package guard_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// gauge counts the calls that are in flight, exactly: not by their times, which in a bubble may
// be the same.
type gauge struct {
	of guard.Validator

	mu      sync.Mutex
	total   int
	most    int // in flight at once, over all devices
	each    map[string]int
	mostOne int // in flight at once, about one device
}

func newGauge(v guard.Validator) *gauge { return &gauge{of: v, each: map[string]int{}} }

func (m *gauge) Validate(ctx context.Context, deviceID string) (guard.Decision, error) {
	m.mu.Lock()
	m.total++
	m.each[deviceID]++
	m.most, m.mostOne = max(m.most, m.total), max(m.mostOne, m.each[deviceID])
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.total--
		m.each[deviceID]--
	}()
	return m.of.Validate(ctx, deviceID)
}

func (m *gauge) peaks() (most, mostOne int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.most, m.mostOne
}

// callAt starts n callers at a time of the bubble. Each tells what it got, on the channel.
type got struct {
	called, started, returned time.Duration // since the start of the test
	request                   string
	err                       error
}

func callAt(t *testing.T, g *guard.Guard, start time.Time, at time.Duration, n int, to chan<- got) {
	t.Helper()
	for range n {
		go func() {
			time.Sleep(at - time.Since(start))
			it := got{called: time.Since(start)}
			it.err = g.Run(t.Context(), "d", func(ctx context.Context) error {
				decision, _ := guard.DecisionFrom(ctx)
				it.started, it.request = time.Since(start), decision.RequestID
				return nil
			})
			it.returned = time.Since(start)
			to <- it
		}()
	}
}

func TestL1_NCallersCostAtMostTwoRequests(t *testing.T) {
	type wave struct {
		at time.Duration
		n  int
	}
	for _, tc := range []struct {
		name  string
		waves []wave
		sent  []time.Duration
	}{
		{"all at once", []wave{{0, 100}}, []time.Duration{0, 1000}},
		{"one, then the others", []wave{{0, 1}, {500, 99}}, []time.Duration{0, 1000}},
		{"one by one while one is in flight", []wave{{0, 1}, {1, 1}, {2, 1}, {500, 1}, {999, 1}}, []time.Duration{0, 1000}},
		{"waves", []wave{{0, 10}, {500, 10}, {1500, 10}, {2500, 10}}, []time.Duration{0, 1000, 2000, 3000}},
		{"with a pause", []wave{{0, 10}, {5000, 10}}, []time.Duration{0, 1000, 5000, 6000}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				a.set(after(time.Second, allows))
				m := newGauge(a)
				g, start, gots, n := newGuard(t, m), time.Now(), make(chan got), 0
				for _, w := range tc.waves {
					callAt(t, g, start, w.at*time.Millisecond, w.n, gots)
					n += w.n
				}
				sentOf := map[string]time.Duration{}
				for range n {
					it := <-gots
					if it.err != nil {
						t.Fatal(it.err)
					}
					for _, c := range a.asked() {
						sentOf[c.id()] = c.sent.Sub(start)
					}
					if sent := sentOf[it.request]; sent < it.called {
						t.Errorf("called at %v, started on a request that was sent at %v", it.called, sent)
					}
					if wait := it.started - it.called; wait > 2*time.Second {
						t.Errorf("waited %v for requests that take a second", wait)
					}
				}
				want := []time.Duration{}
				for _, ms := range tc.sent {
					want = append(want, ms*time.Millisecond)
				}
				wantOffsets(t, a, start, want...)
				if _, most := m.peaks(); most != 1 {
					t.Errorf("%d requests about one device in flight at once", most)
				}
			})
		})
	}
}

// Runs, Keeps, Validates, hints and the watch share alike.
func TestL1_EveryKindOfCallerSharesTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		m := newGauge(a)
		g := newGuard(t, m, guard.WithReuse(5*time.Second))
		r := launch(t.Context(), g, "d")
		synctest.Wait()
		a.set(after(2*time.Second, allows))
		for a.count() < 2 { // the watch's first is in flight
			time.Sleep(10 * time.Millisecond)
		}
		flying := a.last(t)
		time.Sleep(100 * time.Millisecond)
		g.Hint("d") // ends reuse: all of these need a request of their own
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { _ = g.Run(t.Context(), "d", nothing) })
			wg.Go(func() { _ = g.Keep(t.Context(), "d", nothing) })
			wg.Go(func() { _, _ = g.Validate(t.Context(), "d") })
			wg.Go(func() { g.Hint("d") })
		}
		wg.Wait()
		if took := time.Since(flying.sent); took != 4*time.Second {
			t.Errorf("all were served %v after the watch's request, want 4 s", took)
		}
		if n := a.count(); n != 3 {
			t.Errorf("%d requests, want the start's, the watch's and one for all", n)
		}
		if _, most := m.peaks(); most != 1 {
			t.Errorf("%d requests about one device in flight at once", most)
		}
		if r.cancelled() {
			t.Error("the run was stopped")
		}
	})
}

func TestL1_ATryThatWaitsOutItsBackOffIsTheNextOne(t *testing.T) {
	for name, tc := range map[string]struct {
		first behaviour
		know  time.Duration
	}{
		"failing at once": {fails(errors.New("down")), 0},
		"hanging":         {hangs, 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				a.set(inTurn(tc.first, tc.first, allows))
				m := newGauge(a)
				g := newGuard(t, m, guard.WithRetry(steps(time.Second), 30*time.Second))
				start, gots := time.Now(), make(chan got)
				callAt(t, g, start, 0, 1, gots)
				for ms := range 40 { // some while a try is in flight, some while one waits
					callAt(t, g, start, (2*tc.know+2*time.Second)*time.Duration(ms)/40, 5, gots)
				}
				for range 201 {
					if it := <-gots; it.err != nil || it.started != 2*tc.know+2*time.Second {
						t.Errorf("called at %v, started at %v, %v", it.called, it.started, it.err)
					}
				}
				wantOffsets(t, a, start, 0, tc.know+time.Second, 2*tc.know+2*time.Second)
				if _, most := m.peaks(); most != 1 {
					t.Errorf("%d requests about one device in flight at once", most)
				}
			})
		})
	}
}

// The longest wait there is: a call that nobody wants any more and that does not heed its
// context, then one that hangs, then retries to the end of the budget.
func TestL1_RunWaitsAtMostTwoTimeoutsAndTheBudget(t *testing.T) {
	for name, first := range map[string]func(t *testing.T, g *guard.Guard){
		"behind a call that was given up": func(t *testing.T, g *guard.Guard) {
			ctx, cancel := context.WithCancel(t.Context())
			launchFunc(ctx, g, "d", never(t))
			synctest.Wait()
			cancel()
		},
		"behind another's": func(t *testing.T, g *guard.Guard) { launchFunc(t.Context(), g, "d", never(t)) },
		"alone":            func(*testing.T, *guard.Guard) {},
	} {
		for kind, b := range map[string]behaviour{"hanging": hangs, "sluggish to give up": deaf(3*time.Second, fails(errors.New("down")))} {
			for _, budget := range []time.Duration{0, time.Second, 20 * time.Second} {
				t.Run(fmt.Sprint(name, ", ", kind, ", budget ", budget), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						a := newAuthority()
						a.set(b)
						var opts []guard.Option
						if budget > 0 {
							opts = append(opts, guard.WithRetry(steps(100*time.Millisecond), budget))
						}
						g := newGuard(t, a, opts...)
						first(t, g)
						synctest.Wait()
						start := time.Now()
						wantRefused(t, g.Run(t.Context(), "d", never(t)), guard.CodeSystemUnavailable)
						if took, most := time.Since(start), 2*3*time.Second+budget; took > most {
							t.Errorf("Run waited %v, want at most %v", took, most)
						}
						time.Sleep(time.Minute)
					})
				})
			}
		}
	}
}

// Schedules made at random: whoever comes whenever to whatever authority waits no longer than
// two timeouts and the budget, and where there are few slots an interval.
func TestL1_NoScheduleMakesRunWaitLonger(t *testing.T) {
	for range 150 {
		seed := rand.Uint64()
		t.Run(fmt.Sprintf("%#x", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { playSchedule(t, seed) })
		})
	}
}

func playSchedule(t *testing.T, seed uint64) {
	const timeout, interval = time.Second, 3 * time.Second
	dice := rand.New(rand.NewPCG(seed, 1))
	budget := []time.Duration{0, 500 * time.Millisecond, 2 * time.Second}[dice.IntN(3)]
	slots := []int{64, 64, 1, 2}[dice.IntN(4)]
	opts := []guard.Option{guard.WithTimeout(timeout), guard.WithInterval(interval), guard.WithMaxRequests(slots)}
	if budget > 0 {
		opts = append(opts, guard.WithRetry(steps(time.Duration(dice.IntN(200))*time.Millisecond+time.Millisecond), budget))
	}
	if dice.IntN(2) == 0 {
		opts = append(opts, guard.WithReuse(time.Second))
	}
	a := newAuthority()
	down := fails(errors.New("down"))
	kinds := []behaviour{
		allows, allows, allows, down, down, hangs, hangs, denies(guard.CodeDeviceRevoked),
		after(300*time.Millisecond, allows), after(900*time.Millisecond, down), after(timeout, allows),
		answers(guard.Decision{Code: guard.CodeSystemUnavailable, RetryAfter: 300 * time.Millisecond}, nil),
		deaf(1500*time.Millisecond, allows), deaf(4*time.Second, down),
	}
	var script []behaviour
	for range 200 {
		script = append(script, kinds[dice.IntN(len(kinds))])
	}
	a.set(inTurn(script...))
	m := newGauge(a)
	g := newGuard(t, m, opts...)
	bound := 2*timeout + budget
	if slots < 64 {
		bound += interval
	}
	var wg sync.WaitGroup
	for i := range 60 {
		device := "d"
		if i >= 40 { // there are others who want slots
			device = fmt.Sprint("d", i%5)
		}
		at, life := time.Duration(dice.IntN(12000))*time.Millisecond, time.Duration(dice.IntN(3000))*time.Millisecond
		patience, kind := time.Duration(dice.IntN(8000))*time.Millisecond, dice.IntN(10)
		wg.Go(func() {
			time.Sleep(at)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			came := time.Now()
			waited := func(ctx context.Context) error {
				if took := time.Since(came); took > bound {
					t.Errorf("called at %v: started after %v, want at most %v", at, took, bound)
				}
				select {
				case <-ctx.Done():
				case <-time.After(life):
				}
				return ctx.Err()
			}
			switch kind {
			case 0:
				g.Hint(device)
			case 1:
				_ = g.Keep(ctx, device, func(context.Context) error { return nil })
			case 2:
				_, _ = g.Validate(ctx, device)
				if took := time.Since(came); took > bound {
					t.Errorf("called at %v: validated after %v, want at most %v", at, took, bound)
				}
			default:
				began := false
				err := g.Run(ctx, device, func(ctx context.Context) error {
					began = true
					return waited(ctx)
				})
				if took := time.Since(came); !began && took > bound {
					t.Errorf("called at %v: %v after %v, want at most %v", at, err, took, bound)
				}
			}
		})
	}
	wg.Wait()
	time.Sleep(10 * time.Second)
	most, mostOne := m.peaks()
	if mostOne > 1+2 {
		t.Errorf("%d requests in flight about one device, want one and two that hang", mostOne)
	}
	if most > slots {
		t.Errorf("%d requests in flight, the bound is %d", most, slots)
	}
}

func TestL2_AWatchedDeviceCostsOneRequestAnInterval(t *testing.T) {
	for _, runs := range []int{1, 2, 100} {
		for _, latency := range []time.Duration{0, 50 * time.Millisecond, 2900 * time.Millisecond} {
			t.Run(fmt.Sprint(runs, " runs, latency ", latency), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					const intervals = 1000
					a := newAuthority()
					a.set(after(latency, allows))
					g, start := newGuard(t, a), time.Now()
					for range runs {
						launch(t.Context(), g, "d")
					}
					time.Sleep(intervals * 10 * time.Second)
					starts := 2
					if latency == 0 {
						starts = runs // nobody came while a request was in flight
					}
					if n := a.count(); n < intervals || n > intervals+starts {
						t.Errorf("%d requests in %d intervals, want one each and at most %d for the starts", n, intervals, starts)
					}
					// Two intervals are for the starts and for the watch to find its point.
					asked := slices.DeleteFunc(a.asked(), func(c asked) bool { return c.sent.Sub(start) < 20*time.Second })
					for i := 1; i < len(asked); i++ {
						if gap := asked[i].sent.Sub(asked[i-1].sent); gap != 10*time.Second {
							t.Fatalf("request %d was sent %v after the one before, want an interval", i, gap)
						}
					}
				})
			})
		}
	}
}

func TestL2_StartsDoNotMoveTheWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		launch(t.Context(), g, "d")
		time.Sleep(10 * time.Second)
		phase := a.last(t).sent
		const intervals = 300
		starts := 0
		for time.Since(phase) < intervals*10*time.Second {
			time.Sleep(rand.N(7*time.Second) + time.Millisecond)
			if err := g.Run(t.Context(), "d", nothing); err != nil {
				t.Fatal(err)
			}
			starts++
		}
		at := map[time.Duration]int{}
		for _, c := range a.asked() {
			at[c.sent.Sub(phase)]++
		}
		for i := range intervals {
			if at[time.Duration(i)*10*time.Second] == 0 {
				t.Errorf("no request %d intervals after the watch's first", i)
			}
		}
		if n, most := a.count(), 2+intervals+starts+1; n > most {
			t.Errorf("%d requests, want at most %d: one an interval, and one a start", n, most)
		}
	})
}

func TestL2_WithReuseAndDemandOneEachMaxAge(t *testing.T) {
	const maxAge = 4 * time.Second
	for _, tc := range []struct {
		name    string
		latency time.Duration
		every   time.Duration
		watched bool
		most    float64 // requests each maxAge
	}{
		{"no latency", 0, 20 * time.Millisecond, false, 1.07},
		{"latency 50 ms", 50 * time.Millisecond, 20 * time.Millisecond, false, 1.07},
		{"latency 120 ms", 120 * time.Millisecond, 20 * time.Millisecond, false, 1.07},
		{"watched", 0, 20 * time.Millisecond, true, 1.07},
		{"watched, latency 50 ms", 50 * time.Millisecond, 20 * time.Millisecond, true, 1.07},
		{"a demand each second", 50 * time.Millisecond, time.Second, false, 1.07},
		{"a demand each second, watched", 50 * time.Millisecond, time.Second, true, 1.07},
		{"rare", 50 * time.Millisecond, 3900 * time.Millisecond, false, 1.07},
		// Whoever wants an answer ahead of time has to ask ahead by the time that it takes.
		{"latency of a fifth", maxAge / 5, 20 * time.Millisecond, false, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const ages = 40
				a := newAuthority()
				a.set(after(tc.latency, allows))
				m := newGauge(a)
				g := newGuard(t, m, guard.WithReuse(maxAge))
				if tc.watched {
					launch(t.Context(), g, "d")
				}
				ctx, stop := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				for range 2 {
					wg.Go(func() {
						for ; ctx.Err() == nil; time.Sleep(tc.every) {
							if err := g.Run(t.Context(), "d", nothing); err != nil {
								t.Error(err)
								return
							}
						}
					})
				}
				time.Sleep(10 * maxAge) // finds its phase
				before := a.count()
				time.Sleep(ages * maxAge)
				if rate := float64(a.count()-before-1) / ages; rate > tc.most {
					t.Errorf("%.2f requests each maxAge, want at most %.2f", rate, tc.most)
				}
				stop()
				wg.Wait()
				if _, most := m.peaks(); most != 1 {
					t.Errorf("%d requests in flight about one device", most)
				}
			})
		})
	}
}

// A device whose demand stops while another run goes on falls back to one request an interval.
func TestL2_WhenDemandEndsTheWatchGoesOnAtItsOwnPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a, guard.WithReuse(time.Second))
		r := launch(t.Context(), g, "d")
		for range 1000 {
			if err := g.Run(t.Context(), "d", nothing); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(10 * time.Second)
		before := a.count()
		time.Sleep(1000 * 10 * time.Second)
		if n := a.count() - before; n < 1000 || n > 1001 {
			t.Errorf("%d requests in 1000 intervals", n)
		}
		if r.cancelled() {
			t.Error("the run was stopped")
		}
	})
}

func TestL2_AnIdleDeviceCostsNone(t *testing.T) {
	down := fails(errors.New("down"))
	for _, tc := range []struct {
		name  string
		opts  []guard.Option
		bs    []behaviour
		after int // requests that may still come when the last caller has gone
	}{
		{"after a run", nil, []behaviour{allows}, 0},
		{"after a refusal", nil, []behaviour{denies(guard.CodeDeviceRevoked)}, 0},
		{"after a failure", nil, []behaviour{down}, 0},
		{"after a failure, with retries", []guard.Option{guard.WithRetry(steps(time.Second), 20*time.Second)}, []behaviour{down}, 0},
		{"after a hang", nil, []behaviour{hangs}, 0},
		{"with reuse", []guard.Option{guard.WithReuse(5 * time.Second)}, []behaviour{allows}, 1},
		{"with reuse, refused", []guard.Option{guard.WithReuse(5 * time.Second)}, []behaviour{allows, denies(guard.CodeDeviceRevoked)}, 1},
		{"with reuse, failing", []guard.Option{guard.WithReuse(5 * time.Second)}, []behaviour{allows, down}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				a.set(inTurn(tc.bs...))
				g := newGuard(t, a, tc.opts...)
				for range 5 {
					_ = g.Run(t.Context(), "d", nothing)
					time.Sleep(100 * time.Millisecond)
				}
				before := a.count()
				time.Sleep(20 * time.Second)
				g.Hint("d") // nobody wants to know
				g.Hint("")
				time.Sleep(24 * time.Hour)
				if n := a.count() - before; n > tc.after {
					t.Errorf("%d requests about a device that nobody asks for, want at most %d", n, tc.after)
				}
			})
		})
	}
}

func TestL3_OneThatGivesUpDoesNotSpoilItForTheOthers(t *testing.T) {
	for name, waves := range map[string]time.Duration{"of the request in flight": 0, "of the next one": 500 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				gone := errors.New("gone")
				a := newAuthority()
				a.set(after(time.Second, allows))
				g, start := newGuard(t, a), time.Now()
				var others []*running
				if waves > 0 {
					others = append(others, launch(t.Context(), g, "d"))
					time.Sleep(waves)
				}
				ctx, cancel := context.WithCancelCause(t.Context())
				quitter := launch(ctx, g, "d")
				synctest.Wait()
				for range 10 {
					others = append(others, launch(t.Context(), g, "d"))
				}
				time.Sleep(200 * time.Millisecond)
				cancel(gone)
				synctest.Wait()
				if !quitter.returned() || quitter.err != gone || quitter.started() { //nolint:errorlint // that very error
					t.Errorf("who gave up got %v", quitter.err)
				}
				time.Sleep(3 * time.Second)
				for _, r := range others {
					if !r.started() {
						t.Error("one that did not give up was not served")
					}
				}
				// The first request was the quitter's alone, and the others' follows at once; or all that
				// came meanwhile shared the second with the quitter.
				want := []time.Duration{0, 200 * time.Millisecond}
				if waves > 0 {
					want[1] = time.Second
				}
				if got := offsets(a, start)[:2]; !slices.Equal(got, want) {
					t.Errorf("requests were sent at %v, want %v", got, want)
				}
			})
		})
	}
}

func TestL3_WhenAllHaveGivenUpTheRequestIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		a.set(inTurn(after(100*time.Millisecond, allows), hangs))
		g := newGuard(t, a)
		launchFunc(t.Context(), g, "d", nothing) // the ten below share the next request
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		var rs []*running
		for range 9 {
			rs = append(rs, launchFunc(ctx, g, "d", never(t)))
		}
		patient, stop := context.WithCancel(t.Context())
		rs = append(rs, launchFunc(patient, g, "d", never(t)))
		time.Sleep(time.Second)
		cancel()
		synctest.Wait()
		if n := a.inFlight(); n != 1 {
			t.Fatalf("%d requests in flight while one caller still waits", n)
		}
		time.Sleep(time.Second)
		stop()
		synctest.Wait()
		last := a.last(t)
		if !last.returned.Equal(time.Now()) || !errors.Is(last.ended, context.Canceled) {
			t.Errorf("the request was not cancelled when the last caller gave up: %v", last.ended)
		}
		for _, r := range rs {
			if !r.returned() || !errors.Is(r.err, context.Canceled) || errors.Is(r.err, guard.ErrDenied) {
				t.Errorf("a caller got %v", r.err)
			}
		}
		time.Sleep(time.Hour)
		if n := a.count(); n != 2 {
			t.Errorf("%d requests, want no more than two", n)
		}
	})
}

func TestL3_ARequestThatNobodyWaitsForIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		a.set(after(2*time.Second, allows))
		g, start := newGuard(t, a, guard.WithInterval(24*time.Hour)), time.Now()
		first := launch(t.Context(), g, "d")
		time.Sleep(100 * time.Millisecond)
		ctx, cancel := context.WithCancel(t.Context())
		launchFunc(ctx, g, "d", never(t))
		launchFunc(ctx, g, "d", never(t))
		time.Sleep(100 * time.Millisecond)
		cancel()
		time.Sleep(1900 * time.Millisecond)
		if !first.started() {
			t.Error("the first caller was not served")
		}
		wantOffsets(t, a, start, 0)
	})
}

// Callers who were to share the next request, and then the retry of the one in flight, may give
// up like any others.
func TestL3_WhoSharesARetryMayGiveUpToo(t *testing.T) {
	for name, when := range map[string]time.Duration{
		"before the try in flight has failed": time.Second,
		"while the retry waits":               4 * time.Second,
		"while the retry is in flight":        6 * time.Second,
	} {
		for _, all := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, all: %t", name, all), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a := newAuthority()
					a.set(inTurn(hangs, after(2*time.Second, allows)))
					g, start := newGuard(t, a, guard.WithRetry(steps(2*time.Second), 30*time.Second)), time.Now()
					ctx, cancel := context.WithCancel(t.Context())
					quitters := []*running{launchFunc(ctx, g, "d", never(t))}
					synctest.Wait()
					for range 3 {
						quitters = append(quitters, launchFunc(ctx, g, "d", never(t)))
					}
					var patient *running
					if !all {
						patient = launchFunc(t.Context(), g, "d", nothing)
					}
					time.Sleep(when)
					cancel()
					synctest.Wait()
					for _, r := range quitters {
						if !r.returned() || !errors.Is(r.err, context.Canceled) {
							t.Errorf("who gave up got %v", r.err)
						}
					}
					if n := a.inFlight(); all && n != 0 {
						t.Errorf("%d requests go on for nobody", n)
					}
					time.Sleep(time.Minute)
					// With the first try the next is cancelled too, or, when the guard hears of the one
					// a little earlier than of the other, it is sent at that instant, and cancelled.
					late := func(at time.Duration) bool { return at > min(when, 5*time.Second) }
					switch sent := offsets(a, start); {
					case all && slices.ContainsFunc(sent, late):
						t.Errorf("requests were sent at %v, all had given up after %v", sent, when)
					case !all && (len(sent) != 2 || sent[1] > 5*time.Second):
						t.Errorf("requests were sent at %v, want one more for who did not give up", sent)
					}
					if !all && (patient.finish() != nil || !patient.started()) {
						t.Errorf("who did not give up got %v", patient.err)
					}
				})
			})
		}
	}
}

// A watch's question goes on when the callers that shared it give up, and the other way round.
func TestL3_TheWatchIsACallerToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		ctx, end := context.WithCancel(t.Context())
		r := launch(ctx, g, "d")
		synctest.Wait()
		a.set(after(time.Second, allows))
		time.Sleep(10*time.Second + 2*time.Second)
		phase := a.last(t).sent

		// The start's request is in flight when the watch is due: both share the next.
		time.Sleep(time.Until(phase.Add(20*time.Second - 500*time.Millisecond)))
		ahead := launchFunc(t.Context(), g, "d", nothing)
		synctest.Wait()
		impatient, giveUp := context.WithCancel(t.Context())
		starter := launchFunc(impatient, g, "d", never(t))
		time.Sleep(time.Second) // the shared request is in flight
		synctest.Wait()
		before := a.last(t)
		if want := phase.Add(20*time.Second + 500*time.Millisecond); !before.sent.Equal(want) || !ahead.returned() {
			t.Fatalf("the shared request was sent at %v, want %v", before.sent, want)
		}
		giveUp()
		synctest.Wait()
		if !starter.returned() || a.inFlight() != 1 {
			t.Errorf("the start returned %t, %d in flight; want the watch's request to go on", starter.returned(), a.inFlight())
		}
		time.Sleep(5 * time.Second)
		if last := a.last(t); last.n != before.n || last.ended != nil {
			t.Errorf("request %d ended with %v, want the same one, uncancelled", last.n, last.ended)
		}

		// The run ends while the watch's request, which nobody else wants, is in flight.
		time.Sleep(time.Until(phase.Add(30*time.Second + 500*time.Millisecond)))
		end()
		synctest.Wait()
		if last := a.last(t); !r.returned() || last.returned.IsZero() || !errors.Is(last.ended, context.Canceled) {
			t.Errorf("the run ended, its watch's request did not: %v", last.ended)
		}
	})
}

func TestL3_ANewcomerIsNotHurtByTheCancel(t *testing.T) {
	for name, tc := range map[string]struct {
		first behaviour // of a request that is given up after a second
		sent  time.Duration
	}{
		"that is heeded at once":      {hangs, time.Second},
		"that is heeded after a time": {sluggish(200 * time.Millisecond), 1200 * time.Millisecond},
		"that comes too late":         {deaf(1500*time.Millisecond, allows), 1500 * time.Millisecond},
		"whose call then denies":      {deaf(1500*time.Millisecond, denies(guard.CodeDeviceRevoked)), 1500 * time.Millisecond},
		"that is never heeded":        {deaf(time.Hour, allows), 3 * time.Second},
	} {
		for when, pause := range map[string]time.Duration{"at the same instant": 0, "a little later": 100 * time.Millisecond} {
			for _, retry := range []bool{false, true} {
				t.Run(fmt.Sprint(name, ", ", when, ", retry ", retry), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						a := newAuthority()
						a.set(inTurn(tc.first, allows))
						var opts []guard.Option
						if retry {
							opts = append(opts, guard.WithRetry(steps(10*time.Second), time.Minute))
						}
						g, start := newGuard(t, a, opts...), time.Now()
						ctx, cancel := context.WithCancel(t.Context())
						launchFunc(ctx, g, "d", never(t))
						time.Sleep(time.Second)
						cancel()
						time.Sleep(pause)
						newcomer := launch(t.Context(), g, "d")
						time.Sleep(3 * time.Second)
						if !newcomer.started() || newcomer.returned() {
							t.Fatalf("the newcomer got %v", newcomer.err)
						}
						want := max(tc.sent, time.Second+pause)
						if decision, _ := guard.DecisionFrom(newcomer.ctx); decision.RequestID != "r2" {
							t.Errorf("the newcomer started on %s, want his own request", decision.RequestID)
						}
						if got := offsets(a, start)[:2]; !slices.Equal(got, []time.Duration{0, want}) {
							t.Errorf("requests at %v, want 0 and %v", got, want)
						}
					})
				})
			}
		}
	}
}

// sluggish returns a time after its context has ended.
func sluggish(d time.Duration) behaviour {
	return func(ctx context.Context, c *asked) (guard.Decision, error) {
		<-ctx.Done()
		time.Sleep(d)
		return guard.Decision{}, context.Cause(ctx)
	}
}
