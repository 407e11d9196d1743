package guard

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A crowd is 64 goroutines that do all that can be done with a guard, on real threads, as many
// times as was said, while devices and their organisation are revoked and restored. What is checked
// is put in terms of what happened before what, and holds however the threads are scheduled:
// somebody asks until he is told of the denial, and from the moment at which he has been told until
// the device is restored no context of it is live and nothing starts.
type crowd struct {
	t       *testing.T
	g       *Guard
	devices []*crowdDevice
	frozen  atomic.Bool
	org     knowledge
	told    [7]atomic.Int64 // events, by kind

	turns chan struct{} // lets one of those go that stay in flight
	over  chan struct{} // lets all of them go
}

// crowdDevice is what the test knows about one device.
type crowdDevice struct {
	id      string
	revoked atomic.Bool
	knowledge

	mu   sync.Mutex
	live map[context.Context]bool // of the functions that run
}

// knowledge is what has become known to the guard. It is odd from the moment at which somebody has
// been told of the denial until just before the authority takes it back.
type knowledge struct {
	turn   sync.Mutex // held by whoever revokes
	phases atomic.Int64
}

// known returns the phase if it is one in which the denial is known, else 0.
func (k *knowledge) known() int64 {
	phase := k.phases.Load()
	return phase * (phase & 1)
}

// since tells whether the denial was known in the phase given, and has been ever since.
func (k *knowledge) since(phase int64) bool { return phase != 0 && k.phases.Load() == phase }

// Validate is the authority. It never fails.
func (c *crowd) Validate(_ context.Context, id string) (Decision, error) {
	n, _ := strconv.Atoi(id)
	switch d := c.devices[n]; {
	case c.frozen.Load():
		return Decision{Code: CodePlanFrozen}, nil
	case d.revoked.Load():
		return Decision{Code: CodeDeviceRevoked}, nil
	}
	return Decision{Allowed: true, Code: CodeAllow, RequestID: id, DeviceID: id}, nil
}

func (c *crowd) observe(_ context.Context, e Event) {
	c.told[slices.Index(crowdKinds, e.Kind)].Add(1)
}

var crowdKinds = []EventKind{EventValidated, EventStarted, EventRefused, EventStopped, EventFinished, EventOverran, EventHinted}

func (c *crowd) count(kind EventKind) int64 { return c.told[slices.Index(crowdKinds, kind)].Load() }

// some is any device; every other time it is one of few, which therefore have company.
func (c *crowd) some() *crowdDevice {
	n := len(c.devices)
	if rand.N(2) == 0 {
		n = min(n, 50)
	}
	return c.devices[rand.N(n)]
}

// crowdVisit is one Run, and what its function has seen.
type crowdVisit struct {
	c      *crowd
	device *crowdDevice
	before int64 // the denial that was known when Run was called

	calls  int
	denied bool            // it has seen the denial
	child  context.Context // derived from the run's, and left to it
}

// run is one Run, with a caller's context of any kind.
func (c *crowd) run(ctx context.Context, depth int) {
	d := c.some()
	v := &crowdVisit{c: c, device: d, before: d.known()}
	ctx, cancel := anyContext(ctx)
	defer cancel()
	err := c.g.Run(ctx, d.id, func(ctx context.Context) error { return v.work(ctx, depth) })
	v.returned(ctx, err)
}

// anyContext derives a caller's context; some of them end by themselves.
func anyContext(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	switch rand.N(8) {
	case 0:
		go cancel(errOwn)
	case 1:
		ctx, end := context.WithTimeoutCause(ctx, rand.N(200*time.Microsecond), errOwn)
		return ctx, func() { end(); cancel(nil) }
	case 2:
		return struct{ context.Context }{ctx}, func() { cancel(nil) }
	case 3:
		return context.WithValue(ctx, crowdVisit{}, 1), func() { cancel(nil) }
	}
	return ctx, func() { cancel(nil) }
}

// work is the function under guard.
func (v *crowdVisit) work(ctx context.Context, depth int) error {
	v.calls++
	if v.before != 0 && v.device.since(v.before) {
		v.c.t.Errorf("S5: started on a device whose denial was known before Run was called")
	}
	child, cancel := context.WithCancel(ctx)
	context.AfterFunc(child, cancel) // the run's end ends it
	v.child = child
	v.device.enter(ctx, child)
	defer v.device.leave(ctx, child)
	v.look(ctx)
	for range rand.N(4) {
		v.use(ctx, depth)
		v.look(ctx)
	}
	return errOwn
}

