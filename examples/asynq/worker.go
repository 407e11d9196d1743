package main

import (
	"context"
	"time"

	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/asynqmw"
	"github.com/execguard/execguard/guard"
)

// startWorker is all that a worker needs: each task is handled only while the device that its header
// names may execute. No task is lost, and no retry spent, because it may not.
func startWorker(
	redis asynq.RedisConnOpt, cfg asynq.Config, g guard.Runner, i *asynq.Inspector, h asynq.HandlerFunc,
) (*asynq.Server, error) {
	mux := asynq.NewServeMux()
	mux.Use(asynqmw.New(g, asynqmw.FromHeader("device"), asynqmw.WithInspector(i)))
	mux.HandleFunc(pageTask, h)
	server := asynq.NewServer(redis, asynqmw.Configure(cfg))
	return server, server.Start(mux)
}

// serve is for a process that is one device: while it may not execute, it fetches nothing.
func serve(ctx context.Context, redis asynq.RedisConnOpt, cfg asynq.Config, g *guard.Guard, h asynq.HandlerFunc) error {
	newServer := func() *asynq.Server { return asynq.NewServer(redis, cfg) }
	return asynqmw.Serve(ctx, g, scanner, newServer, h)
}

// configOf is the Config of a server that works on one queue. Asynq's own intervals are made for more
// patient readers.
func configOf(q *queue, workers int) asynq.Config {
	return asynq.Config{
		Queues: map[string]int{q.name: 1}, Concurrency: workers, LogLevel: asynq.ErrorLevel,
		TaskCheckInterval: 100 * time.Millisecond, DelayedTaskCheckInterval: 500 * time.Millisecond, ShutdownTimeout: time.Second,
	}
}
