package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/execguard/execguard/guard"
)

// desk is where a chapter is told, and what has to be put away at its end.
type desk struct {
	out  io.Writer
	ends []func()
}

// atEnd has end called at the end of the chapter, the last one first.
func (d *desk) atEnd(end func()) { d.ends = append(d.ends, end) }

func (d *desk) close() {
	for _, end := range slices.Backward(d.ends) {
		end()
	}
}

func (d *desk) say(what, text string) { fmt.Fprintf(d.out, "  %-18s %s\n", what, text) }

func (d *desk) title(name string) { fmt.Fprintln(d.out, name) }

// guarded makes a guard that asks v, for as long as the chapter lasts.
func (d *desk) guarded(v guard.Validator) (*guard.Guard, error) {
	g, err := guard.New(v, guard.WithInterval(interval), guard.WithTimeout(timeout))
	if err == nil {
		d.atEnd(func() { _ = g.Close() }) // it returns nil
	}
	return g, err
}

// ending is how a job is to end.
type ending struct {
	happens func() error  // once it is under way
	want    guard.Code    // with which it is stopped
	within  time.Duration // counted from then; 0: the guard's stop bound (B1, B2)
}

// stopped runs the job under the guard and expects it to end so.
func (d *desk) stopped(ctx context.Context, g *guard.Guard, device string, e ending) error {
	j := newJob()
	ctx, giveUp := context.WithTimeout(ctx, time.Minute)
	defer giveUp()
	happened := make(chan error, 1)
	var since time.Time
	go func() {
		select {
		case <-j.underWay:
			since = time.Now()
			happened <- e.happens()
		case <-ctx.Done():
			happened <- context.Cause(ctx)
		}
	}()
	ended := g.Run(ctx, device, j.work)
	now := time.Now()
	giveUp() // a job that never came under way
	if err := <-happened; err != nil {
		return errors.Join(err, ended)
	}
	d.say("ran", fmt.Sprintf("%d steps or more", min(j.done(), enough)))
	if e.within == 0 {
		e.within = g.StopBound()
	}
	return d.judge(ended, e, now.Sub(since))
}

// grace is what a busy machine may add to the bound (B4).
const grace = 2 * time.Second

// judge tells how a run ended, and whether it should have.
func (d *desk) judge(ended error, e ending, took time.Duration) error {
	denied := (*guard.DeniedError)(nil)
	if !errors.As(ended, &denied) || !denied.InFlight || denied.Decision.Code != e.want {
		return errors.Join(fmt.Errorf("the job should have been stopped with %s", e.want), ended)
	}
	if took > e.within+grace {
		return fmt.Errorf("the job was stopped after %v, and the bound is %v", took, e.within)
	}
	d.say("stopped", fmt.Sprintf("%s, within %v", said(denied.Decision), e.within))
	return nil
}

// refused expects the guard not even to start the job.
func (d *desk) refused(ctx context.Context, g *guard.Guard, device string, want guard.Code) error {
	err := g.Run(ctx, device, func(context.Context) error { return errors.New("the job was started") })
	denied := (*guard.DeniedError)(nil)
	if !errors.As(err, &denied) || denied.InFlight || denied.Decision.Code != want {
		return errors.Join(fmt.Errorf("the job should have been refused with %s", want), err)
	}
	d.say("refused", said(denied.Decision))
	return nil
}

// said is a decision in the guard's word and the authority's own.
func said(decision guard.Decision) string {
	if decision.Reason == "" {
		return string(decision.Code)
	}
	return fmt.Sprintf("%s (%s)", decision.Code, decision.Reason)
}
