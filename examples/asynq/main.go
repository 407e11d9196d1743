// Command asynq shows asynqmw on a queue that two devices share. One of them is revoked while its
// tasks are being handled: what runs is cut, what comes is refused, the other device goes on. Restored, it has all
// of its tasks handled, also those that were never to be retried. Then a process that is one device stops
// fetching while it is revoked.
//
//	go run ./examples/asynq
//
// It needs nothing outside: Redis is a miniredis and the authority the embedded one, both in the same
// process. With REDIS_ADDR it takes the Redis there and queues with names of their own, and removes them at
// the end, but for asynq's counters of what was processed, which it has no call to remove. The status is 0 if
// the counts are as asynqmw promises: all handled, no retry spent, nothing archived.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/authority"
)

// The devices of the story.
const (
	press   = "worker:demo:press:01"   // has tasks in the queue, and is revoked
	mailer  = "worker:demo:mailer:01"  // has tasks in the same queue, and is not
	scanner = "worker:demo:scanner:01" // is a process of its own
)

// interval is how often the guard asks. A refused task stays away for as long; what is cut here, is cut by
// a hint.
const interval = time.Second

// patience ends a story in which something does not happen that should. The story takes six seconds.
const patience = time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := demonstrate(ctx, os.Stdout, os.Getenv("REDIS_ADDR"))
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "asynq:", err)
		os.Exit(1)
	}
}

// demonstrate has tasks handled under a guard, revokes devices and restores them. Any other outcome
// than the one that asynqmw promises is an error.
func demonstrate(ctx context.Context, out io.Writer, addr string) error {
	if addr == "" {
		mini := miniredis.NewMiniRedis()
		if err := mini.Start(); err != nil {
			return err
		}
		defer mini.Close()
		addr = mini.Addr()
	}
	org, err := register(ctx)
	if err != nil {
		return err
	}
	g, err := guard.New(org, guard.WithInterval(interval))
	if err != nil {
		return err
	}
	defer g.Close()
	defer org.Subscribe(g.Hint)() // without it, the guard would ask once an interval
	return newStory(out, org, asynq.RedisClientOpt{Addr: addr}).tell(ctx, g, g, patience)
}

// register makes an organisation of an embedded authority that knows the devices.
func register(ctx context.Context) (*authority.Organisation, error) {
	a, err := authority.New()
	if err != nil {
		return nil, err
	}
	org, err := a.AddOrganisation(ctx, "org_asynq_demo", authority.PlanFree)
	if err != nil {
		return nil, err
	}
	for _, device := range []string{press, mailer, scanner} {
		if _, err := org.Register(ctx, device); err != nil {
			return nil, err
		}
	}
	return org, nil
}

var errTooLong = errors.New("something does not happen that should")
