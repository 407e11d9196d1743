package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/execguard/execguard/guard"
)

// wait waits, or returns why it need not.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// action is what somebody did while a job ran, and when he began to.
type action struct {
	at  time.Time
	err error
}

// meanwhile runs a job and has somebody else act after a while, beside it. Where the action
// fails, the job is cancelled; where the job ends too early, the action is.
func meanwhile(ctx context.Context, after time.Duration, act, job func(context.Context) error) (acted action, ended error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan action)
	go func() {
		err := wait(ctx, after)
		at := time.Now()
		if err == nil {
			err = act(ctx)
		}
		if err != nil {
			cancel(err)
		}
		done <- action{at: at, err: err}
	}()
	ended = job(ctx)
	cancel(errors.New("the job ended first"))
	return <-done, ended
}

// expectDenial is nil if err is the denial that the story tells of.
func expectDenial(err error, code guard.Code, inFlight bool) error {
	denied := (*guard.DeniedError)(nil)
	switch {
	case err == nil:
		return fmt.Errorf("%s was expected, and the job finished", code)
	case !errors.As(err, &denied), denied.Decision.Code != code, denied.InFlight != inFlight:
		return fmt.Errorf("%s was expected, in flight %t, and not: %w", code, inFlight, err)
	}
	return nil
}

// expectBound is nil if the job has ended soon enough after since. What a busy machine may add
// to the guard's own bound is taken for a second.
func (s *story) expectBound(since time.Time) error {
	took, bound := time.Since(since), s.guard.StopBound()
	s.sayf("in time", "the job went on for %v; the guard's bound is %v", took.Round(time.Millisecond), bound)
	if took > bound+time.Second {
		return fmt.Errorf("the job went on for %v, and the guard's bound is %v", took, bound)
	}
	return nil
}
