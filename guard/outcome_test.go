package guard_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// typedError is a function's error that is found by its type.
type typedError struct{ n int }

func (e *typedError) Error() string { return fmt.Sprintf("typed %d", e.n) }

// canceledByIs says of itself that it is context.Canceled.
type canceledByIs struct{}

func (canceledByIs) Error() string        { return "says that it is Canceled" }
func (canceledByIs) Is(target error) bool { return target == context.Canceled || target == io.EOF }

// work is what a function returned, and what must be found in it.
type work struct {
	name string
	err  error
	is   []error
	as   bool // errors.As finds *typedError
}

func works() []work {
	typed := &typedError{n: 7}
	list := errorList{errDown, typed, context.Canceled}
	return []work{
		{"nothing", nil, nil, false},
		{"a sentinel", io.EOF, []error{io.EOF}, false},
		{"another sentinel", io.ErrUnexpectedEOF, []error{io.ErrUnexpectedEOF}, false},
		{"a type", typed, []error{typed}, true},
		{"wrapped", fmt.Errorf("saving: %w", typed), []error{typed}, true},
		{"Canceled", context.Canceled, nil, false},
		{"wrapped Canceled", fmt.Errorf("saving: %w", context.Canceled), nil, false},
		{"DeadlineExceeded", context.DeadlineExceeded, []error{context.DeadlineExceeded}, false},
		{"joined with Canceled", errors.Join(context.Canceled, io.EOF, typed), []error{io.EOF, typed}, true},
		{"two wrapped", fmt.Errorf("%w after %w", typed, context.Canceled), []error{typed}, true},
		{"Canceled by its own word", canceledByIs{}, []error{io.EOF}, false},
		{"that cannot be compared", list, []error{errDown, typed}, true},
		{"wrapped, that cannot be compared", fmt.Errorf("saving: %w", list), []error{errDown, typed}, true},
		{"a denial of its own", &guard.DeniedError{DeviceID: "mine"}, []error{guard.ErrDenied}, false},
		{"ErrClosed", guard.ErrClosed, []error{guard.ErrClosed}, false},
		{"ErrUnavailable", guard.ErrUnavailable, []error{guard.ErrUnavailable}, false},
	}
}

// unchanged tells whether err is what the function returned.
func (w work) unchanged(err error) bool {
	if list, ok := w.err.(errorList); ok {
		got, ok := err.(errorList)
		return ok && slices.Equal(got, list)
	}
	return err == w.err
}

// wantInside fails unless errors.Is and errors.As find in err what the function returned.
func (w work) wantInside(t *testing.T, err error) {
	t.Helper()
	for _, target := range w.is {
		if !errors.Is(err, target) {
			t.Errorf("%v (%T) does not match the function's %v", err, err, target)
		}
	}
	if typed := (*typedError)(nil); w.as && (!errors.As(err, &typed) || typed.n != 7) {
		t.Errorf("%v (%T) does not hold the function's *typedError", err, err)
	}
	if w.err != nil && !reflect.TypeOf(w.err).Comparable() {
		if list := (errorList)(nil); !errors.As(err, &list) || len(list) != 3 {
			t.Errorf("%v (%T) does not hold the function's errorList", err, err)
		}
		_ = errors.Is(err, w.err) // must not panic
	}
	if errors.Is(err, context.Canceled) {
		t.Errorf("%v (%T) matches context.Canceled", err, err)
	}
}

// Ran, not denied: the function's own error, unchanged.
func TestReturns_TheFunctionsOwnError(t *testing.T) {
	for _, w := range works() {
		bubble(t, w.name, func(t *testing.T) {
			g := newGuard(t, newAuthority())
			called := 0
			var ctx context.Context
			err := g.Run(t.Context(), "dev", func(c context.Context) error {
				ctx, called = c, called+1
				time.Sleep(time.Minute)
				return w.err
			})
			if !w.unchanged(err) || called != 1 {
				t.Errorf("got %v (%T) after %d calls, want the function's own after 1", err, err, called)
			}
			wantOver(t, ctx)
		})
	}
}

