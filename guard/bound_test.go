package guard_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// bound is a setting for the bounds B1 and B2.
type bound struct {
	name                      string
	interval, timeout, budget time.Duration
	opts                      []guard.Option
}

func (b bound) guard(t *testing.T, v guard.Validator, more ...guard.Option) *guard.Guard {
	opts := []guard.Option{guard.WithInterval(b.interval), guard.WithTimeout(b.timeout), guard.WithMaxRequests(1000)}
	if b.budget > 0 {
		opts = append(opts, guard.WithRetry(waitsOf(b.budget/7), b.budget))
	}
	return newGuard(t, v, append(append(opts, b.opts...), more...)...)
}

var bounds = []bound{
	{name: "the defaults", interval: 10 * time.Second, timeout: 3 * time.Second},
	{name: "a timeout of an interval", interval: 5 * time.Second, timeout: 5 * time.Second},
	{name: "a timeout of several intervals", interval: time.Second, timeout: 3 * time.Second},
	{name: "a long interval", interval: time.Hour, timeout: 10 * time.Second},
	{name: "the shortest", interval: time.Millisecond, timeout: time.Millisecond},
	{name: "a budget", interval: 10 * time.Second, timeout: 3 * time.Second, budget: 20 * time.Second},
	{name: "a budget and a timeout of several intervals", interval: time.Second, timeout: 3 * time.Second, budget: 20 * time.Second},
	{
		name: "reuse", interval: 10 * time.Second, timeout: 3 * time.Second,
		opts: []guard.Option{guard.WithReuse(10 * time.Second)},
	},
	{
		name: "reuse of less", interval: 10 * time.Second, timeout: 3 * time.Second,
		opts: []guard.Option{guard.WithReuse(4 * time.Second)},
	},
}

func TestB2_StopBoundIsTheSumOfIntervalTimeoutAndBudget(t *testing.T) {
	for _, b := range append(bounds, bound{name: "one of each", interval: 7, timeout: 5, budget: 3}) {
		if b.interval < time.Millisecond {
			b.interval, b.timeout, b.budget = b.interval*time.Minute, b.timeout*time.Second, b.budget*time.Millisecond
		}
		if got := b.guard(t, newAuthority()).StopBound(); got != b.interval+b.timeout+b.budget {
			t.Errorf("%s: StopBound() = %v", b.name, got)
		}
	}
	if got := newGuard(t, newAuthority()).StopBound(); got != 13*time.Second {
		t.Errorf("by default StopBound() = %v", got)
	}
}

// revocable is an authority that takes up to just under the timeout over an answer, looks at the
// state at a random point of that time, and remembers what it saw.
type revocable struct {
	slow time.Duration // the timeout: each answer takes less

	mu      sync.Mutex
	revoked map[string]time.Time // when it took effect
	denied  map[string]time.Time // when the first denial of that device was answered
	allowed map[string]time.Time // when the last request was sent that was allowed
}

func newRevocable(slow time.Duration) *revocable {
	return &revocable{
		slow: slow, revoked: map[string]time.Time{}, denied: map[string]time.Time{}, allowed: map[string]time.Time{},
	}
}

