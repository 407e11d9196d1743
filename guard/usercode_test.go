package guard_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// No lock is held while anybody's code is called. The proof goes through all of it, call by call:
// of a scenario in which a validator, a function, observers, a logger, a back-off and a caller's
// own context take part, the first call of any of them blocks for as long as the test likes, then
// the second, and so on until the scenario has no more; meanwhile all else must go on as if
// nothing were. Then each call does not block, but calls back into the guard.

// gate is passed at each call of the user's code that is under test.
type gate struct {
	what   string // which passage is held, "" for none
	nth    int    // from 1
	inside func() // what it does instead

	mu    sync.Mutex
	armed bool
	seen  map[string]int
	held  bool          // it is there, or was
	open  chan struct{} // lets it go
}

func (g *gate) pass(what string) {
	g.mu.Lock()
	mine := false
	if g.armed {
		g.seen[what]++
		mine = g.what == what && g.seen[what] == g.nth
		g.held = g.held || mine
	}
	g.mu.Unlock()
	switch {
	case !mine:
	case g.inside != nil:
		g.inside()
	default:
		<-g.open
	}
}

func (g *gate) arm() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.armed = true
}

func (g *gate) reached() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.held
}

// victimKey is where a context says whose calls go through the gate.
type victimKey struct{}

// gatedContext is the victim's: each of its methods is his code.
type gatedContext struct {
	context.Context
	gate *gate
}

func (c gatedContext) Deadline() (time.Time, bool) {
	c.gate.pass("Deadline")
	return c.Context.Deadline()
}
func (c gatedContext) Done() <-chan struct{} { c.gate.pass("Done"); return c.Context.Done() }
func (c gatedContext) Err() error            { c.gate.pass("Err"); return c.Context.Err() }

func (c gatedContext) Value(key any) any {
	c.gate.pass("Value")
	if key == (victimKey{}) {
		return true
	}
	return c.Context.Value(key)
}

// gatedHooks is one that has AfterFunc.
type gatedHooks struct {
	gatedContext
	hooked *hookedContext
}

func (c gatedHooks) AfterFunc(f func()) func() bool {
	c.gate.pass("AfterFunc")
	stop := c.hooked.AfterFunc(f)
	return func() bool { c.gate.pass("AfterFunc's stop"); return stop() }
}

// gatedContexts are the caller's contexts that there are, and how he ends them.
func gatedContexts(g *gate) map[string]func() (context.Context, func()) {
	return map[string]func() (context.Context, func()){
		"wrapped": func() (context.Context, func()) {
			ctx, cancel := context.WithCancel(context.Background())
			return gatedContext{ctx, g}, cancel
		},
		"own": func() (context.Context, func()) {
			c := newOwnContext()
			return gatedContext{c, g}, func() { c.end(context.Canceled) }
		},
		"with AfterFunc": func() (context.Context, func()) {
			c := newHookedContext()
			return gatedHooks{gatedContext{c, g}, c}, func() { c.end(context.Canceled) }
		},
		"below a cancel": func() (context.Context, func()) {
			c := newOwnContext()
			ctx, cancel := context.WithCancel(gatedContext{c, g})
			return ctx, cancel
		},
	}
}

// gatedHandler is a logger's.
type gatedHandler struct{ gate *gate }

func (h gatedHandler) Enabled(ctx context.Context, _ slog.Level) bool {
	h.gate.told(ctx, "Enabled")
	return true
}

func (h gatedHandler) Handle(ctx context.Context, _ slog.Record) error {
	h.gate.told(ctx, "Handle")
	return nil
}

func (h gatedHandler) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h gatedHandler) WithGroup(string) slog.Handler      { return h }

// told is an observer, for what is told on the victim's goroutine or through the queue: what is
// told on another caller's is his affair.
func (g *gate) told(ctx context.Context, what string) {
	if ctx.Value(peerKey{}) == nil {
		g.pass(what)
	}
}

type peerKey struct{}