// wantOver fails unless ctx has ended, as the context of a run does that has returned.
func wantOver(t *testing.T, ctx context.Context) {
	t.Helper()
	if ctx.Err() == nil {
		t.Error("Run has returned and its context is live")
	}
	if err := guard.Checkpoint(ctx); err == nil {
		t.Error("Run has returned and Checkpoint says yes")
	}
}

// Denied while it ran: a *DeniedError with all of the function's error inside but Canceled.
func TestReturns_DeniedWhileItRan(t *testing.T) {
	for _, code := range []guard.Code{guard.CodeDeviceRevoked, guard.CodeOrgDisabled, guard.CodeSystemUnavailable} {
		for _, w := range works() {
			bubble(t, string(code)+"/"+w.name, func(t *testing.T) {
				a := newAuthority()
				g := newGuard(t, a)
				called := 0
				r := launchFunc(t.Context(), g, "dev", func(ctx context.Context) error {
					called++
					<-ctx.Done()
					return w.err
				})
				synctest.Wait()
				a.deny(code)
				err := r.finish()
				denied := (*guard.DeniedError)(nil)
				if !errors.As(err, &denied) || denied.DeviceID != "dev" || denied.Decision.Code != code || !denied.InFlight {
					t.Errorf("got %v (%T), want the denial in flight", err, err)
				}
				if _, ok := err.(*guard.DeniedError); !ok {
					t.Errorf("got a %T, want a *guard.DeniedError itself", err)
				}
				if !errors.Is(err, guard.ErrDenied) || errors.Is(err, guard.ErrUnavailable) != (code == guard.CodeSystemUnavailable || w.err == guard.ErrUnavailable) {
					t.Errorf("%v matches ErrDenied: %v, ErrUnavailable: %v", err, errors.Is(err, guard.ErrDenied), errors.Is(err, guard.ErrUnavailable))
				}
				w.wantInside(t, err)
				if called != 1 {
					t.Errorf("the function was called %d times", called)
				}
				wantOver(t, r.ctx)
			})
		}
	}
}

// Closed while it ran: ErrClosed, and the function's as above.
func TestReturns_ClosedWhileItRan(t *testing.T) {
	for _, w := range works() {
		bubble(t, w.name, func(t *testing.T) {
			g := newGuard(t, newAuthority())
			r := launchFunc(t.Context(), g, "dev", func(ctx context.Context) error {
				<-ctx.Done()
				return w.err
			})
			synctest.Wait()
			if err := g.Close(); err != nil {
				t.Error(err)
			}
			err := r.finish()
			if !errors.Is(err, guard.ErrClosed) {
				t.Errorf("got %v (%T), want ErrClosed", err, err)
			}
			if errors.Is(err, guard.ErrDenied) && !errors.Is(w.err, guard.ErrDenied) {
				t.Errorf("%v is a denial", err)
			}
			w.wantInside(t, err)
			cause := context.Cause(r.ctx)
			if r.ctx.Err() != context.Canceled || !errors.Is(cause, guard.ErrClosed) || !errors.Is(cause, context.Canceled) || errors.Is(cause, guard.ErrDenied) {
				t.Errorf("the context says %v because of %v", r.ctx.Err(), cause)
			}
			wantOver(t, r.ctx)
		})
	}
}

// Shutdown that runs out of patience closes; one that does not lets the function finish.
func TestReturns_ShutDownWhileItRan(t *testing.T) {
	for name, patience := range map[string]time.Duration{"too short": time.Second, "long enough": time.Hour} {
		bubble(t, name, func(t *testing.T) {
			g := newGuard(t, newAuthority())
			r := launchFunc(t.Context(), g, "dev", func(ctx context.Context) error {
				select {
				case <-ctx.Done():
				case <-time.After(time.Minute):
				}
				return io.EOF
			})
			synctest.Wait()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			_ = g.Shutdown(ctx)
			if err := r.finish(); !errors.Is(err, io.EOF) || errors.Is(err, guard.ErrClosed) != (patience < time.Minute) {
				t.Errorf("got %v (%T)", err, err)
			}
		})
	}
}

