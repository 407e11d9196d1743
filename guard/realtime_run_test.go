package guard_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/execguard/execguard/guard"
)

// seenRun is one run, seen from inside its function.
type seenRun struct {
	Device  string
	Part    string    // how the function goes about it: see parts
	Began   time.Time // the function was called
	LastYes time.Time // right before Checkpoint last said yes
	Told    time.Time // the function learnt that it had to stop
	Left    time.Time // right before it returned
	Err     string    // what Run returned
	Denied  bool      // that is what the contract wants of a denial in flight
}

func (w seenRun) String() string { return w.Device + ", which " + w.Part }

// listens tells whether the function waits to be told to stop.
func (w seenRun) listens() bool { return w.Part != partReturns && w.Part != partChecks }

// seenStart is one call of Run that called its function.
type seenStart struct {
	Called    time.Time // right before Run was called
	RequestID string    // of the ALLOW that it stood on
}

// The parts of functions that do not listen.
const (
	partChecks  = "asks Checkpoint"
	partReturns = "comes back after its line"
)

// listeners are the ways of listening to a context.
var listeners = []string{"listens", "listens to a context of its own", "is called back"}

// parts are what functions do until they have to stop, each in another of the ways in which a run
// that has lost its permission comes to know.
var parts = map[string]func(st *stage, w *seenRun, ctx context.Context){
	listeners[0]: func(st *stage, w *seenRun, ctx context.Context) { st.listen(w, ctx.Done()) },
	listeners[1]: func(st *stage, w *seenRun, ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, time.Hour)
		defer cancel()
		st.listen(w, ctx.Done())
	},
	listeners[2]: func(st *stage, w *seenRun, ctx context.Context) {
		called := make(chan struct{})
		defer context.AfterFunc(ctx, func() { close(called) })()
		st.listen(w, called)
	},
	partChecks: func(st *stage, w *seenRun, ctx context.Context) {
		st.tick(func(now time.Time) bool {
			if guard.Checkpoint(ctx) != nil {
				w.Told = time.Now()
				return false
			}
			w.LastYes = now
			return true
		})
	},
	partReturns: func(st *stage, w *seenRun, _ context.Context) {
		st.tick(func(now time.Time) bool { return now.Before(st.recorder.line(w.Device, w.Began)) })
	},
}

// stage is a guard with runs under it.
type stage struct {
	recorder *recorder
	guard    *guard.Guard
	observed bool
	over     chan struct{} // closed when whoever still runs has to come back
	end      func()        // closes it
	done     chan struct{} // closed when all runs have ended
}

// newStage makes a guard that asks the recorder; every other one is observed.
func newStage(r *recorder, n int, opts ...guard.Option) (*stage, error) {
	st := &stage{recorder: r, observed: n%2 == 0, over: make(chan struct{}), done: make(chan struct{})}
	st.end = sync.OnceFunc(func() { close(st.over) })
	opts = append(opts, r.pace.options()...)
	if st.observed {
		opts = append(opts, guard.WithObserver(r.observe))
	}
	var err error
	st.guard, err = guard.New(r, opts...)
	return st, err
}

// start starts one run a part, each of a device that is named by its place, and returns when all
// functions have been called.
func (st *stage) start(names []string) (runs []*seenRun, err error) {
	began := make(chan struct{}, len(names))
	var running sync.WaitGroup
	for i, part := range names {
		w := &seenRun{Device: deviceName(i), Part: part}
		runs = append(runs, w)
		running.Go(func() { st.live(w, func() { began <- struct{}{} }) })
	}
	go func() { running.Wait(); close(st.done) }()
	timer := time.NewTimer(startPatience)
	defer timer.Stop()
	for range names {
		select {
		case <-began:
		case <-timer.C:
			return nil, errTooBusy
		}
	}
	return runs, nil
}

func deviceName(i int) string { return fmt.Sprintf("dev-%d", i) }

// live runs a function once. On a busy machine an authority in good health may be too slow for
// these timeouts: then the start is tried again.
func (st *stage) live(w *seenRun, began func()) {
	for w.Began.IsZero() && !closed(st.over) {
		err := st.guard.Run(context.Background(), w.Device, func(ctx context.Context) error {
			w.Began = time.Now()
			began()
			parts[w.Part](st, w, ctx)
			w.Left = time.Now()
			return nil // never what it was told: Run has to know by itself
		})
		w.Err = fmt.Sprint(err)
		if w.Began.IsZero() {
			pauseFor(rand.N(40*time.Millisecond), st.over) // the machine may be too busy for all of them at once
		}
		denied := (*guard.DeniedError)(nil)
		w.Denied = errors.As(err, &denied) && denied.InFlight && errors.Is(err, guard.ErrUnavailable) && !errors.Is(err, context.Canceled)
	}
}

func (st *stage) listen(w *seenRun, told <-chan struct{}) {
	select {
	case <-told:
		w.Told = time.Now()
	case <-st.over:
	}
}

// tick calls f with the time, again and again until it returns false.
func (st *stage) tick(f func(now time.Time) bool) {
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for f(time.Now()) {
		select {
		case <-ticker.C:
		case <-st.over:
			return
		}
	}
}

// knock calls Run again and again until all runs have ended, with a function that returns at
// once, and returns the starts.
func (st *stage) knock(device string) (starts []seenStart) {
	st.tick(func(now time.Time) bool {
		_ = st.guard.Run(context.Background(), device, func(ctx context.Context) error {
			d, _ := guard.DecisionFrom(ctx)
			starts = append(starts, seenStart{Called: now, RequestID: d.RequestID})
			return nil
		})
		return !closed(st.done)
	})
	return starts
}

// wait waits for the runs to end, and ends them when they take too long.
func (st *stage) wait() {
	pauseFor(patience, st.done)
	st.end()
	<-st.done
}
