package guard_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// errWork is what the work of a session came to.
var errWork = errors.New("the work's own")

// runnerFunc is a Runner of somebody's own.
type runnerFunc func(ctx context.Context, deviceID string, fn func(context.Context) error) error

func (f runnerFunc) Run(ctx context.Context, deviceID string, fn func(context.Context) error) error {
	return f(ctx, deviceID, fn)
}

// open begins a session that nothing is in the way of.
func open(ctx context.Context, t *testing.T, r guard.Runner, device string) (context.Context, *guard.Session) {
	t.Helper()
	run, s, err := guard.Begin(ctx, r, device)
	if err != nil || run == nil || s == nil {
		t.Fatalf("Begin: %v, %v, %v", run, s, err)
	}
	guard.AfterStop(run, func() { s.End(guard.Checkpoint(run)) }) // work that obeys
	return run, s
}

// wantNoSession fails unless Begin said no: who overlooks the error has nothing to work under.
func wantNoSession(t *testing.T, run context.Context, s *guard.Session, err error) {
	t.Helper()
	if err == nil || run != nil || s != nil {
		t.Errorf("Begin: %v, %v, %v, want an error alone", run, s, err)
	}
}

// waiting is a call of Wait on a goroutine of its own.
type waiting struct {
	done chan struct{}
	err  error
}

func wait(s *guard.Session) *waiting {
	w := &waiting{done: make(chan struct{})}
	go func() {
		defer close(w.done)
		w.err = s.Wait()
	}()
	return w
}

// slowDone is a caller's context whose Done blocks from the time it is slowed down until it is let
// go. So the goroutine that holds a session open finds all that has happened meanwhile at once.
type slowDone struct {
	*callersContext
	slow atomic.Bool
	gate chan struct{}
}

func newSlowDone(ctx context.Context) *slowDone {
	s := &slowDone{callersContext: newCallersContext(ctx), gate: make(chan struct{})}
	s.done = func() <-chan struct{} {
		if s.slow.Load() {
			<-s.gate
		}
		return ctx.Done()
	}
	return s
}

// openSlowly begins a session that sees neither End nor a denial before the context is let go.
func openSlowly(ctx context.Context, t *testing.T, a *authority) (*slowDone, *guard.Guard, context.Context, *guard.Session) {
	t.Helper()
	own := newSlowDone(ctx)
	g := newGuard(t, a, guard.WithObserver(func(_ context.Context, e guard.Event) {
		if e.Kind == guard.EventStarted {
			own.slow.Store(true)
		}
	}))
	run, s := open(own, t, g, "dev")
	synctest.Wait()
	return own, g, run, s
}

// refusal is a reason for which nothing starts.
type refusal struct {
	name string
	// make gives what to begin with; what has to happen meanwhile it has begun.
	make func(t *testing.T) (ctx context.Context, r guard.Runner, device string)
	want func(t *testing.T, err error)
}