// The caller's context ended while it ran: the function's own error, unchanged.
func TestReturns_TheCallerLeftWhileItRan(t *testing.T) {
	for _, w := range works() {
		bubble(t, w.name, func(t *testing.T) {
			g := newGuard(t, newAuthority())
			caller, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			r := launchFunc(caller, g, "dev", func(ctx context.Context) error {
				<-ctx.Done()
				if ctx.Err() != context.DeadlineExceeded || context.Cause(ctx) != context.DeadlineExceeded {
					t.Errorf("the context says %v, cause %v", ctx.Err(), context.Cause(ctx))
				}
				if err := guard.Checkpoint(ctx); err != nil {
					t.Errorf("Checkpoint says %v; the permission is live", err)
				}
				return w.err
			})
			if err := r.finish(); !w.unchanged(err) {
				t.Errorf("got %v (%T), want the function's own", err, err)
			}
			wantOver(t, r.ctx)
		})
	}
}

// A denial that is learnt while the function winds up after its caller has left is a denial all
// the same: it did side effects without permission, or was about to.
func TestReturns_DeniedAfterTheCallerLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		caller, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r := launchFunc(caller, g, "dev", func(ctx context.Context) error {
			<-ctx.Done()
			a.deny(guard.CodeDeviceRevoked)
			time.Sleep(20 * time.Second)
			wantDenial(t, guard.Checkpoint(ctx), "dev", guard.CodeDeviceRevoked)
			return io.EOF
		})
		if err := r.finish(); !errors.Is(err, io.EOF) {
			t.Errorf("%v does not match the function's error", err)
		}
		wantDenied(t, r.err, "dev", guard.CodeDeviceRevoked, true)
	})
}

// Caller's context ended before the start: the context's cause, as it is, and no question.
func TestReturns_TheCallerLeftBeforeTheStart(t *testing.T) {
	list := errorList{errDown}
	for _, c := range []struct {
		name string
		make func(context.Context) (context.Context, context.CancelFunc)
		want error
	}{
		{"cancelled", context.WithCancel, context.Canceled},
		{"deadline", func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 0)
		}, context.DeadlineExceeded},
		{"with a cause", withCause(io.EOF), io.EOF},
		{"with a denial as cause", withCause(guard.ErrDenied), guard.ErrDenied},
		{"with a cause that cannot be compared", withCause(list), list},
	} {
		w := work{err: c.want}
		bubble(t, c.name+"/before Run", func(t *testing.T) {
			a := newAuthority()
			g := newGuard(t, a, guard.WithReuse(10*time.Second))
			if _, err := g.Validate(t.Context(), "dev"); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := c.make(t.Context())
			cancel()
			for name, err := range map[string]error{
				"Run":  g.Run(ctx, "dev", mustNotRun(t)),
				"Keep": g.Keep(ctx, "dev", mustNotRun(t)),
				"Do":   do(ctx, t, g, "dev"),
			} {
				if !w.unchanged(err) {
					t.Errorf("%s: got %v (%T), want %v", name, err, err, c.want)
				}
			}
			if d, err := g.Validate(ctx, "dev"); !w.unchanged(err) || d.Allowed || d.Code == guard.CodeAllow {
				t.Errorf("Validate: got %+v, %v (%T), want %v", d, err, err, c.want)
			}
			if n := a.count(); n != 1 {
				t.Errorf("%d requests for callers that had left", n-1)
			}
		})
		bubble(t, c.name+"/while it waited", func(t *testing.T) {
			a := newAuthority()
			a.stick(t, allows)
			g := newGuard(t, a)
			ctx, cancel := c.make(t.Context())
			time.AfterFunc(time.Second, cancel)
			at := time.Now()
			if err := g.Run(ctx, "dev", mustNotRun(t)); !w.unchanged(err) {
				t.Errorf("got %v (%T), want %v", err, err, c.want)
			}
			if took := time.Since(at); took > time.Second {
				t.Errorf("returned %v after the call, want at once when the context ended", took)
			}
		})
	}
}

func withCause(cause error) func(context.Context) (context.Context, context.CancelFunc) {
	return func(ctx context.Context) (context.Context, context.CancelFunc) {
		ctx, cancel := context.WithCancelCause(ctx)
		return ctx, func() { cancel(cause) }
	}
}

