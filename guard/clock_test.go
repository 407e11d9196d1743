package guard

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// wallClock is a wall clock that can be stepped. A suspended machine looks like a step ahead: the
// monotonic clock, and with it every timer, has stood still.
type wallClock struct{ ahead, looks atomic.Int64 }

func (w *wallClock) nanos(t time.Time) int64 {
	w.looks.Add(1)
	return t.UnixNano() + w.ahead.Load()
}

func (w *wallClock) step(d time.Duration) { w.ahead.Add(int64(d)) }

// clockAuthority allows until it is told otherwise, and keeps the times of its requests on both
// clocks.
type clockAuthority struct {
	wall *wallClock

	mu     sync.Mutex
	answer func(ctx context.Context) (Decision, error)
	sent   []clockLook
}

// clockLook is one look at both clocks.
type clockLook struct {
	at     time.Time
	wall   int64
	allows bool
}

func (a *clockAuthority) Validate(ctx context.Context, _ string) (Decision, error) {
	a.mu.Lock()
	answer := a.answer
	a.sent = append(a.sent, clockLook{at: time.Now(), wall: a.wall.nanos(time.Now()), allows: answer == nil})
	a.mu.Unlock()
	if answer != nil {
		return answer(ctx)
	}
	return Decision{Allowed: true, Code: CodeAllow}, nil
}

// set has later requests answered by answer; nil: allowed.
func (a *clockAuthority) set(answer func(ctx context.Context) (Decision, error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = answer
}

func (a *clockAuthority) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.sent)
}

// lastAllow returns when the last request was sent that was allowed.
func (a *clockAuthority) lastAllow() (last clockLook) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, l := range a.sent {
		if l.allows {
			last = l
		}
	}
	return last
}

func silent(ctx context.Context) (Decision, error) {
	<-ctx.Done()
	return Decision{}, context.Cause(ctx)
}

// newSteppedGuard makes a guard whose wall clock can be stepped, and its authority.
func newSteppedGuard(t *testing.T, opts ...Option) (*Guard, *wallClock, *clockAuthority) {
	t.Helper()
	wall := &wallClock{}
	a := &clockAuthority{wall: wall}
	g, err := New(a, opts...)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	g.clock.wall = wall.nanos
	t.Cleanup(func() { _ = g.Close() })
	return g, wall, a
}

// clockRun is a run whose function ends with its context.
type clockRun struct {
	ctx  context.Context
	ran  time.Time // when the context ended
	done chan struct{}
	err  error
}

func startClockRun(t *testing.T, g *Guard) *clockRun {
	t.Helper()
	r, began := &clockRun{done: make(chan struct{})}, make(chan struct{})
	go func() {
		defer close(r.done)
		r.err = g.Run(t.Context(), "d", func(ctx context.Context) error {
			r.ctx = ctx
			close(began)
			<-ctx.Done()
			r.ran = time.Now()
			return ctx.Err()
		})
	}()
	select {
	case <-began:
	case <-r.done:
		t.Fatalf("Run refused: %v", r.err)
	}
	return r
}

// wantRanOut fails unless err is what a run gets whose permission ran out under way.
func wantRanOut(t *testing.T, err error) {
	t.Helper()
	denied := (*DeniedError)(nil)
	if !errors.As(err, &denied) {
		t.Fatalf("Run returned %v, want a *DeniedError", err)
	}
	if d := denied.Decision; d.Code != CodeSystemUnavailable || d.Allowed || d.Reason == "" || !denied.InFlight {
		t.Errorf("denial %+v, want SYSTEM_UNAVAILABLE, in flight, with a Reason", denied)
	}
	if !errors.Is(err, ErrDenied) || !errors.Is(err, ErrUnavailable) || errors.Is(err, context.Canceled) {
		t.Errorf("%v matches the wrong errors", err)
	}
}

var clockSteps = []struct {
	name string
	step time.Duration
}{{"an hour", time.Hour}, {"a day", 24 * time.Hour}, {"the stop bound", 13 * time.Second}}

