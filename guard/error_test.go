package guard_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"

	"github.com/execguard/execguard/guard"
)

// Loggers and error trackers walk errors by hand and print whatever they meet: everything inside
// a denial has its own text, and none of it is context.Canceled.
func TestReturns_ADenialCanBeWalked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		r := launchFunc(t.Context(), g, "dev", func(ctx context.Context) error {
			<-ctx.Done()
			return errors.Join(io.EOF, ctx.Err())
		})
		synctest.Wait()
		a.fail(errors.Join(errDown, context.Canceled))
		texts := walk(t, r.finish())
		for _, want := range []string{"connection refused\ncontext canceled", "EOF\ncontext canceled"} {
			if texts[want] == 0 {
				t.Errorf("no error says %q, in %q", want, texts)
			}
		}
		g2 := newGuard(t, newAuthority())
		r = launchFunc(t.Context(), g2, "dev", func(ctx context.Context) error { <-ctx.Done(); return io.EOF })
		<-r.began
		_ = g2.Close()
		if texts := walk(t, r.finish()); texts["EOF"] == 0 {
			t.Errorf("what the function returned is not inside of %q", texts)
		}
	})
}

// walk counts the texts of all that is in an error.
func walk(t *testing.T, err error) map[string]int {
	t.Helper()
	texts := map[string]int{err.Error(): 1}
	if err == context.Canceled {
		t.Error("context.Canceled is inside")
	}
	switch inside := err.(type) {
	case interface{ Unwrap() error }:
		for text, n := range walk(t, inside.Unwrap()) {
			texts[text] += n
		}
	case interface{ Unwrap() []error }:
		for _, one := range inside.Unwrap() {
			for text, n := range walk(t, one) {
				texts[text] += n
			}
		}
	}
	return texts
}

// errorless is a context of the caller's own that ends without an error, against all rules.
type errorless struct {
	context.Context
	over chan struct{}
}

func (c errorless) Done() <-chan struct{} { return c.over }
func (errorless) Err() error              { return nil }
func (errorless) Value(any) any           { return nil }

// The caller's context ended before the start: no success, whatever it says of itself.
func TestReturns_ACallersContextThatEndsWithoutAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		a.hang()
		g := newGuard(t, a)
		over := make(chan struct{})
		close(over)
		if err := g.Run(errorless{t.Context(), over}, "dev", mustNotRun(t)); err != context.Canceled {
			t.Errorf("Run: %v", err)
		}
		if d, err := g.Validate(errorless{t.Context(), over}, "dev"); d.Code != guard.CodeSystemUnavailable || err != context.Canceled {
			t.Errorf("Validate: %+v, %v", d, err)
		}
	})
}