func (a *revocable) Validate(ctx context.Context, device string) (guard.Decision, error) {
	sent := time.Now()
	took := a.slow - 1
	if rand.N(3) > 0 {
		took = rand.N(a.slow)
	}
	looked := []time.Duration{0, took, rand.N(took + 1)}[rand.N(3)]
	if err := sleep(ctx, looked); err != nil {
		return guard.Decision{}, err
	}
	a.mu.Lock()
	_, revoked := a.revoked[device]
	a.mu.Unlock()
	if err := sleep(ctx, took-looked); err != nil {
		return guard.Decision{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if revoked {
		if a.denied[device].IsZero() {
			a.denied[device] = time.Now()
		}
		return guard.Decision{Code: guard.CodeDeviceRevoked}, nil
	}
	a.allowed[device] = sent
	return guard.Decision{Allowed: true, Code: guard.CodeAllow}, nil
}

func (a *revocable) revoke(device string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.revoked[device] = time.Now()
}

// sleep waits for d, or for the end of ctx, of which it returns the cause.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// noise makes callers come and go about a device, and hints, until ctx ends.
func noise(ctx context.Context, g *guard.Guard, device string, every time.Duration) {
	go func() {
		for ctx.Err() == nil {
			_ = sleep(ctx, rand.N(every))
			call, cancel := context.WithTimeout(ctx, rand.N(every)+1)
			switch rand.N(4) {
			case 0:
				_, _ = g.Validate(ctx, device)
			case 1:
				_, _ = g.Validate(call, device)
			case 2:
				_ = g.Run(ctx, device, func(ctx context.Context) error { return sleep(ctx, rand.N(every)) })
			case 3:
				g.Hint(device)
			}
			cancel()
		}
	}()
}

// stopped is what became of a run that was to be stopped.
type stopped struct {
	at  time.Time // when its context ended
	err error     // what Run returned
}

// runAndWatch runs on the device until it is stopped, or half a day later, so that a test fails
// in which nothing stops it.
func runAndWatch(ctx context.Context, g guard.Runner, device string) <-chan stopped {
	result := make(chan stopped, 1)
	go func() {
		ctx, cancel := context.WithTimeout(ctx, 12*time.Hour)
		defer cancel()
		var s stopped
		s.err = g.Run(ctx, device, func(ctx context.Context) error {
			<-ctx.Done()
			s.at = time.Now()
			return nil
		})
		result <- s
	}()
	return result
}

func TestB1_ARevocationStopsWorkWithinIntervalAndTimeout(t *testing.T) {
	for _, b := range bounds {
		for _, noisy := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, noise: %t", b.name, noisy), func(t *testing.T) {
				for range 5 {
					synctest.Test(t, func(t *testing.T) { revokeAtRandom(t, b, noisy) })
				}
			})
		}
	}
}

func revokeAtRandom(t *testing.T, b bound, noisy bool) {
	a := newRevocable(b.timeout)
	g := b.guard(t, a)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var all sync.WaitGroup
	for i := range 20 {
		device := fmt.Sprint("d", i)
		run := runAndWatch(ctx, g, device)
		if noisy {
			noise(ctx, g, device, 2*b.interval)
		}
		all.Go(func() {
			time.Sleep(b.timeout + rand.N(5*b.interval))
			a.revoke(device)
			s := <-run
			a.mu.Lock()
			defer a.mu.Unlock()
			if s.at.IsZero() { // the timeout is several intervals: it may have been stopped before
				t.Errorf("the run did not start: %v", s.err)
				return
			}
			bound := b.interval + b.timeout
			if b.budget > 0 && b.timeout > b.interval {
				bound = g.StopBound() // L1 keeps the questions a timeout apart: CONTRACT.md, how B1 is read
			}
			if took := s.at.Sub(a.revoked[device]); took > bound {
				t.Errorf("stopped %v after the revocation, bound %v", took, bound)
			}
			if ran := s.at.Sub(a.allowed[device]); ran > g.StopBound() {
				t.Errorf("stopped %v after the last ALLOW was asked for, bound %v", ran, g.StopBound())
			}
			if denied := a.denied[device]; !denied.IsZero() && s.at.After(denied) {
				t.Errorf("stopped %v after the denial was answered", s.at.Sub(denied))
			}
		})
	}
	all.Wait()
	cancel()
	time.Sleep(b.timeout)
}