// do is Do with a function that must not run, and a zero result that is checked.
func do(ctx context.Context, t *testing.T, g guard.Runner, id string) error {
	t.Helper()
	n, err := guard.Do(ctx, g, id, func(ctx context.Context) (int, error) { return 42, mustNotRun(t)(ctx) })
	if n != 0 {
		t.Errorf("Do gives %d beside %v, want the zero value", n, err)
	}
	return err
}

// heldContext is a context whose Done channel is a while in coming, so that what happens
// meanwhile is all there at once for whoever waits for one of several things.
type heldContext struct{ context.Context }

func (c heldContext) Done() <-chan struct{} {
	time.Sleep(2 * time.Second)
	return c.Context.Done()
}

// An ALLOW that is there together with the end of the caller's context, or of the guard, starts
// nothing. Which of the two a waiting Run sees first is chance.
func TestReturns_TheEndIsThereTogetherWithTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		for range 20 {
			ctx, cancel := context.WithCancelCause(t.Context())
			a.set(func(_ context.Context, c *asked) (guard.Decision, error) {
				time.AfterFunc(time.Second, func() { cancel(io.EOF) })
				return allows(ctx, c)
			})
			g := newGuard(t, a)
			if err := g.Run(heldContext{ctx}, "dev", mustNotRun(t)); err != io.EOF {
				t.Errorf("left: got %v, want %v", err, io.EOF)
			}
			a.set(func(_ context.Context, c *asked) (guard.Decision, error) {
				time.AfterFunc(time.Second, func() { _ = g.Close() })
				return allows(ctx, c)
			})
			wantClosed(t, "closed", g.Run(heldContext{t.Context()}, "dev", mustNotRun(t)))
		}
	})
}

// Guard closed, also while the caller waited: ErrClosed, at once.
func TestReturns_ClosedBeforeTheStart(t *testing.T) {
	ways := map[string]func(g *guard.Guard){
		"Close":    func(g *guard.Guard) { _ = g.Close() },
		"Shutdown": func(g *guard.Guard) { _ = g.Shutdown(context.Background()) },
		"both":     func(g *guard.Guard) { _ = g.Close(); _ = g.Shutdown(context.Background()); _ = g.Close() },
	}
	calls := map[string]func(t *testing.T, g *guard.Guard) error{
		"Run":  func(t *testing.T, g *guard.Guard) error { return g.Run(t.Context(), "dev", mustNotRun(t)) },
		"Keep": func(t *testing.T, g *guard.Guard) error { return g.Keep(t.Context(), "dev", mustNotRun(t)) },
		"Do":   func(t *testing.T, g *guard.Guard) error { return do(t.Context(), t, g, "dev") },
		"Validate": func(t *testing.T, g *guard.Guard) error {
			d, err := g.Validate(t.Context(), "dev")
			if d.Allowed || d.Code != guard.CodeSystemUnavailable {
				t.Errorf("Validate says %+v", d)
			}
			return err
		},
	}
	for way, stop := range ways {
		for name, call := range calls {
			bubble(t, way+"/"+name+" after", func(t *testing.T) {
				a := newAuthority()
				g := newGuard(t, a, guard.WithReuse(10*time.Second))
				if _, err := g.Validate(t.Context(), "dev"); err != nil { // something to reuse
					t.Fatal(err)
				}
				stop(g)
				err := call(t, g)
				wantClosed(t, name, err)
				if n := a.count(); n != 1 {
					t.Errorf("%d requests after the end", n-1)
				}
			})
			bubble(t, way+"/"+name+" waits", func(t *testing.T) {
				a := newAuthority()
				a.stick(t, allows)
				g := newGuard(t, a)
				at := time.Now()
				time.AfterFunc(time.Second, func() { stop(g) })
				wantClosed(t, name, call(t, g))
				if took := time.Since(at); took != time.Second {
					t.Errorf("returned %v after the call, want at once when the guard closed, 1s", took)
				}
			})
		}
	}
}

