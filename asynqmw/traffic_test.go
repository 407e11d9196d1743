package asynqmw_test

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/execguard/execguard/asynqmw"
	"github.com/execguard/execguard/guard"
)

// Held tasks cost what tasks cost that a bare handler is busy with: asynq's heartbeat, every five seconds.
// No server has a worker to spare, so that none looks for tasks.
func heldWithoutTraffic(t *testing.T) {
	g, v := newGuard(t)
	v.Deny(device, guard.CodeDeviceRevoked)
	held := fullServer(t, asynqmw.New(g, asynqmw.Fixed(device))(done()))
	busy := fullServer(t, asynq.HandlerFunc(func(ctx context.Context, _ *asynq.Task) error {
		<-ctx.Done()
		return nil
	}))
	heldBefore, busyBefore, asked := commands(t, held), commands(t, busy), len(v.Calls())
	receive(t, "one heartbeat", time.After(6*time.Second))
	heldCost, busyCost := commands(t, held)-heldBefore, commands(t, busy)-busyBefore
	if asked = len(v.Calls()) - asked; asked < 10 {
		t.Errorf("the authority was asked %d times: this proves nothing", asked)
	}
	// On a busy machine one may have had a heartbeat more; a command a question would be far more.
	if busyCost == 0 || heldCost-busyCost >= asked/2 {
		t.Errorf("4 held tasks cost %d commands in 6 s, 4 that are at work %d", heldCost, busyCost)
	}
}

// fullServer starts a server on a Redis of its own, with as many tasks as it can handle at a time.
func fullServer(t *testing.T, h asynq.Handler) *redis.Client {
	t.Helper()
	s := ownRedis(t)
	if !s.stops() {
		t.Skip("miniredis does not count commands")
	}
	opt := s.opt(0)
	client, inspector := newClient(t, opt), newInspector(t, opt)
	for range 4 {
		if _, err := client.EnqueueContext(t.Context(), asynq.NewTask(kind, nil), asynq.MaxRetry(0)); err != nil {
			t.Fatal(err)
		}
	}
	srv := asynq.NewServer(opt, asynqmw.Configure(asynq.Config{
		Concurrency: 4, Logger: &journal{}, ShutdownTimeout: 100 * time.Millisecond, TaskCheckInterval: 20 * time.Millisecond,
		DelayedTaskCheckInterval: time.Hour, JanitorInterval: time.Hour,
	}))
	if err := srv.Start(h); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Shutdown)
	eventually(t, "all workers are busy", func() bool { return counts(t, inspector, "default").active == 4 })
	c := redis.NewClient(&redis.Options{Addr: opt.Addr})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// commands is how many a Redis has been sent, but for those that ask.
func commands(t *testing.T, c *redis.Client) (n int) {
	t.Helper()
	text, err := c.Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(text) {
		name, rest, ok := strings.Cut(line, ":calls=")
		if calls, _, counted := strings.Cut(rest, ","); ok && counted && name != "cmdstat_info" {
			more, err := strconv.Atoi(calls)
			if err != nil {
				t.Fatal(err)
			}
			n += more
		}
	}
	return n
}
