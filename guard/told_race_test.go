package guard_test

import (
	"context"
	"sync"
	"testing"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

// S3: when Validate has returned the denial, no context below a run is live, even where the function
// has seen the end of its own context first and the standard library is still on its way down from
// there: since Go 1.25 a context says that it has ended before its children have.
func TestDenialIsToldToTheLastChild(t *testing.T) {
	const device, rounds, children = "d", 12, 30_000
	v := guardtest.NewValidator(device)
	g := newGuard(t, v)
	for range rounds {
		v.Allow(device)
		below := make(chan []context.Context)
		var running sync.WaitGroup
		running.Go(func() {
			_ = g.Run(t.Context(), device, func(ctx context.Context) error {
				all := make([]context.Context, children)
				for i := range all {
					child, cancel := context.WithCancel(ctx)
					defer cancel()
					all[i] = child
				}
				below <- all
				looks := 0
				for ctx.Err() == nil { // it looks as often as it can, to be the first who does
					looks++
				}
				return ctx.Err()
			})
		})
		all := <-below
		v.Deny(device, guard.CodeDeviceRevoked)
		if d, err := g.Validate(t.Context(), device); err != nil || d.Code != guard.CodeDeviceRevoked {
			t.Errorf("%+v, %v", d, err)
		}
		live := 0
		for _, child := range all {
			if child.Err() == nil {
				live++
			}
		}
		if live > 0 {
			t.Errorf("%d contexts are live after the denial was returned", live)
		}
		running.Wait()
	}
}
