package guard_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// behaviour is how the authority treats one call. It may wait as long as it likes, and may be
// called from several goroutines at once.
type behaviour func(ctx context.Context, c *asked) (guard.Decision, error)

// asked is the record of one call to the authority.
type asked struct {
	n        int    // the place in the order in which calls came, from 1
	device   string // what was asked about
	sent     time.Time
	returned time.Time      // zero while the call is in flight
	deadline time.Time      // of the call's context
	ended    error          // the cause of the call's context when the call returned; nil: it had not ended
	decision guard.Decision // what was answered
	err      error
	over     <-chan struct{} // closed when the test is over
}

// authority is a scripted guard.Validator, in process. It allows every device until told
// otherwise, records each call and holds no lock while it waits, so that it works in synctest
// bubbles. What a call is answered follows what was set when the call came.
type authority struct {
	mu       sync.Mutex
	everyone behaviour
	single   map[string]behaviour
	calls    []*asked
	over     chan struct{} // made and closed by newGuard
}

func newAuthority() *authority {
	return &authority{everyone: allows, single: map[string]behaviour{}}
}

// Validate is guard.Validator's.
func (a *authority) Validate(ctx context.Context, deviceID string) (d guard.Decision, err error) {
	c, b := a.record(ctx, deviceID)
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		c.returned, c.ended, c.decision, c.err = time.Now(), context.Cause(ctx), d, err
	}()
	return b(ctx, c)
}

func (a *authority) record(ctx context.Context, deviceID string) (*asked, behaviour) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := &asked{n: len(a.calls) + 1, device: deviceID, sent: time.Now(), over: a.over}
	c.deadline, _ = ctx.Deadline()
	a.calls = append(a.calls, c)
	if b, ok := a.single[deviceID]; ok {
		return c, b
	}
	return c, a.everyone
}

// set has calls about the devices named treated as b; with none named, calls about every
// device, whatever was set before.
func (a *authority) set(b behaviour, devices ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(devices) == 0 {
		a.everyone = b
		clear(a.single)
	}
	for _, id := range devices {
		a.single[id] = b
	}
}

func (a *authority) allow(devices ...string)                 { a.set(allows, devices...) }
func (a *authority) deny(code guard.Code, devices ...string) { a.set(denies(code), devices...) }
func (a *authority) fail(err error, devices ...string)       { a.set(fails(err), devices...) }

// answer has the same decision and error given to every call.
func (a *authority) answer(d guard.Decision, err error, devices ...string) {
	a.set(answers(d, err), devices...)
}

// hang has calls wait until their context ends.
func (a *authority) hang(devices ...string) { a.set(hangs, devices...) }

// stick has calls ignore their context and wait for release, or the end of the test; then they
// are answered as b says.
func (a *authority) stick(t *testing.T, b behaviour, devices ...string) (release func()) {
	t.Helper()
	stuck, release := sticks(b)
	t.Cleanup(release)
	a.set(stuck, devices...)
	return release
}

// asked returns a copy of the record of the calls about the devices named, or of all, in the
// order in which they came.
func (a *authority) asked(devices ...string) []asked {
	a.mu.Lock()
	defer a.mu.Unlock()
	var cs []asked
	for _, c := range a.calls {
		if len(devices) == 0 || slices.Contains(devices, c.device) {
			cs = append(cs, *c)
		}
	}
	return cs
}

// count returns how many calls have come about the devices named, or in all.
func (a *authority) count(devices ...string) int { return len(a.asked(devices...)) }

// inFlight returns how many calls about the devices named, or in all, have not returned.
func (a *authority) inFlight(devices ...string) int {
	n := 0
	for _, c := range a.asked(devices...) {
		if c.returned.IsZero() {
			n++
		}
	}
	return n
}

// last returns the record of the latest call about the devices named, or of all.
func (a *authority) last(t *testing.T, devices ...string) asked {
	t.Helper()
	cs := a.asked(devices...)
	if len(cs) == 0 {
		t.Fatalf("the authority was never asked about %q", devices)
	}
	return cs[len(cs)-1]
}

