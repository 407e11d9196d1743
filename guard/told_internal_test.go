package guard

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// slowRun starts a run on which the telling hangs, as it does for a while where there are very many
// to be told, until it is let go.
func slowRun(t *testing.T, g *Guard) (ctx context.Context, letGo func()) {
	t.Helper()
	hold, began := make(chan struct{}), make(chan context.Context)
	go func() {
		_ = g.Run(t.Context(), "d", func(ctx context.Context) error {
			r := ctx.(*run)
			c := r.derive()
			r.derived.Store(&derived{ctx: c.ctx, end: func(err error) { <-hold; c.end(err) }})
			began <- c.ctx
			<-ctx.Done()
			return nil
		})
	}()
	return <-began, func() { close(hold) }
}

func deniedAtWill(t *testing.T) (*Guard, *atomic.Bool) {
	t.Helper()
	deny := &atomic.Bool{}
	g, err := New(ValidatorFunc(func(context.Context, string) (Decision, error) {
		if deny.Load() {
			return Decision{Code: CodeDeviceRevoked}, nil
		}
		return Decision{Allowed: true, Code: CodeAllow}, nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	return g, deny
}

// S3: who hears of a denial finds no context live, also not one that an earlier denial has
// stopped and that has not been told yet.
func TestS3_WhoHearsOfADenialFindsNoContextLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, deny := deniedAtWill(t)
		ctx, letGo := slowRun(t, g)
		deny.Store(true)
		go func() { _, _ = g.Validate(t.Context(), "d") }()
		synctest.Wait()
		deny.Store(false)
		go func() {
			_ = g.Run(t.Context(), "d", func(ctx context.Context) error {
				<-ctx.Done()
				return nil
			})
		}()
		synctest.Wait()
		deny.Store(true)
		for name, ask := range map[string]func(){
			"Validate": func() { _, _ = g.Validate(t.Context(), "d") },
			"Run":      func() { _ = g.Run(t.Context(), "d", func(context.Context) error { return nil }) },
		} {
			go func() {
				ask()
				if ctx.Err() == nil {
					t.Errorf("%s has returned, and a context is live", name)
				}
			}()
		}
		synctest.Wait()
		letGo()
		synctest.Wait()
		_ = g.Close()
	})
}

// S7: Close cancels what is in flight. Where somebody else has begun to, it returns when all are told.
func TestS7_CloseReturnsWhenAllAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, deny := deniedAtWill(t)
		ctx, letGo := slowRun(t, g)
		deny.Store(true)
		go func() { _, _ = g.Validate(t.Context(), "d") }()
		synctest.Wait()
		closed := make(chan struct{})
		go func() {
			_ = g.Close()
			if ctx.Err() == nil {
				t.Error("Close has returned, and a context is live")
			}
			close(closed)
		}()
		synctest.Wait()
		letGo()
		<-closed
	})
}
