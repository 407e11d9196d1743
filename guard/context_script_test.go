package guard_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// What a function is handed is a context like any other: whatever is done to it, and in whatever
// order, it says what one of context.WithCancelCause says, at the same moment. The same script is
// played with both, a run being stopped where the other is cancelled with a cause, and a run being
// over where the other is cancelled without; what both have said is compared.
//
// One freedom a run's context takes: of two ends between which nobody has looked at it, it may
// name either. So a script is played with a look at everything after every move, and both have to
// say the very same; or without, and then only that it is over has to be the same, and when.

// scriptWorld is one of the two.
type scriptWorld struct {
	begin  func(ctx context.Context, n int) scriptRun // a run, or what stands for it
	look   bool                                       // at everything after every move
	settle bool                                       // the caller's context tells its children later, on another goroutine
	began  time.Time

	root  func(cause error) // ends the caller's context
	nodes []*scriptNode
	runs  []scriptRun
	hooks []*scriptHook
}

// scriptRun is a context with two ends.
type scriptRun struct {
	ctx       context.Context
	stop, end func()
}

// scriptNode is one of the contexts of a world: the caller's, a run's, or one that is derived from
// another.
type scriptNode struct {
	ctx    context.Context
	cancel func(cause error)
	done   <-chan struct{} // what it gave when it was first asked
}

// scriptHook is a function given to context.AfterFunc.
type scriptHook struct {
	calls int
	stop  func() bool
}

type scriptKey struct{}

// scriptCause is a cause with a name that both worlds share.
type scriptCause string

func (c scriptCause) Error() string { return string(c) }

// scriptMove is one step of a script: what is done, and to which of those that are there.
type scriptMove struct {
	name string
	to   int
}

// moves is all that can be done. What is returned is compared.
var moves = map[string]func(w *scriptWorld, to int) string{
	"run":             (*scriptWorld).run,
	"stop":            func(w *scriptWorld, to int) string { w.runs[to%len(w.runs)].stop(); return "" },
	"end":             func(w *scriptWorld, to int) string { w.runs[to%len(w.runs)].end(); return "" },
	"caller cancels":  func(w *scriptWorld, _ int) string { w.root(scriptCause("caller")); return "" },
	"WithCancel":      (*scriptWorld).withCancel,
	"WithCancelCause": (*scriptWorld).withCancelCause,
	"WithTimeout":     (*scriptWorld).withTimeout,
	"WithValue":       (*scriptWorld).withValue,
	"WithoutCancel":   (*scriptWorld).withoutCancel,
	"cancel": func(w *scriptWorld, to int) string {
		w.node(to).cancel(scriptCause(fmt.Sprint("node ", to%len(w.nodes))))
		return ""
	},
	"AfterFunc":      (*scriptWorld).afterFunc,
	"stop AfterFunc": (*scriptWorld).stopAfterFunc,
	"Done":           (*scriptWorld).done,
	"Err":            func(w *scriptWorld, to int) string { return w.say(w.node(to).ctx.Err()) },
	"Cause":          func(w *scriptWorld, to int) string { return w.say(context.Cause(w.node(to).ctx)) },
	"Value":          func(w *scriptWorld, to int) string { return fmt.Sprint(w.node(to).ctx.Value(scriptKey{})) },
	"Deadline":       (*scriptWorld).deadline,
	"time passes": func(_ *scriptWorld, to int) string {
		time.Sleep(time.Duration(to%5) * 700 * time.Millisecond)
		synctest.Wait()
		return ""
	},
}

func (w *scriptWorld) node(to int) *scriptNode { return w.nodes[to%len(w.nodes)] }

func (w *scriptWorld) add(ctx context.Context, cancel func(error)) {
	w.nodes = append(w.nodes, &scriptNode{ctx: ctx, cancel: cancel})
}

// run starts a run in any of the contexts that are live; a few are enough.
func (w *scriptWorld) run(to int) string {
	parent := w.node(to).ctx
	if err := parent.Err(); err != nil || len(w.runs) == 4 {
		return w.say(err)
	}
	r := w.begin(parent, len(w.runs))
	w.runs = append(w.runs, r)
	w.add(r.ctx, func(error) { r.end() })
	return ""
}

func (w *scriptWorld) withCancel(to int) string {
	ctx, cancel := context.WithCancel(w.node(to).ctx)
	w.add(ctx, func(error) { cancel() })
	return ""
}

func (w *scriptWorld) withCancelCause(to int) string {
	w.add(context.WithCancelCause(w.node(to).ctx))
	return ""
}

func (w *scriptWorld) withTimeout(to int) string {
	ctx, cancel := context.WithTimeoutCause(w.node(to).ctx, time.Duration(to%4)*time.Second, scriptCause("timeout"))
	w.add(ctx, func(error) { cancel() })
	return ""
}

func (w *scriptWorld) withValue(to int) string {
	w.add(context.WithValue(w.node(to).ctx, scriptKey{}, to), func(error) {})
	return ""
}

func (w *scriptWorld) withoutCancel(to int) string {
	w.add(context.WithoutCancel(w.node(to).ctx), func(error) {})
	return ""
}

