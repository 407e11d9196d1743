package asynqmw_test

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/asynqmw"
	"github.com/execguard/execguard/guard"
)

const (
	// undisturbed is an interval in which no benchmark meets a renewal: the longest that there is.
	undisturbed = 24 * time.Hour

	benchType   = "run:device"
	benchDevice = "worker-01"
)

// newLease makes a guard whose permission for the device may be used again and again.
func newLease(b *testing.B) *guard.Guard {
	b.Helper()
	allow := guard.ValidatorFunc(func(context.Context, string) (guard.Decision, error) {
		return guard.Decision{Allowed: true, Code: guard.CodeAllow}, nil
	})
	g, err := guard.New(allow, guard.WithInterval(undisturbed), guard.WithReuse(undisturbed))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = g.Close() })
	if d, err := g.Validate(b.Context(), benchDevice); err != nil || !d.Allowed {
		b.Fatal(d, err)
	}
	return g
}

// layer is what stands around a handler; nil: nothing does.
type layer struct {
	name string
	use  asynq.MiddlewareFunc
}

// layers are the bare handler, the least that a layer does which can end a task, and the guard.
func layers(b *testing.B) []layer {
	b.Helper()
	return []layer{
		{"bare", nil},
		{"cancellable", func(next asynq.Handler) asynq.Handler {
			return asynq.HandlerFunc(func(ctx context.Context, t *asynq.Task) error {
				ctx, cancel := context.WithCancelCause(ctx)
				defer cancel(nil)
				return next.ProcessTask(ctx, t)
			})
		}},
		{"lease", asynqmw.New(newLease(b), asynqmw.Fixed(benchDevice))},
	}
}

// newMux serves one type of task through the layer.
func newMux(l layer, handle asynq.HandlerFunc) *asynq.ServeMux {
	mux := asynq.NewServeMux()
	if l.use != nil {
		mux.Use(l.use)
	}
	mux.HandleFunc(benchType, handle)
	return mux
}

// BenchmarkAsynqMux hands tasks to the mux directly, with a context that can end.
func BenchmarkAsynqMux(b *testing.B) {
	for _, l := range layers(b) {
		b.Run(l.name, func(b *testing.B) {
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			mux := newMux(l, func(context.Context, *asynq.Task) error { return nil })
			task := asynq.NewTask(benchType, []byte("9e3779b1"))
			b.ReportAllocs()
			for b.Loop() {
				if err := mux.ProcessTask(ctx, task); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkAsynqServer works off 3,000 tasks that wait in the queue already, 16 at a time. ns/op is
// one task's share, from the start of the server until the last has been handled.
func BenchmarkAsynqServer(b *testing.B) {
	b.Run("redis", func(b *testing.B) {
		s := ownRedis(b)
		if !s.stops() {
			b.Skip("there is no redis-server")
		}
		serveAll(b, s.opt(0))
	})
	b.Run("miniredis", func(b *testing.B) {
		serveAll(b, asynq.RedisClientOpt{Addr: miniredis.RunT(b).Addr()})
	})
}

func serveAll(b *testing.B, redis asynq.RedisClientOpt) {
	b.Helper()
	client := newClient(b, redis)
	for _, l := range layers(b) {
		b.Run(l.name, func(b *testing.B) {
			const tasks = 3000
			var spent time.Duration
			for b.Loop() {
				for range tasks {
					if _, err := client.Enqueue(asynq.NewTask(benchType, []byte("9e3779b1"))); err != nil {
						b.Fatal(err)
					}
				}
				spent += workOff(b, redis, l, tasks)
			}
			per := float64(spent) / float64(b.N) / tasks
			b.ReportMetric(per, "ns/op")
			b.ReportMetric(1e9/per, "ops/s")
		})
	}
}

// workOff is how long a server takes for all the tasks.
func workOff(b *testing.B, redis asynq.RedisClientOpt, l layer, tasks int64) time.Duration {
	b.Helper()
	var left atomic.Int64
	left.Store(tasks)
	done := make(chan struct{})
	mux := newMux(l, func(context.Context, *asynq.Task) error {
		if left.Add(-1) == 0 {
			close(done)
		}
		return nil
	})
	srv := asynq.NewServer(redis, asynqmw.Configure(asynq.Config{Concurrency: 16, LogLevel: asynq.FatalLevel}))
	start := time.Now()
	if err := srv.Start(mux); err != nil {
		b.Fatal(err)
	}
	<-done
	defer srv.Shutdown()
	return time.Since(start)
}

// BenchmarkHeld reports what one held task costs while it waits: goroutines and bytes. asynq's own
// two goroutines of a task are not in it.
func BenchmarkHeld(b *testing.B) {
	const tasks = 10_000
	g := newDenied(b)
	held := asynqmw.New(g, asynqmw.Fixed(benchDevice))(asynq.HandlerFunc(func(context.Context, *asynq.Task) error { return nil }))
	task := asynq.NewTask(benchType, nil)
	base := asynqmw.Configure(asynq.Config{}).BaseContext()
	for b.Loop() {
		ctx, cancel := context.WithTimeout(base, time.Hour)
		before := measure()
		ended := make(chan error, tasks)
		for range tasks {
			go func() { ended <- held.ProcessTask(ctx, task) }()
		}
		for settled := 0; settled < 3; { // all of them wait
			n := runtime.NumGoroutine()
			<-time.After(50 * time.Millisecond)
			if settled++; runtime.NumGoroutine() != n {
				settled = 0
			}
		}
		after := measure()
		b.ReportMetric(float64(after.goroutines-before.goroutines)/tasks, "goroutines/task")
		b.ReportMetric(float64(after.bytes-before.bytes)/tasks, "B/task")
		cancel()
		for range tasks {
			<-ended
		}
	}
}

func newDenied(b *testing.B) *guard.Guard {
	b.Helper()
	deny := guard.ValidatorFunc(func(context.Context, string) (guard.Decision, error) {
		return guard.Decision{Code: guard.CodeDeviceRevoked}, nil
	})
	g, err := guard.New(deny, guard.WithInterval(undisturbed))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = g.Close() })
	return g
}

type load struct {
	goroutines int
	bytes      uint64
}

func measure() load {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return load{runtime.NumGoroutine(), m.HeapAlloc + m.StackInuse}
}
