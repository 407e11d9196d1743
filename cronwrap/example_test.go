package cronwrap_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/execguard/execguard/cronwrap"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

// A job that obeys its context, and that is told which tick it is: the time of the tick is the key of what it does.
func Example() {
	authority := guardtest.NewValidator("worker:demo:01") // MachineID, say
	g, err := guard.New(authority)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()

	ran := make(chan string, 10)
	report := cronwrap.Job(g, "worker:demo:01", func(ctx context.Context) error {
		at, ok := cronwrap.Scheduled(ctx)
		if !ok {
			ran <- "run by hand"
			return nil
		}
		ran <- fmt.Sprintf("the tick of a whole second: %t", at.Equal(at.Truncate(time.Second)))
		return nil
	}, cronwrap.WithName("report"), cronwrap.WithLogger(plainLogger()))

	c := cron.New(cron.WithLocation(time.UTC), cron.WithChain(cronwrap.SkipIfStillRunning(cron.DiscardLogger)))
	id, err := cronwrap.Add(c, "@every 1s", report)
	if err != nil {
		fmt.Println(err)
		return
	}
	c.Start()
	fmt.Println(<-ran)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := cronwrap.Stop(ctx, c); err != nil {
		fmt.Println(err)
	}

	c.Entry(id).Job.Run()
	fmt.Println(<-ran)
	authority.Deny("worker:demo:01", guard.CodeDeviceRevoked)
	c.Entry(id).Job.Run() // goes round cron's chain, and not round the guard
	// Output:
	// the tick of a whole second: true
	// run by hand
	// level=WARN msg="cronwrap: denied: skipped" job=report code=DEVICE_REVOKED
}

// plainLogger logs to the standard output what does not change from run to run.
func plainLogger() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			switch a.Key {
			case slog.LevelKey, slog.MessageKey, "job", "code":
				return a
			}
			return slog.Attr{}
		},
	}))
}
