package guard

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// wantNothingLeft fails unless the guard holds no device, no timer, no slot and no event.
func wantNothingLeft(t *testing.T, g *Guard) {
	t.Helper()
	synctest.Wait()
	for _, d := range g.registry.all() {
		t.Errorf("device %q is left: held %d, live %d, leaving %d, hung %d", d.id, d.held, len(d.live.runs), d.leaving.Load(), d.hung)
	}
	s := &g.schedule
	if n := len(s.entries); n != 0 || s.watched != 0 || s.set != never || s.timer.Stop() {
		t.Errorf("the schedule has %d entries, %d watched, a timer for %v", n, s.watched, s.set)
	}
	if g.slots.used != 0 || g.slots.started != 0 || g.slots.urgent.Len() != 0 || g.slots.starts.Len() != 0 {
		t.Errorf("%d slots are in use, %d of them by starts", g.slots.used, g.slots.started)
	}
	if g.events != nil && (g.events.telling || len(g.events.queue) != 0) {
		t.Error("events are left in the queue")
	}
}

// mixedWork has a guard do everything that leaves something behind, and returns how to wait for
// the end of the calls.
func mixedWork(ctx context.Context, g *Guard) (wait func()) {
	done, calls := make(chan struct{}), 0
	call := func(f func()) {
		calls++
		go func() {
			f()
			done <- struct{}{}
		}()
	}
	for i := range 30 {
		device := fmt.Sprintf("%s%d", []string{"allow", "deny", "down", "silent", "deaf"}[i%5], i%7)
		work := func(ctx context.Context) error {
			select {
			case <-ctx.Done():
			case <-time.After(time.Duration(i) * time.Second):
			}
			return ctx.Err()
		}
		call(func() { _ = g.Run(ctx, device, work) })
		call(func() { _ = g.Run(ctx, device, work) })
		call(func() { _ = g.Keep(ctx, device, work) })
		call(func() { _, _ = g.Validate(ctx, device) })
	}
	return func() {
		for range calls {
			<-done
		}
	}
}

func mixedAuthority(ctx context.Context, device string) (Decision, error) {
	switch device[:3] {
	case "all":
		return Decision{Allowed: true, Code: CodeAllow}, nil
	case "den":
		return Decision{Code: CodeDeviceRevoked, RetryAfter: 20 * time.Second}, nil
	case "sil":
		<-ctx.Done()
	case "dea":
		time.Sleep(8 * time.Second)
	}
	return Decision{}, errors.New("down")
}

func TestS7_NoGoroutineTimerOrDeviceIsLeftAfterTheClosing(t *testing.T) {
	for closing, closeIt := range map[string]func(*Guard) error{
		"Close":    (*Guard).Close,
		"Shutdown": func(g *Guard) error { return g.Shutdown(context.Background()) },
	} {
		for name, opts := range map[string][]Option{
			"plain":    nil,
			"reuse":    {WithReuse(10 * time.Second)},
			"retry":    {WithRetry(nil, time.Minute)},
			"few":      {WithMaxRequests(4)},
			"observed": {WithObserver(func(context.Context, Event) {})},
		} {
			t.Run(closing+", "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					g, err := New(ValidatorFunc(mixedAuthority), opts...)
					if err != nil {
						t.Fatal(err)
					}
					wait := mixedWork(t.Context(), g)
					time.Sleep(17 * time.Second)
					g.Hint("")
					if err := closeIt(g); err != nil {
						t.Errorf("closing: %v", err)
					}
					wait()
					time.Sleep(8 * time.Second) // the validator that heeds no context returns
					wantNothingLeft(t, g)
				})
			})
		}
	}
}

// With nothing but the permission left, the closing itself must clear up.
func TestS7_APermissionHeldForReuseDoesNotOutliveTheClosing(t *testing.T) {
	for closing, closeIt := range map[string]func(*Guard) error{
		"Close":    (*Guard).Close,
		"Shutdown": func(g *Guard) error { return g.Shutdown(context.Background()) },
	} {
		t.Run(closing, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, err := New(ValidatorFunc(mixedAuthority), WithReuse(10*time.Second))
				if err != nil {
					t.Fatal(err)
				}
				for range 2 {
					if err := g.Run(t.Context(), "allow", func(context.Context) error { return nil }); err != nil {
						t.Fatal(err)
					}
				}
				if err := closeIt(g); err != nil {
					t.Fatal(err)
				}
				wantNothingLeft(t, g)
			})
		})
	}
}

// Hint for a stranger's id must not make the guard remember it.
func TestB3_AHintForAnUnknownDeviceLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, err := New(ValidatorFunc(mixedAuthority))
		if err != nil {
			t.Fatal(err)
		}
		for i := range 1000 {
			g.Hint(fmt.Sprint("allow", i))
		}
		wantNothingLeft(t, g)
	})
}