// refusals are the rows of the contract's table in which the function is not called.
func refusals() []refusal {
	var all []refusal
	for _, code := range append(slices.Clone(denyCodes), guard.CodeSystemUnavailable) {
		all = append(all, refusedBy(string(code), denies(code), code))
	}
	return append(all,
		refusedBy("transport error", fails(errDown), guard.CodeSystemUnavailable, errDown),
		refusedBy("silent", hangs, guard.CodeSystemUnavailable, context.DeadlineExceeded),
		refusedBy("ALLOW beside an error", answers(guard.Decision{Allowed: true, Code: guard.CodeAllow}, io.EOF), guard.CodeSystemUnavailable),
		refusal{"blank device", func(t *testing.T) (context.Context, guard.Runner, string) {
			return t.Context(), newGuard(t, newAuthority()), " \t"
		}, wantRefusal(" \t", guard.CodeInvalidDeviceID, false)},
		refusal{"caller's context ended", func(t *testing.T) (context.Context, guard.Runner, string) {
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(errWork)
			return ctx, newGuard(t, newAuthority()), "dev"
		}, wantVery(errWork)},
		refusal{"caller's context ends meanwhile", func(t *testing.T) (context.Context, guard.Runner, string) {
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(time.Second, func() { cancel(errWork) })
			return ctx, silentGuard(t), "dev"
		}, wantVery(errWork)},
		refusal{"caller's deadline", func(t *testing.T) (context.Context, guard.Runner, string) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			t.Cleanup(cancel)
			return ctx, silentGuard(t), "dev"
		}, wantVery(context.DeadlineExceeded)},
		refusal{"outer run denied", func(t *testing.T) (context.Context, guard.Runner, string) {
			return deniedOutside(t), newGuard(t, newAuthority()), "dev"
		}, wantRefusal("outer", guard.CodeDeviceRevoked, true)},
		refusal{"closed", func(t *testing.T) (context.Context, guard.Runner, string) {
			g := newGuard(t, newAuthority())
			_ = g.Close()
			return t.Context(), g, "dev"
		}, func(t *testing.T, err error) { wantClosed(t, "before the start", err) }},
		refusal{"closed meanwhile", func(t *testing.T) (context.Context, guard.Runner, string) {
			g := silentGuard(t)
			time.AfterFunc(time.Second, func() { _ = g.Close() })
			return t.Context(), g, "dev"
		}, func(t *testing.T, err error) { wantClosed(t, "before the start", err) }},
		refusal{"shut down meanwhile", func(t *testing.T) (context.Context, guard.Runner, string) {
			g := silentGuard(t)
			time.AfterFunc(time.Second, func() { _ = g.Shutdown(context.Background()) })
			return t.Context(), g, "dev"
		}, func(t *testing.T, err error) { wantClosed(t, "before the start", err) }},
	)
}

// refusedBy is a refusal by what the authority does.
func refusedBy(name string, b behaviour, code guard.Code, inside ...error) refusal {
	return refusal{name, func(t *testing.T) (context.Context, guard.Runner, string) {
		a := newAuthority()
		a.set(b)
		return t.Context(), newGuard(t, a), "dev"
	}, func(t *testing.T, err error) {
		wantDenied(t, err, "dev", code, false)
		for _, target := range inside {
			if !errors.Is(err, target) {
				t.Errorf("%v does not match %v", err, target)
			}
		}
	}}
}

func wantVery(want error) func(*testing.T, error) {
	return func(t *testing.T, err error) {
		if err != want || errors.Is(err, guard.ErrDenied) {
			t.Errorf("got %v (%T), want the very error %v", err, err, want)
		}
	}
}

func wantRefusal(device string, code guard.Code, inFlight bool) func(*testing.T, error) {
	return func(t *testing.T, err error) {
		_ = wantDenied(t, err, device, code, inFlight)
	}
}

func silentGuard(t *testing.T) *guard.Guard {
	t.Helper()
	a := newAuthority()
	a.hang()
	return newGuard(t, a)
}

// deniedOutside gives the context of a run that has been denied.
func deniedOutside(t *testing.T) context.Context {
	t.Helper()
	a := newAuthority()
	g := newGuard(t, a)
	r := launch(t.Context(), g, "outer")
	synctest.Wait()
	a.deny(guard.CodeDeviceRevoked)
	g.Hint("outer")
	wantDenied(t, r.finish(), "outer", guard.CodeDeviceRevoked, true)
	return r.ctx
}

// What Begin returns of work that must not start is what Run returns, at the same time.
func TestSession_IsRefusedAsARunIs(t *testing.T) {
	for _, c := range refusals() {
		var took [2]time.Duration
		var said [2]string
		bubble(t, c.name+"/Run", func(t *testing.T) {
			ctx, r, device := c.make(t)
			at := time.Now()
			err := r.Run(ctx, device, mustNotRun(t))
			took[0], said[0] = time.Since(at), fmt.Sprintf("%T %v", err, err)
			c.want(t, err)
		})
		bubble(t, c.name+"/Begin", func(t *testing.T) {
			ctx, r, device := c.make(t)
			at := time.Now()
			run, s, err := guard.Begin(ctx, r, device)
			took[1], said[1] = time.Since(at), fmt.Sprintf("%T %v", err, err)
			wantNoSession(t, run, s, err)
			c.want(t, err)
		})
		if took[0] != took[1] || said[0] != said[1] {
			t.Errorf("%s: Run says %s after %v, Begin %s after %v", c.name, said[0], took[0], said[1], took[1])
		}
	}
}