func (w *scriptWorld) afterFunc(to int) string {
	h := &scriptHook{}
	h.stop = context.AfterFunc(w.node(to).ctx, func() { h.calls++ })
	w.hooks = append(w.hooks, h)
	return ""
}

func (w *scriptWorld) stopAfterFunc(to int) string {
	if len(w.hooks) == 0 {
		return ""
	}
	return fmt.Sprint(w.hooks[to%len(w.hooks)].stop())
}

// done asks for the channel, which is the same each time, and tells whether it is closed.
func (w *scriptWorld) done(to int) string {
	n := w.node(to)
	c := n.ctx.Done()
	if n.done != nil && n.done != c {
		return "another channel"
	}
	n.done = c
	return fmt.Sprint(c == nil, c != nil && closed(c))
}

func (w *scriptWorld) deadline(to int) string {
	at, ok := w.node(to).ctx.Deadline()
	if !ok {
		return "none"
	}
	return fmt.Sprint(at.Sub(w.began))
}

// say says why a context has ended, or only that.
func (w *scriptWorld) say(err error) string {
	if err != nil && !w.look {
		return "over"
	}
	return nameOf(err)
}

// play plays the script and returns what was said, and at the end all that there is to say.
func (w *scriptWorld) play(script []scriptMove) (said []string) {
	w.began = time.Now()
	for _, m := range script {
		text := moves[m.name](w, m.to)
		if w.settle {
			synctest.Wait()
		}
		said = append(said, text)
		for i := range w.nodes {
			if w.look {
				said = append(said, moves["Err"](w, i))
			}
		}
	}
	for i := range w.nodes {
		for _, name := range []string{"Err", "Cause", "Done", "Value", "Deadline"} {
			said = append(said, moves[name](w, i))
		}
	}
	synctest.Wait()
	for _, h := range w.hooks {
		said = append(said, fmt.Sprint(h.calls))
	}
	return said
}

// leave ends all that a script has left.
func (w *scriptWorld) leave() {
	for _, n := range slices.Backward(w.nodes) {
		n.cancel(nil)
	}
	w.root(nil)
	synctest.Wait()
}

// nameOf names an error alike in both worlds.
func nameOf(err error) string {
	if denied := (*guard.DeniedError)(nil); errors.As(err, &denied) {
		return "stopped: " + denied.DeviceID
	}
	return fmt.Sprint(err)
}

// standard is the world of context.WithCancelCause.
func standard(ctx context.Context, n int) scriptRun {
	ctx, cancel := context.WithCancelCause(ctx)
	return scriptRun{ctx: ctx, stop: func() { cancel(scriptCause(fmt.Sprint("stopped: ", n))) }, end: func() { cancel(nil) }}
}

// guarded is the world of a guard: of two guards, in turn.
func guarded(t *testing.T) func(ctx context.Context, n int) scriptRun {
	a := newAuthority()
	guards := [2]*guard.Guard{newGuard(t, a), newGuard(t, a)}
	return func(ctx context.Context, n int) scriptRun {
		g, device, leave := guards[n%2], fmt.Sprint(n), make(chan struct{})
		r := launchFunc(ctx, g, device, func(context.Context) error { <-leave; return nil })
		<-r.began
		return scriptRun{ctx: r.ctx, stop: func() {
			a.deny(guard.CodeDeviceRevoked, device)
			_, _ = g.Validate(context.Background(), device)
		}, end: sync.OnceFunc(func() {
			close(leave)
			<-r.done
		})}
	}
}

// scriptRoot is a context of the caller's, how he ends it, and whether its children hear of it only
// later.
type scriptRoot struct {
	make  func() (context.Context, func(cause error))
	later bool
}

func roots() map[string]scriptRoot {
	cancellable := func() (context.Context, context.CancelCauseFunc) {
		return context.WithCancelCause(context.Background())
	}
	within := func(wrap func(context.Context) context.Context) func() (context.Context, func(error)) {
		return func() (context.Context, func(error)) {
			ctx, cancel := cancellable()
			return wrap(ctx), cancel
		}
	}
	own := func(wrap func(context.Context) context.Context) func() (context.Context, func(error)) {
		return func() (context.Context, func(error)) {
			c := newOwnContext()
			return wrap(c), func(error) { c.end(scriptCause("own")) }
		}
	}
	itself := func(ctx context.Context) context.Context { return ctx }
	valued := func(ctx context.Context) context.Context { return context.WithValue(ctx, scriptKey{}, "root's") }
	return map[string]scriptRoot{
		"Background":   {make: func() (context.Context, func(error)) { return context.Background(), func(error) {} }},
		"cancellable":  {make: within(itself)},
		"with a value": {make: within(valued)},
		"with a deadline": {make: within(func(ctx context.Context) context.Context {
			ctx, cancel := context.WithTimeoutCause(ctx, 1500*time.Millisecond, scriptCause("deadline"))
			context.AfterFunc(ctx, cancel)
			return ctx
		})},
		"wrapped":            {make: within(func(ctx context.Context) context.Context { return struct{ context.Context }{ctx} })},
		"own":                {later: true, make: own(itself)},
		"own, below a value": {later: true, make: own(valued)},
		"own, below a cancel": {later: true, make: own(func(ctx context.Context) context.Context {
			ctx, cancel := context.WithCancel(ctx)
			context.AfterFunc(ctx, cancel)
			return ctx
		})},
		"own, with AfterFunc": {later: true, make: func() (context.Context, func(error)) {
			c := newHookedContext()
			return c, func(error) { c.end(scriptCause("own")) }
		}},
	}
}

