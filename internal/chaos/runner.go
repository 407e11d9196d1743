package chaos

import (
	"context"
	"errors"
	"time"

	"github.com/execguard/execguard/guard"
)

// Runner is a guard whose runs are recorded, for adapters and for callers alike.
type Runner struct {
	*guard.Guard

	recorder   *Recorder
	lane, name string
	alone      bool
}

var _ guard.Runner = (*Runner)(nil)

// Runner records the runs under g, which bears a name that Validator knows. alone says that
// nobody but the runs of this runner, one at a time, has the guard ask about their device.
func (r *Recorder) Runner(lane, name string, g *guard.Guard, alone bool) *Runner {
	return &Runner{Guard: g, recorder: r, lane: lane, name: name, alone: alone}
}

// Run is guard.Guard's.
func (r *Runner) Run(ctx context.Context, device string, fn func(ctx context.Context) error) (err error) {
	w := r.run(device, time.Now())
	defer func() { r.recorder.back(w, err) }()
	return r.Guard.Run(ctx, device, func(under context.Context) error { return r.recorder.within(ctx, under, w, fn) })
}

// Keep is guard.Guard's. Each call of fn is recorded as a run, which counts as called when the one
// before had come back.
func (r *Runner) Keep(ctx context.Context, device string, fn func(ctx context.Context) error) error {
	called := time.Now()
	return r.Guard.Keep(ctx, device, func(under context.Context) error {
		w := r.run(device, called)
		w.Kept = true
		defer func() {
			called = time.Now()
			r.recorder.back(w, nil)
		}()
		return r.recorder.within(ctx, under, w, fn)
	})
}

// run makes a run known.
func (r *Runner) run(device string, called time.Time) *Run {
	w := &Run{Lane: r.lane, Guard: r.name, Device: device, Alone: r.alone, Called: called}
	r.recorder.mu.Lock()
	defer r.recorder.mu.Unlock()
	r.recorder.runs = append(r.recorder.runs, w)
	return w
}

// within records what the function of a run sees. ctx is the caller's context.
func (r *Recorder) within(ctx, under context.Context, w *Run, fn func(ctx context.Context) error) error {
	began := time.Now()
	d, _ := guard.DecisionFrom(under)
	r.mu.Lock()
	w.Began, w.RequestID = began, d.RequestID
	r.live[w], r.latest[w.Lane] = true, began
	r.mu.Unlock()
	told := make(chan struct{})
	untold := context.AfterFunc(under, func() {
		defer close(told)
		r.told(ctx, under, w)
	})
	defer func() {
		left := time.Now()
		switch {
		case !untold():
			<-told
		case under.Err() != nil: // it has ended, and has not got round to its children yet
			r.told(ctx, under, w)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		w.Left = left
		delete(r.live, w)
	}()
	return fn(under)
}

// told records that the context has ended.
func (r *Recorder) told(ctx, under context.Context, w *Run) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.live, w)
	w.Told, w.Own, w.Cause = now, ctx.Err() != nil, EndOf(context.Cause(under))
}

// back records that Run has returned, or that a panic of the function goes through it.
func (r *Recorder) back(w *Run, err error) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	w.Back, w.Result = now, EndOf(err)
}

// EndOf takes an error of a guard apart, as Check wants to have it.
func EndOf(err error) End {
	if err == nil {
		return End{}
	}
	e := End{Closed: errors.Is(err, guard.ErrClosed), Canceled: errors.Is(err, context.Canceled), Text: texts(err)}
	if d := (*guard.DeniedError)(nil); errors.As(err, &d) {
		e.Denied, e.InFlight, e.Code = true, d.InFlight, d.Decision.Code
	}
	return e
}
