package guard

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"sync/atomic"
	"time"
)

// Guard runs functions while an authority allows it. It stands for one organisation: a code
// that concerns the organisation stops the work of every device of that Guard. All methods may
// be called from several goroutines at once; a Guard is made by New.
type Guard struct {
	config
	validate ValidatorFunc // a method value: fmt cannot look into it, and the validator may hold a secret
	clock    *clock
	events   *events // nil: nobody listens
	registry registry
	slots    slots
	schedule schedule

	seq       atomic.Uint64          // the order of requests sent and denials learnt
	orgDenial atomic.Pointer[denial] // the latest that concerns every device

	failing  atomic.Bool  // the last question brought no decision
	answered atomic.Int64 // when one last did; 0: none has
	failed   atomic.Int64 // when one last did not; 0: none has
	since    atomic.Int64 // when the first did not since one last did, while failing

	closeOnce sync.Once
	closed    atomic.Bool   // Close or Shutdown has begun
	closing   chan struct{} // closed then, for those who wait
	shut      atomic.Bool   // Close was called
	drainOnce sync.Once
	drain     drain
}

// Runner is the one method that adapters need of a Guard.
type Runner interface {
	Run(ctx context.Context, deviceID string, fn func(ctx context.Context) error) error
}

// New makes a Guard that asks v. It starts nothing: a Guard without work in flight has no
// goroutine and no request. v must speak for one organisation, because an organisation-wide
// code stops every device of the Guard. The error names every option that was refused, or what is
// wrong with v where v has a method Flaw() error that says so, as those have that Fallback, All and
// the clients' Validator methods return.
func New(v Validator, opts ...Option) (*Guard, error) {
	if isNil(v) {
		return nil, errors.New("guard: the Validator is nil")
	}
	if f, ok := v.(flawed); ok && f.Flaw() != nil {
		return nil, f.Flaw()
	}
	c, err := newConfig(opts)
	if err != nil {
		return nil, err
	}
	g := &Guard{config: c, validate: v.Validate, clock: newClock(), closing: make(chan struct{})}
	if len(c.observers) > 0 {
		g.events = &events{observers: c.observers, timeout: c.timeout}
	}
	g.registry.init()
	g.slots.init(c.maxRequests)
	g.schedule.init(g.clock)
	return g, nil
}

// isNil finds a nil function and a nil pointer in the interface too.
func isNil(v any) bool {
	r := reflect.ValueOf(v)
	return v == nil || (r.Kind() == reflect.Func || r.Kind() == reflect.Pointer) && r.IsNil()
}

// Run calls fn, on the caller's goroutine, if the authority allows the device to execute, and
// goes on asking while fn runs. When the device is denied, or has not been allowed anew by the
// stop line, fn's context is cancelled with the denial as its cause. fn has to obey its context:
// Go offers no way to stop a function that does not.
//
// Before the start Run waits for the authority: at most two timeouts and the retry budget, and
// at most an interval for a free request where there are too many (WithMaxRequests).
//
// Run returns a *DeniedError when the device was denied, before the start or while fn ran, even
// if fn returned nil then; the cause of ctx when ctx ended before the start; an error that
// matches ErrClosed when the guard was closed; an error when fn is nil; otherwise fn's own error,
// unchanged. A panic or runtime.Goexit of fn goes on unwinding.
func (g *Guard) Run(ctx context.Context, deviceID string, fn func(ctx context.Context) error) error {
	r := &run{Context: ctx}
	if fn != nil && g.reuse(r, deviceID) {
		_, err := r.execute(fn, r.started)
		return err
	}
	return g.runAsking(r, deviceID, fn)
}

// runAsking is the part of Run that waits for the authority. It is apart because a goroutine that
// need not wait can do with the smallest stack.
func (g *Guard) runAsking(r *run, deviceID string, fn func(ctx context.Context) error) error {
	a := attempt{guard: g, ctx: r.Context, fn: fn}
	if err := a.enter(deviceID); err != nil {
		return err
	}
	defer a.release()
	_, err := a.once(r)
	return err
}