// S1: a session stands on an ALLOW that was asked for after Begin was called, and Begin waits for it.
func TestS1_ASessionBeginsWithTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		a.set(after(2*time.Second, allows))
		g := newGuard(t, a)
		at := time.Now()
		run, s := open(t.Context(), t, g, "dev")
		if took := time.Since(at); took != 2*time.Second || a.count() != 1 || a.last(t).sent.Before(at) {
			t.Errorf("began after %v and %d requests", took, a.count())
		}
		if d, ok := guard.DecisionFrom(run); !ok || d.RequestID != "r1" {
			t.Errorf("stands on %+v, %v", d, ok)
		}
		s.End(nil)
		if err := s.Wait(); err != nil {
			t.Errorf("Wait: %v", err)
		}
	})
}

// «Ran, not denied: the function's own error, unchanged.» The session outlives the goroutine that
// began it, is asked about like a run (B2), and when Wait has returned nothing goes on under it.
func TestSession_ReturnsWhatEndWasGiven(t *testing.T) {
	for _, w := range works() {
		bubble(t, w.name, func(t *testing.T) {
			a := newAuthority()
			g := newGuard(t, a)
			var run context.Context
			var s *guard.Session
			began := make(chan struct{})
			go func() {
				defer close(began)
				run, s = open(t.Context(), t, g, "dev")
			}()
			<-began
			time.Sleep(time.Hour)
			if err := guard.Checkpoint(run); err != nil || run.Err() != nil || a.count() < 300 {
				t.Errorf("after an hour: %v, %v, asked %d times", err, run.Err(), a.count())
			}
			s.End(w.err)
			if err := s.Wait(); !w.unchanged(err) {
				t.Errorf("Wait: %v (%T), want %v unchanged", err, err, w.err)
			}
			wantOver(t, run)
			if cause := context.Cause(run); cause != context.Canceled {
				t.Errorf("the context's cause is %v, want %v", cause, context.Canceled)
			}
			known := a.count()
			time.Sleep(time.Hour)
			if n := a.count(); n != known {
				t.Errorf("asked %d times about a session that is over", n-known)
			}
		})
	}
}

func TestSession_OnlyTheFirstEndCounts(t *testing.T) {
	for _, first := range []error{nil, errWork} {
		bubble(t, fmt.Sprint(first), func(t *testing.T) {
			_, s := open(t.Context(), t, newGuard(t, newAuthority()), "dev")
			s.End(first)
			s.End(io.EOF)
			for range 2 {
				if err := s.Wait(); err != first {
					t.Errorf("Wait: %v, want %v", err, first)
				}
				s.End(io.ErrUnexpectedEOF)
			}
		})
	}
}

// Its methods may be called from several goroutines at once: one End counts, and every Wait
// returns what that was given.
func TestSession_ManyEndAndWaitAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, newAuthority())
		for range 50 {
			run, s := open(t.Context(), t, g, "dev")
			var all sync.WaitGroup
			said := make(chan error, 16)
			for i := range cap(said) {
				all.Go(func() { s.End(&typedError{n: i}) })
				all.Go(func() { said <- s.Wait() })
			}
			all.Wait()
			close(said)
			first := s.Wait()
			if typed := (*typedError)(nil); !errors.As(first, &typed) {
				t.Fatalf("Wait: %v, which nobody has given to End", first)
			}
			for err := range said {
				if err != first {
					t.Errorf("Wait: %v here, %v there", err, first)
				}
			}
			wantOver(t, run)
		}
	})
}

// End is called where a body is closed or a callback is run: nobody there waits for an observer.
func TestSession_EndDoesNotBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, newAuthority(), guard.WithObserver(func(_ context.Context, e guard.Event) {
			if e.Kind == guard.EventFinished {
				time.Sleep(time.Second)
			}
		}))
		_, s := open(t.Context(), t, g, "dev")
		w := wait(s)
		time.Sleep(time.Minute)
		if closed(w.done) {
			t.Errorf("Wait has returned %v, and the session goes on", w.err)
		}
		at := time.Now()
		s.End(errWork)
		if took := time.Since(at); took != 0 {
			t.Errorf("End took %v", took)
		}
		<-w.done
		if took := time.Since(at); w.err != errWork || took != time.Second {
			t.Errorf("Wait: %v after %v, want %v after the observer's second", w.err, took, errWork)
		}
	})
}

