package guard_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/contextx"
	"github.com/execguard/execguard/guard"
)

// told is one event as an observer was told of it.
type told struct {
	guard.Event
	ctx       context.Context
	goroutine string
	at        time.Time
}

// diary is an observer that remembers.
type diary struct {
	mu    sync.Mutex
	pages []told
}

func (d *diary) observe(ctx context.Context, e guard.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pages = append(d.pages, told{Event: e, ctx: ctx, goroutine: goroutineID(), at: time.Now()})
}

// read returns the events of the kinds named, or all, in the order in which they were told.
func (d *diary) read(kinds ...guard.EventKind) []told {
	d.mu.Lock()
	defer d.mu.Unlock()
	var es []told
	for _, e := range d.pages {
		if len(kinds) == 0 || slices.Contains(kinds, e.Kind) {
			es = append(es, e)
		}
	}
	return es
}

// one returns the only event of that kind.
func (d *diary) one(t *testing.T, kind guard.EventKind) told {
	t.Helper()
	es := d.read(kind)
	if len(es) != 1 {
		t.Fatalf("told of %d events %q, want one: %v", len(es), kind, d.kinds())
	}
	return es[0]
}

// kinds returns the kinds of all events.
func (d *diary) kinds() (kinds []guard.EventKind) {
	for _, e := range d.read() {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}

// perRun returns the kinds that are told on the caller's goroutine.
func (d *diary) perRun() (kinds []guard.EventKind) {
	for _, e := range d.read(guard.EventStarted, guard.EventRefused, guard.EventStopped, guard.EventFinished) {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}

// goroutineID returns the first words of the goroutine's stack: goroutine 17.
func goroutineID() string {
	words := strings.Fields(string(debugStack()))
	return words[0] + " " + words[1]
}

func debugStack() []byte {
	buf := make([]byte, 64)
	return buf[:runtime.Stack(buf, false)]
}

// observed makes a guard with a diary.
func observed(t *testing.T, v guard.Validator, opts ...guard.Option) (*guard.Guard, *diary) {
	t.Helper()
	d := &diary{}
	return newGuard(t, v, append(opts, guard.WithObserver(d.observe))...), d
}

func TestEvents_OfARunThatFinishes(t *testing.T) {
	own := errors.New("own")
	for _, want := range []error{nil, own} {
		t.Run(fmt.Sprint(want), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				a.set(after(2*time.Second, allows))
				g, d := observed(t, a)
				err := g.Run(t.Context(), "d", func(context.Context) error {
					time.Sleep(5 * time.Second)
					return want
				})
				if err != want { //nolint:errorlint // unchanged
					t.Errorf("Run: %v", err)
				}
				synctest.Wait()
				started, finished := d.one(t, guard.EventStarted), d.one(t, guard.EventFinished)
				if e := started; e.DeviceID != "d" || e.Decision.Code != guard.CodeAllow || e.Decision.RequestID != "r1" ||
					!e.Decision.Allowed || e.Err != nil || e.Took != 2*time.Second || e.After != 0 {
					t.Errorf("started: %+v", e.Event)
				}
				if e := finished; e.DeviceID != "d" || e.Decision.Code != guard.CodeAllow || e.Decision.RequestID != "r1" ||
					e.Err != want || e.Took != 5*time.Second || e.After != 0 { //nolint:errorlint // unchanged
					t.Errorf("finished: %+v", e.Event)
				}
				validated := d.read(guard.EventValidated)[0]
				if e := validated; e.DeviceID != "d" || e.Decision.RequestID != "r1" || e.Took != 2*time.Second || e.Err != nil {
					t.Errorf("validated: %+v", e.Event)
				}
				if got := d.perRun(); !slices.Equal(got, []guard.EventKind{guard.EventStarted, guard.EventFinished}) {
					t.Errorf("told of %v", got)
				}
			})
		})
	}
}

func TestEvents_OfARunThatIsRefused(t *testing.T) {
	down := errors.New("down")
	for _, tc := range []struct {
		name   string
		set    behaviour
		device string
		code   guard.Code
		id     string
		took   time.Duration
		is     error
	}{
		{"revoked", after(2*time.Second, denies(guard.CodeDeviceRevoked)), "d", guard.CodeDeviceRevoked, "r1", 2 * time.Second, guard.ErrDenied},
		{"down", fails(down), "d", guard.CodeSystemUnavailable, "", 0, down},
		{"silent", hangs, "d", guard.CodeSystemUnavailable, "", 3 * time.Second, guard.ErrUnavailable},
		{"blank", allows, "  ", guard.CodeInvalidDeviceID, "", 0, guard.ErrDenied},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				a.set(tc.set)
				g, d := observed(t, a)
				time.Sleep(time.Minute) // the guard is older than the run
				err := g.Run(t.Context(), tc.device, func(context.Context) error { return nil })
				e := d.one(t, guard.EventRefused)
				if e.DeviceID != tc.device || e.Decision.Code != tc.code || e.Decision.RequestID != tc.id || e.Decision.Allowed ||
					e.Took != tc.took || e.After != 0 || !errors.Is(e.Err, tc.is) || !errors.Is(e.Err, guard.ErrDenied) {
					t.Errorf("refused: %+v", e.Event)
				}
				if !errors.Is(err, tc.is) || e.Err.Error() != err.Error() {
					t.Errorf("the event says %v, Run %v", e.Err, err)
				}
				if got := d.perRun(); len(got) != 1 {
					t.Errorf("told of %v", got)
				}
			})
		})
	}
	t.Run("closed", func(t *testing.T) {
		g, d := observed(t, newAuthority())
		_ = g.Close()
		_ = g.Run(t.Context(), "d", func(context.Context) error { return nil })
		if e := d.one(t, guard.EventRefused); e.DeviceID != "d" || !errors.Is(e.Err, guard.ErrClosed) || e.Decision.Allowed {
			t.Errorf("refused: %+v", e.Event)
		}
	})
	t.Run("closed while it waited", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := newAuthority()
			a.hang()
			g, d := observed(t, a)
			r := launch(t.Context(), g, "d")
			time.Sleep(time.Second)
			_ = g.Close()
			_ = r.finish()
			if e := d.one(t, guard.EventRefused); e.Took != time.Second || !errors.Is(e.Err, guard.ErrClosed) {
				t.Errorf("refused: %+v", e.Event)
			}
		})
	})
}

