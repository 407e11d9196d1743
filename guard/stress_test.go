package guard

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A stress is an authority at random, and 64 callers at random, in real time. What it checks
// holds exactly, whatever the scheduler does: it is put in terms of the order of things, not of
// time. The order is one counter: what has the lower number was first.
type stress struct {
	t           *testing.T
	g           *Guard
	reuse       time.Duration
	maxRequests int
	timeout     time.Duration
	devices     int

	mu      sync.Mutex
	order   int64
	total   int
	visits  map[string]*visit          // by request id
	flying  map[string]map[*visit]bool // by device
	revoked map[string]bool
	frozen  bool
	healthy bool             // no faults any more
	doomed  bool             // every device is revoked
	denials map[string]int64 // by device: the latest denial that a caller has heard of; "" for the organisation's

	shut    atomic.Bool // Close has returned
	closing atomic.Bool // Close is about to be called
	started atomic.Int64
	denied  atomic.Int64
}

// visit is one call to the authority.
type visit struct {
	device        string
	ctx           context.Context
	came          time.Time
	entered, left int64 // in the order of things
	allowed       bool
	decided       bool // an answer of the authority, not a fault
}

func (s *stress) tick() int64 {
	s.order++
	return s.order
}

func (s *stress) now() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tick()
}

// Validate is the authority.
func (s *stress) Validate(ctx context.Context, id string) (d Decision, err error) {
	v := s.enter(ctx, id)
	defer s.leave(v)
	s.mu.Lock()
	healthy, revoked, frozen := s.healthy, s.revoked[id] || s.doomed, s.frozen && !s.doomed
	s.mu.Unlock()
	pause(ctx, rand.N(2*time.Millisecond))
	answer := Decision{Allowed: true, Code: CodeAllow, RequestID: strconv.FormatInt(v.entered, 10), DeviceID: id}
	if !healthy {
		switch rand.N(40) {
		case 0:
			return answer, errors.New("beside an ALLOW")
		case 1:
			panic("in the validator")
		case 2:
			<-ctx.Done()
			return Decision{}, ctx.Err()
		case 3:
			pause(context.Background(), 3*s.timeout) // deaf
		case 4:
			return Decision{}, errors.New("down")
		case 5:
			return Decision{Code: CodeSystemUnavailable, RetryAfter: time.Millisecond}, nil
		}
	}
	switch {
	case frozen:
		answer.Allowed, answer.Code = false, CodePlanFrozen
	case revoked:
		answer.Allowed, answer.Code = false, CodeDeviceRevoked
	}
	s.mu.Lock()
	v.decided, v.allowed = true, answer.Allowed
	s.mu.Unlock()
	return answer, nil
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// enter checks L1 and L4: one call a device that has not been given up, two more that have, and
// no more in all than there are slots.
func (s *stress) enter(ctx context.Context, id string) *visit {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := &visit{device: id, ctx: ctx, came: time.Now(), entered: s.tick()}
	s.visits[strconv.FormatInt(v.entered, 10)] = v
	for other := range s.flying[id] {
		if other.ctx.Err() == nil && ctx.Err() == nil {
			s.t.Errorf("L1: two requests about %s in flight, neither given up", id)
		}
	}
	if s.flying[id] == nil {
		s.flying[id] = map[*visit]bool{}
	}
	s.flying[id][v] = true
	if n := len(s.flying[id]); n > 1+maxHung {
		s.t.Errorf("L4: %d calls about %s", n, id)
	}
	if s.total++; s.total > s.maxRequests {
		s.t.Errorf("L4: %d calls, the bound is %d", s.total, s.maxRequests)
	}
	return v
}

func (s *stress) leave(v *visit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v.left = s.tick()
	s.total--
	delete(s.flying[v.device], v)
}

// heard notes a denial of the authority's that a caller was handed: from here on the guard knows.
func (s *stress) heard(device string, d Decision) {
	if d.Allowed || d.Code != CodeDeviceRevoked && d.Code != CodePlanFrozen {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.visits[d.RequestID]
	if v == nil || !v.decided || v.allowed || v.left == 0 {
		s.t.Errorf("%s was denied by request %q, which did not", device, d.RequestID)
		return
	}
	if d.Code == CodePlanFrozen {
		device = ""
	} else if v.device != device {
		s.t.Errorf("%s was denied by a request about %s", device, v.device)
	}
	s.denials[device] = max(s.denials[device], v.left)
	s.denied.Add(1)
}

// lastDenial is the place in the order of the latest denial that is known to concern device.
func (s *stress) lastDenial(device string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(s.denials[device], s.denials[""])
}

// attempted is one call of Run or Keep.
type attempted struct {
	s          *stress
	device     string
	called     int64 // in the order of things
	at         time.Time
	denialThen int64 // the latest that was known when it was called
	shutThen   bool

	calls  int
	denied error // what Checkpoint said, or the context's cause, where it was a denial
}

func (s *stress) attempt(device string) *attempted {
	return &attempted{
		s: s, device: device, shutThen: s.shut.Load(), denialThen: s.lastDenial(device), at: time.Now(), called: s.now(),
	}
}

// fn is the function under guard. It lasts for the life given, or until its context ends.
func (a *attempted) fn(life time.Duration) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		a.calls++
		a.s.started.Add(1)
		if a.shutThen {
			a.s.t.Error("S7: started after Close")
		}
		if a.s.shut.Load() && ctx.Err() == nil {
			a.s.t.Error("S7: a context is live after Close")
		}
		v := a.permission(ctx)
		if v == nil {
			return nil
		}
		a.checkpoint(ctx, v)
		pause(ctx, life)
		a.checkpoint(ctx, v)
		if denial := (*DeniedError)(nil); errors.As(context.Cause(ctx), &denial) {
			a.denied = denial
		}
		switch rand.N(20) {
		case 0:
			panic(a)
		case 1:
			return errOwn
		}
		return ctx.Err()
	}
}