// S3: a denial ends the context with itself as its cause, wherever it was learnt, and Wait returns it
// whatever End is given then: work cut short never looks finished. Another device's goes on.
func TestS3_ADenialEndsASession(t *testing.T) {
	for _, src := range sources() {
		for _, code := range []guard.Code{guard.CodeDeviceRevoked, "SOMETHING_NEW"} {
			for _, end := range []error{nil, errWork, context.Canceled} {
				bubble(t, fmt.Sprint(src.name, "/", code, "/", end), func(t *testing.T) {
					a := newAuthority()
					g := newGuard(t, a)
					run, s := open(t.Context(), t, g, "dev")
					other, untouched := open(t.Context(), t, g, "other")
					a.deny(code, "dev")
					src.from(t, g, "dev")
					stop := wantStopped(t, run, "dev", code)
					s.End(end)
					denied := wantDenied(t, s.Wait(), "dev", code, true)
					if denied.Decision != stop.Decision {
						t.Errorf("Wait says %+v, the cause %+v", denied.Decision, stop.Decision)
					}
					if err := guard.Checkpoint(run); !errors.Is(err, guard.ErrDenied) {
						t.Errorf("Checkpoint: %v", err)
					}
					if err := guard.Checkpoint(other); err != nil || other.Err() != nil {
						t.Errorf("the other device's: %v, %v", err, other.Err())
					}
					untouched.End(errWork)
					if err := untouched.Wait(); err != errWork {
						t.Errorf("the other device's: %v", err)
					}
				})
			}
		}
	}
}

// S4, B2: an authority that does not answer, or cannot be asked, ends a session by the stop line.
func TestS4_ASilentAuthorityEndsASession(t *testing.T) {
	for name, b := range map[string]behaviour{"silent": hangs, "down": fails(errDown), "deaf": deaf(time.Hour, allows)} {
		bubble(t, name, func(t *testing.T) {
			a := newAuthority()
			g := newGuard(t, a)
			at := time.Now()
			run, s := open(t.Context(), t, g, "dev")
			a.set(b)
			<-run.Done()
			if lasted := time.Since(at); lasted > g.StopBound() {
				t.Errorf("went on for %v, the bound is %v", lasted, g.StopBound())
			}
			wantStopped(t, run, "dev", guard.CodeSystemUnavailable)
			wantDenied(t, s.Wait(), "dev", guard.CodeSystemUnavailable, true)
		})
	}
}

// «Denied while it ran: a *DeniedError in which errors.Is and errors.As also find the function's
// error, all of it but context.Canceled.» End came before anybody saw the denial, and what it was given
// is in there, whichever of the two is seen first: hence the repetitions.
func TestSession_DeniedAndEndedTogether(t *testing.T) {
	for _, w := range works() {
		bubble(t, w.name, func(t *testing.T) {
			for range 16 {
				a := newAuthority()
				own, g, _, s := openSlowly(t.Context(), t, a)
				s.End(w.err)
				a.deny(guard.CodeDeviceRevoked)
				if d, err := g.Validate(t.Context(), "dev"); d.Allowed || err != nil {
					t.Fatalf("Validate: %+v, %v", d, err)
				}
				close(own.gate)
				err := s.Wait()
				denied, ok := err.(*guard.DeniedError)
				if !ok || !denied.InFlight || denied.Decision.Code != guard.CodeDeviceRevoked {
					t.Fatalf("Wait: %v (%T), want the denial", err, err)
				}
				w.wantInside(t, err)
			}
		})
	}
}

// «Caller's context ended while it ran: the function's own error, unchanged»: End's, where it came
// before anybody saw the end of the context.
func TestSession_LeftAndEndedTogether(t *testing.T) {
	for _, w := range works() {
		bubble(t, w.name, func(t *testing.T) {
			for range 16 {
				ctx, cancel := context.WithCancelCause(t.Context())
				own, _, _, s := openSlowly(ctx, t, newAuthority())
				s.End(w.err)
				cancel(io.ErrUnexpectedEOF)
				close(own.gate)
				if err := s.Wait(); !w.unchanged(err) {
					t.Errorf("Wait: %v (%T), want %v unchanged", err, err, w.err)
				}
			}
		})
	}
}