func TestEvents_OfARunThatIsStopped(t *testing.T) {
	own := errors.New("own")
	for _, tc := range []struct {
		name string
		stop func(a *authority, g *guard.Guard)
		code guard.Code
		is   error
	}{
		{"revoked", func(a *authority, _ *guard.Guard) { a.deny(guard.CodeDeviceRevoked) }, guard.CodeDeviceRevoked, guard.ErrDenied},
		{"down", func(a *authority, _ *guard.Guard) { a.hang() }, guard.CodeSystemUnavailable, guard.ErrUnavailable},
		{"closed", func(_ *authority, g *guard.Guard) { _ = g.Close() }, "", guard.ErrClosed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				g, d := observed(t, a)
				var began, toldAt time.Time
				r := launchFunc(t.Context(), g, "d", func(ctx context.Context) error {
					began = time.Now()
					<-ctx.Done()
					toldAt = time.Now()
					time.Sleep(1500 * time.Millisecond)
					return own
				})
				time.Sleep(rand.N(time.Minute))
				tc.stop(a, g)
				err := r.finish()
				e := d.one(t, guard.EventStopped)
				if e.DeviceID != "d" || e.Decision.Code != tc.code || e.Decision.Allowed || e.After != 1500*time.Millisecond ||
					e.Took != e.at.Sub(began) || e.at.Sub(toldAt) != e.After {
					t.Errorf("stopped: %+v, began %v, told %v", e.Event, began, toldAt)
				}
				if !errors.Is(e.Err, tc.is) || errors.Is(e.Err, context.Canceled) || err.Error() != e.Err.Error() {
					t.Errorf("the event says %v, Run %v", e.Err, err)
				}
				if tc.code == guard.CodeDeviceRevoked && e.Decision.RequestID != a.last(t).id() {
					t.Errorf("the request id is %q, want the denial's %q", e.Decision.RequestID, a.last(t).id())
				}
				if got := d.perRun(); !slices.Equal(got, []guard.EventKind{guard.EventStarted, guard.EventStopped}) {
					t.Errorf("told of %v", got)
				}
			})
		})
	}
}

// Its caller has left: that is his affair and no refusal.
func TestEvents_NothingIsToldWhenTheCallersOwnContextEndedBeforeTheStart(t *testing.T) {
	for name, call := range map[string]func(g *guard.Guard, ctx context.Context) error{
		"Run": func(g *guard.Guard, ctx context.Context) error {
			return g.Run(ctx, "d", func(context.Context) error { return nil })
		},
		"Keep": func(g *guard.Guard, ctx context.Context) error {
			return g.Keep(ctx, "d", func(context.Context) error { return nil })
		},
	} {
		t.Run(name+", while it waits", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				a.hang()
				g, d := observed(t, a)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if err := call(g, ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%v", err)
				}
				time.Sleep(time.Minute)
				if got := d.perRun(); len(got) != 0 {
					t.Errorf("told of %v", got)
				}
			})
		})
		t.Run(name+", before it asks", func(t *testing.T) {
			a := newAuthority()
			g, d := observed(t, a)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := call(g, ctx); !errors.Is(err, context.Canceled) || len(d.read()) != 0 || a.count() != 0 {
				t.Errorf("%v, told of %v, %d requests", err, d.kinds(), a.count())
			}
		})
	}
}

func TestEvents_AKeepIsToldAsTheRunsThatItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		a.set(inTurn(denies(guard.CodeDeviceRevoked), allows, denies(guard.CodePlanFrozen), allows))
		g, d := observed(t, a)
		ctx, cancel := context.WithCancel(t.Context())
		k := keep(ctx, g, "d")
		for k.calls() < 2 {
			time.Sleep(time.Second)
			synctest.Wait()
		}
		cancel()
		_ = k.finish()
		want := []guard.EventKind{guard.EventRefused, guard.EventStarted, guard.EventStopped, guard.EventStarted, guard.EventFinished}
		if got := d.perRun(); !slices.Equal(got, want) {
			t.Errorf("told of %v", got)
		}
	})
}