func TestS6_ContextsFollowAWallClockSetAheadWithinOneSecond(t *testing.T) {
	for _, tc := range clockSteps {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, wall, _ := newSteppedGuard(t)
				time.Sleep(rand.N(time.Minute))
				r := startClockRun(t, g)
				time.Sleep(rand.N(time.Minute))
				stepped := time.Now()
				wall.step(tc.step)
				wantRanOut(t, r.wait())
				if late := r.ran.Sub(stepped); late > time.Second {
					t.Errorf("the context ended %v after the step", late)
				}
				if why := context.Cause(r.ctx); !errors.Is(why, ErrUnavailable) || !errors.Is(why, context.Canceled) {
					t.Errorf("the cause is %v", why)
				}
			})
		})
	}
}

// wait returns what Run returned, or an error of its own where it has not within a minute.
func (r *clockRun) wait() error {
	select {
	case <-r.done:
		return r.err
	case <-time.After(time.Minute):
		return errors.New("nothing within a minute: it still runs")
	}
}

// With the one ticker stopped and the next timer minutes away, nothing but the ticker can notice.
func TestS6_OneTickerAGuardSeesTheStepForAllOfItsDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, wall, _ := newSteppedGuard(t, WithInterval(time.Hour), WithTimeout(time.Hour))
		var over sync.WaitGroup
		var ended sync.Map
		for i := range 50 {
			over.Go(func() {
				_ = g.Run(context.Background(), string(rune('A'+i)), func(ctx context.Context) error {
					<-ctx.Done()
					ended.Store(i, time.Now())
					return nil
				})
			})
		}
		time.Sleep(100 * time.Millisecond)
		wall.step(24 * time.Hour)
		stepped := time.Now()
		over.Wait()
		ended.Range(func(i, at any) bool {
			if late := at.(time.Time).Sub(stepped); late > time.Second {
				t.Errorf("run %v ended %v after the step", i, late)
			}
			return true
		})
	})
}

func TestS6_TheTickerCostsOneLookASecondAndOnlyWhileRunsAreInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, wall, _ := newSteppedGuard(t, WithInterval(24*time.Hour))
		ctx, cancel := context.WithCancel(context.Background())
		var over sync.WaitGroup
		for i := range 100 {
			over.Go(func() {
				_ = g.Run(ctx, string(rune('A'+i)), func(ctx context.Context) error {
					<-ctx.Done()
					return nil
				})
			})
		}
		synctest.Wait()
		before := wall.looks.Load()
		time.Sleep(10 * time.Minute)
		// Each fire of the timer looks once or twice; of the hundred devices about one is asked about.
		if n := wall.looks.Load() - before; n < 600 || n > 600*3 {
			t.Errorf("%d looks at the clock in 600 seconds of 100 runs", n)
		}
		cancel()
		over.Wait()
		before = wall.looks.Load()
		time.Sleep(48 * time.Hour)
		if n := wall.looks.Load() - before; n > 2 {
			t.Errorf("%d looks at the clock while nothing was in flight", n)
		}
	})
}

// Neither a permission that is held for reuse, nor a Keep that waits for its turn, nor a function that
// goes on after it was told to stop is looked after every second: no run is in flight that has a line.
func TestS6_NoTickerWhereNothingIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, wall, a := newSteppedGuard(t, WithInterval(time.Hour), WithReuse(time.Hour))
		nothing, over := func(context.Context) error { return nil }, make(chan struct{})
		defer close(over)
		go func() {
			_ = g.Run(t.Context(), "overstays", func(context.Context) error {
				<-over
				return nil
			})
		}()
		synctest.Wait()
		a.set(silent)
		time.Sleep(g.StopBound())
		a.set(nil)
		if d, err := g.Validate(t.Context(), "held"); !d.Allowed || err != nil {
			t.Fatal(d, err)
		}
		a.set(func(context.Context) (Decision, error) {
			return Decision{Code: CodeDeviceRevoked, RetryAfter: 2 * time.Hour}, nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = g.Keep(ctx, "waits", nothing) }()
		synctest.Wait()
		if h := holds(g); h.devices != 3 || h.entries != 2 || h.watched != 0 {
			t.Fatalf("the guard holds %+v, want three devices, two of them in its schedule", h)
		}
		before := wall.looks.Load()
		time.Sleep(50 * time.Minute)
		if n := wall.looks.Load() - before; n > 10 {
			t.Errorf("%d looks at the clock while nothing was in flight", n)
		}
	})
}