// «... or the cause of the context that ended first.» That is no denial, and later Ends do not count.
func TestSession_EndsWithTheCallersContext(t *testing.T) {
	deadline := func(ctx context.Context) (context.Context, context.CancelFunc) {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		context.AfterFunc(ctx, cancel)
		return ctx, func() {} // it ends by itself
	}
	for _, c := range []struct {
		name string
		make func(context.Context) (context.Context, context.CancelFunc)
		err  error
		want error
	}{
		{"cancelled", context.WithCancel, context.Canceled, context.Canceled},
		{"cancelled with a cause", withCause(errWork), context.Canceled, errWork},
		{"deadline", deadline, context.DeadlineExceeded, context.DeadlineExceeded},
	} {
		bubble(t, c.name, func(t *testing.T) {
			a := newAuthority()
			ctx, cancel := c.make(t.Context())
			run, s := open(ctx, t, newGuard(t, a), "dev")
			time.AfterFunc(time.Minute, cancel)
			w := wait(s)
			time.Sleep(time.Minute - 1)
			if closed(w.done) || run.Err() != nil {
				t.Errorf("over before its time: %v, %v", w.err, run.Err())
			}
			<-run.Done()
			if run.Err() != c.err || context.Cause(run) != c.want {
				t.Errorf("the context: %v, %v, want %v, %v", run.Err(), context.Cause(run), c.err, c.want)
			}
			<-w.done
			s.End(io.EOF)
			for _, err := range []error{w.err, s.Wait()} {
				wantVery(c.want)(t, err)
			}
			wantOver(t, run)
		})
	}
}

// A session inside a run of another device ends with that, and says why.
func TestSession_EndsWithTheRunThatItIsNestedIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		outer, around := open(t.Context(), t, g, "outer")
		inner, s := open(outer, t, g, "inner")
		a.deny(guard.CodeDeviceRevoked, "outer")
		g.Hint("outer")
		<-inner.Done()
		wantStopped(t, inner, "outer", guard.CodeDeviceRevoked)
		wantDenied(t, s.Wait(), "outer", guard.CodeDeviceRevoked, true)
		wantDenied(t, around.Wait(), "outer", guard.CodeDeviceRevoked, true)
	})
}

// S7: Close ends what is in flight, and what End was given is found in what Wait returns.
func TestS7_CloseEndsASession(t *testing.T) {
	bubble(t, "open", func(t *testing.T) {
		g := newGuard(t, newAuthority())
		run, s := open(t.Context(), t, g, "dev")
		_ = g.Close()
		if run.Err() != context.Canceled || !errors.Is(context.Cause(run), guard.ErrClosed) || errors.Is(context.Cause(run), guard.ErrDenied) {
			t.Errorf("the context: %v, %v", run.Err(), context.Cause(run))
		}
		s.End(nil)
		wantClosed(t, "Wait", s.Wait())
	})
	for _, w := range works() {
		bubble(t, "together with End: "+w.name, func(t *testing.T) {
			own, g, _, s := openSlowly(t.Context(), t, newAuthority())
			s.End(w.err)
			_ = g.Close()
			close(own.gate)
			err := s.Wait()
			if !errors.Is(err, guard.ErrClosed) {
				t.Errorf("Wait: %v, want ErrClosed", err)
			}
			w.wantInside(t, err)
		})
	}
}