func TestEvents_OfARunAreToldOnTheGoroutineThatCalledIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g, d := observed(t, a)
		callers := map[string]string{}
		var mu sync.Mutex
		var all sync.WaitGroup
		for i := range 20 {
			for _, device := range []string{"finished", "stopped", "refused", "kept"} {
				id := fmt.Sprint(device, i)
				if device == "refused" {
					a.deny(guard.CodeDeviceRevoked, id)
				}
				all.Go(func() {
					mu.Lock()
					callers[id] = goroutineID()
					mu.Unlock()
					work := func(ctx context.Context) error {
						if device == "stopped" {
							<-ctx.Done()
						}
						return nil
					}
					if device == "kept" {
						_ = g.Keep(t.Context(), id, work)
						return
					}
					_ = g.Run(t.Context(), id, work)
				})
			}
		}
		time.Sleep(time.Second)
		a.deny(guard.CodeOrgDisabled)
		all.Wait()
		synctest.Wait()
		for _, e := range d.read() {
			onCaller := callers[e.DeviceID] == e.goroutine
			if queued := e.Kind == guard.EventValidated; onCaller == queued {
				t.Errorf("%s of %s was told on %s, the caller is %s", e.Kind, e.DeviceID, e.goroutine, callers[e.DeviceID])
			}
		}
		if n := len(d.perRun()); n != 20*7 {
			t.Errorf("told of %d events, want 140: %v", n, d.perRun())
		}
	})
}

// Every start that is told has one end that is told, and nothing else has one.
func TestEvents_StartedIsFollowedByExactlyOneEnd(t *testing.T) {
	for name, work := range map[string]func(ctx context.Context) error{
		"returns":             func(context.Context) error { return nil },
		"panics":              func(context.Context) error { panic("own") },
		"ends its goroutine":  func(context.Context) error { runtime.Goexit(); return nil },
		"is stopped":          func(ctx context.Context) error { <-ctx.Done(); return nil },
		"is stopped, panics":  func(ctx context.Context) error { <-ctx.Done(); panic("own") },
		"is stopped, Goexits": func(ctx context.Context) error { <-ctx.Done(); runtime.Goexit(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				g, d := observed(t, a)
				done := make(chan any)
				go func() {
					defer func() { done <- recover() }()
					_ = g.Run(t.Context(), "d", work)
				}()
				time.Sleep(time.Second)
				a.deny(guard.CodeDeviceRevoked)
				value := <-done
				end := guard.EventFinished
				if strings.HasPrefix(name, "is stopped") {
					end = guard.EventStopped
				}
				if got := d.perRun(); !slices.Equal(got, []guard.EventKind{guard.EventStarted, end}) {
					t.Errorf("told of %v", got)
				}
				if want := strings.Contains(name, "panics"); (value == "own") != want {
					t.Errorf("recovered %v", value)
				}
			})
		})
	}
	t.Run("is denied while the observer is told", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := newAuthority()
			d := &diary{}
			g := newGuard(t, a, guard.WithObserver(d.observe), guard.WithObserver(func(_ context.Context, e guard.Event) {
				if e.Kind == guard.EventStarted {
					a.deny(guard.CodeDeviceRevoked)
					time.Sleep(time.Minute)
				}
			}))
			err := g.Run(t.Context(), "d", func(context.Context) error {
				t.Error("the function was called after the denial")
				return nil
			})
			if denied := (*guard.DeniedError)(nil); !errors.As(err, &denied) || denied.InFlight {
				t.Errorf("Run: %v", err)
			}
			if got := d.perRun(); !slices.Equal(got, []guard.EventKind{guard.EventStarted, guard.EventStopped}) {
				t.Errorf("told of %v", got)
			}
		})
	})
	t.Run("many at once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := newRevocable(3 * time.Second)
			g, d := observed(t, a)
			var all sync.WaitGroup
			for i := range 300 {
				all.Go(func() {
					_ = g.Run(t.Context(), fmt.Sprint(i%20), func(ctx context.Context) error {
						return sleep(ctx, rand.N(time.Minute))
					})
				})
			}
			time.Sleep(20 * time.Second)
			for i := range 10 {
				a.revoke(fmt.Sprint(i))
			}
			all.Wait()
			per := map[guard.EventKind]int{}
			for _, kind := range d.perRun() {
				per[kind]++
			}
			if per[guard.EventStarted] != 300 || per[guard.EventStopped]+per[guard.EventFinished] != 300 || per[guard.EventRefused] != 0 {
				t.Errorf("told of %v", per)
			}
		})
	})
}

func TestEvents_ValidatedIsToldOfEachQuestion(t *testing.T) {
	down := errors.New("down")
	for _, tc := range []struct {
		name string
		b    behaviour
		code guard.Code
		id   string
		took time.Duration
		is   error
	}{
		{"allowed", after(time.Second, allows), guard.CodeAllow, "r1", time.Second, nil},
		{"denied", after(time.Second, denies(guard.CodeDeviceRevoked)), guard.CodeDeviceRevoked, "r1", time.Second, nil},
		{"down", deaf(2*time.Second, fails(down)), guard.CodeSystemUnavailable, "", 2 * time.Second, down},
		{"given up", hangs, guard.CodeSystemUnavailable, "", 3 * time.Second, context.DeadlineExceeded},
		{"given up, and it ignores that", deaf(time.Minute, allows), guard.CodeSystemUnavailable, "", 3 * time.Second, context.DeadlineExceeded},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				a.set(tc.b)
				g, d := observed(t, a)
				for range 3 {
					go func() { _, _ = g.Validate(t.Context(), "d") }()
				}
				time.Sleep(2 * time.Minute)
				if n := len(d.read(guard.EventValidated)); n != a.count() || len(d.read()) != n {
					t.Errorf("%d questions, told of %v", a.count(), d.kinds())
				}
				e := d.read()[0]
				if e.DeviceID != "d" || e.Decision.Code != tc.code || e.Decision.RequestID != tc.id || e.Took != tc.took ||
					tc.is == nil && e.Err != nil || !errors.Is(e.Err, tc.is) {
					t.Errorf("validated: %+v", e.Event)
				}
			})
		})
	}
}