var errOwn = errors.New("the function's own")

// permission checks S1 and S5 for a function that has just been called.
func (a *attempted) permission(ctx context.Context) *visit {
	s := a.s
	decision, _ := DecisionFrom(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.visits[decision.RequestID]
	switch {
	case v == nil || !v.allowed || v.device != a.device || v.left == 0:
		s.t.Errorf("S1: %s started on %+v, which was no ALLOW for it", a.device, decision)
		return nil
	case s.reuse == 0 && v.entered < a.called:
		s.t.Errorf("S1: %s started on a request that was sent before Run was called", a.device)
	case a.at.Sub(v.came) > max(s.reuse, 0) && v.entered < a.called:
		s.t.Errorf("S1: %s started on an ALLOW that was %v old", a.device, a.at.Sub(v.came))
	case v.entered < a.denialThen:
		s.t.Errorf("S5: %s started on a request older than a denial that was known", a.device)
	}
	return v
}

// checkpoint checks that a denial which somebody knows of has stopped this run, if it stands on
// an older request. One that concerns the organisation may still be on its way to the contexts of
// other devices (B4), but Checkpoint knows.
func (a *attempted) checkpoint(ctx context.Context, v *visit) {
	a.s.mu.Lock()
	known, wide := a.s.denials[a.device], a.s.denials[""]
	a.s.mu.Unlock()
	err := Checkpoint(ctx)
	if v.entered < max(known, wide) && err == nil {
		a.s.t.Errorf("S3: Checkpoint is nil on %s, which was denied since (%t) or its organisation (%t)",
			a.device, v.entered < known, v.entered < wide)
	}
	if v.entered < known && ctx.Err() == nil {
		a.s.t.Errorf("S3: a context is live on %s, which was denied since", a.device)
	}
	if errors.Is(err, ErrDenied) {
		a.denied = err
	}
}

// returned checks what Run returned.
func (a *attempted) returned(ctx context.Context, err error, keep bool) {
	denial := (*DeniedError)(nil)
	isDenial := errors.As(err, &denial)
	if isDenial {
		a.s.heard(a.device, denial.Decision)
	}
	switch {
	case errors.Is(err, ErrDenied) != isDenial:
		a.s.t.Errorf("ErrDenied and DeniedError differ on %v", err)
	case isDenial && errors.Is(err, context.Canceled):
		a.s.t.Errorf("a denial matches Canceled: %v", err)
	case errors.Is(err, ErrClosed) && !a.s.closing.Load():
		a.s.t.Errorf("closed before Close: %v", err)
	case a.shutThen && !errors.Is(err, ErrClosed):
		a.s.t.Errorf("S7: Run after Close returned %v", err)
	case keep:
	case a.calls > 1:
		a.s.t.Errorf("the function was called %d times", a.calls)
	case a.calls == 0 && err == nil:
		a.s.t.Error("Run returned nil and did not call the function")
	case a.calls == 0 && !isDenial && !errors.Is(err, ErrClosed) && ctx.Err() == nil:
		a.s.t.Errorf("Run did not call the function: %v", err)
	case a.calls == 1 && a.denied != nil && !isDenial:
		a.s.t.Errorf("the function was denied (%v), Run returned %v", a.denied, err)
	case isDenial && denial.InFlight != (a.calls == 1):
		a.s.t.Errorf("the function was called %d times, Run returned %#v", a.calls, denial)
	}
}

// run is one step of a caller.
func (s *stress) run() {
	device := strconv.Itoa(rand.N(s.devices))
	ctx, cancel := context.WithCancel(s.t.Context())
	defer cancel()
	life := rand.N(5 * time.Millisecond)
	switch rand.N(10) {
	case 0:
		ctx, cancel = context.WithTimeout(ctx, rand.N(3*time.Millisecond))
		defer cancel()
	case 1:
		time.AfterFunc(rand.N(3*time.Millisecond), cancel)
	case 2:
		life = time.Hour
		ctx, cancel = context.WithTimeout(ctx, rand.N(100*time.Millisecond))
		defer cancel()
	}
	a := s.attempt(device)
	defer func() {
		if p := recover(); p != nil && p != any(a) {
			s.t.Errorf("unwound with %v", p)
		}
	}()
	switch rand.N(20) {
	case 0:
		s.g.Hint(device)
	case 1:
		if d, _ := s.g.Validate(ctx, device); d.Code != CodeSystemUnavailable {
			s.heard(device, d)
		}
	case 2:
		ctx, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		defer cancel()
		a.returned(ctx, s.g.Keep(ctx, device, a.fn(life)), true)
	default:
		a.returned(ctx, s.g.Run(ctx, device, a.fn(life)), false)
	}
}

// flip changes the authority's mind.
func (s *stress) flip() {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := strconv.Itoa(rand.N(s.devices))
	s.revoked[id] = !s.revoked[id] && rand.N(3) == 0
	s.frozen = rand.N(40) == 0
}

func TestStress(t *testing.T) {
	for _, devices := range []int{1, 20, 1000} {
		for name, opts := range map[string][]Option{
			"plain": nil,
			"all options": {
				WithReuse(30 * time.Millisecond), WithRetry(func() BackOff { return millisecond{} }, 10*time.Millisecond),
				WithObserver(func(context.Context, Event) {}),
			},
		} {
			t.Run(fmt.Sprint(devices, " devices, ", name), func(t *testing.T) { newStress(t, devices, opts).play(64, 350*time.Millisecond) })
		}
	}
}

// millisecond is a back-off.
type millisecond struct{}

func (millisecond) NextBackOff() time.Duration { return time.Millisecond }
func (millisecond) Reset()                     {}

func newStress(t *testing.T, devices int, opts []Option) *stress {
	t.Helper()
	s := &stress{
		t: t, devices: devices, maxRequests: 16, timeout: 15 * time.Millisecond, visits: map[string]*visit{},
		flying: map[string]map[*visit]bool{}, revoked: map[string]bool{}, denials: map[string]int64{},
	}
	opts = append(opts, WithInterval(40*time.Millisecond), WithTimeout(s.timeout), WithMaxRequests(s.maxRequests))
	g, err := New(s, opts...)
	if err != nil {
		t.Fatal(err)
	}
	s.g, s.reuse = g, g.maxAge
	return s
}

func (s *stress) play(callers int, long time.Duration) {
	t, stop := s.t, make(chan struct{})
	var all sync.WaitGroup
	goOn := func(f func()) {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					f()
				}
			}
		})
	}
	for range callers {
		goOn(s.run)
	}
	goOn(func() {
		pause(t.Context(), rand.N(time.Millisecond))
		s.flip()
		if rand.N(20) == 0 {
			s.g.Hint("")
		}
	})
	pause(t.Context(), long)
	s.doom()
	s.closing.Store(true)
	_ = s.g.Close()
	s.shut.Store(true)
	pause(t.Context(), 20*time.Millisecond)
	close(stop)
	within(t, 20*time.Second, "every caller has returned", all.Wait)
	within(t, 20*time.Second, "the guard holds nothing", func() {
		for holds(s.g) != (held{}) && t.Context().Err() == nil {
			pause(t.Context(), time.Millisecond)
		}
	})
	if s.started.Load() == 0 || s.denied.Load() == 0 {
		t.Errorf("%d functions were started, %d denials heard: nothing was tested", s.started.Load(), s.denied.Load())
	}
}

// doom starts runs that end only when they are told to, and has every device revoked for good:
// all of them must be told. The bound itself is checked on fake time, to the nanosecond; here the
// scheduler has its say.
func (s *stress) doom() {
	s.mu.Lock()
	s.healthy = true
	s.mu.Unlock()
	var runs sync.WaitGroup
	for i := range 200 {
		runs.Go(func() {
			device := strconv.Itoa(i % s.devices)
			a := s.attempt(device)
			a.returned(s.t.Context(), s.g.Run(s.t.Context(), device, func(ctx context.Context) error {
				a.calls++
				<-ctx.Done()
				return nil
			}), false)
		})
	}
	pause(s.t.Context(), 10*time.Millisecond)
	s.mu.Lock()
	s.doomed = true
	s.mu.Unlock()
	within(s.t, s.g.StopBound()+5*time.Second, "every run of a revoked device has been stopped", runs.Wait)
}

func within(t *testing.T, limit time.Duration, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(limit):
		t.Fatalf("not within %v: %s", limit, what)
	}
}