// answers gives d and err as they are, without looking at the context.
func answers(d guard.Decision, err error) behaviour {
	return func(context.Context, *asked) (guard.Decision, error) { return d, err }
}

// allows gives a well-formed ALLOW. Its request id tells the calls apart: "r1" is the first.
func allows(_ context.Context, c *asked) (guard.Decision, error) {
	return guard.Decision{Allowed: true, Code: guard.CodeAllow, RequestID: c.id(), DeviceID: c.device}, nil
}

// denies gives a well-formed denial.
func denies(code guard.Code) behaviour {
	return func(_ context.Context, c *asked) (guard.Decision, error) {
		return guard.Decision{Code: code, RequestID: c.id(), DeviceID: c.device}, nil
	}
}

// fails gives no decision, but an error: a transport that does not work.
func fails(err error) behaviour { return answers(guard.Decision{}, err) }

// hangs waits until the call's context ends, and returns why it did.
func hangs(ctx context.Context, _ *asked) (guard.Decision, error) {
	<-ctx.Done()
	return guard.Decision{}, context.Cause(ctx)
}

// sticks waits for release, whatever happens to the context, and then does what b does.
func sticks(b behaviour) (stuck behaviour, release func()) {
	released := make(chan struct{})
	return func(ctx context.Context, c *asked) (guard.Decision, error) {
		<-released
		return b(ctx, c)
	}, sync.OnceFunc(func() { close(released) })
}

// after takes the answer of b when the call comes, and gives it d later; a call whose context
// ends meanwhile returns the cause of that.
func after(d time.Duration, b behaviour) behaviour {
	return func(ctx context.Context, c *asked) (guard.Decision, error) {
		decision, err := b(ctx, c)
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			return decision, err
		case <-ctx.Done():
			return guard.Decision{}, context.Cause(ctx)
		}
	}
}

// deaf is after without an eye on the context. The end of the test ends the wait, because time
// stands still in a bubble whose test has returned.
func deaf(d time.Duration, b behaviour) behaviour {
	return func(ctx context.Context, c *asked) (guard.Decision, error) {
		decision, err := b(ctx, c)
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-c.over:
		}
		return decision, err
	}
}

// inTurn treats the first call that it gets as the first of bs, and so on; the last of bs stays.
// A call about any device counts.
func inTurn(bs ...behaviour) behaviour {
	var mu sync.Mutex
	next := 0
	return func(ctx context.Context, c *asked) (guard.Decision, error) {
		mu.Lock()
		b := bs[min(next, len(bs)-1)]
		next++
		mu.Unlock()
		return b(ctx, c)
	}
}

func (c asked) id() string { return fmt.Sprintf("r%d", c.n) }

// newGuard makes a guard that is closed at the end of the test, or of the bubble.
func newGuard(t *testing.T, v guard.Validator, opts ...guard.Option) *guard.Guard {
	t.Helper()
	g, err := guard.New(v, opts...)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	if a, ok := v.(*authority); ok {
		a.endWith(t)
	}
	return g
}

// endWith ends the calls that are deaf to their context when the test is over.
func (a *authority) endWith(t *testing.T) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over == nil {
		a.over = make(chan struct{})
		t.Cleanup(func() { close(a.over) })
	}
}

// running is a run on a goroutine of its own.
type running struct {
	began chan struct{}   // closed when the function was called
	ctx   context.Context // the function's; read it after began
	done  chan struct{}   // closed when Run has returned
	err   error           // what Run returned; read it after done
	at    time.Time       // when it returned; likewise
}

// launch calls Run on a new goroutine with a function that runs until its context ends and
// returns the context's error. The caller sees to it that it ends: cancelling ctx, or the end of
// a guard that newGuard made, will do.
func launch(ctx context.Context, g guard.Runner, device string) *running {
	return launchFunc(ctx, g, device, func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	})
}

