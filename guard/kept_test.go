package guard_test

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/execguard/execguard/guard"
)

// pooled is a context like gin's: its owner takes it back when the handler has returned.
type pooled struct {
	context.Context

	back  atomic.Bool
	after atomic.Int32
}

func (p *pooled) note() {
	if p.back.Load() {
		p.after.Add(1)
	}
}

// Done is context.Context's.
func (p *pooled) Done() <-chan struct{} { p.note(); return p.Context.Done() }

// Err is context.Context's.
func (p *pooled) Err() error { p.note(); return p.Context.Err() }

func TestContext_OfARunThatIsOverLeavesTheCallersAlone(t *testing.T) {
	g := newGuard(t, newAuthority())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p := &pooled{Context: ctx}
	var leaked context.Context
	_ = g.Run(p, "d", func(ctx context.Context) error { leaked = ctx; return nil })
	p.back.Store(true)
	if leaked.Err() == nil {
		t.Error("live")
	}
	<-leaked.Done()
	if n := p.after.Load(); n != 0 {
		t.Errorf("the caller's context was called %d times for Err and Done after Run had returned", n)
	}
}

type heavy struct{ _ [1 << 16]byte }
type heavyKey struct{}

func TestL4_AContextThatIsKeptKeepsNoNeighbours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a, guard.WithObserver(func(context.Context, guard.Event) {}))
		leaked, ws := stopTwenty(t, g, a)
		time.Sleep(time.Hour)
		synctest.Wait()
		runtime.GC()
		runtime.GC()
		n := 0
		for _, w := range ws {
			if w.Value() != nil {
				n++
			}
		}
		if n > 1 {
			t.Errorf("an hour later a leaked context keeps %d of 20 neighbours' callers' values", n)
		}
		runtime.KeepAlive(leaked)
	})
}

// stopTwenty has runs stopped beside one whose context is kept, each with a value of its own, and
// returns that context and where the values are.
func stopTwenty(t *testing.T, g *guard.Guard, a *authority) (kept context.Context, values []weak.Pointer[heavy]) {
	t.Helper()
	one := launch(t.Context(), g, "d")
	all := []*running{one}
	for range 20 {
		h := &heavy{}
		values = append(values, weak.Make(h))
		all = append(all, launch(context.WithValue(t.Context(), heavyKey{}, h), g, "d"))
	}
	synctest.Wait()
	a.deny(guard.CodeDeviceRevoked)
	_, _ = g.Validate(t.Context(), "d")
	for _, r := range all {
		_ = r.finish()
	}
	return one.ctx, values
}