func TestS6_AStepThatLeavesSomePermissionStopsNothing(t *testing.T) {
	for range 30 {
		synctest.Test(t, func(t *testing.T) {
			g, wall, a := newSteppedGuard(t)
			r := startClockRun(t, g)
			for range 10 {
				// Long enough that an ALLOW has come which knows nothing of the step before.
				time.Sleep(10*time.Second + rand.N(10*time.Second))
				synctest.Wait()
				age := time.Since(a.lastAllow().at)
				// What is left after the step is more than the second within which contexts follow.
				wall.step(rand.N(g.StopBound() - age - time.Second))
				time.Sleep(time.Second)
				synctest.Wait()
				if r.ctx.Err() != nil {
					t.Fatalf("stopped: %v", context.Cause(r.ctx))
				}
			}
		})
	}
}

func TestS6_AWallClockSetBackLengthensNothing(t *testing.T) {
	for _, tc := range clockSteps {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, wall, a := newSteppedGuard(t)
				r := startClockRun(t, g)
				time.Sleep(rand.N(time.Minute))
				synctest.Wait()
				last, asked := a.lastAllow(), a.count()
				a.set(silent)
				wall.step(-tc.step)
				wantRanOut(t, r.wait())
				if a.count() != asked+1 {
					t.Fatalf("%d requests after the step, want the watch's one", a.count()-asked)
				}
				if lasted := r.ran.Sub(last.at); lasted > g.StopBound() {
					t.Errorf("stopped %v after the last ALLOW was asked for", lasted)
				}
				if q := a.sent[asked].at; q.Sub(last.at) > 10*time.Second || r.ran.Sub(q) != 3*time.Second {
					t.Errorf("asked %v after the ALLOW, stopped %v later", q.Sub(last.at), r.ran.Sub(q))
				}
			})
		})
	}
}

// The stop line itself: the one slot is taken, so that no question can be given up before.
func TestS6_AWallClockSetBackDoesNotMoveTheStopLine(t *testing.T) {
	for _, tc := range clockSteps {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, wall, a := newSteppedGuard(t, WithMaxRequests(1))
				r := startClockRun(t, g)
				synctest.Wait()
				last := a.lastAllow()
				release := make(chan struct{})
				a.set(func(context.Context) (Decision, error) {
					<-release
					return Decision{}, errors.New("late")
				})
				go func() { _, _ = g.Validate(context.Background(), "other") }()
				time.Sleep(rand.N(9 * time.Second))
				wall.step(-tc.step)
				wantRanOut(t, r.wait())
				if lasted := r.ran.Sub(last.at); lasted > g.StopBound() {
					t.Errorf("stopped %v after the last ALLOW was asked for, want %v", lasted, g.StopBound())
				}
				close(release)
			})
		})
	}
}

// The wall clock is wrong by an hour ahead of the suspension, so that it never shows more than it
// showed when the permission began: only who has looked in between knows.
func TestS6_AWallClockSetBackDoesNotHideALeap(t *testing.T) {
	t.Run("contexts", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g, wall, _ := newSteppedGuard(t)
			r := startClockRun(t, g)
			time.Sleep(rand.N(time.Minute))
			wall.step(-time.Hour)
			time.Sleep(time.Second)
			stepped := time.Now()
			wall.step(30 * time.Minute)
			wantRanOut(t, r.wait())
			if late := r.ran.Sub(stepped); late > time.Second {
				t.Errorf("the context ended %v after the leap", late)
			}
		})
	})
	t.Run("Checkpoint", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g, wall, _ := newSteppedGuard(t)
			r := startClockRun(t, g)
			wall.step(-time.Hour)
			if err := Checkpoint(r.ctx); err != nil {
				t.Fatalf("Checkpoint after the clock was set back: %v", err)
			}
			wall.step(30 * time.Minute)
			if err := Checkpoint(r.ctx); !errors.Is(err, ErrUnavailable) {
				t.Errorf("Checkpoint after the leap: %v", err)
			}
			wantRanOut(t, r.wait())
		})
	})
	t.Run("reuse", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g, wall, a := newSteppedGuard(t, WithReuse(10*time.Second))
			nothing := func(context.Context) error { return nil }
			for i, ahead := range []time.Duration{0, -time.Hour, 30 * time.Minute} {
				wall.step(ahead)
				if err := g.Run(context.Background(), "d", nothing); err != nil {
					t.Fatalf("Run %d: %v", i, err)
				}
			}
			if a.count() != 2 {
				t.Errorf("%d requests, want a second after the leap", a.count())
			}
		})
	})
}