// launchFunc is launch with a function of the caller's.
func launchFunc(ctx context.Context, g guard.Runner, device string, fn func(context.Context) error) *running {
	r := &running{began: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.err = g.Run(ctx, device, func(ctx context.Context) error {
			r.ctx = ctx
			close(r.began)
			return fn(ctx)
		})
		r.at = time.Now()
	}()
	return r
}

// started tells whether the function has been called.
func (r *running) started() bool { return closed(r.began) }

// returned tells whether Run has returned.
func (r *running) returned() bool { return closed(r.done) }

// cancelled tells whether the function was called and its context has ended.
func (r *running) cancelled() bool { return r.started() && r.ctx.Err() != nil }

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// finish waits for Run to return and gives what it returned.
func (r *running) finish() error {
	<-r.done
	return r.err
}

// bubble runs f as a subtest in a synctest bubble.
func bubble(t *testing.T, name string, f func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

// mustNotRun is a function that the guard may not call.
func mustNotRun(t *testing.T) func(context.Context) error {
	return func(context.Context) error {
		t.Error("the function was called")
		return nil
	}
}

// wantDenied holds err to what the contract says of every denial, and of this one.
func wantDenied(t *testing.T, err error, device string, code guard.Code, inFlight bool) *guard.DeniedError {
	t.Helper()
	denied := wantDenial(t, err, device, code)
	if denied.InFlight != inFlight {
		t.Errorf("InFlight is %v, want %v: %v", denied.InFlight, inFlight, err)
	}
	if errors.Is(err, context.Canceled) {
		t.Errorf("the denial matches context.Canceled: %v", err)
	}
	return denied
}

// wantStopped holds a function's context to what the contract says of one that a denial ended.
func wantStopped(t *testing.T, ctx context.Context, device string, code guard.Code) *guard.DeniedError {
	t.Helper()
	if ctx.Err() != context.Canceled {
		t.Fatalf("the function's context says %v, want %v", ctx.Err(), context.Canceled)
	}
	cause := context.Cause(ctx)
	if !errors.Is(cause, context.Canceled) {
		t.Errorf("the cause does not match context.Canceled: %v", cause)
	}
	denied := wantDenial(t, cause, device, code)
	if !denied.InFlight {
		t.Errorf("the cause is not InFlight: %v", cause)
	}
	return denied
}

func wantDenial(t *testing.T, err error, device string, code guard.Code) *guard.DeniedError {
	t.Helper()
	var denied *guard.DeniedError
	if !errors.As(err, &denied) {
		t.Fatalf("got %v (%T), want a denial of %q with %s", err, err, device, code)
	}
	d := denied.Decision
	if denied.DeviceID != device || d.Code != code || d.Allowed {
		t.Errorf("got a denial of %q with %+v, want %q with %s", denied.DeviceID, d, device, code)
	}
	if unavailable := code == guard.CodeSystemUnavailable; errors.Is(err, guard.ErrUnavailable) != unavailable {
		t.Errorf("matches ErrUnavailable: %v, want %v: %v", !unavailable, unavailable, err)
	} else if unavailable && d.Reason == "" {
		t.Errorf("%s without a Reason: %+v", code, d)
	}
	if !errors.Is(err, guard.ErrDenied) || errors.Is(err, guard.ErrClosed) {
		t.Errorf("does not match ErrDenied, or matches ErrClosed: %v", err)
	}
	return denied
}

// wantRunning fails unless the run's function has been called and its context is live.
func wantRunning(t *testing.T, r *running, why string) {
	t.Helper()
	if r.returned() {
		t.Fatalf("%s: Run has returned %v", why, r.err)
	}
	if !r.started() {
		t.Fatalf("%s: the function was not called", why)
	}
	if r.ctx.Err() != nil {
		t.Fatalf("%s: the function's context ended: %v", why, context.Cause(r.ctx))
	}
}