// gatedBackOff is a back-off.
type gatedBackOff struct{ gate *gate }

func (b gatedBackOff) NextBackOff() time.Duration { b.gate.pass("NextBackOff"); return time.Second }
func (b gatedBackOff) Reset()                     { b.gate.pass("Reset") }

func (g *gate) options() []guard.Option {
	return []guard.Option{
		guard.WithObserver(func(ctx context.Context, e guard.Event) { g.told(ctx, "observer of "+string(e.Kind)) }),
		guard.WithLogger(slog.New(gatedHandler{g})),
		guard.WithRetry(func() guard.BackOff { g.pass("newBackOff"); return gatedBackOff{g} }, 2*time.Second),
	}
}

// scenario is what the calls are part of.
type scenario struct {
	t    *testing.T
	gate *gate
	a    *authority
	g    *guard.Guard

	late, keep  bool // what the victim is like: when it looks at its context, and whether it is a Keep's
	victim      *running
	leave       func() // ends the victim's own context
	peer, other *running
	still       chan struct{} // closed when a victim that does not look at its context may go
}

// newScenario starts a run of the victim's device and one of another.
func newScenario(t *testing.T, gate *gate, opts []guard.Option) *scenario {
	gate.open, gate.seen = make(chan struct{}), map[string]int{}
	s := &scenario{t: t, gate: gate, a: newAuthority(), still: make(chan struct{})}
	s.a.set(s.gated(allows))
	s.g = newGuard(t, s.a, append(gate.options(), opts...)...)
	s.peer, s.other = launch(s.plain(), s.g, "dev"), launch(s.plain(), s.g, "other")
	<-s.peer.began
	<-s.other.began
	synctest.Wait()
	return s
}

func (s *scenario) gated(b behaviour) behaviour {
	return func(ctx context.Context, c *asked) (guard.Decision, error) {
		s.gate.pass("validator")
		return b(ctx, c)
	}
}

func (s *scenario) plain() context.Context { return context.WithValue(s.t.Context(), peerKey{}, true) }

// start has the victim start.
func (s *scenario) start(ctx context.Context) {
	s.gate.arm()
	r := &running{began: make(chan struct{}), done: make(chan struct{})}
	s.victim = r
	first := sync.OnceFunc(func() { close(r.began) })
	run := s.g.Run
	if s.keep {
		run = s.g.Keep
	}
	go func() {
		defer close(r.done)
		r.err = run(ctx, "dev", func(ctx context.Context) error {
			_ = guard.Checkpoint(ctx) // the first may look for the run around it, in the caller's context
			if !r.started() {
				r.ctx = ctx
			}
			first()
			return s.work(ctx)
		})
	}()
	synctest.Wait()
}

// work does with its context what functions do, either at once or only after it was told to stop.
func (s *scenario) work(ctx context.Context) error {
	s.gate.pass("function")
	if s.late {
		<-s.still
	}
	child, cancel := context.WithCancel(context.WithValue(ctx, scriptKey{}, 1))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { s.gate.pass("AfterFunc's function") })
	defer stop()
	_, _ = ctx.Deadline()
	_, _ = ctx.Value(scriptKey{}), guard.Checkpoint(child)
	<-child.Done()
	<-ctx.Done()
	s.gate.pass("function's end")
	return ctx.Err()
}

// all is every operation that must not notice. What an operation returns is the business of other
// tests, if only it returns.
func (s *scenario) all() map[string]func() {
	return map[string]func(){
		"Run":                 func() { _ = s.g.Run(s.plain(), "dev", nothing) },
		"Run, another":        func() { _ = s.g.Run(s.plain(), "other", nothing) },
		"Run, a stranger":     func() { _ = s.g.Run(s.plain(), "stranger", nothing) },
		"Validate":            func() { _, _ = s.g.Validate(s.plain(), "dev") },
		"Validate, another":   func() { _, _ = s.g.Validate(s.plain(), "other") },
		"Hint":                func() { s.g.Hint("dev") },
		"Hint, everything":    func() { s.g.Hint("") },
		"StopBound":           func() { _ = s.g.StopBound().String() + s.g.String() },
		"Checkpoint":          func() { _ = guard.Checkpoint(s.peer.ctx) },
		"Checkpoint, another": func() { _ = guard.Checkpoint(s.other.ctx) },
		"the peer's context":  func() { _, _ = context.Cause(s.peer.ctx), s.peer.ctx.Done() },
		"the victim's Checkpoint": func() {
			if s.victim != nil && s.victim.started() {
				_, _ = guard.DecisionFrom(s.victim.ctx)
				_ = guard.Checkpoint(s.victim.ctx)
			}
		},
	}
}