// A panic goes on with its own value, and runtime.Goexit goes on; the guard has let go of the
// run by then.
func TestReturns_TheFunctionUnwinds(t *testing.T) {
	type mark struct{ n *int }
	values := map[string]any{
		"a text": "boom", "an error": errDown, "http.ErrAbortHandler": http.ErrAbortHandler,
		"a pointer": &mark{}, "a struct": mark{new(int)}, "Canceled": context.Canceled,
	}
	for name, value := range values {
		for _, stop := range []string{"live", "denied", "closed"} {
			bubble(t, name+"/"+stop, func(t *testing.T) {
				unwinds(t, stop, func() { panic(value) }, func() {
					if got := recover(); got != value {
						t.Errorf("recovered %v (%T), want the function's own %v", got, got, value)
					}
				})
			})
		}
	}
	bubble(t, "what cannot be compared", func(t *testing.T) {
		unwinds(t, "live", func() { panic([]int{1, 2}) }, func() {
			if got, ok := recover().([]int); !ok || len(got) != 2 {
				t.Errorf("recovered %v", got)
			}
		})
	})
	bubble(t, "nil", func(t *testing.T) {
		unwinds(t, "live", func() { panic(nil) }, func() { //nolint:govet // on purpose
			if got, ok := recover().(*runtime.PanicNilError); !ok {
				t.Errorf("recovered %v", got)
			}
		})
	})
	for _, stop := range []string{"live", "denied", "closed"} {
		bubble(t, "Goexit/"+stop, func(t *testing.T) {
			unwinds(t, stop, runtime.Goexit, func() {
				if got := recover(); got != nil {
					t.Errorf("recovered %v, want nothing", got)
				}
			})
		})
	}
}

// unwinds runs a function under a guard that unwinds in its own way, and caught on the way up.
func unwinds(t *testing.T, stop string, unwind, caught func()) {
	t.Helper()
	a := newAuthority()
	var kinds []guard.EventKind
	g := newGuard(t, a, guard.WithObserver(func(_ context.Context, e guard.Event) {
		if e.Kind != guard.EventValidated {
			kinds = append(kinds, e.Kind)
		}
	}))
	var ctx context.Context
	returned, done := false, make(chan struct{})
	go func() {
		defer close(done)
		defer caught()
		defer func() { wantOver(t, ctx) }() // already
		_ = g.Run(t.Context(), "dev", func(c context.Context) error {
			ctx = c
			switch stop {
			case "denied":
				a.deny(guard.CodeDeviceRevoked)
				<-c.Done()
			case "closed":
				_ = g.Close()
			}
			unwind()
			return nil
		})
		returned = true
	}()
	<-done
	if returned {
		t.Error("Run has returned, though its function unwound")
	}
	known := a.count()
	time.Sleep(time.Hour)
	if n := a.count(); n != known {
		t.Errorf("%d requests for a run that is over", n-known)
	}
	if err := g.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	want := guard.EventStopped
	if stop == "live" {
		want = guard.EventFinished
	}
	if len(kinds) != 2 || kinds[0] != guard.EventStarted || kinds[1] != want {
		t.Errorf("told of %v, want %s and %s", kinds, guard.EventStarted, want)
	}
}

// An observer that ends the goroutine it is told on, as t.FailNow does, leaves no run behind.
func TestReturns_AnObserverThatUnwindsLeavesNothing(t *testing.T) {
	for _, kind := range []guard.EventKind{guard.EventStarted, guard.EventFinished} {
		bubble(t, string(kind), func(t *testing.T) {
			a := newAuthority()
			g := newGuard(t, a, guard.WithObserver(func(_ context.Context, e guard.Event) {
				if e.Kind == kind {
					runtime.Goexit()
				}
			}))
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = g.Run(t.Context(), "dev", func(context.Context) error { return nil })
			}()
			<-done
			known := a.count()
			time.Sleep(time.Minute)
			if n := a.count(); n != known {
				t.Errorf("%d requests about a device without a run", n-known)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			if err := g.Shutdown(ctx); err != nil {
				t.Errorf("Shutdown waits for a run that is over: %v", err)
			}
		})
	}
}