func (d *crowdDevice) enter(ctxs ...context.Context) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, ctx := range ctxs {
		d.live[ctx] = true
	}
}

func (d *crowdDevice) leave(ctxs ...context.Context) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, ctx := range ctxs {
		delete(d.live, ctx)
	}
}

// look looks at the run's own context as the invariants do. An organisation's denial may still be
// on its way to the contexts of other devices (B4), but Checkpoint knows.
func (v *crowdVisit) look(ctx context.Context) {
	device, org := v.device.known(), v.c.org.known()
	err, live := Checkpoint(ctx), ctx.Err() == nil
	if v.device.since(device) && (err == nil || live) {
		v.c.t.Errorf("S3: the denial of a device is known, Checkpoint says %v, its context is live: %t", err, live)
	}
	if v.c.org.since(org) && err == nil {
		v.c.t.Error("S3: the denial of the organisation is known, and Checkpoint does not know it")
	}
	for _, err := range []error{err, context.Cause(ctx)} {
		denial := (*DeniedError)(nil)
		v.denied = v.denied || errors.As(err, &denial) && denial.DeviceID == v.device.id // and not of the run around it
	}
}

// use does with the context what functions do.
func (v *crowdVisit) use(ctx context.Context, depth int) {
	switch rand.N(10) {
	case 0:
		child, cancel := context.WithCancel(ctx)
		cancel()
		<-child.Done()
	case 1:
		child, cancel := context.WithTimeout(context.WithValue(ctx, crowdVisit{}, 2), time.Hour)
		defer cancel()
		v.wantBelow(ctx, child)
	case 2:
		stop := context.AfterFunc(ctx, func() { _ = Checkpoint(ctx) })
		defer stop()
	case 3:
		if d, ok := DecisionFrom(ctx); !ok || d.DeviceID != v.device.id || !d.Allowed {
			v.c.t.Errorf("S1: started on %+v", d)
		}
	case 4:
		if depth > 0 {
			v.c.run(ctx, depth-1)
		}
	case 5:
		select {
		case <-ctx.Done():
		case <-v.c.turns:
		case <-v.c.over:
		}
	default:
		_, _ = ctx.Value(crowdVisit{}), context.Cause(ctx)
		runtime.Gosched()
	}
}

// wantBelow holds a run's context to its child: whose parent is over is over himself, or about to
// be, and of a denial he knows what his parent knows.
func (v *crowdVisit) wantBelow(parent, child context.Context) {
	if parent.Err() != nil {
		<-child.Done() // or the test hangs
	}
	if err := Checkpoint(context.WithoutCancel(parent)); err != nil && Checkpoint(child) == nil {
		v.c.t.Errorf("Checkpoint is nil below a run for which it was %v", err)
	}
}

// returned checks what Run returned.
func (v *crowdVisit) returned(ctx context.Context, err error) {
	denial := (*DeniedError)(nil)
	refused := errors.As(err, &denial)
	switch {
	case refused && !v.c.says(denial.Decision.Code):
		v.c.t.Errorf("an authority that never fails: %v", err)
	case v.calls > 1:
		v.c.t.Errorf("the function was called %d times", v.calls)
	case v.calls == 0 && !refused && (ctx.Err() == nil || err != context.Cause(ctx)): //nolint:errorlint // itself
		v.c.t.Errorf("Run did not call the function and returned %v", err)
	case v.calls == 1 && v.denied && !refused:
		v.c.t.Errorf("S3: the function was denied, and Run returned %v", err)
	case v.calls == 1 && v.child.Err() == nil:
		v.c.t.Error("Run has returned, and a context below its own is live")
	case v.calls == 1 && !errors.Is(err, errOwn):
		v.c.t.Errorf("what the function returned is not in %v", err)
	}
}

// says tells whether a denial can come from this authority.
func (c *crowd) says(code Code) bool { return code == CodeDeviceRevoked || code == CodePlanFrozen }