func TestS6_CheckpointLooksAtBothClocksItself(t *testing.T) {
	for _, tc := range clockSteps {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, wall, _ := newSteppedGuard(t)
				var first, second error
				began := time.Now()
				err := g.Run(context.Background(), "d", func(ctx context.Context) error {
					wall.step(tc.step)
					first = Checkpoint(context.WithoutCancel(ctx))
					if ctx.Err() == nil {
						t.Error("Checkpoint said no and let the context go on")
					}
					wall.step(-tc.step)
					second = Checkpoint(ctx)
					return nil
				})
				wantRanOut(t, err)
				if !errors.Is(first, ErrUnavailable) || !errors.Is(second, ErrUnavailable) {
					t.Errorf("Checkpoint: %v, and with the clock set right again %v", first, second)
				}
				if time.Since(began) != 0 {
					t.Errorf("a timer has fired: %v", time.Since(began))
				}
			})
		})
	}
}

func TestS6_CheckpointSeesTheLineOfAnOuterRunInItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outer, wall, _ := newSteppedGuard(t)
		inner, _, _ := newSteppedGuard(t)
		err := outer.Run(context.Background(), "out", func(ctx context.Context) error {
			return inner.Run(ctx, "in", func(ctx context.Context) error {
				wall.step(time.Hour)
				if err := Checkpoint(ctx); !errors.Is(err, ErrUnavailable) {
					t.Errorf("Checkpoint: %v", err)
				}
				return nil
			})
		})
		wantRanOut(t, err)
	})
}

func TestS6_AFunctionThatReturnsAfterItsLineIsDeniedThoughNoTimerHasFired(t *testing.T) {
	own := errors.New("own")
	for _, tc := range clockSteps {
		for _, work := range []error{nil, own} {
			t.Run(tc.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					g, wall, a := newSteppedGuard(t)
					began := time.Now()
					err := g.Run(context.Background(), "d", func(ctx context.Context) error {
						wall.step(tc.step)
						if ctx.Err() != nil {
							t.Error("the context has ended already: this tests nothing")
						}
						return work
					})
					wantRanOut(t, err)
					if errors.Is(err, own) != (work != nil) {
						t.Errorf("%v: the function's own error is lost or made up", err)
					}
					if time.Since(began) != 0 || a.count() != 1 {
						t.Errorf("%v gone by, %d requests", time.Since(began), a.count())
					}
				})
			})
		}
	}
}

func TestS6_AFunctionThatReturnsJustBeforeItsLineIsNotDenied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, wall, _ := newSteppedGuard(t)
		err := g.Run(context.Background(), "d", func(context.Context) error {
			wall.step(g.StopBound() - 1)
			return nil
		})
		if err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestS6_TheStartLooksAtBothClocksItself(t *testing.T) {
	for _, tc := range clockSteps {
		t.Run("the step comes while the question is in flight: "+tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, wall, a := newSteppedGuard(t)
				a.set(func(context.Context) (Decision, error) {
					wall.step(tc.step)
					return Decision{Allowed: true, Code: CodeAllow}, nil
				})
				err := g.Run(context.Background(), "d", func(context.Context) error {
					t.Error("started")
					return nil
				})
				denied := (*DeniedError)(nil)
				if !errors.As(err, &denied) || denied.InFlight || denied.Decision.Code != CodeSystemUnavailable ||
					denied.Decision.Allowed || denied.Decision.Reason == "" {
					t.Errorf("Run: %#v", err)
				}
			})
		})
		t.Run("the step comes while an observer is told of the start: "+tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var wall *wallClock
				g, wall, _ := newSteppedGuard(t, WithObserver(func(_ context.Context, e Event) {
					if e.Kind == EventStarted {
						wall.step(tc.step)
					}
				}))
				err := g.Run(context.Background(), "d", func(context.Context) error {
					t.Error("started")
					return nil
				})
				if denied := (*DeniedError)(nil); !errors.As(err, &denied) || denied.InFlight {
					t.Errorf("Run: %#v", err)
				}
			})
		})
	}
}