// The cause of a stopped run's context, and of every context derived from it, matches both the
// denial and context.Canceled.
func TestReturns_TheCauseMatchesBoth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		err := g.Run(t.Context(), "dev", func(ctx context.Context) error {
			derived, cancel := context.WithTimeout(ctx, time.Hour)
			defer cancel()
			a.deny(guard.CodeDeviceRevoked)
			<-derived.Done()
			for _, ctx := range []context.Context{ctx, derived} {
				wantStopped(t, ctx, "dev", guard.CodeDeviceRevoked)
			}
			// The most common ends of a function: none makes the denial look like a cancel.
			return errors.Join(ctx.Err(), context.Cause(ctx), fmt.Errorf("reading: %w", context.Cause(derived)))
		})
		wantDenied(t, err, "dev", guard.CodeDeviceRevoked, true)
	})
}

// Each run has its own function's error; the denial that they share is never changed.
func TestReturns_EachRunHasItsOwnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		ends := []error{io.EOF, io.ErrUnexpectedEOF, nil}
		var runs []*running
		for _, end := range ends {
			runs = append(runs, launchFunc(t.Context(), g, "dev", func(ctx context.Context) error { <-ctx.Done(); return end }))
		}
		synctest.Wait()
		a.deny(guard.CodeDeviceRevoked)
		for i, r := range runs {
			wantDenied(t, r.finish(), "dev", guard.CodeDeviceRevoked, true)
			for j, end := range ends {
				if end != nil && errors.Is(r.err, end) != (i == j) {
					t.Errorf("run %d matches the error of run %d: %v", i, j, i != j)
				}
				if end != nil && errors.Is(context.Cause(r.ctx), end) {
					t.Errorf("the cause of run %d holds a function's error", i)
				}
			}
		}
	})
}

// What stood in the way of asking is found in the denial, before the start and in flight, but
// never context.Canceled, nor io.EOF.
func TestReturns_WhatStoodInTheWayIsInside(t *testing.T) {
	for _, w := range works() {
		if w.err == nil {
			continue
		}
		w.is = slices.DeleteFunc(w.is, func(target error) bool { return target == io.EOF })
		bubble(t, w.name, func(t *testing.T) {
			a := newAuthority()
			g := newGuard(t, a)
			r := launchFunc(t.Context(), g, "dev", func(ctx context.Context) error { <-ctx.Done(); return nil })
			synctest.Wait()
			a.fail(w.err)
			before := g.Run(t.Context(), "dev", mustNotRun(t))
			for name, err := range map[string]error{"before": before, "in flight": r.finish()} {
				if _, ok := err.(*guard.DeniedError); !ok || !errors.Is(err, guard.ErrUnavailable) {
					t.Errorf("%s: got %v (%T)", name, err, err)
				}
				if errors.Is(err, io.EOF) {
					t.Errorf("%s: %v matches io.EOF", name, err)
				}
				w.wantInside(t, err)
			}
		})
	}
}

// A run in a run of the same guard: the outer one's denial ends both. The inner's Run gives what
// its function returned, the outer's the denial.
// «errors.Is and errors.As also find the function's error»: who walks over what is inside, to print
// it, finds the words of both: of what stood in the way of asking, and of the function.
func TestReturns_WhatIsInsideHasItsOwnWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		own := fmt.Errorf("saving: %w", context.Canceled)
		err := g.Run(t.Context(), "d", func(ctx context.Context) error {
			a.fail(errDown)
			<-ctx.Done()
			return own
		})
		inside, ok := err.(interface{ Unwrap() []error })
		if !ok {
			t.Fatalf("%v (%T) does not tell what is inside", err, err)
		}
		var words []string
		for _, e := range inside.Unwrap() {
			words = append(words, e.Error())
		}
		if want := []string{errDown.Error(), own.Error()}; !slices.Equal(words, want) {
			t.Errorf("inside are %q, want %q", words, want)
		}
	})
}