// S7: Shutdown waits for an open session, which is asked about as before, and ends it with its own
// context; nothing begins meanwhile.
func TestS7_ShutdownWaitsForAnOpenSession(t *testing.T) {
	shutdown := func(ctx context.Context, g *guard.Guard) chan error {
		done := make(chan error, 1)
		go func() { done <- g.Shutdown(ctx) }()
		synctest.Wait()
		return done
	}
	bubble(t, "until it has ended", func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		run, s := open(t.Context(), t, g, "dev")
		done := shutdown(t.Context(), g)
		time.Sleep(time.Hour)
		if len(done) != 0 || guard.Checkpoint(run) != nil || run.Err() != nil || a.count() < 300 {
			t.Fatalf("after an hour: returned %d, %v, %v, asked %d times", len(done), guard.Checkpoint(run), run.Err(), a.count())
		}
		again, none, err := guard.Begin(t.Context(), g, "dev")
		wantNoSession(t, again, none, err)
		wantClosed(t, "Begin", err)
		s.End(errWork)
		at := time.Now()
		if err := <-done; err != nil || time.Since(at) != 0 {
			t.Errorf("Shutdown: %v, %v after the end", err, time.Since(at))
		}
		if err := s.Wait(); err != errWork {
			t.Errorf("Wait: %v, want %v", err, errWork)
		}
	})
	bubble(t, "until it has been denied", func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		_, s := open(t.Context(), t, g, "dev")
		done := shutdown(t.Context(), g)
		a.deny(guard.CodeDeviceRevoked)
		if err := <-done; err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		wantDenied(t, s.Wait(), "dev", guard.CodeDeviceRevoked, true)
	})
	bubble(t, "until its own context ends", func(t *testing.T) {
		g := newGuard(t, newAuthority())
		run, s := open(t.Context(), t, g, "dev")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := <-shutdown(ctx, g); err != context.DeadlineExceeded || run.Err() == nil {
			t.Errorf("Shutdown: %v; the context %v", err, run.Err())
		}
		wantClosed(t, "Wait", s.Wait())
	})
}

// A session that nobody ends and nobody waits for is over with its context and with a denial. The
// guard is not closed here, which would end it: the bubble finds the goroutine that is left.
func TestSession_AForgottenOneLeavesNothing(t *testing.T) {
	for name, end := range map[string]func(a *authority, cancel context.CancelFunc){
		"caller's context": func(_ *authority, cancel context.CancelFunc) { cancel() },
		"denial":           func(a *authority, _ context.CancelFunc) { a.deny(guard.CodeDeviceRevoked) },
		"outage":           func(a *authority, _ context.CancelFunc) { a.hang() },
	} {
		bubble(t, name, func(t *testing.T) {
			a, d := newAuthority(), &diary{}
			g, err := guard.New(a, guard.WithObserver(d.observe))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
			defer cancel()
			run, _ := open(ctx, t, g, "dev")
			end(a, cancel)
			time.Sleep(g.StopBound())
			synctest.Wait()
			if over := d.read(guard.EventStopped, guard.EventFinished); len(over) != 1 || run.Err() == nil {
				t.Errorf("still there: told of %v, the context %v", d.perRun(), run.Err())
			}
			known := a.count()
			time.Sleep(time.Hour)
			if n := a.count(); n != known {
				t.Errorf("asked %d times about nobody", n-known)
			}
		})
	}
}

// The observers are told of a session what they are told of a run: started before Begin returns, one
// end before Wait does.
func TestEvents_OfASession(t *testing.T) {
	for name, c := range map[string]struct {
		deny guard.Code
		end  error
		kind guard.EventKind
	}{
		"nil":    {end: nil, kind: guard.EventFinished},
		"error":  {end: errWork, kind: guard.EventFinished},
		"denied": {deny: guard.CodeDeviceRevoked, kind: guard.EventStopped},
	} {
		bubble(t, name, func(t *testing.T) {
			a := newAuthority()
			g, d := observed(t, a)
			run, s := open(t.Context(), t, g, "dev")
			if e := d.one(t, guard.EventStarted); e.DeviceID != "dev" || e.Decision.RequestID != "r1" || len(d.perRun()) != 1 {
				t.Errorf("when Begin returned: %v, %+v", d.perRun(), e.Event)
			}
			time.Sleep(5 * time.Second)
			if c.deny != "" {
				a.deny(c.deny)
				g.Hint("dev")
				<-run.Done()
			}
			s.End(c.end)
			err := s.Wait()
			if got := d.perRun(); !slices.Equal(got, []guard.EventKind{guard.EventStarted, c.kind}) {
				t.Fatalf("told of %v", got)
			}
			e := d.one(t, c.kind)
			if e.DeviceID != "dev" || e.Took != 5*time.Second || fmt.Sprint(e.Err) != fmt.Sprint(err) {
				t.Errorf("%+v, and Wait returned %v", e.Event, err)
			}
			if c.deny != "" && e.Decision.Code != c.deny {
				t.Errorf("stopped with %+v", e.Decision)
			}
		})
	}
	bubble(t, "refused", func(t *testing.T) {
		a := newAuthority()
		a.deny(guard.CodeDeviceRevoked)
		g, d := observed(t, a)
		_, _, err := guard.Begin(t.Context(), g, "dev")
		if e := d.one(t, guard.EventRefused); e.Err != err || len(d.perRun()) != 1 {
			t.Errorf("told of %v, %v, want %v alone", d.perRun(), e.Err, err)
		}
	})
}