func TestS6_AStepBackWhileTheQuestionIsInFlight(t *testing.T) {
	for _, tc := range clockSteps {
		t.Run("the question is answered: "+tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, wall, a := newSteppedGuard(t, WithMaxRequests(1))
				a.set(func(context.Context) (Decision, error) {
					time.Sleep(time.Second)
					wall.step(-tc.step)
					time.Sleep(time.Second)
					return Decision{Allowed: true, Code: CodeAllow}, nil
				})
				r := startClockRun(t, g)
				sent := a.sent[0].at
				a.set(silent)
				go func() { _, _ = g.Validate(context.Background(), "other") }()
				wantRanOut(t, r.wait())
				if lasted := r.ran.Sub(sent); lasted > g.StopBound() {
					t.Errorf("stopped %v after the ALLOW was asked for", lasted)
				}
			})
		})
		t.Run("the question is not answered: "+tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, wall, a := newSteppedGuard(t)
				a.set(silent)
				began := time.Now()
				go func() {
					time.Sleep(time.Second)
					wall.step(-tc.step)
				}()
				err := g.Run(context.Background(), "d", func(context.Context) error { return nil })
				if !errors.Is(err, ErrUnavailable) || time.Since(began) != 3*time.Second {
					t.Errorf("Run: %v after %v", err, time.Since(began))
				}
			})
		})
	}
}

// Ahead of the answer, and by less than the permission: what is left counts from the sending.
func TestS6_AStepAheadWhileTheQuestionIsInFlightShortensThePermission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, wall, a := newSteppedGuard(t)
		a.set(func(context.Context) (Decision, error) {
			wall.step(9 * time.Second)
			return Decision{Allowed: true, Code: CodeAllow}, nil
		})
		r := startClockRun(t, g)
		began := time.Now()
		a.set(silent)
		wantRanOut(t, r.wait())
		if lasted := r.ran.Sub(began); lasted > 4*time.Second {
			t.Errorf("stopped after %v, but only 4s were left of the permission", lasted)
		}
	})
}

// The timer stands for a time that the clock has leapt over. It must not hold up those who come
// after the leap: neither the timeout of a question nor the look at the clocks.
func TestS6_ALeapWhileOnlyAKeepWaitsHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, wall, a := newSteppedGuard(t)
		alone := Decision{Code: CodeDeviceRevoked, RetryAfter: time.Hour}
		a.set(func(context.Context) (Decision, error) { return alone, nil })
		go func() { _ = g.Keep(t.Context(), "kept", func(context.Context) error { return nil }) }()
		time.Sleep(time.Minute)
		wall.step(5 * time.Hour)
		a.set(silent)
		began := time.Now()
		_, err := g.Validate(t.Context(), "d")
		if took := time.Since(began); !errors.Is(err, ErrUnavailable) || took != 3*time.Second {
			t.Errorf("Validate: %v after %v", err, took)
		}
		a.set(func(context.Context) (Decision, error) { return alone, nil })
		time.Sleep(time.Minute)
		a.set(nil)
		wall.step(5 * time.Hour)
		r := startClockRun(t, g)
		wall.step(5 * time.Hour)
		stepped := time.Now()
		wantRanOut(t, r.wait())
		if late := r.ran.Sub(stepped); late > time.Second {
			t.Errorf("the context ended %v after the step", late)
		}
	})
}

func TestS6_AStepBeforeTheStartChangesNothing(t *testing.T) {
	for _, tc := range clockSteps {
		for _, sign := range []time.Duration{-1, 1} {
			synctest.Test(t, func(t *testing.T) {
				g, wall, a := newSteppedGuard(t)
				time.Sleep(rand.N(time.Minute))
				wall.step(sign * tc.step)
				r := startClockRun(t, g)
				time.Sleep(time.Hour)
				synctest.Wait()
				if r.ctx.Err() != nil {
					t.Errorf("stopped: %v", context.Cause(r.ctx))
				}
				if n := a.count(); n < 360 || n > 362 {
					t.Errorf("%d requests in an hour", n)
				}
			})
		}
	}
}

