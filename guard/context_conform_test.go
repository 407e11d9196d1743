package guard_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// inRun calls f with the context of a run of "dev", a way to have the run stopped, and a way to
// end it by itself. Both have happened when they return.
func inRun(t *testing.T, ctx context.Context, f func(ctx context.Context, stop, end func())) {
	t.Helper()
	r := guarded(t)(ctx, 0)
	defer r.end()
	f(r.ctx, r.stop, r.end)
}

// children derives a context from ctx in every way that package context has, and has each asked
// for its channel already, or not.
func children(t *testing.T, ctx context.Context, asked bool) map[string]context.Context {
	t.Helper()
	cancellable, cancel := context.WithCancel(ctx)
	caused, cancelCause := context.WithCancelCause(ctx)
	timed, stop := context.WithTimeout(ctx, time.Hour)
	below, end := context.WithCancel(context.WithValue(timed, scriptKey{}, "below"))
	t.Cleanup(func() { cancel(); cancelCause(nil); stop(); end() })
	all := map[string]context.Context{
		"itself": ctx, "WithCancel": cancellable, "WithCancelCause": caused, "WithTimeout": timed, "below": below,
		"WithValue": context.WithValue(ctx, scriptKey{}, 1), "wrapped": struct{ context.Context }{ctx},
	}
	for _, child := range all {
		if asked && closed(child.Done()) {
			t.Error("done at once")
		}
	}
	return all
}

// wantEnded fails unless every context is over by now, with the cause that is meant.
func wantEnded(t *testing.T, all map[string]context.Context, meant func(cause error) bool) {
	t.Helper()
	for name, ctx := range all {
		if err := ctx.Err(); err != context.Canceled {
			t.Errorf("%s: Err is %v", name, err)
		}
		if !closed(ctx.Done()) {
			t.Errorf("%s: Done is open", name)
		}
		if cause := context.Cause(ctx); !meant(cause) {
			t.Errorf("%s: the cause is %v", name, cause)
		}
	}
}

// When whoever ends a context has come back, it is over, and so is all that is derived from it:
// nobody has to wait for a goroutine to pass it on.
func TestContext_EndsAtOnce(t *testing.T) {
	why := errors.New("why")
	for name, way := range map[string]struct {
		end   func(stop, end func(), cancel context.CancelCauseFunc)
		meant func(cause error) bool
	}{
		"stopped": {
			func(stop, _ func(), _ context.CancelCauseFunc) { stop() },
			func(cause error) bool { return errors.Is(cause, guard.ErrDenied) && errors.Is(cause, context.Canceled) },
		},
		"over":               {func(_, end func(), _ context.CancelCauseFunc) { end() }, func(cause error) bool { return cause == context.Canceled }},
		"the caller cancels": {func(_, _ func(), cancel context.CancelCauseFunc) { cancel(why) }, func(cause error) bool { return cause == why }},
	} {
		for _, asked := range []bool{false, true} {
			bubble(t, fmt.Sprint(name, ", Done asked before: ", asked), func(t *testing.T) {
				caller, cancel := context.WithCancelCause(context.Background())
				defer cancel(nil)
				inRun(t, caller, func(ctx context.Context, stop, end func()) {
					all := children(t, ctx, asked)
					way.end(stop, end, cancel)
					wantEnded(t, all, way.meant)
					wantEnded(t, children(t, ctx, false), way.meant) // and what is derived afterwards
				})
			})
		}
	}
}

// The end that came first stays, whatever comes after it.
func TestContext_TheFirstEndStays(t *testing.T) {
	ends := map[string]string{"stop": "stopped: 0", "end": "context canceled", "caller cancels": "caller"}
	for first, want := range ends {
		for second := range ends {
			for third := range ends {
				bubble(t, first+", "+second+", "+third, func(t *testing.T) {
					caller, cancel := context.WithCancelCause(context.Background())
					inRun(t, caller, func(ctx context.Context, stop, end func()) {
						for _, way := range []string{first, second, third} {
							map[string]func(){"stop": stop, "end": end, "caller cancels": func() { cancel(scriptCause("caller")) }}[way]()
							if got := nameOf(context.Cause(ctx)); got != want || ctx.Err() != context.Canceled {
								t.Errorf("after %s: %v because of %s, want %s", way, ctx.Err(), got, want)
							}
						}
					})
				})
			}
		}
	}
}

// Whoever asks first, and whenever: there is one channel, and it is closed.
func TestContext_HasOneChannel(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			inRun(t, t.Context(), func(ctx context.Context, stop, _ func()) {
				var asking sync.WaitGroup
				var mu sync.Mutex
				channels := map[<-chan struct{}]bool{}
				for range 32 {
					asking.Go(func() {
						c := ctx.Done()
						<-c
						mu.Lock()
						defer mu.Unlock()
						channels[c] = ctx.Err() != nil
					})
				}
				stop()
				asking.Wait()
				if len(channels) != 1 || !channels[ctx.Done()] {
					t.Errorf("%d channels: %v", len(channels), channels)
				}
			})
		})
	}
}