func TestReturns_NestedRunsOfOneGuard(t *testing.T) {
	for _, inside := range []string{"in", "out"} { // of another device, and of the same
		bubble(t, inside, func(t *testing.T) {
			a := newAuthority()
			g := newGuard(t, a)
			var innerErr error
			err := g.Run(t.Context(), "out", func(ctx context.Context) error {
				innerErr = g.Run(ctx, inside, func(ctx context.Context) error {
					a.deny(guard.CodeDeviceRevoked, "out")
					<-ctx.Done()
					wantStopped(t, ctx, "out", guard.CodeDeviceRevoked)
					return io.EOF
				})
				return innerErr
			})
			wantDenied(t, err, "out", guard.CodeDeviceRevoked, true)
			if !errors.Is(err, io.EOF) {
				t.Errorf("%v does not hold the inner function's error", err)
			}
			if inside == "in" && innerErr != io.EOF {
				t.Errorf("the inner Run returned %v, want its function's own", innerErr)
			} else if inside == "out" {
				wantDenied(t, innerErr, "out", guard.CodeDeviceRevoked, true)
			}
		})
	}
}

// The inner one's denial ends the inner one alone.
func TestReturns_AnInnerDenialLeavesTheOuterRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newAuthority(), newAuthority()
		outer := newGuard(t, a)
		for name, inner := range map[string]*guard.Guard{"the same guard": outer, "another": newGuard(t, b)} {
			err := outer.Run(t.Context(), "out", func(ctx context.Context) error {
				err := inner.Run(ctx, "in", func(ctx context.Context) error {
					a.deny(guard.CodeDeviceRevoked, "in")
					b.deny(guard.CodeDeviceRevoked, "in")
					<-ctx.Done()
					return ctx.Err()
				})
				wantDenied(t, err, "in", guard.CodeDeviceRevoked, true)
				err = inner.Run(ctx, "in", mustNotRun(t))
				wantDenied(t, err, "in", guard.CodeDeviceRevoked, false)
				if err := guard.Checkpoint(ctx); err != nil || ctx.Err() != nil {
					t.Errorf("%s: the outer run: %v, %v", name, err, ctx.Err())
				}
				return io.EOF
			})
			if err != io.EOF {
				t.Errorf("%s: the outer Run returned %v, want its function's own", name, err)
			}
			a.allow("in")
			b.allow("in")
		}
	})
}

// A start inside a run that has been stopped: the outer denial, without Canceled, and nobody is
// asked.
func TestReturns_AStartInsideAStoppedRun(t *testing.T) {
	wraps := map[string]func(context.Context) context.Context{
		"the run's own": func(ctx context.Context) context.Context { return ctx },
		"derived": func(ctx context.Context) context.Context {
			ctx, cancel := context.WithCancel(ctx)
			context.AfterFunc(ctx, cancel)
			return ctx
		},
		"handed on as a cause": func(ctx context.Context) context.Context {
			other, cancel := context.WithCancelCause(context.Background())
			cancel(fmt.Errorf("the run ended: %w", context.Cause(ctx)))
			return other
		},
	}
	for name, wrap := range wraps {
		for _, when := range []string{"stopped before", "stopped while it waits"} {
			bubble(t, name+"/"+when, func(t *testing.T) {
				a, b := newAuthority(), newAuthority()
				outer, inner := newGuard(t, a), newGuard(t, b)
				err := outer.Run(t.Context(), "out", func(ctx context.Context) error {
					a.deny(guard.CodeOrgDisabled)
					if when == "stopped before" || name == "handed on as a cause" {
						<-ctx.Done()
					} else {
						b.stick(t, allows)
						time.AfterFunc(time.Second, func() { _, _ = outer.Validate(context.Background(), "out") })
					}
					ctx = wrap(ctx)
					asked := b.count()
					err := inner.Run(ctx, "in", mustNotRun(t))
					wantDenied(t, err, "out", guard.CodeOrgDisabled, true)
					if when == "stopped before" && b.count() != asked {
						t.Error("asked on behalf of a run that had been stopped")
					}
					wantDenied(t, inner.Keep(ctx, "in", mustNotRun(t)), "out", guard.CodeOrgDisabled, true)
					wantDenied(t, do(ctx, t, inner, "in"), "out", guard.CodeOrgDisabled, true)
					if d, err := inner.Validate(ctx, "in"); d.Allowed || errors.Is(err, context.Canceled) {
						t.Errorf("Validate says %+v, %v", d, err)
					}
					return err
				})
				wantDenied(t, err, "out", guard.CodeOrgDisabled, true)
			})
		}
	}
}

