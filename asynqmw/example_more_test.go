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

// A process that is one device: while it is denied, tasks stay in Redis, and nothing is fetched.
func ExampleServe() {
	redis := miniredis.NewMiniRedis() // for the example: a Redis of one's own otherwise
	if err := redis.Start(); err != nil {
		fmt.Println(err)
		return
	}
	defer redis.Close()
	conn := asynq.RedisClientOpt{Addr: redis.Addr()}
	client := asynq.NewClient(conn)
	defer client.Close() //nolint:errcheck // the program is over
	if _, err := client.Enqueue(asynq.NewTask("report", []byte("7")), asynq.MaxRetry(0)); err != nil {
		fmt.Println(err)
		return
	}

	authority := guardtest.NewValidator() // nothing is allowed yet
	refused := make(chan struct{}, 1000)
	g, err := guard.New(authority, guard.WithInterval(20*time.Millisecond), guard.WithObserver(func(_ context.Context, e guard.Event) {
		if e.Kind == guard.EventRefused {
			refused <- struct{}{}
		}
	}))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()

	ctx, end := context.WithCancel(context.Background()) // signal.NotifyContext, in a program
	newServer := func() *asynq.Server {
		return asynq.NewServer(conn, asynq.Config{LogLevel: asynq.FatalLevel, TaskCheckInterval: 50 * time.Millisecond})
	}
	served := make(chan error)
	go func() {
		served <- asynqmw.Serve(ctx, g, "worker-01", newServer, asynq.HandlerFunc(func(_ context.Context, t *asynq.Task) error {
			fmt.Printf("report %s\n", t.Payload())
			end()
			return nil
		}))
	}()
	<-refused
	fmt.Println("allowed now")
	authority.Allow("worker-01")
	fmt.Println(errors.Is(<-served, context.Canceled))
	// Output:
	// allowed now
	// report 7
	// true
}

// What Configure adds to a Config: a refusal is no failure. About everything else the Config is asked as before.
func ExampleConfigure() {
	cfg := asynqmw.Configure(asynq.Config{
		Concurrency: 8,
		IsFailure:   func(err error) bool { return !errors.Is(err, errBusy) },
	})
	fmt.Println(cfg.Concurrency, cfg.IsFailure(errBusy), cfg.IsFailure(errors.New("no paper")))
	// Output: 8 false true
}

// errBusy is an error of the application's own that is no failure to it.
var errBusy = errors.New("busy")

// schedule is a provider of periodic tasks.
type schedule struct{}

func (schedule) GetConfigs() ([]*asynq.PeriodicTaskConfig, error) {
	return []*asynq.PeriodicTaskConfig{{Cronspec: "30 2 * * *", Task: asynq.NewTask("report", nil)}}, nil
}

// A schedule that is empty while its device is denied. It is for an asynq.PeriodicTaskManager.
func ExamplePeriodic() {
	authority := guardtest.NewValidator("scheduler-01")
	guarded := asynqmw.Periodic(authority, "scheduler-01", schedule{})
	look := func() {
		configs, err := guarded.GetConfigs()
		fmt.Println(len(configs), err)
	}
	look()
	authority.Deny("scheduler-01", guard.CodeDeviceRevoked)
	look() // the default logger is told
	// Output:
	// 1 <nil>
	// 0 <nil>
}

// The device stands in a header of the task, put there by who enqueues it.
func ExampleFromHeader() {
	from := asynqmw.FromHeader("device")
	fmt.Println(from(context.Background(), asynq.NewTaskWithHeaders("report", nil, map[string]string{"device": "worker-01"})))
	_, err := from(context.Background(), asynq.NewTask("report", nil))
	fmt.Println(err)
	// Output:
	// worker-01 <nil>
	// asynqmw: no identity: the task has no header device
}