// «Took is how long the call to the authority took for validated»: of a call that was given up, the
// timeout, however old the guard is; and the Reason says so.
func TestEvents_ValidatedIsToldOfACallThatWasGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		a.hang()
		g, d := observed(t, a, guard.WithTimeout(3*time.Second))
		time.Sleep(time.Hour)
		err := g.Run(t.Context(), "d", nothing)
		denied := wantDenied(t, err, "d", guard.CodeSystemUnavailable, false)
		synctest.Wait()
		if e := d.one(t, guard.EventValidated); e.Took != 3*time.Second || e.Decision.Reason != denied.Decision.Reason {
			t.Errorf("validated: %+v", e.Event)
		}
		if want := "no answer within 3s"; denied.Decision.Reason != want {
			t.Errorf("the Reason is %q, want %q", denied.Decision.Reason, want)
		}
	})
}

func TestEvents_EachTryIsAQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		a.set(inTurn(fails(errors.New("down")), fails(errors.New("down")), allows))
		g, d := observed(t, a, guard.WithRetry(waitsOf(time.Second), time.Minute))
		if _, err := g.Validate(t.Context(), "d"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := len(d.read(guard.EventValidated)); n != 3 {
			t.Errorf("told of %d", n)
		}
	})
}

// A question that nobody waits for any more has not been answered.
func TestEvents_ACancelledQuestionIsNotTold(t *testing.T) {
	for name, b := range map[string]behaviour{
		"a call that heeds it":   hangs,
		"a call that ignores it": deaf(time.Minute, allows),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				a.set(b)
				g, d := observed(t, a)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, _ = g.Validate(ctx, "d")
				time.Sleep(2 * time.Minute)
				if got := d.kinds(); len(got) != 0 {
					t.Errorf("told of %+v", d.read()[0].Event)
				}
			})
		})
	}
}

func TestEvents_HintedIsToldOfEachHint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, d := observed(t, newAuthority())
		ids := []string{"d", "", "stranger", "d"}
		for _, id := range ids {
			g.Hint(id)
		}
		synctest.Wait()
		var got []string
		for _, e := range d.read(guard.EventHinted) {
			got = append(got, e.DeviceID)
		}
		if !slices.Equal(got, ids) {
			t.Errorf("told of hints for %q", got)
		}
	})
}

func TestEvents_OverranIsToldOnceARunATimeoutAfterItWasToldToStop(t *testing.T) {
	for _, closing := range []bool{false, true} {
		t.Run(fmt.Sprintf("by Close: %t", closing), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				g, d := observed(t, a)
				time.Sleep(time.Minute) // the guard is older than its runs
				began := time.Now()
				stops := map[string]time.Time{}
				overstays := []time.Duration{0, 2900 * time.Millisecond, 3100 * time.Millisecond, 10 * time.Second, time.Hour}
				var all sync.WaitGroup
				var mu sync.Mutex
				for i, overstay := range overstays {
					for range 2 {
						all.Go(func() {
							_ = g.Run(t.Context(), fmt.Sprint("d", i), func(ctx context.Context) error {
								<-ctx.Done()
								mu.Lock()
								stops[fmt.Sprint("d", i)] = time.Now()
								mu.Unlock()
								time.Sleep(overstay)
								return nil
							})
						})
					}
				}
				time.Sleep(rand.N(time.Minute))
				a.deny(guard.CodeDeviceRevoked)
				if closing {
					_ = g.Close()
				}
				all.Wait()
				synctest.Wait()
				n := map[string]int{}
				for _, e := range d.read(guard.EventOverran) {
					n[e.DeviceID]++
					if e.at.Sub(stops[e.DeviceID]) != 3*time.Second || e.After != 3*time.Second || e.Took != e.at.Sub(began) {
						t.Errorf("overran: %+v, %v after it was told", e.Event, e.at.Sub(stops[e.DeviceID]))
					}
					if closing != errors.Is(e.Err, guard.ErrClosed) || closing == (e.Decision.Code == guard.CodeDeviceRevoked) {
						t.Errorf("overran: %+v", e.Event)
					}
				}
				if want := map[string]int{"d2": 2, "d3": 2, "d4": 2}; fmt.Sprint(n) != fmt.Sprint(want) {
					t.Errorf("told of %v, want %v", n, want)
				}
			})
		})
	}
}