// ownContext is a context of the caller's own making, as far from the standard library's as can be.
type ownContext struct {
	over chan struct{}
	mu   sync.Mutex
	err  error
}

func newOwnContext() *ownContext { return &ownContext{over: make(chan struct{})} }

func (c *ownContext) Deadline() (time.Time, bool) { return time.Time{}, false }
func (c *ownContext) Done() <-chan struct{}       { return c.over }
func (c *ownContext) Value(key any) any {
	if key == (scriptKey{}) {
		return "own value"
	}
	return nil
}

func (c *ownContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *ownContext) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		close(c.over)
	}
}

// hookedContext is one that tells its children itself.
type hookedContext struct {
	*ownContext
	mu    sync.Mutex
	hooks map[*func()]bool // that are registered
}

func newHookedContext() *hookedContext {
	return &hookedContext{ownContext: newOwnContext(), hooks: map[*func()]bool{}}
}

// AfterFunc is what package context looks for in contexts that are not its own.
func (c *hookedContext) AfterFunc(f func()) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.Err() != nil {
		go f()
		return func() bool { return false }
	}
	h := &f
	c.hooks[h] = true
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		there := c.hooks[h]
		delete(c.hooks, h)
		return there
	}
}

func (c *hookedContext) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ownContext.end(err)
	for h := range c.hooks {
		go (*h)()
	}
	clear(c.hooks)
}

// compare plays the script in both worlds and tells where they differ, "" where they do not.
func compare(t *testing.T, r scriptRoot, look bool, script []scriptMove) (difference string) {
	synctest.Test(t, func(t *testing.T) {
		var said [2][]string
		for i, begin := range []func(context.Context, int) scriptRun{standard, guarded(t)} {
			ctx, cancel := r.make()
			w := &scriptWorld{begin: begin, settle: r.later, look: look, root: cancel}
			w.add(ctx, func(error) {})
			said[i] = w.play(append([]scriptMove{{"run", 0}}, script...))
			w.leave()
		}
		if !reflect.DeepEqual(said[0], said[1]) {
			difference = fmt.Sprintf("the standard library says %q, the guard %q", said[0], said[1])
		}
	})
	return difference
}

// shorten leaves moves out as long as the worlds differ.
func shorten(t *testing.T, r scriptRoot, look bool, script []scriptMove) []scriptMove {
	for i := 0; i < len(script); {
		if without := slices.Delete(slices.Clone(script), i, i+1); compare(t, r, look, without) != "" {
			script = without
			continue
		}
		i++
	}
	return script
}

func wantSame(t *testing.T, r scriptRoot, look bool, script []scriptMove, from string) {
	t.Helper()
	if compare(t, r, look, script) == "" {
		return
	}
	script = shorten(t, r, look, script)
	var text []string
	for _, m := range script {
		text = append(text, fmt.Sprint(m.name, " ", m.to))
	}
	t.Fatalf("%s, with looks: %t: run 0, %s: %s", from, look, strings.Join(text, ", "), compare(t, r, look, script))
}

func TestContext_SaysWhatTheStandardLibrarysSays(t *testing.T) {
	names := make([]string, 0, len(moves))
	for name := range moves {
		names = append(names, name)
	}
	slices.Sort(names)
	for kind, r := range roots() {
		t.Run(kind, func(t *testing.T) {
			for range 250 {
				seed := rand.Uint64()
				random := rand.New(rand.NewPCG(seed, 0))
				script := make([]scriptMove, 3+random.IntN(40))
				for i := range script {
					script[i] = scriptMove{names[random.IntN(len(names))], random.IntN(12)}
				}
				wantSame(t, r, seed%2 == 0, script, fmt.Sprint("seed ", seed))
			}
		})
	}
}

// All short scripts about a run and one context below it.
func TestContext_SaysWhatTheStandardLibrarysSaysInEveryOrder(t *testing.T) {
	some := []scriptMove{{"stop", 0}, {"end", 0}, {"caller cancels", 0}, {"Done", 1}, {"WithCancel", 1}, {"AfterFunc", 1}, {"Cause", 1}, {"run", 1}, {"Done", 2}}
	script := make([]scriptMove, 3)
	for _, kind := range []string{"cancellable", "own", "own, with AfterFunc"} {
		r := roots()[kind]
		t.Run(kind, func(t *testing.T) {
			for n := range len(some) * len(some) * len(some) {
				for i := range script {
					script[i], n = some[n%len(some)], n/len(some)
				}
				wantSame(t, r, true, script, "in every order")
				wantSame(t, r, false, script, "in every order")
			}
		})
	}
}