// goOn has everything done at once, and fails unless it has come to its end: at once, unless it is
// the authority that is held up, or what is asked on its goroutine.
func (s *scenario) goOn(when string, more map[string]func()) {
	s.t.Helper()
	var mu sync.Mutex
	var doing sync.WaitGroup
	open := map[string]bool{}
	do := func(name string, f func()) {
		open[name] = true
		doing.Go(func() {
			f()
			mu.Lock()
			defer mu.Unlock()
			delete(open, name)
		})
	}
	mu.Lock()
	for name, f := range s.all() {
		do(name, f)
	}
	for name, f := range more {
		do(name, f)
	}
	mu.Unlock()
	synctest.Wait()
	if s.slow() {
		time.Sleep(s.g.StopBound())
		synctest.Wait()
	}
	mu.Lock()
	defer mu.Unlock()
	for name := range open {
		s.t.Errorf("%s, while %s is held: %s goes on", when, s.gate.what, name)
	}
}

// slow tells whether it is the authority's answer that is held up.
func (s *scenario) slow() bool {
	what := s.gate.what
	return what == "validator" || strings.HasSuffix(what, "BackOff") || what == "Reset"
}

// play goes through the life of a run, from its start to the end of its guard.
func (s *scenario) play(ctx context.Context) {
	s.start(ctx)
	s.goOn("in flight", nil)

	s.a.set(s.gated(denies(guard.CodeDeviceRevoked)), "dev")
	running := s.victim.started() && !s.victim.returned()
	s.goOn("denied", map[string]func(){"the denial": func() { s.deny(running) }})
	if !s.peer.returned() {
		s.t.Errorf("while %s is held the peer does not return", s.gate.what)
	}

	go s.leave() // whose code this is too
	close(s.still)
	synctest.Wait()
	s.goOn("left", nil)

	s.a.hang("other")
	time.Sleep(s.g.StopBound())
	synctest.Wait()
	if !s.other.returned() {
		s.t.Errorf("while %s is held a run outlives its stop line", s.gate.what)
	}
	s.goOn("closed", map[string]func(){"Close": func() {
		over, cancel := context.WithCancel(s.plain())
		cancel()
		_, _ = s.g.Close(), s.g.Shutdown(over)
	}})

	close(s.gate.open)
	err := s.victim.finish()
	if running && !s.keep && !errors.Is(err, guard.ErrDenied) && !errors.Is(err, guard.ErrClosed) {
		s.t.Errorf("%s was held: a run that was denied returned %v", s.gate.what, err)
	}
}

// deny has the guard learn of the denial, and looks at once at those that it concerns.
func (s *scenario) deny(running bool) {
	for code := guard.CodeSystemUnavailable; code == guard.CodeSystemUnavailable; { // where it is this question that is held
		d, err := s.g.Validate(s.plain(), "dev")
		if code = d.Code; errors.Is(err, guard.ErrClosed) {
			return // Close may not have been through yet
		}
	}
	if guard.Checkpoint(s.peer.ctx) == nil || s.peer.ctx.Err() == nil {
		s.t.Errorf("while %s is held the peer has not been stopped", s.gate.what)
	}
	if running && (guard.Checkpoint(s.victim.ctx) == nil || s.victim.ctx.Err() == nil) {
		s.t.Errorf("while %s is held the victim has not been stopped", s.gate.what)
	}
}