// Two denials a little apart: each run's time counts from its own.
func TestEvents_OverranCountsForEachRunFromWhenItWasTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g, d := observed(t, a)
		var want []time.Duration
		began := time.Now()
		for range 5 {
			a.allow()
			launchFunc(t.Context(), g, "d", func(ctx context.Context) error {
				<-ctx.Done()
				time.Sleep(time.Minute)
				return nil
			})
			time.Sleep(time.Second + rand.N(time.Second)) // a tenth of the interval since the last hint
			a.deny(guard.CodeDeviceRevoked)
			g.Hint("d")
			synctest.Wait()
			want = append(want, time.Since(began)+3*time.Second)
		}
		time.Sleep(2 * time.Minute)
		var got []time.Duration
		for _, e := range d.read(guard.EventOverran) {
			got = append(got, e.at.Sub(began))
			if e.After != 3*time.Second {
				t.Errorf("after %v", e.After)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("told at %v, want %v", got, want)
		}
	})
}

// Without an observer that blocks there would be 1 + 1024: the one that it is told, and the queue.
func TestEvents_TheQueueIsBoundedAndItsLossesAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const hints = 5000
		d := &diary{}
		open := make(chan struct{})
		g := newGuard(t, newAuthority(), guard.WithObserver(func(ctx context.Context, e guard.Event) {
			if e.Kind == guard.EventHinted {
				<-open
			}
			d.observe(ctx, e)
		}))
		g.Hint("first")
		synctest.Wait()
		for i := range hints {
			g.Hint(fmt.Sprint(i))
		}
		if err := g.Run(t.Context(), "d", func(context.Context) error {
			synctest.Wait() // until the event of the question has been lost too
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		close(open)
		synctest.Wait()
		heard := d.read(guard.EventHinted)
		if len(heard) != 1+1024 {
			t.Errorf("told of %d hints", len(heard))
		}
		// What is told on the caller's goroutine is never lost, and knows what was.
		lost := uint64(hints - 1024 + 1)
		if d.one(t, guard.EventStarted).Dropped < lost-1 || d.one(t, guard.EventFinished).Dropped != lost {
			t.Errorf("%d events were dropped, want %d", d.one(t, guard.EventFinished).Dropped, lost)
		}
		for i, e := range heard[1:] {
			if e.DeviceID != fmt.Sprint(i) {
				t.Fatalf("event %d of the queue is of %s: not in order", i, e.DeviceID)
			}
		}
		g.Hint("afterwards")
		synctest.Wait()
		if last := d.read()[len(d.read())-1]; last.DeviceID != "afterwards" || last.Dropped != lost {
			t.Errorf("then %+v", last.Event)
		}
	})
}

func TestEvents_TheQueueIsToldOnOneGoroutineInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inside := 0
		var heard []string
		g := newGuard(t, newAuthority(), guard.WithObserver(func(_ context.Context, e guard.Event) {
			if inside++; inside != 1 { // and the race detector looks on
				t.Error("two events are told at once")
			}
			time.Sleep(time.Millisecond)
			heard = append(heard, e.DeviceID)
			inside--
		}))
		var want []string
		for i := range 500 {
			g.Hint(fmt.Sprint(i))
			want = append(want, fmt.Sprint(i))
			time.Sleep(rand.N(2 * time.Millisecond))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if !slices.Equal(heard, want) {
			t.Errorf("heard %d of %d, or in another order", len(heard), len(want))
		}
	})
}

func TestEvents_TheGoroutineOfTheQueueEndsWithIt(t *testing.T) {
	g, err := guard.New(newAuthority(), guard.WithObserver(func(context.Context, guard.Event) {}))
	if err != nil {
		t.Fatal(err)
	}
	// The guard is not closed: the bubble ends only if no goroutine is left.
	synctest.Test(t, func(*testing.T) {
		for range 100 {
			g.Hint("d")
		}
	})
}

func TestEvents_AnObserverThatPanicsHarmsNothing(t *testing.T) {
	own := errors.New("own")
	for _, closing := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			a := newAuthority()
			d := &diary{}
			g := newGuard(t, a, guard.WithObserver(func(context.Context, guard.Event) { panic("observer") }),
				guard.WithObserver(d.observe))
			r := launchFunc(t.Context(), g, "d", func(ctx context.Context) error {
				<-ctx.Done()
				time.Sleep(5 * time.Second)
				return own
			})
			time.Sleep(30 * time.Second)
			synctest.Wait()
			if !r.started() || r.cancelled() {
				t.Fatal("the run does not run")
			}
			a.deny(guard.CodeDeviceRevoked)
			g.Hint("d")
			if closing {
				_ = g.Close()
			}
			if err := r.finish(); !errors.Is(err, own) || !errors.Is(err, guard.ErrDenied) && !errors.Is(err, guard.ErrClosed) {
				t.Errorf("Run: %v", err)
			}
			synctest.Wait()
			for _, kind := range []guard.EventKind{guard.EventStarted, guard.EventStopped, guard.EventHinted, guard.EventOverran} {
				d.one(t, kind) // the second observer has been told of everything
			}
			if err := g.Run(t.Context(), "", nil); err == nil {
				t.Error("a nil function was accepted")
			}
		})
	}
}