// A caller's deadline is a deadline, to the nanosecond, and not a denial.
func TestContext_EndsAtTheCallersDeadline(t *testing.T) {
	why := errors.New("too late")
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, newAuthority())
		began := time.Now()
		ctx, cancel := context.WithTimeoutCause(t.Context(), 25*time.Second, why)
		defer cancel()
		err := g.Run(ctx, "dev", func(ctx context.Context) error {
			at, _ := ctx.Deadline()
			<-ctx.Done()
			if took := time.Since(began); took != 25*time.Second || at.Sub(began) != took {
				t.Errorf("over after %v, deadline after %v", took, at.Sub(began))
			}
			if context.Cause(ctx) != why {
				t.Errorf("the cause is %v", context.Cause(ctx))
			}
			return ctx.Err()
		})
		if err != context.DeadlineExceeded {
			t.Errorf("Run: %v", err)
		}
	})
}

// Of nested runs the outer one's end is the inner one's too, and never the other way round. Each
// says who it was.
func TestContext_OfNestedRuns(t *testing.T) {
	for name, between := range map[string]func(context.Context) context.Context{
		"directly":      func(ctx context.Context) context.Context { return ctx },
		"below a value": func(ctx context.Context) context.Context { return context.WithValue(ctx, scriptKey{}, 1) },
		"wrapped":       func(ctx context.Context) context.Context { return struct{ context.Context }{ctx} },
	} {
		bubble(t, name, func(t *testing.T) {
			begin := guarded(t)
			for _, asked := range []bool{false, true} {
				outer := begin(t.Context(), 0)
				inner := begin(between(outer.ctx), 1)
				all := children(t, inner.ctx, asked)
				inner.stop()
				wantEnded(t, all, func(cause error) bool { return nameOf(cause) == "stopped: 1" })
				if outer.ctx.Err() != nil || guard.Checkpoint(outer.ctx) != nil {
					t.Errorf("the outer run: %v, %v", outer.ctx.Err(), guard.Checkpoint(outer.ctx))
				}
				inner.end()
				second := begin(between(outer.ctx), 2)
				all = children(t, second.ctx, asked)
				outer.stop()
				wantEnded(t, all, func(cause error) bool { return nameOf(cause) == "stopped: 0" })
				wantDenied(t, guard.Checkpoint(second.ctx), "0", guard.CodeDeviceRevoked, true)
				second.end()
				outer.end()
				begin = guarded(t)
			}
		})
	}
}

// A context that outlives many runs, as a server's does: they leave nothing in it.
func TestContext_LeavesNothingInTheCallers(t *testing.T) {
	cancellable := t.Context()
	hooked, own := newHookedContext(), newOwnContext()
	defer own.end(io.EOF)
	works := map[string]func(context.Context) error{
		"nothing": func(context.Context) error { return nil },
		"Done":    func(ctx context.Context) error { _ = ctx.Done(); return nil },
		"children": func(ctx context.Context) error {
			context.AfterFunc(ctx, func() {})
			ctx, cancel := context.WithTimeout(ctx, time.Hour)
			context.AfterFunc(ctx, cancel) // so that it is the run's end that ends it
			return ctx.Err()
		},
	}
	for name, ctx := range map[string]context.Context{
		"Background": context.Background(), "cancellable": cancellable, "hooked": hooked, "own": own,
		"below a value": context.WithValue(cancellable, scriptKey{}, 1), "wrapped": struct{ context.Context }{cancellable},
	} {
		for what, work := range works {
			if t.Failed() {
				return // the next ones would take as long to find the same
			}
			t.Run(name+", "+what, func(t *testing.T) { wantFlat(t, ctx, "dev", work) })
		}
		t.Run(name+", refused", func(t *testing.T) { wantFlat(t, ctx, "refused", mustNotRun(t)) })
	}
	if n := len(hooked.hooks); n != 0 {
		t.Errorf("%d hooks are left", n)
	}
}

// wantFlat has many runs in ctx, and fails if something is left of them: 24 bytes each would do.
// What the runtime keeps of goroutines that are gone stays too, but does not come again and again.
func wantFlat(t *testing.T, ctx context.Context, device string, work func(context.Context) error) {
	t.Helper()
	const runs = 3000
	g := newGuard(t, guard.ValidatorFunc(func(_ context.Context, id string) (guard.Decision, error) { // without a record
		return map[string]guard.Decision{"dev": {Allowed: true, Code: guard.CodeAllow}, "refused": {Code: guard.CodeDeviceRevoked}}[id], nil
	}), guard.WithReuse(10*time.Second))
	goroutines, grown := runtime.NumGoroutine(), int64(0)
	for range 5 {
		heap := heapInUse()
		for i := range runs {
			if err := g.Run(ctx, device, work); errors.Is(err, guard.ErrDenied) != (device == "refused") {
				t.Fatal(err)
			}
			if i%50 == 0 {
				eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines })
			}
		}
		eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines })
		if grown = int64(heapInUse()) - int64(heap); grown < 24*runs {
			return
		}
	}
	t.Errorf("%d runs have left %d bytes", runs, grown)
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC() // the first may have left what finalizers and pools held
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// eventually waits in real time for what happens on other goroutines.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 100 {
		if ok() {
			return
		}
		runtime.Gosched()
	}
	limit, tick := time.After(10*time.Second), time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// A run in flight has no goroutine of its own but its caller's, and neither has what is derived