// Do is Run for a function with a result. With an error of the guard's own the result is T's
// zero value; with fn's own error it is what fn returned beside it.
func Do[T any](ctx context.Context, r Runner, deviceID string, fn func(ctx context.Context) (T, error)) (T, error) {
	var result T
	var work error
	switch {
	case fn == nil:
		return result, errNoFunction
	case isNil(r):
		return result, errNoRunner
	}
	err := r.Run(ctx, deviceID, func(ctx context.Context) error {
		result, work = fn(ctx)
		return work
	})
	if err != nil && !same(err, work) {
		return *new(T), err
	}
	return result, err
}

// same is ==, for errors that cannot be compared too.
func same(a, b error) bool {
	if a == nil || b == nil || reflect.TypeOf(a) != reflect.TypeOf(b) {
		return a == nil && b == nil
	}
	return !reflect.ValueOf(a).Comparable() || a == b //nolint:errorlint // the very same is meant
}

// Validate asks the authority now, under the same rules as Run, so that a Guard is a Validator
// itself. A denial is a decision, not an error; where the authority could not be asked, both a
// decision with CodeSystemUnavailable and a *DeniedError come back. What is learnt counts: a
// denial stops the device's runs in flight, an ALLOW moves their stop line.
func (g *Guard) Validate(ctx context.Context, deviceID string) (Decision, error) {
	unanswered := Decision{Code: CodeSystemUnavailable, Reason: "the authority was not asked"}
	if err := g.refusal(deviceID); err != nil {
		if denied := (*DeniedError)(nil); errors.As(err, &denied) {
			return denied.Decision, nil
		}
		return unanswered, err
	}
	if ctx.Err() != nil {
		return unanswered, startCause(ctx)
	}
	a := attempt{guard: g, ctx: ctx}
	a.hold(deviceID)
	defer a.release()
	w, _, err := a.join(nil)
	if err != nil {
		return unanswered, err
	}
	v, seq, err := a.await(w)
	if err != nil {
		return unanswered, err
	}
	if v = a.device.stands(v, seq); !v.Allowed {
		a.device.awaitTold()
	}
	if v.Code == CodeSystemUnavailable {
		return v.Decision, v.deniedError(deviceID)
	}
	return v.Decision, nil
}

// Hint says that something about the device has changed, "" that something has changed for every
// device. It ends reuse and brings a question forward for devices with work in flight, a start
// that waits or a Keep that waits: at once, or after the request in flight, and for hints within a
// tenth of the interval once, at its end. It decides nothing: a hint that is lost, late, forged or
// doubled costs at most a request for each device. Hint does not block.
func (g *Guard) Hint(deviceID string) {
	g.events.enqueue(Event{Kind: EventHinted, DeviceID: deviceID})
	devices := g.registry.all
	if deviceID != "" {
		devices = func() []*device { return g.registry.one(deviceID) }
	}
	for _, d := range devices() {
		now := d.lock()
		d.hint(now)
		d.unlock(now)
	}
}

// StopBound is how long after the request of the last ALLOW was sent work may go on:
// interval + timeout + budget.
func (g *Guard) StopBound() time.Duration { return g.interval + g.timeout + g.budget }

// Interval is the time between two questions about a device that has work in flight. Who has been
// refused need not come again any sooner.
func (g *Guard) Interval() time.Duration { return g.interval }

// String names the guard's settings, and nothing of the validator, which may hold a secret.
func (g *Guard) String() string {
	return "guard(interval " + g.interval.String() + ", timeout " + g.timeout.String() + ", budget " + g.budget.String() + ")"
}

// GoString is String, so that %#v prints no secret either.
func (g *Guard) GoString() string { return g.String() }

// learnWide notes a denial that concerns the organisation, unless a later one is known.
func (g *Guard) learnWide(n *denial) {
	for {
		known := g.orgDenial.Load()
		if known != nil && known.seq > n.seq || g.orgDenial.CompareAndSwap(known, n) {
			return
		}
	}
}

// update has every device apply what is known.
func (g *Guard) update() {
	for _, d := range g.registry.all() {
		if d.line.Load() != 0 { // where nothing is permitted there is nothing to stop
			d.unlock(d.lock())
		}
	}
}

// handOn gives a slot back, or hands it to a device that waits for one and still wants it.
func (g *Guard) handOn(urgent bool) {
	d, urgent := g.slots.give(urgent)
	for d != nil && !d.granted(urgent) {
		d, urgent = g.slots.give(urgent)
	}
}