// Without noise, and with a timeout no longer than the interval, it is the revocation and nothing
// else that ends the run, and the answer that tells of it ends it there and then.
func TestB1_TheAnswerThatTellsOfTheRevocationStopsTheRun(t *testing.T) {
	for _, b := range bounds {
		if b.timeout > b.interval {
			continue
		}
		t.Run(b.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newRevocable(b.timeout)
				g := b.guard(t, a)
				for range 15 {
					device := fmt.Sprint("d", rand.Int())
					run := runAndWatch(t.Context(), g, device)
					time.Sleep(b.timeout + rand.N(5*b.interval))
					a.revoke(device)
					s := <-run
					denied := (*guard.DeniedError)(nil)
					if !errors.As(s.err, &denied) || denied.Decision.Code != guard.CodeDeviceRevoked || !denied.InFlight {
						t.Fatalf("Run: %v", s.err)
					}
					if !s.at.Equal(a.denied[device]) {
						t.Errorf("stopped %v after the answer", s.at.Sub(a.denied[device]))
					}
				}
			})
		})
	}
}

// The bound is not only kept but needed: the worst case comes close to it.
func TestB1_TheWatchAsksOnceAnInterval(t *testing.T) {
	for _, b := range bounds {
		if b.timeout > b.interval || len(b.opts) > 0 {
			continue
		}
		t.Run(b.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				took := b.timeout - 1
				if took == b.interval-1 {
					took /= 2
				}
				a.set(after(took, allows))
				launch(t.Context(), b.guard(t, a), "d")
				time.Sleep(20 * b.interval)
				calls := a.asked()
				// The first comes early, and so does the second where its phase had passed when the run began; it may then wait
				// for the answer to the first.
				for i := 1; i < len(calls); i++ {
					gap := calls[i].sent.Sub(calls[i-1].sent)
					if early := i <= 3 && gap < b.interval; gap != b.interval && !early {
						t.Errorf("question %d came %v after the one before", i, gap)
					}
				}
				if len(calls) < 20 || len(calls) > 22 {
					t.Errorf("%d questions in 20 intervals", len(calls))
				}
			})
		})
	}
}

// outages are the ways in which an authority is unreachable.
var outages = []struct {
	name string
	set  behaviour
}{
	{"refuses connections", fails(errors.New("connection refused"))},
	{"is silent", hangs},
	{"is silent, and the call ignores its context", deaf(20*time.Second, fails(errors.New("late")))},
	{"allows too late", deaf(20*time.Second, allows)},
	{"fails late", func(ctx context.Context, c *asked) (guard.Decision, error) {
		_ = sleep(ctx, c.deadline.Sub(c.sent)-1)
		return guard.Decision{}, errors.New("reset")
	}},
	{"says so", denies(guard.CodeSystemUnavailable)},
	{"talks nonsense", answers(guard.Decision{Allowed: true, Code: "YES"}, nil)},
	{"allows with an error", answers(guard.Decision{Allowed: true, Code: guard.CodeAllow}, errors.New("half a body"))},
	{"asks to be left alone", answers(guard.Decision{Code: guard.CodeSystemUnavailable, RetryAfter: time.Hour}, nil)},
	{"panics", func(context.Context, *asked) (guard.Decision, error) { panic("validator") }},
	{"flaps", func(ctx context.Context, c *asked) (guard.Decision, error) {
		return []behaviour{hangs, fails(errors.New("reset"))}[c.n%2](ctx, c)
	}},
}

func TestB2_AnOutageStopsWorkByTheStopLine(t *testing.T) {
	for _, b := range bounds {
		if b.timeout < time.Second { // the outages are in seconds
			continue
		}
		for _, noisy := range []bool{false, true} {
			for _, outage := range outages {
				t.Run(fmt.Sprintf("%s, the authority %s, noise: %t", b.name, outage.name, noisy), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { outageAtRandom(t, b, outage.set, noisy) })
				})
			}
		}
	}
}