// from its context. Below a context of the caller's own type the standard library needs one.
func TestContext_CostsNoGoroutine(t *testing.T) {
	const runs = 500
	own := newOwnContext()
	defer own.end(io.EOF)
	for name, c := range map[string]struct {
		ctx  context.Context
		most int
	}{
		"Background": {context.Background(), 0}, "cancellable": {t.Context(), 0}, "wrapped": {struct{ context.Context }{t.Context()}, 0},
		"below a value": {context.WithValue(t.Context(), scriptKey{}, 1), 0}, "hooked": {newHookedContext(), 1}, "own": {own, 1},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuard(t, newAuthority(), guard.WithReuse(10*time.Second))
			before := runtime.NumGoroutine()
			var rs []*running
			for range runs {
				rs = append(rs, launch(c.ctx, g, "dev"))
			}
			for _, r := range rs {
				<-r.began
				children(t, r.ctx, true)
			}
			eventually(t, "few goroutines beside the callers", func() bool { return runtime.NumGoroutine() <= before+runs*(1+c.most)+16 })
			_ = g.Close()
			for _, r := range rs {
				_ = r.finish()
			}
			eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
		})
	}
}

// Contexts are keys of maps, in caches and in tests.
func TestContext_CanBeCompared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inRun(t, t.Context(), func(one context.Context, _, _ func()) {
			inRun(t, t.Context(), func(other context.Context, _, _ func()) {
				if set := map[context.Context]bool{one: true, other: true}; len(set) != 2 || one == other {
					t.Error("two runs have one context")
				}
			})
		})
	})
}

// A context may be printed at any time, by anybody: that tells nobody's secret, and reads nothing
// that is written meanwhile, which is for the race detector to see.
func TestContext_MayBePrinted(t *testing.T) {
	a := newAuthority()
	a.set(func(ctx context.Context, c *asked) (guard.Decision, error) { return allows(ctx, c) })
	g := newGuard(t, &pointerClient{valueClient{secret, a.client}}, guard.WithReuse(10*time.Second))
	caller := context.WithValue(t.Context(), scriptKey{}, struct{ token string }{secret})
	for range 20 {
		a.allow()
		r := launch(caller, g, "dev")
		<-r.began
		var printing sync.WaitGroup
		for name, ctx := range map[string]context.Context{
			"itself": r.ctx, "below a value": context.WithValue(r.ctx, scriptKey{}, 1), "detached": context.WithoutCancel(r.ctx),
		} {
			printing.Go(func() {
				for ctx.Err() == nil && r.ctx.Err() == nil {
					wantNoSecretIn(t, name, ctx, false)
				}
				wantNoSecretIn(t, name, ctx, false)
			})
		}
		for range 10 {
			_ = g.Run(caller, "dev", func(ctx context.Context) error { return ctx.Err() }) // comes and goes beside it
			g.Hint("dev")
		}
		a.deny(guard.CodeDeviceRevoked)
		_, _ = g.Validate(t.Context(), "dev")
		printing.Wait()
		if err := r.finish(); !errors.Is(err, guard.ErrDenied) {
			t.Fatal(err)
		}
	}
}

// client is the authority as a function with a record of its own.
func (a *authority) client(ctx context.Context, c *asked) (guard.Decision, error) {
	return a.Validate(ctx, c.device)
}

// What a function leaves behind holds a context that is over.
func TestContext_KeptAfterTheRunIsCanceled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, newAuthority())
		for name, how := range map[string]func(ctx context.Context) error{
			"returns": func(context.Context) error { return nil },
			"panics":  func(context.Context) error { panic("own") },
			"Goexit":  func(context.Context) error { runtime.Goexit(); return nil },
		} {
			var all map[string]context.Context
			done := make(chan struct{})
			go func() {
				defer close(done)
				defer func() { _ = recover() }()
				_ = g.Run(t.Context(), "dev", func(ctx context.Context) error {
					all = children(t, ctx, strings.HasPrefix(name, "p"))
					return how(ctx)
				})
			}()
			<-done
			wantEnded(t, all, func(cause error) bool { return cause == context.Canceled })
			if _, ok := guard.DecisionFrom(all["below"]); !ok {
				t.Errorf("%s: the context has forgotten its run", name)
			}
		}
	})
}