// Where there is no Runner there is no permission.
func TestSession_WithoutARunner(t *testing.T) {
	run, s, err := guard.Begin(t.Context(), nil, "dev")
	wantNoSession(t, run, s, err)
}

// A Runner of somebody's own is believed when it says no, and not when it says nothing.
func TestSession_ARunnerThatDoesNotCallTheFunction(t *testing.T) {
	for _, said := range []error{nil, errWork} {
		bubble(t, fmt.Sprint(said), func(t *testing.T) {
			r := runnerFunc(func(context.Context, string, func(context.Context) error) error {
				time.Sleep(time.Second)
				return said
			})
			run, s, err := guard.Begin(t.Context(), r, "dev")
			wantNoSession(t, run, s, err)
			if said != nil && err != said {
				t.Errorf("Begin: %v, want %v", err, said)
			}
		})
	}
}

// It has the last word on what its function returned, as with any function; and it gets that.
func TestSession_ARunnerThatJudgesTheWork(t *testing.T) {
	for _, verdict := range []error{nil, io.EOF} {
		bubble(t, fmt.Sprint(verdict), func(t *testing.T) {
			type key struct{}
			r := runnerFunc(func(ctx context.Context, device string, fn func(context.Context) error) error {
				if device != "dev" {
					t.Errorf("runs for %q", device)
				}
				if err := fn(context.WithValue(ctx, key{}, "its own")); err != errWork {
					t.Errorf("the function returned %v, want %v", err, errWork)
				}
				time.Sleep(time.Second)
				return verdict
			})
			run, s := open(t.Context(), t, r, "dev")
			if run.Value(key{}) != "its own" {
				t.Error("Begin does not give the context that the Runner gave the function")
			}
			s.End(errWork)
			at := time.Now()
			if err := s.Wait(); err != verdict || time.Since(at) != time.Second {
				t.Errorf("Wait: %v after %v, want %v after a second", err, time.Since(at), verdict)
			}
		})
	}
}

// Work that was started and was over at once was started: Begin gives its session, whichever of the
// two it hears of first, and Wait says what became of it.
func TestSession_ThatIsOverWhenBeginReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runnerFunc(func(ctx context.Context, _ string, fn func(context.Context) error) error {
			ctx, cancel := context.WithCancelCause(ctx)
			cancel(errWork)
			return fn(ctx)
		})
		var all sync.WaitGroup
		for range 16 { // so that some have ended before their Begin comes to look
			all.Go(func() {
				for range 1000 {
					run, s, err := guard.Begin(t.Context(), r, "dev")
					if err != nil {
						t.Errorf("Begin: %v", err)
						return
					}
					if err := s.Wait(); err != errWork || context.Cause(run) != errWork {
						t.Errorf("Wait: %v, the context %v, want %v", err, context.Cause(run), errWork)
					}
				}
			})
		}
		all.Wait()
	})
}

// sessionLoad is many sessions of a few devices, whose authority changes its mind.
type sessionLoad struct {
	t   *testing.T
	a   *authority
	g   *guard.Guard
	met sync.Map // what became of them → *atomic.Int64
}

func (l *sessionLoad) meet(what string) {
	n, _ := l.met.LoadOrStore(what, new(atomic.Int64))
	n.(*atomic.Int64).Add(1)
}

// instant is one of few, so that much falls into the same.
func instant(most time.Duration) time.Duration { return rand.N(most/100) * 100 }