// The panic of the function, not that of the observer, reaches the caller.
func TestEvents_AnObserverThatPanicsWhileTheFunctionPanics(t *testing.T) {
	g := newGuard(t, newAuthority(), guard.WithObserver(func(context.Context, guard.Event) { panic("observer") }))
	defer func() {
		if v := recover(); v != "own" {
			t.Errorf("recovered %v", v)
		}
	}()
	_ = g.Run(t.Context(), "d", func(context.Context) error { panic("own") })
}

// An observer that ends its goroutine ends the caller's, for the four kinds that are told there.
// That is his doing; but the run must be let go of.
func TestEvents_AnObserverThatEndsTheCallersGoroutineLeavesNoRunBehind(t *testing.T) {
	for _, kind := range []guard.EventKind{guard.EventStarted, guard.EventStopped, guard.EventFinished, guard.EventRefused} {
		t.Run(string(kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				d := &diary{}
				g := newGuard(t, a, guard.WithObserver(d.observe), guard.WithObserver(func(_ context.Context, e guard.Event) {
					if e.Kind == kind {
						runtime.Goexit()
					}
				}))
				switch kind {
				case guard.EventRefused:
					a.deny(guard.CodeDeviceRevoked)
				case guard.EventStopped:
					time.AfterFunc(time.Second, func() { a.deny(guard.CodeDeviceRevoked) })
				}
				done := make(chan struct{})
				go func() {
					defer close(done)
					_ = g.Run(t.Context(), "d", func(ctx context.Context) error {
						if kind == guard.EventStarted {
							t.Error("the function was called on a goroutine that ends")
						}
						if kind == guard.EventStopped {
							<-ctx.Done()
						}
						return nil
					})
					t.Error("Run has returned")
				}()
				<-done
				asked := a.count()
				time.Sleep(time.Hour)
				if a.count() != asked {
					t.Errorf("%d requests on behalf of a run that is over", a.count()-asked)
				}
				began := time.Now()
				if err := g.Shutdown(t.Context()); err != nil || time.Since(began) != 0 {
					t.Errorf("Shutdown: %v after %v", err, time.Since(began))
				}
				started := len(d.read(guard.EventStarted))
				if ends := len(d.read(guard.EventStopped, guard.EventFinished)); ends != started {
					t.Errorf("%d starts and %d ends were told", started, ends)
				}
			})
		})
	}
}

func TestEvents_AnObserverThatEndsTheGoroutineOfTheQueueLosesOneEventAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &diary{}
		g := newGuard(t, newAuthority(), guard.WithObserver(func(ctx context.Context, e guard.Event) {
			d.observe(ctx, e)
			if e.DeviceID == "3" {
				runtime.Goexit()
			}
		}))
		for i := range 10 {
			g.Hint(fmt.Sprint(i))
		}
		synctest.Wait()
		g.Hint("afterwards")
		synctest.Wait()
		if n := len(d.read(guard.EventHinted)); n != 11 {
			t.Errorf("told of %d hints, want 11", n)
		}
	})
}

// An observer that hangs on the goroutine of the queue holds up nothing but the queue; one that
// hangs on the caller's holds up the caller, and not his stop line.
func TestEvents_AnObserverThatBlocksHoldsUpNoStop(t *testing.T) {
	for _, kinds := range [][]guard.EventKind{
		{guard.EventValidated, guard.EventHinted, guard.EventOverran},
		{guard.EventStarted},
		{guard.EventRefused},
		{guard.EventStopped, guard.EventFinished},
	} {
		for name, outage := range map[string]behaviour{"revoked": denies(guard.CodeDeviceRevoked), "silent": hangs} {
			t.Run(fmt.Sprint(kinds, " ", name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					open := make(chan struct{})
					defer close(open)
					a := newAuthority()
					a.deny(guard.CodeDeviceRevoked, "refused")
					g := newGuard(t, a, guard.WithObserver(func(_ context.Context, e guard.Event) {
						// The run that is watched is not itself blocked.
						if slices.Contains(kinds, e.Kind) && e.DeviceID != "d" || e.Kind == guard.EventValidated && kinds[0] == e.Kind {
							<-open
						}
					}))
					for _, device := range []string{"refused", "other", "third"} {
						go func() {
							_ = g.Run(t.Context(), device, func(ctx context.Context) error { return sleep(ctx, time.Second) })
						}()
					}
					run := runAndWatch(t.Context(), g, "d")
					g.Hint("other")
					time.Sleep(rand.N(time.Minute))
					synctest.Wait()
					last := a.last(t, "d")
					a.set(outage)
					s := <-run
					if took := s.at.Sub(last.sent); took > 13*time.Second || !errors.Is(s.err, guard.ErrDenied) {
						t.Errorf("stopped after %v: %v", took, s.err)
					}
					if err := g.Close(); err != nil {
						t.Errorf("Close: %v", err)
					}
				})
			})
		}
	}
}

// The run whose start is being told has a permission that runs on.
func TestEvents_ABlockingObserverOfTheStartDoesNotProlongThePermission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a, guard.WithObserver(func(_ context.Context, e guard.Event) {
			if e.Kind == guard.EventStarted {
				a.hang()
				time.Sleep(time.Hour)
			}
		}))
		err := g.Run(t.Context(), "d", func(context.Context) error {
			t.Error("started without a permission")
			return nil
		})
		if denied := (*guard.DeniedError)(nil); !errors.As(err, &denied) || denied.InFlight || !errors.Is(err, guard.ErrUnavailable) {
			t.Errorf("Run: %v", err)
		}
		if n := a.count(); n != 2 {
			t.Errorf("%d requests, want the start's and the watch's that failed", n)
		}
	})
}