// step is one thing that a caller does.
func (c *crowd) step() {
	switch rand.N(40) {
	case 0:
		c.g.Hint(c.some().id)
	case 1:
		c.revoke(c.some())
	case 2:
		if _, err := c.g.Validate(c.t.Context(), c.some().id); err != nil {
			c.t.Errorf("Validate: %v", err)
		}
	case 3:
		if rand.N(20) == 0 {
			c.freeze()
			c.g.Hint("")
		}
	default:
		c.run(c.t.Context(), 2)
	}
	select {
	case c.turns <- struct{}{}:
	default:
	}
}

// learn asks until the guard has been told what the authority says.
func (c *crowd) learn(d *crowdDevice, codes ...Code) {
	for {
		switch decision, err := c.g.Validate(c.t.Context(), d.id); {
		case err != nil:
			c.t.Errorf("Validate: %v", err)
			return
		case slices.Contains(codes, decision.Code):
			return
		}
	}
}

// revoke has one device revoked, sees that nothing of it is left, and has it restored.
func (c *crowd) revoke(d *crowdDevice) {
	if !d.turn.TryLock() {
		return
	}
	defer d.turn.Unlock()
	d.revoked.Store(true)
	c.learn(d, CodeDeviceRevoked, CodePlanFrozen)
	d.phases.Add(1)
	d.mu.Lock()
	for ctx := range d.live {
		if ctx.Err() == nil || Checkpoint(ctx) == nil {
			c.t.Errorf("S3: the denial is known, and a run is live; Checkpoint says %v", Checkpoint(ctx))
		}
	}
	d.mu.Unlock()
	for range 3 {
		if err := c.g.Run(c.t.Context(), d.id, func(context.Context) error { return errOwn }); !errors.Is(err, ErrDenied) || errors.Is(err, errOwn) {
			c.t.Errorf("S5: a start on a device that is revoked: %v", err)
		}
	}
	d.phases.Add(1)
	d.revoked.Store(false)
}

// freeze does the same with the organisation.
func (c *crowd) freeze() {
	if !c.org.turn.TryLock() {
		return
	}
	defer c.org.turn.Unlock()
	c.frozen.Store(true)
	c.learn(c.some(), CodePlanFrozen)
	c.org.phases.Add(1)
	var live []context.Context
	for _, d := range c.devices {
		d.mu.Lock()
		for ctx := range d.live {
			if live = append(live, ctx); Checkpoint(ctx) == nil {
				c.t.Error("S3: the organisation's denial is known, and Checkpoint does not know it")
			}
		}
		d.mu.Unlock()
	}
	for _, ctx := range live {
		<-ctx.Done() // or the test hangs
	}
	c.org.phases.Add(1)
	c.frozen.Store(false)
}

func TestContention(t *testing.T) {
	for devices, steps := range map[int]int{1: 250, 10_000: 150} {
		for name, opts := range map[string][]Option{
			"strict": {WithInterval(20 * time.Millisecond)},
			"reuse":  {WithInterval(200 * time.Millisecond), WithReuse(50 * time.Millisecond)},
		} {
			t.Run(fmt.Sprint(devices, " devices, ", name), func(t *testing.T) { newCrowd(t, devices, opts).play(64, steps) })
		}
	}
}

func newCrowd(t *testing.T, devices int, opts []Option) *crowd {
	t.Helper()
	c := &crowd{t: t, turns: make(chan struct{}), over: make(chan struct{})}
	for i := range devices {
		c.devices = append(c.devices, &crowdDevice{id: strconv.Itoa(i), live: map[context.Context]bool{}})
	}
	// Nothing here may depend on how long anything takes: no call times out, no start waits for a slot.
	g, err := New(c, append(opts, WithTimeout(time.Minute), WithMaxRequests(1<<16), WithObserver(c.observe))...)
	if err != nil {
		t.Fatal(err)
	}
	c.g = g
	return c
}

