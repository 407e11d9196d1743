package guard_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/execguard/execguard/guard"
)

// A modelRecord is what was seen, from outside, while a schedule was played: everything that the
// model judges by. All that happened has a place in one order: what has the lower number was
// first. What is noted may have happened a little earlier, but in the same instant of fake time.
type modelRecord struct {
	modelSettings
	began time.Time
	ahead atomic.Int64 // of the wall clock

	mu      sync.Mutex // guards the order and the lists; what an entry holds is its goroutine's
	n       int
	calls   []*modelCall
	callers []*modelCaller
	runs    []*modelRun
	hints   []*modelHint
	ends    []*modelEnd
	jumps   []modelJump
	turns   []modelTurn
	stuck   string // what did not come to its end
}

// moment is when something happened, on both clocks. Its n is 0 if it never did.
type moment struct {
	n    int
	at   time.Duration // since the beginning
	wall time.Duration // likewise
}

func (m moment) came() bool { return m.n != 0 }

// modelCall is one call to the authority.
type modelCall struct {
	id       string // the request id of its answer
	device   string
	answer   modelAnswer
	sent     moment
	expires  time.Time     // by the wall clock, where its answer says so
	deadline time.Duration // of its context
	ended    moment        // its context, before it returned
	why      error         // the cause of that
	returned moment
	cut      bool // it returned because its context ended, without an answer
}

// modelCaller is one call of Run, Keep or Validate.
type modelCaller struct {
	do        string
	device    string
	outer     *modelRun // in whose function it was called
	called    moment
	cancelled moment // its context
	reason    error  // the cause of that
	cancel    context.CancelCauseFunc
	runs      []*modelRun
	events    []guard.EventKind // told on its goroutine

	returned moment
	decision guard.Decision // Validate's
	err      error
	panicked any
	exited   bool
}

// modelRun is one call of a function.
type modelRun struct {
	caller   *modelCaller
	device   string
	work     modelWork
	decision guard.Decision // what it was told to stand on
	ctx      context.Context
	started  moment
	ended    moment // its context, before it returned; not known of a quiet one
	why      error  // the cause of that
	polls    []modelPoll
	returned moment
	left     error // the cause with which its context had ended when it returned
	own      error // what it returned
	after    error // of its context, when Run had returned
	checked  error // Checkpoint's answer then
}

// modelPoll is one look of a function at its context.
type modelPoll struct {
	moment
	err     error // ctx.Err()
	checked error // Checkpoint's answer
}

type modelHint struct {
	device      string // "" for all
	begun, done moment
}

// modelEnd is a Close, or a Shutdown.
type modelEnd struct {
	do          string
	limit       time.Duration
	begun, done moment
	err         error
}

type modelJump struct {
	moment // after it
	by     time.Duration
}

// modelTurn is when the authority changed its mind.
type modelTurn struct {
	moment
	device string // "" for all
	answer modelAnswer
}

// Errors that functions and callers make up.
var (
	errModelOwn    = errors.New("the function's own")
	errModelCancel = errors.New("the caller's own")
	errModelLimit  = errors.New("the limit of a shutdown")
)

// modelOwnError tells one function's error from another's.
type modelOwnError struct{ of *modelRun }

func (e *modelOwnError) Error() string { return errModelOwn.Error() }

// mark notes that something happens now.
func (r *modelRecord) mark(m *moment) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*m = r.now()
}

// now is the next moment. The caller holds mu.
func (r *modelRecord) now() moment {
	r.n++
	at := time.Since(r.began)
	return moment{n: r.n, at: at, wall: at + time.Duration(r.ahead.Load())}
}

// wall is the guard's wall clock.
func (r *modelRecord) wall(t time.Time) int64 { return t.UnixNano() + r.ahead.Load() }

// over notes that a context has ended, unless that is known.
func (r *modelRecord) over(ctx context.Context, m *moment, why *error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !m.came() {
		*m, *why = r.now(), context.Cause(ctx)
	}
}

// watch notes when a context ends, until it is told that what it is for is over.
func (r *modelRecord) watch(ctx context.Context, m *moment, why *error) (stop func()) {
	unhook := context.AfterFunc(ctx, func() { r.over(ctx, m, why) })
	return func() {
		if !unhook() {
			r.over(ctx, m, why)
		}
	}
}

func (r *modelRecord) turn(device string, a modelAnswer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turns = append(r.turns, modelTurn{moment: r.now(), device: device, answer: a})
}

func (r *modelRecord) jump(by time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ahead.Add(int64(by))
	r.jumps = append(r.jumps, modelJump{moment: r.now(), by: by})
}
