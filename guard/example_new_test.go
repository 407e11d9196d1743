package guard_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

// What options make of the stop bound, and how New refuses those that do not go together.
func ExampleNew() {
	authority := guardtest.NewValidator() // a client of a service, in a program
	g, err := guard.New(authority, guard.WithInterval(30*time.Second), guard.WithTimeout(5*time.Second))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()
	fmt.Println(g)
	fmt.Println("stop bound:", g.StopBound())

	_, err = guard.New(authority, guard.WithInterval(30*time.Second), guard.WithReuse(time.Minute), guard.WithMaxRequests(0))
	fmt.Println(err)
	// Output:
	// guard(interval 30s, timeout 5s, budget 0s)
	// stop bound: 35s
	// guard: WithMaxRequests(0): it must be between 1 and 65536
	// guard: WithReuse(1m0s) is longer than WithInterval(30s)
}

// A denial is an answer, and has no error; that nobody could be asked is one. Neither is an ALLOW.
func ExampleGuard_Validate() {
	authority := guardtest.NewValidator("worker:prod:mailer:01")
	g, err := guard.New(authority)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()
	look := func(device string) {
		d, err := g.Validate(context.Background(), device)
		fmt.Println(d.Allowed, d.Code, "- could be asked:", !errors.Is(err, guard.ErrUnavailable))
	}
	look("worker:prod:mailer:01")
	look("worker:prod:mailer:02")
	authority.Always("", func(context.Context, string) (guard.Decision, error) {
		return guard.Decision{}, errors.New("connection refused")
	})
	look("worker:prod:mailer:01")
	// Output:
	// true ALLOW - could be asked: true
	// false DEVICE_NOT_FOUND - could be asked: true
	// false SYSTEM_UNAVAILABLE - could be asked: false
}

// Which decision lets the code run, for a log or an audit.
func ExampleDecisionFrom() {
	g, err := guard.New(guard.ValidatorFunc(allowAll))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()
	_ = g.Run(context.Background(), "worker:prod:mailer:01", func(ctx context.Context) error {
		d, ok := guard.DecisionFrom(ctx)
		fmt.Println(d.Code, d.RequestID, ok)
		return nil
	})
	_, ok := guard.DecisionFrom(context.Background())
	fmt.Println("outside:", ok)
	// Output:
	// ALLOW req-1 true
	// outside: false
}

// A service of one's own: what it answers, and that it could not be asked, are two things.
func ExampleValidatorFunc() {
	var down bool
	licences := map[string]bool{"press:17": true}
	house := guard.ValidatorFunc(func(_ context.Context, device string) (guard.Decision, error) {
		switch {
		case down:
			return guard.Decision{}, errors.New("the licence server is being moved")
		case licences[device]:
			return guard.Decision{Allowed: true, Code: guard.CodeAllow}, nil
		}
		return guard.Decision{Code: guard.CodeDeviceNotFound}, nil
	})
	g, err := guard.New(house)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()
	work := func(context.Context) error { return nil }
	fmt.Println(g.Run(context.Background(), "press:17", work))
	fmt.Println(g.Run(context.Background(), "press:18", work))
	down = true
	fmt.Println(g.Run(context.Background(), "press:17", work))
	// Output:
	// <nil>
	// guard: device "press:18" refused: DEVICE_NOT_FOUND
	// guard: device "press:17" refused: SYSTEM_UNAVAILABLE: the licence server is being moved
}

// Work that rides out an outage of its authority. What that costs is in the stop bound.
func ExampleWithRetry() {
	authority := guardtest.NewValidator("worker:prod:mailer:01")
	authority.Next("", guardtest.Reply(guard.Decision{Code: guard.CodeSystemUnavailable}, nil)) // the first question fails
	g, err := guard.New(authority, guard.WithRetry(nil, 20*time.Second))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()
	err = g.Run(context.Background(), "worker:prod:mailer:01", func(context.Context) error { return nil })
	fmt.Println(err, "after", len(authority.Calls()), "questions")
	fmt.Println("stop bound:", g.StopBound())
	// Output:
	// <nil> after 2 questions
	// stop bound: 33s
}

// Many short runs on one answer. What that costs is said by WithReuse: work may start on an ALLOW that is a little old.
func ExampleWithReuse() {
	authority := guardtest.NewValidator("worker:prod:mailer:01")
	g, err := guard.New(authority, guard.WithInterval(time.Minute), guard.WithReuse(time.Minute))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()
	for range 1000 {
		if err := g.Run(context.Background(), "worker:prod:mailer:01", func(context.Context) error { return nil }); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println("1000 runs,", len(authority.Calls()), "question")
	// Output: 1000 runs, 1 question
}

// What happened to one run: those that are told on its own goroutine, in order.
func ExampleWithObserver() {
	observe := func(_ context.Context, e guard.Event) {
		switch e.Kind {
		case guard.EventStarted, guard.EventFinished, guard.EventRefused, guard.EventStopped:
			fmt.Println(e.Kind, e.DeviceID, e.Decision.Code)
		}
	}
	g, err := guard.New(guardtest.NewValidator("worker:prod:mailer:01"), guard.WithObserver(observe))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()
	for _, device := range []string{"worker:prod:mailer:01", "worker:prod:mailer:02"} {
		_ = g.Run(context.Background(), device, func(context.Context) error { return nil })
	}
	// Output:
	// started worker:prod:mailer:01 ALLOW
	// finished worker:prod:mailer:01 ALLOW
	// refused worker:prod:mailer:02 DEVICE_NOT_FOUND
}

// What the guard logs of a device that it refuses: once, and not a hundred times.
func ExampleWithLogger() {
	log := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == "took" {
			return slog.Attr{}
		}
		return a
	}}))
	g, err := guard.New(guardtest.NewValidator(), guard.WithLogger(log))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()
	for range 100 {
		_ = g.Run(context.Background(), "worker:prod:mailer:02", func(context.Context) error { return nil })
	}
	// Output:
	// level=WARN msg="execguard: refused" device=worker:prod:mailer:02 code=DEVICE_NOT_FOUND request_id=script-1 phase=refused error="guard: device \"worker:prod:mailer:02\" refused: DEVICE_NOT_FOUND (request script-1)"
}