func outageAtRandom(t *testing.T, b bound, outage behaviour, noisy bool) {
	a := newAuthority()
	a.set(func(ctx context.Context, c *asked) (guard.Decision, error) {
		return after(rand.N(b.timeout), allows)(ctx, c)
	})
	g := b.guard(t, a)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var all sync.WaitGroup
	for i := range 8 {
		device := fmt.Sprint("d", i)
		run := runAndWatch(ctx, g, device)
		if noisy {
			noise(ctx, g, device, 2*b.interval)
		}
		all.Go(func() {
			time.Sleep(b.timeout + rand.N(5*b.interval))
			a.set(outage, device)
			out := time.Now()
			s := <-run
			if s.at.IsZero() {
				t.Errorf("the run did not start: %v", s.err)
				return
			}
			// Whatever was sent before the outage may have been allowed, and nothing else.
			var sent time.Time
			for _, c := range a.asked(device) {
				if !c.sent.After(out) {
					sent = c.sent
				}
			}
			if lasted := s.at.Sub(sent); lasted > g.StopBound() {
				t.Errorf("stopped %v after the last ALLOW was asked for, bound %v", lasted, g.StopBound())
			}
			denied := (*guard.DeniedError)(nil)
			if !errors.As(s.err, &denied) || denied.Decision.Code != guard.CodeSystemUnavailable ||
				denied.Decision.Reason == "" || denied.Decision.Allowed || !denied.InFlight ||
				!errors.Is(s.err, guard.ErrUnavailable) {
				t.Errorf("Run: %#v", s.err)
			}
		})
	}
	all.Wait()
	cancel()
	time.Sleep(time.Minute)
}

// The first question that fails ends the run: at once, or when its timeout is over.
func TestB2_WithoutABudgetTheFirstFailureStopsTheRun(t *testing.T) {
	for _, tc := range []struct {
		name   string
		outage behaviour
		in     time.Duration
	}{
		{"an error", fails(errors.New("down")), 0},
		{"silence", hangs, 3 * time.Second},
		{"silence, and the context is ignored", deaf(time.Minute, allows), 3 * time.Second},
		{"an ALLOW just too late", deaf(3*time.Second+1, allows), 3 * time.Second},
		{"an error just in time", deaf(3*time.Second-1, fails(errors.New("down"))), 3*time.Second - 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for range 20 {
				synctest.Test(t, func(t *testing.T) {
					a := newAuthority()
					run := runAndWatch(t.Context(), newGuard(t, a), "d")
					time.Sleep(rand.N(time.Minute))
					synctest.Wait()
					before := a.last(t)
					a.set(tc.outage)
					s := <-run
					failed := a.last(t)
					if gap := failed.sent.Sub(before.sent); gap > 10*time.Second {
						t.Errorf("the question came %v after the one before", gap)
					}
					if took := s.at.Sub(failed.sent); took != tc.in {
						t.Errorf("stopped %v after the question was sent, want %v", took, tc.in)
					}
					time.Sleep(time.Minute)
				})
			}
		})
	}
}

// No question can be sent at all: the one slot is taken by a call that ignores its context.
func TestB2_TheStopLineCountsFromTheSendingOfTheLastAllow(t *testing.T) {
	for _, budget := range []time.Duration{0, 20 * time.Second} {
		for _, took := range []time.Duration{0, time.Second, 3*time.Second - 1} {
			t.Run(fmt.Sprintf("budget %v, the ALLOW took %v", budget, took), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a := newAuthority()
					a.set(after(took, allows), "d")
					release := a.stick(t, allows, "other")
					opts := []guard.Option{guard.WithMaxRequests(1)}
					if budget > 0 {
						opts = append(opts, guard.WithRetry(waitsOf(time.Second), budget))
					}
					g := newGuard(t, a, opts...)
					sent := time.Now()
					run := runAndWatch(t.Context(), g, "d")
					synctest.Wait()
					hog := launch(t.Context(), g, "other")
					s := <-run
					if lasted := s.at.Sub(sent); lasted != g.StopBound() || g.StopBound() != 13*time.Second+budget {
						t.Errorf("stopped after %v, want %v", lasted, g.StopBound())
					}
					if a.count("d") != 1 {
						t.Errorf("%d questions: this does not test the line", a.count("d"))
					}
					if !errors.Is(s.err, guard.ErrUnavailable) {
						t.Errorf("Run: %v", s.err)
					}
					release()
					_ = hog.finish()
				})
			})
		}
	}
}