func (c *crowd) play(callers, steps int) {
	t, goroutines := c.t, runtime.NumGoroutine()
	var all sync.WaitGroup
	done := sync.OnceFunc(func() { close(c.over) })
	for range callers {
		all.Go(func() {
			defer done()
			for range steps {
				c.step()
			}
		})
	}
	within(t, time.Minute, "every caller has returned", all.Wait)
	for _, d := range c.devices[:min(50, len(c.devices))] { // all of them restored
		if err := c.g.Run(t.Context(), d.id, func(context.Context) error { return errOwn }); !errors.Is(err, errOwn) || errors.Is(err, ErrDenied) {
			t.Errorf("S5: a start when all is over: %v", err)
		}
	}
	soon := func(what string, ok func() bool) {
		within(t, 20*time.Second, what, func() {
			for !ok() && t.Context().Err() == nil {
				pause(t.Context(), time.Millisecond)
			}
		})
	}
	soon("the guard holds nothing", func() bool { return holds(c.g) == held{} })
	_ = c.g.Close()
	soon("no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines+1 }) // it looks from one of its own
	started, stopped, finished := c.count(EventStarted), c.count(EventStopped), c.count(EventFinished)
	t.Logf("%d started, %d stopped, %d finished, %d refused", started, stopped, finished, c.count(EventRefused))
	if started != stopped+finished || stopped == 0 || c.count(EventRefused) == 0 {
		t.Error("the events do not add up, or nothing was tested")
	}
}

// Whoever hears of a denial finds no context of the device live, nor any below, however many there
// are and however long it takes to tell them.
func TestContention_WhoHearsOfADenialFindsNothingLive(t *testing.T) {
	nothing := func(context.Context) error { return nil }
	for range 3 {
		c := newCrowd(t, 1, []Option{WithInterval(time.Hour)})
		if late := c.lateAfter(1500, func() { _, _ = c.g.Validate(t.Context(), "0") }); late > 0 {
			t.Errorf("S3: Validate has told of the denial, and %d contexts are live", late)
		}
		c = newCrowd(t, 1, []Option{WithInterval(time.Hour)})
		if late := c.lateAfter(1500, func() { _ = c.g.Run(t.Context(), "0", nothing) }); late > 0 {
			t.Errorf("S3: Run has told of the denial, and %d contexts are live", late)
		}
	}
}

// lateAfter has many runs in flight when somebody hears of a denial, and counts those that are live
// then: by a context below the run's own.
func (c *crowd) lateAfter(runs int, hear func()) (late int) {
	contexts := make(chan context.Context)
	var all sync.WaitGroup
	for range runs {
		all.Go(func() {
			_ = c.g.Run(c.t.Context(), "0", func(ctx context.Context) error {
				child, cancel := context.WithCancel(ctx)
				defer cancel()
				contexts <- child
				<-c.over
				return nil
			})
		})
	}
	live := make([]context.Context, runs)
	for i := range live {
		live[i] = <-contexts
	}
	c.devices[0].revoked.Store(true)
	hear()
	for _, ctx := range live {
		if ctx.Err() == nil {
			late++
		}
	}
	close(c.over)
	all.Wait()
	_ = c.g.Close()
	return late
}

// Of a crowd on one device many leave by themselves, in any order; the denial stops those that are
// left, all of them and nobody else. A device that has seen a crowd is as good as new.
func TestContention_ACrowdThatLeaves(t *testing.T) {
	const runs = 3000
	c := newCrowd(t, 1, []Option{WithInterval(time.Hour)})
	for _, gone := range []int{runs, runs / 2, 1} {
		var all sync.WaitGroup
		var mu sync.Mutex
		began, stay := make(chan struct{}), rand.Perm(runs)
		leave := make([]chan struct{}, runs)
		stopped := make([]bool, runs)
		for i := range runs {
			leave[i] = make(chan struct{})
			all.Go(func() {
				err := c.g.Run(t.Context(), "0", func(ctx context.Context) error {
					began <- struct{}{}
					select {
					case <-ctx.Done():
					case <-leave[i]:
					}
					return nil
				})
				mu.Lock()
				defer mu.Unlock()
				stopped[i] = errors.Is(err, ErrDenied)
				began <- struct{}{}
			})
		}
		take := func(n int) {
			for range n {
				<-began
			}
		}
		take(runs)
		for _, i := range stay[:gone] {
			close(leave[i])
		}
		take(gone)
		c.devices[0].revoked.Store(true)
		_, _ = c.g.Validate(t.Context(), "0")
		take(runs - gone)
		all.Wait()
		for n, i := range stay {
			if stopped[i] != (n >= gone) {
				t.Fatalf("run %d: stopped: %t", i, stopped[i])
			}
		}
		c.devices[0].revoked.Store(false)
		for n := range 100 { // the crowd comes again one by one
			if err := c.g.Run(t.Context(), "0", func(ctx context.Context) error { return ctx.Err() }); err != nil {
				t.Fatalf("run %d after the crowd: %v", n, err)
			}
		}
	}
	_ = c.g.Close()
}
