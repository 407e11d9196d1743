package asynqmw_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/asynqmw"
	"github.com/execguard/execguard/guard"
)

// What a handler panics with after the denial is logged, with its stack, and is no failure of the task; to end the
// goroutine is no panic. A middleware outside is given the denial, in which there is what the handler came to.
func TestPanicAfterTheDenial(t *testing.T) {
	for name, test := range map[string]struct {
		end    func()
		logged int
	}{
		"a panic": {func() { panic("boom") }, 1},
		"Goexit":  {runtime.Goexit, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, v := newGuard(t)
				log := &journal{}
				ctx, cancel := context.WithCancel(marked(log))
				defer cancel()
				errs := handled(ctx, asynqmw.New(g, asynqmw.Fixed(device)), asynq.HandlerFunc(func(ctx context.Context, _ *asynq.Task) error {
					v.Deny(device, guard.CodeDeviceRevoked)
					<-ctx.Done()
					test.end()
					return nil
				}), 1)
				time.Sleep(5 * interval) // denied, and held
				cancel()
				all := errs()
				if len(all) != test.logged {
					t.Errorf("returned %v", all)
				}
				for _, err := range all {
					if !errors.Is(err, guard.ErrDenied) {
						t.Errorf("err = %v", err)
					}
				}
				lines := log.ours("a handler panicked after it had been stopped: ")
				if len(lines) != test.logged || len(lines) > 0 && !(strings.Contains(lines[0], "boom") && strings.Contains(lines[0], "swallow_test.go")) {
					t.Errorf("logged %q", lines)
				}
			})
		})
	}
}

// A Runner of somebody's own may keep the function of one task and call it in the middle of the next: that one is its
// own all the same.
func TestRunnerThatKeepsAFunction(t *testing.T) {
	var kept func(context.Context) error
	use := asynqmw.New(runnerFunc(func(ctx context.Context, _ string, fn func(context.Context) error) error {
		if kept != nil {
			if err := kept(ctx); err == nil {
				t.Error("the first task was handled again")
			}
		}
		kept = fn
		return fn(ctx)
	}), asynqmw.Fixed(device))
	w := done()
	for range 3 {
		if err := use(w).ProcessTask(marked(nil), asynq.NewTask(kind, nil)); err != nil {
			t.Errorf("err = %v", err)
		}
	}
	w.want(t, "", 3)
}