// A watch that retries is stopped when its budget ends, which is before the line where the first
// failure came early.
func TestB2_RetriesEndWithTheBudget(t *testing.T) {
	for _, tc := range []struct {
		name   string
		outage behaviour
		first  time.Duration // how long the first failure takes
		last   time.Duration // how long after the first failure the last one is known
	}{
		// Tries after 4, 8, 12, 16 s; the next wait does not fit into 20 s.
		{"errors", fails(errors.New("down")), 0, 16 * time.Second},
		// Tries after 4, 11, 18 s, of which the last has 2 s left.
		{"silence", hangs, 3 * time.Second, 20 * time.Second},
		{"a RetryAfter that does not fit", answers(guard.Decision{
			Code: guard.CodeSystemUnavailable, RetryAfter: 20 * time.Second,
		}, nil), 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for range 20 {
				synctest.Test(t, func(t *testing.T) {
					a := newAuthority()
					g := newGuard(t, a, guard.WithRetry(waitsOf(4*time.Second), 20*time.Second))
					run := runAndWatch(t.Context(), g, "d")
					time.Sleep(rand.N(time.Minute))
					synctest.Wait()
					before := a.count()
					a.set(tc.outage)
					s := <-run
					calls := a.asked()
					if took := s.at.Sub(calls[before].sent); took != tc.first+tc.last {
						t.Errorf("stopped %v after the first failing question was sent, want %v", took, tc.first+tc.last)
					}
					if lasted := s.at.Sub(calls[before-1].sent); lasted > g.StopBound() {
						t.Errorf("stopped %v after the last ALLOW was asked for", lasted)
					}
				})
			}
		})
	}
}

// Every run of a device stops at one and the same instant, whenever it was started.
func TestB2_AllRunsOfADeviceStopTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		var runs []<-chan stopped
		for range 100 {
			runs = append(runs, runAndWatch(t.Context(), g, "d"))
			time.Sleep(rand.N(time.Second))
		}
		synctest.Wait()
		a.hang()
		first := <-runs[0]
		for _, run := range runs[1:] {
			if s := <-run; !s.at.Equal(first.at) {
				t.Errorf("stopped %v after the first", s.at.Sub(first.at))
			}
		}
	})
}

// A slow ALLOW that is under way when the device is revoked must not hide the revocation for
// longer than the bound, whatever else is asked meanwhile.
func TestB1_AnAllowThatWasDecidedBeforeTheRevocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		run := runAndWatch(t.Context(), g, "d")
		time.Sleep(rand.N(time.Minute))
		synctest.Wait()
		a.set(after(3*time.Second-1, allows))
		go func() { _, _ = g.Validate(t.Context(), "d") }()
		synctest.Wait()
		revoked := time.Now() // just after the authority has looked
		a.set(after(3*time.Second-1, denies(guard.CodeDeviceRevoked)))
		s := <-run
		if took := s.at.Sub(revoked); took > 13*time.Second {
			t.Errorf("stopped %v after the revocation", took)
		}
		if denied := (*guard.DeniedError)(nil); !errors.As(s.err, &denied) || denied.Decision.Code != guard.CodeDeviceRevoked {
			t.Errorf("Run: %v", s.err)
		}
	})
}

// B1: a run's first question comes within an interval of the request of the ALLOW that it started
// on; where the answer took that long or longer, at once.
func TestB1_AnAllowThatTookAnIntervalIsFollowedByAQuestionAtOnce(t *testing.T) {
	for _, latency := range []time.Duration{3*time.Second - 1, 3 * time.Second, 3*time.Second + 1, 4 * time.Second} {
		bubble(t, latency.String(), func(t *testing.T) {
			a := newAuthority()
			a.set(after(latency, allows))
			g := newGuard(t, a, guard.WithInterval(3*time.Second), guard.WithTimeout(5*time.Second))
			r := launch(t.Context(), g, "d")
			time.Sleep(latency + 1)
			synctest.Wait()
			wantRunning(t, r, "the device is allowed")
			if n := a.count(); n != 2 {
				t.Errorf("%d questions when the ALLOW was %v old", n, latency+1)
			}
		})
	}
}