// play begins a session and ends it in some way, and checks that what comes of it is one of the ends
// that there are.
func (l *sessionLoad) play(i int) {
	ctx, cancel := context.WithCancelCause(l.t.Context())
	defer cancel(nil)
	gone, mine := &typedError{n: -i - 1}, &typedError{n: i}
	time.Sleep(instant(time.Minute))
	switch rand.N(8) {
	case 0:
		cancel(gone)
	case 1, 2:
		time.AfterFunc(instant(20*time.Second), func() { cancel(gone) })
	}
	run, s, err := guard.Begin(ctx, l.g, device(i%8))
	if err != nil {
		wantNoSession(l.t, run, s, err)
		l.judge("refused", err, false, gone, gone)
		return
	}
	guard.AfterStop(run, func() { s.End(nil) })
	forgotten := rand.N(4) == 0
	if !forgotten {
		time.AfterFunc(instant(20*time.Second), func() { s.End(mine) })
		time.AfterFunc(instant(20*time.Second), func() { s.End(mine) })
	}
	if rand.N(2) == 0 {
		<-run.Done()
	}
	stopped := run.Err() != nil && errors.Is(context.Cause(run), guard.ErrDenied)
	err = s.Wait()
	if run.Err() == nil || guard.Checkpoint(run) == nil {
		l.t.Errorf("Wait has returned %v and the context is live", err)
	}
	if stopped && !errors.Is(err, guard.ErrDenied) {
		l.t.Errorf("Wait: %v, and the context had been denied: %v", err, context.Cause(run))
	}
	l.judge("ended", err, true, gone, mine)
}

func (l *sessionLoad) judge(when string, err error, inFlight bool, gone, mine error) {
	denied := (*guard.DeniedError)(nil)
	switch {
	case errors.As(err, &denied):
		if denied.InFlight != inFlight || denied.Decision.Allowed || errors.Is(err, context.Canceled) {
			l.t.Errorf("%s: %+v", when, denied)
		}
		l.meet(when + " denied")
	case errors.Is(err, guard.ErrClosed):
		l.meet(when + " closed")
	case err == gone:
		l.meet(when + " with the caller")
	case err == mine:
		l.meet(when + " by End")
	default:
		l.t.Errorf("%s: %v (%T)", when, err, err)
	}
}

// unrest has the authority change its mind about all and everyone, until it allows them all for good.
func (l *sessionLoad) unrest(ctx context.Context) {
	for peace := time.Now().Add(40 * time.Second); ctx.Err() == nil; {
		time.Sleep(instant(time.Second))
		id := device(rand.N(8))
		if time.Now().After(peace) {
			l.a.allow()
		} else {
			l.disturb(id)
		}
		l.g.Hint(id)
		if rand.N(4) == 0 {
			_, _ = l.g.Validate(ctx, id)
		}
	}
}

func (l *sessionLoad) disturb(id string) {
	switch rand.N(8) {
	case 0:
		l.a.hang(id)
	case 1:
		l.a.fail(errDown, id)
	case 2, 3:
		l.a.deny(guard.CodeDeviceRevoked, id)
	case 4:
		l.a.set(after(time.Second, denies(guard.CodePlanFrozen)), id)
	default:
		l.a.allow()
	}
}

// Sessions by the hundred, begun, ended, forgotten, left, denied and closed at once: each ends in one
// of the ways that there are, is told of once, and no goroutine is left, which the bubble checks.
func TestSession_UnderLoad(t *testing.T) {
	for name, opts := range map[string][]guard.Option{"plain": nil, "reuse": {guard.WithReuse(5 * time.Second)}} {
		bubble(t, name, func(t *testing.T) {
			a, d := newAuthority(), &diary{}
			l := &sessionLoad{t: t, a: a, g: newGuard(t, a, append(opts, guard.WithObserver(d.observe))...)}
			ctx, cancel := context.WithCancel(t.Context())
			var all, noise sync.WaitGroup
			for range 4 {
				noise.Go(func() { l.unrest(ctx) })
			}
			for i := range 800 {
				all.Go(func() { l.play(i) })
			}
			time.AfterFunc(50*time.Second, func() { _ = l.g.Close() })
			all.Wait()
			cancel()
			noise.Wait()
			for _, what := range []string{
				"refused denied", "refused closed", "refused with the caller",
				"ended denied", "ended closed", "ended with the caller", "ended by End",
			} {
				if _, ok := l.met.Load(what); !ok {
					t.Errorf("nothing %s: the load is too light", what)
				}
			}
			started, over := len(d.read(guard.EventStarted)), len(d.read(guard.EventStopped, guard.EventFinished))
			if started == 0 || started != over {
				t.Errorf("told of %d starts and %d ends", started, over)
			}
		})
	}
}
