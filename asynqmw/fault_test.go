package asynqmw_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/asynqmw"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
	"github.com/execguard/execguard/guard/machineid"
)

// fault is one of the contract's list, with an authority that shows it.
type fault struct {
	name    string
	code    guard.Code // what is made of it
	honest  bool       // now and then
	endless bool       // it never answers
	secret  string     // what nobody may get to read
	ask     guard.Validator
	begin   func()
	end     func()
}

// newFaults are those of a server or a network, between MachineID's client and its server, and those of a Validator itself.
func newFaults(t *testing.T) (all []*fault) {
	t.Helper()
	for _, f := range guardtest.Faults() {
		srv := guardtest.NewServer(t)
		srv.Register(device)
		v, err := machineid.New(srv.Key(), machineid.WithBaseURL(srv.URL()), machineid.WithHTTPClient(srv.Client()))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, &fault{
			name: f.String(), code: f.Code(), secret: srv.Key(), ask: v,
			honest: slices.Contains([]guardtest.Fault{"flapping", "answers out of order"}, f),
			endless: slices.Contains([]guardtest.Fault{
				"accepted and silent", "one byte a second", "DNS silent", "TLS handshake stalled", "answer late", "answers out of order",
			}, f),
			begin: func() { srv.Inject(f) }, end: srv.Heal,
		})
	}
	return append(all, validatorFaults(t)...)
}

func validatorFaults(t *testing.T) (all []*fault) {
	t.Helper()
	const secret = "org_0123456789abcdef"
	release := make(chan struct{})
	let := sync.OnceFunc(func() { close(release) })
	t.Cleanup(let)
	yes := guard.Decision{Allowed: true, Code: guard.CodeAllow, DeviceID: device}
	elsewhere := yes
	elsewhere.DeviceID = other
	for name, answer := range map[string]guard.ValidatorFunc{
		"validator panics":              guardtest.Panic(secret),
		"validator ends its goroutine":  guardtest.Goexit(),
		"validator ignores its context": guardtest.Hold(release, guardtest.Reply(yes, nil)),
		"error beside an ALLOW":         guardtest.Reply(yes, errors.New("no")),
		"ALLOW for another device":      guardtest.Reply(elsewhere, nil),
		"allowed without a code":        guardtest.Reply(guard.Decision{Allowed: true}, nil),
		"the caller's own Canceled":     guardtest.Reply(guard.Decision{}, context.Canceled),
	} {
		v := guardtest.NewValidator(device)
		all = append(all, &fault{
			name: name, code: guard.CodeSystemUnavailable, endless: name == "validator ignores its context", secret: secret, ask: v,
			begin: func() { v.Always(device, answer) },
			end: func() {
				v.Allow(device)
				if name == "validator ignores its context" {
					let() // the guard asks no third time while two calls are stuck (L4)
				}
			},
		})
	}
	return all
}

// faulty is a fault with a guard and a handler under it.
type faulty struct {
	*fault

	guard *guard.Guard
	work  *work

	mu       sync.Mutex
	broken   bool        // the fault has begun
	stopping bool        // handlers wait until they are stopped
	allows   []time.Time // when the questions were sent that were answered by an ALLOW
	waits    list[bool]  // one for each handler that waits
	causes   list[error]
	ends     list[time.Time]
	seen     list[error] // what the middleware has returned
}

func newFaulty(t *testing.T, f *fault) *faulty {
	t.Helper()
	y := &faulty{fault: f}
	timeout := 5 * time.Second // more than an answer needs, so that a busy machine does not turn a no into a «could not ask»
	if f.endless {
		timeout = 200 * time.Millisecond
	}
	g, err := guard.New(guard.ValidatorFunc(y.validate), guard.WithInterval(interval), guard.WithTimeout(timeout))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	y.guard, y.work = g, working(func(ctx context.Context, _ *asynq.Task) error { return y.handle(t, ctx) })
	return y
}

// validate is the authority, and notes every ALLOW that may be believed. Without the fault it answers in process, so that a
// busy machine does not make one.
func (y *faulty) validate(ctx context.Context, id string) (guard.Decision, error) {
	sent, ask := time.Now(), guard.Validator(guardtest.NewValidator(device))
	if y.isBroken() {
		ask = y.ask
	}
	d, err := ask.Validate(ctx, id)
	if d.Allowed && d.Code == guard.CodeAllow && err == nil && (d.DeviceID == "" || d.DeviceID == id) {
		y.mu.Lock()
		defer y.mu.Unlock()
		y.allows = append(y.allows, sent)
	}
	return d, err
}