func TestS6_StepsWhileAPermissionIsHeldForReuse(t *testing.T) {
	const maxAge = 10 * time.Second
	for _, tc := range []struct {
		name        string
		first, step time.Duration // the wall clock is stepped after first
		then        time.Duration // and this is when the next Run comes
		asks        int
	}{
		{"none, young enough", 5 * time.Second, 0, 5 * time.Second, 1},
		{"none, too old", 5 * time.Second, 0, 5*time.Second + 1, 2},
		{"ahead, young enough", 2 * time.Second, 3 * time.Second, 5 * time.Second, 1},
		{"ahead, too old", 2 * time.Second, 3*time.Second + 1, 5 * time.Second, 2},
		{"an hour ahead", 2 * time.Second, time.Hour, 0, 2},
		{"a day ahead", 2 * time.Second, 24 * time.Hour, 0, 2},
		{"an hour back, young enough", 2 * time.Second, -time.Hour, 8 * time.Second, 1},
		{"an hour back, too old", 2 * time.Second, -time.Hour, 8*time.Second + 1, 2},
		{"a day back, too old", 2 * time.Second, -24 * time.Hour, 8*time.Second + 1, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, wall, a := newSteppedGuard(t, WithReuse(maxAge))
				asked := 0
				run := func() error {
					return g.Run(context.Background(), "d", func(context.Context) error {
						asked = a.count() // before reuse has the permission renewed ahead of its end
						return nil
					})
				}
				if err := run(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(tc.first)
				wall.step(tc.step)
				time.Sleep(tc.then)
				if err := run(); err != nil {
					t.Fatal(err)
				}
				if asked != tc.asks {
					t.Errorf("the second function started after %d requests, want %d", asked, tc.asks)
				}
			})
		})
	}
}

// NTP slews by at most 500 ppm; both ways, and to and fro.
func TestS6_ASlewHarmsNothing(t *testing.T) {
	for name, slew := range map[string]func(i int) time.Duration{
		"ahead":      func(int) time.Duration { return 50 * time.Microsecond },
		"back":       func(int) time.Duration { return -50 * time.Microsecond },
		"to and fro": func(i int) time.Duration { return time.Duration(i%2*2-1) * 50 * time.Microsecond },
		"any":        func(int) time.Duration { return rand.N(100*time.Microsecond) - 50*time.Microsecond },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, wall, a := newSteppedGuard(t)
				r := startClockRun(t, g)
				for i := range 36000 {
					time.Sleep(100 * time.Millisecond)
					wall.step(slew(i))
					if i%10 == 0 {
						if err := Checkpoint(r.ctx); err != nil {
							t.Fatalf("Checkpoint: %v", err)
						}
					}
				}
				if n := a.count(); n < 360 || n > 363 {
					t.Errorf("%d requests in an hour of an interval of 10s", n)
				}
			})
		})
	}
}

// An hour of steps of any size, either way, each far enough from the next that a look falls in
// between. The model adds up what either clock advanced since the last ALLOW was asked for.
func TestS6_NoSequenceOfStepsLengthensAPermission(t *testing.T) {
	for range 100 {
		synctest.Test(t, func(t *testing.T) {
			g, wall, a := newSteppedGuard(t)
			r := startClockRun(t, g)
			began, age, seen := a.lastAllow().at, time.Duration(0), 1
			var over time.Time // when the model said that the permission had ended
			for last := time.Now(); time.Since(began) < time.Hour; {
				time.Sleep(rand.N(50*time.Millisecond) + 1)
				synctest.Wait()
				if n := a.count(); n > seen {
					seen, age, last = n, 0, a.lastAllow().at
				}
				age += time.Since(last)
				last = time.Now()
				if rand.N(100) == 0 {
					by := time.Duration(rand.NormFloat64() * float64(5*time.Second))
					wall.step(by)
					age += max(by, 0)
					// So that the guard cannot see this step and the next as one.
					_ = g.clock.now()
				}
				ended := r.ctx.Err() != nil
				live := !ended && (rand.N(5) > 0 || Checkpoint(r.ctx) == nil)
				switch {
				case live && age < g.StopBound():
					continue
				case !live && age < g.StopBound()-time.Millisecond:
					t.Fatalf("stopped although %v were left: %v", g.StopBound()-age, context.Cause(r.ctx))
				case !live:
					wantRanOut(t, r.wait())
					return
				case over.IsZero():
					over = time.Now()
				case time.Since(over) > time.Second:
					t.Fatalf("live %v after its permission had ended", time.Since(over))
				}
				if err := Checkpoint(r.ctx); err == nil && age > g.StopBound()+time.Millisecond {
					t.Fatalf("Checkpoint is nil, the permission is %v old", age)
				}
			}
		})
	}
}

