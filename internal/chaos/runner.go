package chaos

import (
	"cmp"
	"context"
	"errors"
	"reflect"
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
	var work error
	var under context.Context
	defer func() { r.recorder.backFrom(ctx, under, w, work, err) }()
	return r.Guard.Run(ctx, device, func(run context.Context) error {
		under = run //nolint:fatcontext // to look at once, when Run has returned
		work = r.recorder.within(ctx, run, w, fn)
		return work
	})
}

// backFrom is back, with what became of what the function returned.
func (r *Recorder) backFrom(ctx, under context.Context, w *Run, work, err error) {
	r.back(w, err)
	r.mu.Lock()
	defer r.mu.Unlock()
	w.Own = w.Own || w.Began.IsZero() && ctx.Err() != nil
	w.Loose = under != nil && under.Err() == nil
	w.Changed = !w.Began.IsZero() && !same(err, work)
	w.Lost = work != nil && !errors.Is(work, context.Canceled) && !errors.Is(err, work)
}

// same tells whether two errors are one and the same, and not only alike.
func same(a, b error) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return reflect.TypeOf(a).Comparable() && a == b //nolint:errorlint // just that
}

type runKey struct{}

// Saw records what the end of a handler's context looks like to the handler, whatever an adapter has made of the
// context.
func (r *Recorder) Saw(ctx context.Context) {
	w, ok := ctx.Value(runKey{}).(*Run)
	if !ok || ctx.Err() == nil {
		return
	}
	seen := EndOf(context.Cause(ctx))
	r.mu.Lock()
	defer r.mu.Unlock()
	w.Seen = seen
}

// Keep is guard.Guard's. Each call of fn is recorded as a run, which counts as called when the one
// before was told to stop: from then on the Keep may go on with whatever ALLOW is asked for.
func (r *Runner) Keep(ctx context.Context, device string, fn func(ctx context.Context) error) error {
	called, again := time.Now(), false
	return r.Guard.Keep(ctx, device, func(under context.Context) error {
		w := r.run(device, called)
		w.Kept, w.Again = true, again
		defer func() { called, again = r.recorder.back(w, nil), true }()
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
	w.Began, w.RequestID, w.Calls = began, d.RequestID, w.Calls+1
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
	return fn(context.WithValue(under, runKey{}, w))
}

// told records that the context has ended.
func (r *Recorder) told(ctx, under context.Context, w *Run) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.live, w)
	w.Told, w.Own, w.Cause = now, ctx.Err() != nil, EndOf(context.Cause(under))
}

// back records that Run has returned, or that a panic of the function goes through it. It returns when
// the run was told to stop, or else that very moment.
func (r *Recorder) back(w *Run, err error) time.Time {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	w.Back, w.Result = now, EndOf(err)
	return cmp.Or(w.Told, now)
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