func (y *faulty) lastAllow() (last time.Time) {
	y.mu.Lock()
	defer y.mu.Unlock()
	for _, at := range y.allows {
		if at.After(last) {
			last = at
		}
	}
	return last
}

func (y *faulty) isBroken() bool {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.broken
}

func (y *faulty) set(stopping, broken bool) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.stopping, y.broken = stopping, broken
}

func (y *faulty) handle(t *testing.T, ctx context.Context) error {
	y.mu.Lock()
	stopping, broken := y.stopping, y.broken
	y.mu.Unlock()
	if broken && !y.honest {
		t.Errorf("%s: S1: a handler begins under the fault", y.name)
	}
	if !stopping {
		return nil
	}
	y.waits.add(true)
	<-ctx.Done()
	y.ends.add(time.Now())
	y.causes.add(context.Cause(ctx))
	return ctx.Err()
}

// around is New's handler, looked at from outside.
func (y *faulty) around() asynq.Handler {
	inside := asynqmw.New(y.guard, asynqmw.Fixed(device))(y.work)
	return asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error {
		err := inside.ProcessTask(ctx, task)
		if err != nil {
			y.seen.add(err)
		}
		return err
	})
}

// TestFaults lets every fault begin before tasks start, and while they are at work, on one server for all: no
// unauthorised start (S1), no context live past the stop line (B2), nothing spent, nothing lost, no secret told (S8).
func TestFaults(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	mux, faults := asynq.NewServeMux(), []*faulty{}
	for _, f := range newFaults(t) {
		y := newFaulty(t, f)
		faults = append(faults, y)
		mux.Handle(y.kind(), y.around())
	}
	s.config.Concurrency = 5 * len(faults)
	s.start(t, mux)
	tests := map[string]func(t *testing.T){}
	for _, y := range faults {
		tests[strings.ReplaceAll(y.name, " ", "_")] = func(t *testing.T) { y.meet(t, s) }
	}
	sideBySide(t, tests)
	if lines := s.log.ours(""); len(lines) > 0 {
		t.Errorf("logged: %q", lines)
	}
	if all := s.reported.get(); len(all) > 0 {
		t.Errorf("the ErrorHandler was given %v", all)
	}
}

func (y *faulty) kind() string { return "fault:" + y.name + ":" }

func (y *faulty) enqueue(t *testing.T, s *site) (ids []string) {
	t.Helper()
	for _, retries := range []int{1, 0} {
		ids = append(ids, s.enqueueTask(t, asynq.NewTask(y.kind(), nil), asynq.MaxRetry(retries), asynq.Retention(time.Hour)))
	}
	return ids
}

func (y *faulty) meet(t *testing.T, s *site) {
	y.set(true, false)
	running := y.enqueue(t, s)
	eventually(t, "both are at work", func() bool { return len(y.waits.get()) >= 2 })
	y.begin()
	y.set(false, true)
	eventually(t, "both have been stopped", func() bool { return len(y.ends.get()) >= len(y.waits.get()) })
	line := y.lastAllow().Add(y.guard.StopBound())
	for _, end := range y.ends.get() {
		if late := end.Sub(line); late > slack && !y.honest {
			t.Errorf("B2: a context lived %v past the stop line", late)
		}
	}
	starting := y.enqueue(t, s)
	if !y.honest {
		for i, id := range append(running, starting...) {
			s.unspent(t, id, []asynq.TaskState{asynq.TaskStateRetry, asynq.TaskStateActive}[i%2], 0)
		}
	}
	y.set(false, false)
	y.end()
	for _, id := range append(running, starting...) {
		s.unspent(t, id, asynq.TaskStateCompleted, 0)
	}
	y.wantTyped(t)
}

// wantTyped wants errors that say what happened, and nothing that is nobody's business.
func (y *faulty) wantTyped(t *testing.T) {
	t.Helper()
	for _, err := range append(y.causes.get(), y.seen.get()...) {
		denied := (*guard.DeniedError)(nil)
		if !errors.As(err, &denied) || denied.Decision.Code != y.code || errors.Is(err, guard.ErrUnavailable) != (y.code == guard.CodeSystemUnavailable) {
			t.Errorf("%v does not say %s", err, y.code)
		}
		if text := fmt.Sprintf("%v %+v %#v %q", err, err, err, err); strings.Contains(text, y.secret) {
			t.Errorf("the key is in %s", text)
		}
	}
	for _, cause := range y.causes.get() {
		if !errors.Is(cause, context.Canceled) {
			t.Errorf("the cause %v is not Canceled", cause)
		}
	}
}