// The same with an authority that comes and goes, and with starts: whatever happens to the
// clocks, nothing is live longer than the stop bound on either of them.
func TestS6_NothingOutlivesTheStopBoundOnEitherClock(t *testing.T) {
	for range 30 {
		synctest.Test(t, func(t *testing.T) {
			g, wall, a := newSteppedGuard(t, WithReuse(5*time.Second))
			stop := time.Now().Add(10 * time.Minute)
			go func() {
				for time.Now().Before(stop) {
					time.Sleep(rand.N(30 * time.Second))
					a.set([]func(context.Context) (Decision, error){nil, nil, silent}[rand.N(3)])
				}
			}()
			go func() {
				for time.Now().Before(stop) {
					time.Sleep(rand.N(20*time.Second) + 7*time.Microsecond)
					wall.step(time.Duration(rand.NormFloat64() * float64(10*time.Second)))
				}
			}()
			work := func(ctx context.Context) error {
				for Checkpoint(ctx) == nil && time.Now().Before(stop) {
					last := a.lastAllow()
					mono, byWall := time.Since(last.at), time.Duration(wall.nanos(time.Now())-last.wall)
					if Checkpoint(ctx) == nil && max(mono, byWall) > g.StopBound()+time.Millisecond {
						t.Errorf("live %v (%v by the wall) after the last ALLOW was asked for", mono, byWall)
						return nil
					}
					time.Sleep(rand.N(200 * time.Millisecond))
				}
				return nil
			}
			for time.Now().Before(stop) {
				_ = g.Run(context.Background(), "d", work)
				time.Sleep(rand.N(time.Second))
			}
			time.Sleep(time.Minute)
		})
	}
}

func TestS6_TheClockDoesNotGoBackHoweverManyLook(t *testing.T) {
	wall := &wallClock{}
	c := newClock()
	c.wall = wall.nanos
	began := time.Now()
	var done sync.WaitGroup
	for range 4 {
		done.Go(func() {
			last, first := c.now(), time.Now()
			from := last
			for range 20000 {
				now := c.now()
				if now < last-2*step {
					t.Errorf("%v after %v", now, last)
					return
				}
				last = now
			}
			if c.now()-from < time.Since(first)-2*step-time.Since(first)/100 {
				t.Errorf("%v went by on the guard's clock, %v on the monotonic", c.now()-from, time.Since(first))
			}
		})
	}
	var ahead time.Duration
	for range 2000 {
		by := rand.N(2*time.Hour) - time.Hour
		before := c.now()
		wall.step(by)
		if by > 0 && c.now() < before+by {
			t.Fatalf("a leap of %v was overlooked", by)
		}
		ahead += max(by, 0)
	}
	done.Wait()
	if total := c.now(); total < ahead || total > ahead+2*time.Since(began)+time.Second {
		t.Errorf("the clock went on by %v, want %v", total, ahead)
	}
}

// S6, S10: what a request was sent at is read from both clocks; a leap that nobody has noticed
// before is in it, and so it shortens the permission whose request was sent then, and one that ends
// by the wall clock too.
func TestS6_ARequestIsSentAtATimeOfBothClocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, leap := range []time.Duration{0, step, -step, time.Hour, -time.Hour} {
			c, wall := newClock(), &wallClock{}
			c.wall = wall.nanos
			time.Sleep(time.Second)
			wall.step(leap)
			r, want := c.read(), time.Second+max(leap, 0)
			if r.elapsed != want || c.now() != want || !r.at.Equal(time.Now()) {
				t.Errorf("a leap of %v: %v have passed, and now %v, want %v", leap, r.elapsed, c.now(), want)
			}
			if left := r.until(time.Now().Add(time.Minute + leap)); left != time.Minute {
				t.Errorf("a leap of %v: a minute on the wall clock is %v", leap, left)
			}
		}
	})
}

// A look at two clocks that agree takes no lock, because it sets nothing anew: runs on every
// processor look at once, and only a leap has them wait for each other.
func TestS6_OnlyALeapSetsTheClockAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, wall := newClock(), &wallClock{}
		c.wall = wall.nanos
		made := c.base.Load()
		for range 10 {
			time.Sleep(time.Hour)
			c.now()
			c.read()
		}
		if c.base.Load() != made {
			t.Error("the clock was set anew though both clocks agree")
		}
		wall.step(2 * step)
		if got, want := c.now(), 10*time.Hour+2*step; got != want || c.base.Load() == made {
			t.Errorf("after a leap it is %v, want %v; set anew: %v", got, want, c.base.Load() != made)
		}
	})
}