// Inside a run of a guard that was closed it is ErrClosed.
func TestReturns_AStartInsideAClosedRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outer, inner := newGuard(t, newAuthority()), newGuard(t, newAuthority())
		err := outer.Run(t.Context(), "out", func(ctx context.Context) error {
			_ = outer.Close()
			err := inner.Run(ctx, "in", mustNotRun(t))
			wantClosed(t, "inner", err)
			return err
		})
		wantClosed(t, "outer", err)
	})
}

// Do gives the result beside nil and beside the function's own error, and the zero value with
// every error of the guard's own.
func TestDo_TheResultBesideTheFunctionsOwnError(t *testing.T) {
	type result struct{ n int }
	for _, w := range works() {
		bubble(t, w.name, func(t *testing.T) {
			g := newGuard(t, newAuthority())
			got, err := guard.Do(t.Context(), g, "dev", func(context.Context) (*result, error) { return &result{7}, w.err })
			if !w.unchanged(err) || got == nil || got.n != 7 {
				t.Errorf("got %+v, %v; want the function's own", got, err)
			}
		})
	}
}

func TestDo_TheZeroValueBesideTheGuardsOwnErrors(t *testing.T) {
	for _, w := range works() {
		for name, stop := range map[string]func(a *authority, g *guard.Guard){
			"denied": func(a *authority, _ *guard.Guard) { a.deny(guard.CodeDeviceRevoked) },
			"failed": func(a *authority, _ *guard.Guard) { a.fail(w.err) },
			"closed": func(_ *authority, g *guard.Guard) { _ = g.Close() },
		} {
			bubble(t, name+"/"+w.name, func(t *testing.T) {
				a := newAuthority()
				g := newGuard(t, a)
				got, err := guard.Do(t.Context(), g, "dev", func(ctx context.Context) (int, error) {
					stop(a, g)
					<-ctx.Done()
					return 42, w.err
				})
				if got != 0 || !errors.Is(err, guard.ErrDenied) && !errors.Is(err, guard.ErrClosed) {
					t.Errorf("got %d, %v; want nought and the guard's own error", got, err)
				}
				w.wantInside(t, err)
			})
		}
	}
}

// What the function got from Checkpoint or from its context's cause and hands on is the guard's
// own error too.
func TestDo_TheGuardsErrorHandedOnByTheFunction(t *testing.T) {
	for name, end := range map[string]func(context.Context) error{
		"Checkpoint": guard.Checkpoint, "cause": context.Cause,
	} {
		for _, stop := range []string{"denied", "closed"} {
			bubble(t, name+"/"+stop, func(t *testing.T) {
				a := newAuthority()
				g := newGuard(t, a)
				got, err := guard.Do(t.Context(), g, "dev", func(ctx context.Context) (int, error) {
					if stop == "closed" {
						_ = g.Close()
					}
					a.deny(guard.CodeDeviceRevoked)
					<-ctx.Done()
					return 42, end(ctx)
				})
				if got != 0 || err == nil || errors.Is(err, context.Canceled) {
					t.Errorf("got %d, %v; want nought and the guard's own error", got, err)
				}
			})
		}
	}
}

func TestDo_TheFunctionUnwinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, newAuthority())
		defer func() {
			if got := recover(); got != http.ErrAbortHandler {
				t.Errorf("recovered %v", got)
			}
			if err := g.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		}()
		_, _ = guard.Do(t.Context(), g, "dev", func(context.Context) (int, error) { panic(http.ErrAbortHandler) })
	})
}

// The error of New was not looked at: what Begin says of that Do says too, and neither panics.
func TestDo_NoRunner(t *testing.T) {
	var none *guard.Guard
	for name, r := range map[string]guard.Runner{"nil": nil, "a nil Guard": none} {
		t.Run(name, func(t *testing.T) {
			got, err := guard.Do(t.Context(), r, "dev", func(context.Context) (int, error) { return 42, nil })
			if got != 0 || err == nil || err.Error() != "guard: the Runner is nil" {
				t.Error(got, err)
			}
		})
	}
}
