package asynqmw_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/asynqmw"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

// A task that has no retries is cut in its middle, held while its device is denied, and handled again from its beginning.
func ExampleNew() {
	redis := miniredis.NewMiniRedis() // for the example: a Redis of one's own otherwise
	if err := redis.Start(); err != nil {
		fmt.Println(err)
		return
	}
	defer redis.Close()
	conn := asynq.RedisClientOpt{Addr: redis.Addr()}
	client, inspector := asynq.NewClient(conn), asynq.NewInspector(conn)
	defer func() { _ = errors.Join(client.Close(), inspector.Close()) }()

	authority := guardtest.NewValidator("worker-01") // or a client of a service, such as machineid.New
	g, err := guard.New(authority, guard.WithInterval(100*time.Millisecond))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()

	begun, stopped := make(chan struct{}, 2), make(chan struct{}, 1)
	ready, finished := make(chan struct{}), make(chan struct{})
	mux := asynq.NewServeMux()
	mux.Use(asynqmw.New(g, asynqmw.FromHeader("device"), asynqmw.WithInspector(inspector)))
	mux.HandleFunc("report", func(ctx context.Context, t *asynq.Task) error {
		fmt.Printf("report %s: begins\n", t.Payload())
		begun <- struct{}{}
		select {
		case <-ctx.Done():
			denied := (*guard.DeniedError)(nil)
			fmt.Println("stopped:", errors.As(context.Cause(ctx), &denied), denied.Decision.Code)
			stopped <- struct{}{}
			return ctx.Err()
		case <-ready:
			fmt.Printf("report %s: done\n", t.Payload())
			close(finished)
			return nil
		}
	})
	srv := asynq.NewServer(conn, asynqmw.Configure(asynq.Config{
		LogLevel: asynq.FatalLevel, TaskCheckInterval: 50 * time.Millisecond,
	}))
	if err := srv.Start(mux); err != nil {
		fmt.Println(err)
		return
	}

	task := asynq.NewTaskWithHeaders("report", []byte("7"), map[string]string{"device": "worker-01"})
	if _, err := client.EnqueueContext(context.Background(), task, asynq.MaxRetry(0), asynq.Retention(time.Hour)); err != nil {
		fmt.Println(err)
		return
	}
	<-begun
	authority.Deny("worker-01", guard.CodeDeviceRevoked)
	g.Hint("worker-01") // or wait for the interval
	<-stopped
	close(ready)
	authority.Allow("worker-01")
	<-finished

	srv.Shutdown()
	queue, err := inspector.GetQueueInfo("default")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("completed:", queue.Completed, "archived:", queue.Archived, "failed:", queue.Failed)
	// Output:
	// report 7: begins
	// stopped: true DEVICE_REVOKED
	// report 7: begins
	// report 7: done
	// completed: 1 archived: 0 failed: 0
}