// The caller's context ends while the observer is told of the start: the function has not been
// called yet, and must not be.
func TestEvents_ACallerThatLeavesWhileTheObserverIsToldOfTheStart(t *testing.T) {
	why := errors.New("why")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		g := newGuard(t, newAuthority(), guard.WithObserver(func(_ context.Context, e guard.Event) {
			if e.Kind == guard.EventStarted {
				cancel(why)
			}
		}))
		called := false
		err := g.Run(ctx, "d", func(ctx context.Context) error {
			called = true
			return ctx.Err()
		})
		if called || err != why { //nolint:errorlint // itself
			t.Errorf("called: %t; Run: %v", called, err)
		}
	})
}

// From within an observer every method of the guard may be called, on either goroutine.
func TestEvents_AnObserverMayCallBackIntoTheGuard(t *testing.T) {
	calls := map[string]func(ctx context.Context, g *guard.Guard, device string){
		"Run": func(ctx context.Context, g *guard.Guard, device string) {
			_ = g.Run(ctx, device, func(context.Context) error { return nil })
		},
		"Keep": func(ctx context.Context, g *guard.Guard, device string) {
			_ = g.Keep(ctx, device, func(context.Context) error { return nil })
		},
		"Validate":   func(ctx context.Context, g *guard.Guard, device string) { _, _ = g.Validate(ctx, device) },
		"Hint":       func(_ context.Context, g *guard.Guard, device string) { g.Hint(device) },
		"Hint all":   func(_ context.Context, g *guard.Guard, _ string) { g.Hint("") },
		"Close":      func(_ context.Context, g *guard.Guard, _ string) { _ = g.Close() },
		"Shutdown":   func(ctx context.Context, g *guard.Guard, _ string) { _ = g.Shutdown(ctx) },
		"Checkpoint": func(ctx context.Context, _ *guard.Guard, _ string) { _ = guard.Checkpoint(ctx) },
	}
	for name, call := range calls {
		for _, kind := range []guard.EventKind{
			guard.EventValidated, guard.EventStarted, guard.EventRefused, guard.EventStopped,
			guard.EventFinished, guard.EventOverran, guard.EventHinted,
		} {
			t.Run(fmt.Sprint(name, " on ", kind), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a := newAuthority()
					a.deny(guard.CodeDeviceRevoked, "refused")
					d := &diary{}
					var g *guard.Guard
					busy := false // events of the observer's own calls do not make it call again
					var mu sync.Mutex
					g = newGuard(t, a, guard.WithObserver(d.observe), guard.WithObserver(func(ctx context.Context, e guard.Event) {
						mu.Lock()
						mine := e.Kind == kind && !busy
						busy = busy || mine
						mu.Unlock()
						if mine {
							call(ctx, g, e.DeviceID)
						}
					}))
					launch(t.Context(), g, "refused")
					finishing := launchFunc(t.Context(), g, "other", func(ctx context.Context) error { return sleep(ctx, time.Second) })
					r := launchFunc(t.Context(), g, "d", func(ctx context.Context) error {
						<-ctx.Done()
						time.Sleep(5 * time.Second)
						return nil
					})
					g.Hint("d")
					time.Sleep(20 * time.Second)
					a.deny(guard.CodeDeviceRevoked)
					if err := r.finish(); !errors.Is(err, guard.ErrDenied) && !errors.Is(err, guard.ErrClosed) {
						t.Errorf("Run: %v", err)
					}
					_ = finishing.finish()
					time.Sleep(time.Minute)
					mu.Lock()
					defer mu.Unlock()
					if !busy {
						t.Errorf("the observer was not told of %s", kind)
					}
				})
			})
		}
	}
}

// What an observer gets to work with: the caller's values, and a time of its own.
func TestEvents_TheContextOfAnEventHasTheCallersValuesAndOutlivesIt(t *testing.T) {
	key := contextx.NewKey[string]("test")
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		seen := map[guard.EventKind]string{}
		g := newGuard(t, newAuthority(), guard.WithObserver(func(ctx context.Context, e guard.Event) {
			mu.Lock()
			defer mu.Unlock()
			value, _ := key.From(ctx)
			deadline, ok := ctx.Deadline()
			seen[e.Kind] = fmt.Sprint(value, ctx.Err(), ok, time.Until(deadline))
		}))
		ctx, cancel := context.WithCancel(key.With(t.Context(), "v"))
		_ = g.Run(ctx, "d", func(context.Context) error {
			cancel()
			return nil
		})
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		for kind, want := range map[guard.EventKind]string{
			guard.EventStarted: "v<nil> true 3s", guard.EventFinished: "v<nil> true 3s", guard.EventValidated: "<nil> true 3s",
		} {
			if got := strings.Join(strings.Fields(seen[kind]), " "); got != want {
				t.Errorf("%s: %q, want %q", kind, got, want)
			}
		}
	})
}

