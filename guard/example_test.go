package guard_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/execguard/execguard/guard"
)

// allowAll is the simplest authority there is.
func allowAll(context.Context, string) (guard.Decision, error) {
	return guard.Decision{Allowed: true, Code: guard.CodeAllow, RequestID: "req-1"}, nil
}

func ExampleGuard_Run() {
	g, err := guard.New(guard.ValidatorFunc(allowAll))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()

	err = g.Run(context.Background(), "worker:prod:mailer:01", func(ctx context.Context) error {
		d, _ := guard.DecisionFrom(ctx)
		fmt.Println("running on", d.Code, d.RequestID)
		return nil
	})
	fmt.Println(err, "- and it would stop within", g.StopBound())
	// Output:
	// running on ALLOW req-1
	// <nil> - and it would stop within 13s
}

// A device that is revoked while its work runs: the next look at the authority, here brought
// forward by a hint, cancels the context of the work.
func ExampleGuard_Run_revoked() {
	revoked := make(chan struct{})
	authority := func(ctx context.Context, device string) (guard.Decision, error) {
		select {
		case <-revoked:
			return guard.Decision{Code: guard.CodeDeviceRevoked, RequestID: "req-2"}, nil
		default:
			return allowAll(ctx, device)
		}
	}
	g, err := guard.New(guard.ValidatorFunc(authority))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()

	err = g.Run(context.Background(), "worker:prod:mailer:01", func(ctx context.Context) error {
		close(revoked)
		g.Hint("worker:prod:mailer:01")
		<-ctx.Done()
		return ctx.Err()
	})
	fmt.Println(err)
	denied := (*guard.DeniedError)(nil)
	if errors.As(err, &denied) {
		fmt.Println(denied.Decision.Code, "in flight:", denied.InFlight)
	}
	fmt.Println("could the authority be asked:", !errors.Is(err, guard.ErrUnavailable))
	fmt.Println("harmless:", errors.Is(err, context.Canceled))
	// Output:
	// guard: device "worker:prod:mailer:01" stopped: DEVICE_REVOKED (request req-2)
	// DEVICE_REVOKED in flight: true
	// could the authority be asked: true
	// harmless: false
}

func ExampleDo() {
	g, err := guard.New(guard.ValidatorFunc(allowAll))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()

	pages, err := guard.Do(context.Background(), g, "worker:prod:report:01", func(context.Context) (int, error) {
		return 12, nil
	})
	fmt.Println(pages, err)
	// Output: 12 <nil>
}

func ExampleCheckpoint() {
	g, err := guard.New(guard.ValidatorFunc(allowAll))
	if err != nil {
		fmt.Println(err)
		return
	}
	err = g.Run(context.Background(), "agent:prod:support:01", func(ctx context.Context) error {
		for _, tool := range []string{"read the ticket", "draft a reply", "send it"} {
			if err := guard.Checkpoint(ctx); err != nil {
				return err // the tool is not called
			}
			fmt.Println(tool)
			if tool == "draft a reply" {
				_ = g.Close()
			}
		}
		return nil
	})
	fmt.Println(err, errors.Is(err, guard.ErrClosed))
	// Output:
	// read the ticket
	// draft a reply
	// guard: closed true
}

func ExampleGuard_Keep() {
	asked := 0
	authority := func(ctx context.Context, device string) (guard.Decision, error) {
		if asked++; asked == 1 {
			return guard.Decision{Code: guard.CodeDeviceRevoked}, nil
		}
		return allowAll(ctx, device)
	}
	g, err := guard.New(guard.ValidatorFunc(authority), guard.WithObserver(func(_ context.Context, e guard.Event) {
		if e.Kind == guard.EventRefused {
			fmt.Println("refused:", e.Decision.Code)
		}
	}), guard.WithInterval(10*time.Millisecond)) // for the example: the default is 10 s
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()

	err = g.Keep(context.Background(), "worker:prod:queue:07", func(context.Context) error {
		fmt.Println("serving")
		return nil
	})
	fmt.Println(err)
	// Output:
	// refused: DEVICE_REVOKED
	// serving
	// <nil>
}