// kind is what the victim is like.
type kind struct {
	context    string
	late, keep bool
	opts       []guard.Option
	inside     func(s *scenario) func() // what a call does instead of blocking
}

// playAll plays the scenario once to see which of the user's code takes part in it, and then holds
// one call after the other: those of the context up to the twentieth of each method, of the rest,
// which has many more because of all that goes on meanwhile, the first three.
func playAll(t *testing.T, k kind) map[string]int {
	t.Helper()
	all := playOne(t, &gate{}, k)
	for what, n := range all {
		most := 3
		if slices.Contains([]string{"Done", "Err", "Value", "Deadline"}, what) {
			most = 20
		}
		for nth := range min(n, most) {
			if g := (&gate{what: what, nth: nth + 1}); !t.Failed() {
				playOne(t, g, k)
				if nth == 0 && !g.reached() && slices.Contains(takesPart, what) {
					t.Errorf("%s was not held", what)
				}
			}
		}
	}
	return all
}

// playOne plays the scenario. A lock that is held while the user's code is called would stop a
// bubble for ever, therefore the watchdog outside.
func playOne(t *testing.T, g *gate, k kind) map[string]int {
	t.Helper()
	watchdog := time.AfterFunc(20*time.Second, func() {
		debug.SetTraceback("all")
		panic(fmt.Sprintf("%s: a deadlock at call %d of %s", t.Name(), g.nth, g.what))
	})
	defer watchdog.Stop()
	synctest.Test(t, func(t *testing.T) {
		s := newScenario(t, g, k.opts)
		if k.inside != nil {
			g.inside = k.inside(s)
		}
		var ctx context.Context
		ctx, s.leave = gatedContexts(g)[k.context]()
		s.late, s.keep = k.late, k.keep
		s.play(ctx)
	})
	return g.seen
}

// takesPart is the user's code that every scenario has in it.
var takesPart = []string{
	"Value", "validator", "function", "function's end", "Enabled", "Handle", "newBackOff", "Reset", "NextBackOff",
	"observer of started", "observer of stopped", "observer of validated", "observer of hinted",
}

func wantSeen(t *testing.T, seen map[string]int) {
	t.Helper()
	for _, what := range takesPart {
		if seen[what] == 0 {
			t.Errorf("%s takes no part in %v", what, seen)
		}
	}
}

func TestNoLock_WhileTheUsersCodeBlocks(t *testing.T) {
	for _, ctx := range []string{"wrapped", "own", "with AfterFunc", "below a cancel"} {
		for _, late := range []bool{false, true} {
			for _, keep := range []bool{false, true} {
				k := kind{context: ctx, late: late, keep: keep}
				if late != keep {
					k.opts = append(k.opts, guard.WithReuse(5*time.Second))
				}
				t.Run(fmt.Sprint(ctx, ", late: ", late, ", Keep: ", keep), func(t *testing.T) { wantSeen(t, playAll(t, k)) })
			}
		}
	}
}

func TestNoLock_WhileTheUsersCodeCallsBack(t *testing.T) {
	for name, inside := range map[string]func(s *scenario) func(){
		"everything": func(s *scenario) func() {
			return func() {
				for _, f := range s.all() {
					f()
				}
			}
		},
		"a denial": func(s *scenario) func() {
			return func() {
				s.a.set(s.gated(denies(guard.CodeDeviceRevoked)), "dev")
				_, _ = s.g.Validate(s.plain(), "dev")
			}
		},
		"Close": func(s *scenario) func() { return func() { _ = s.g.Close() } },
	} {
		for _, ctx := range []string{"wrapped", "own", "with AfterFunc"} {
			for _, late := range []bool{false, true} {
				k := kind{context: ctx, late: late, inside: inside}
				t.Run(fmt.Sprint(name, ", ", ctx, ", late: ", late), func(t *testing.T) { wantSeen(t, playAll(t, k)) })
			}
		}
	}
}
