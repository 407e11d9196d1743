package guard_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// callersContext is a context of somebody's own type, whose methods do what he likes.
type callersContext struct {
	context.Context //nolint:containedctx // it is a context
	done            func() <-chan struct{}
	err             func() error
}

func (c *callersContext) Done() <-chan struct{} { return c.done() }
func (c *callersContext) Err() error            { return c.err() }

// newCallersContext makes one that does what ctx does.
func newCallersContext(ctx context.Context) *callersContext {
	return &callersContext{Context: ctx, done: ctx.Done, err: ctx.Err}
}

// context.Context: successive calls to Done return the same value, also where two who are the
// first to ask do so at the same time; and when Run has returned, its context is cancelled.
func TestReturns_TheContextHasOneDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, newAuthority())
		own := newCallersContext(t.Context())
		var slow atomic.Bool
		gate, late := make(chan struct{}), make(chan (<-chan struct{}), 1)
		own.done = func() <-chan struct{} {
			if slow.CompareAndSwap(true, false) {
				<-gate
			}
			return t.Context().Done()
		}
		var early <-chan struct{}
		err := g.Run(own, "d", func(ctx context.Context) error {
			slow.Store(true)
			go func() { late <- ctx.Done() }()
			synctest.Wait()
			early = ctx.Done()
			close(gate)
			if <-late != early || ctx.Done() != early {
				t.Error("Done gives two channels")
			}
			if closed(early) || ctx.Err() != nil {
				t.Error("the context has ended while the function runs")
			}
			return nil
		})
		if err != nil || !closed(early) {
			t.Errorf("Run: %v; its context has ended: %v", err, closed(early))
		}
	})
}

// The function's context ends with the caller's, whoever asks it what and when: also where nobody
// has asked it anything before its end.
func TestReturns_TheContextEndsWithTheCallers(t *testing.T) {
	type key struct{}
	gone := errors.New("gone")
	for name, wrong := range map[string]func(ctx context.Context) bool{
		"Err":   func(ctx context.Context) bool { return ctx.Err() != context.Canceled }, //nolint:errorlint // the very same
		"Done":  func(ctx context.Context) bool { return !closed(ctx.Done()) },
		"Cause": func(ctx context.Context) bool { return context.Cause(ctx) != gone }, //nolint:errorlint // the very same
		"Value": func(ctx context.Context) bool { return ctx.Value(key{}) != 1 || ctx.Err() == nil },
	} {
		bubble(t, name, func(t *testing.T) {
			g := newGuard(t, newAuthority())
			ctx, cancel := context.WithCancelCause(context.WithValue(t.Context(), key{}, 1))
			err := g.Run(ctx, "d", func(ctx context.Context) error {
				cancel(gone)
				if wrong(ctx) {
					t.Error("the context does not say that the caller's has ended")
				}
				return nil
			})
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
}

// «Caller's context ended before the start: the context's cause; not a denial.» Where somebody's
// own context is done and does not say why, that is context.Canceled.
func TestReturns_TheCallerLeftWithoutACause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		a.hang()
		g := newGuard(t, a)
		own, done := newCallersContext(t.Context()), make(chan struct{})
		own.done = func() <-chan struct{} { return done }
		r := launchFunc(own, g, "d", mustNotRun(t))
		time.Sleep(time.Second)
		close(done)
		if err := r.finish(); err != context.Canceled { //nolint:errorlint // the very same is meant
			t.Errorf("Run: %v, want %v", err, context.Canceled)
		}
	})
}

// S7: after Close has begun nothing starts; S5: after a denial only an ALLOW restores whose
// request was sent after it was learnt. Both hold, and the observers are told of the refusal,
// wherever on the way to the function it comes: the caller's context is looked at on that way.
func TestEvents_OfARunThatIsRefusedAtTheLastMoment(t *testing.T) {
	for name, tc := range map[string]struct {
		requests int // about the device, when it happens
		happens  func(t *testing.T, g *guard.Guard, a *authority)
		err      error
		code     guard.Code
	}{
		"closed before the question": {0, func(_ *testing.T, g *guard.Guard, _ *authority) { _ = g.Close() }, guard.ErrClosed, ""},
		"closed after the answer":    {1, func(_ *testing.T, g *guard.Guard, _ *authority) { _ = g.Close() }, guard.ErrClosed, ""},
		"denied after the answer": {1, func(t *testing.T, g *guard.Guard, a *authority) {
			a.deny(guard.CodeDeviceRevoked)
			if d, err := g.Validate(t.Context(), "d"); d.Allowed || err != nil {
				t.Errorf("Validate: %+v, %v", d, err)
			}
		}, guard.ErrDenied, guard.CodeDeviceRevoked},
	} {
		bubble(t, name, func(t *testing.T) {
			a := newAuthority()
			g, told := observed(t, a)
			own, happened := newCallersContext(t.Context()), false
			own.err = func() error {
				if !happened && a.count() == tc.requests {
					happened = true
					tc.happens(t, g, a)
				}
				return t.Context().Err()
			}
			err := g.Run(own, "d", mustNotRun(t))
			if !errors.Is(err, tc.err) {
				t.Errorf("Run: %v, want %v", err, tc.err)
			}
			e := told.one(t, guard.EventRefused)
			if e.Err != err || e.Decision.Code != tc.code || len(told.perRun()) != 1 { //nolint:errorlint // the very same
				t.Errorf("told of %v: %+v, want %v", told.perRun(), e.Event, err)
			}
		})
	}
}