func TestEvents_EachObserverIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ds [3]diary
		g := newGuard(t, newAuthority(), guard.WithObserver(ds[0].observe), guard.WithObserver(ds[1].observe),
			guard.WithObserver(ds[2].observe))
		_ = g.Run(t.Context(), "d", func(context.Context) error { return nil })
		synctest.Wait()
		for i := range ds {
			if n := len(ds[i].read()); n != 3 {
				t.Errorf("observer %d was told of %v", i, ds[i].kinds())
			}
		}
	})
}

// logged runs a day in the life of a guard and returns what was logged of each phase.
func logged(t *testing.T, level slog.Level) map[string][]map[string]any {
	var out bytes.Buffer
	var mu sync.Mutex
	a := newAuthority()
	a.deny(guard.CodeDeviceRevoked, "refused")
	a.fail(errors.New("connection refused"), "down")
	g := newGuard(t, a, guard.WithLogger(slog.New(slog.NewJSONHandler(&lockedWriter{mu: &mu, w: &out},
		&slog.HandlerOptions{Level: level}))))
	for _, device := range []string{"refused", "down", "finished"} {
		_ = g.Run(t.Context(), device, func(context.Context) error { return nil })
	}
	r := launchFunc(t.Context(), g, "stopped", func(ctx context.Context) error {
		<-ctx.Done()
		time.Sleep(5 * time.Second)
		return nil
	})
	synctest.Wait()
	a.deny(guard.CodeDeviceRevoked)
	g.Hint("stopped")
	_ = r.finish()
	closing := launchFunc(t.Context(), g, "closed", func(context.Context) error { return nil })
	_ = closing.finish()
	_ = g.Close()
	_ = g.Run(t.Context(), "closed", func(context.Context) error { return nil })
	synctest.Wait()
	mu.Lock()
	defer mu.Unlock()
	records := map[string][]map[string]any{}
	for line := range strings.Lines(out.String()) {
		var record map[string]any
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		phase := fmt.Sprint(record["phase"])
		records[phase] = append(records[phase], record)
	}
	return records
}

type lockedWriter struct {
	mu *sync.Mutex
	w  *bytes.Buffer
}

func (w *lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.w.Write(p)
}

func TestLogger_LogsEachEventWithItsKeysAndLevel(t *testing.T) {
	levels := map[string]string{
		"validated": "DEBUG", "started": "DEBUG", "finished": "DEBUG", "hinted": "DEBUG",
		"refused": "WARN", "stopped": "WARN", "overran": "ERROR",
	}
	synctest.Test(t, func(t *testing.T) {
		records := logged(t, slog.LevelDebug)
		for phase, level := range levels {
			if len(records[phase]) == 0 {
				t.Errorf("nothing was logged of phase %q", phase)
			}
			for _, record := range records[phase] {
				want := level
				if phase == "validated" && record["code"] == string(guard.CodeSystemUnavailable) {
					want = "WARN"
				}
				if record["level"] != want {
					t.Errorf("%s: level %v, want %s", phase, record["level"], want)
				}
				for _, key := range []string{"device", "code", "request_id", "phase"} {
					if _, ok := record[key].(string); !ok {
						t.Errorf("%s: no %s in %v", phase, key, record)
					}
				}
			}
		}
		if len(records) != len(levels) {
			t.Errorf("phases %v", records)
		}
		for _, want := range []struct{ phase, device, code, id string }{
			{"refused", "refused", "DEVICE_REVOKED", "r1"},
			{"refused", "down", "SYSTEM_UNAVAILABLE", ""},
			{"refused", "closed", "DEVICE_REVOKED", "r6"},
			{"refused", "closed", "", ""},
			{"started", "finished", "ALLOW", "r3"},
			{"finished", "finished", "ALLOW", "r3"},
			{"started", "stopped", "ALLOW", "r4"},
			{"stopped", "stopped", "DEVICE_REVOKED", "r5"},
			{"overran", "stopped", "DEVICE_REVOKED", "r5"},
			{"hinted", "stopped", "", ""},
		} {
			if !slices.ContainsFunc(records[want.phase], func(r map[string]any) bool {
				return r["device"] == want.device && r["code"] == want.code && r["request_id"] == want.id
			}) {
				t.Errorf("%+v is not in %v", want, records[want.phase])
			}
		}
		if errText := fmt.Sprint(records["refused"][1]["error"]); !strings.Contains(errText, "connection refused") {
			t.Errorf("the refusal says %q", errText)
		}
	})
}

func TestLogger_RespectsItsLevel(t *testing.T) {
	for level, want := range map[slog.Level][]string{
		slog.LevelInfo:  {"overran", "refused", "stopped", "validated"}, // «could not decide»
		slog.LevelWarn:  {"overran", "refused", "stopped", "validated"},
		slog.LevelError: {"overran"},
	} {
		t.Run(level.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got []string
				for phase := range logged(t, level) {
					got = append(got, phase)
				}
				if slices.Sort(got); !slices.Equal(got, want) {
					t.Errorf("logged %v", got)
				}
			})
		})
	}
}

// The default is that nothing is logged, not even by way of slog's default logger.
func TestLogger_NothingIsLoggedByDefault(t *testing.T) {
	var out bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	defer slog.SetDefault(before)
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		r := launch(t.Context(), g, "d")
		synctest.Wait()
		a.deny(guard.CodeDeviceRevoked)
		g.Hint("d")
		_ = r.finish()
	})
	if out.Len() != 0 {
		t.Errorf("logged: %s", &out)
	}
}
