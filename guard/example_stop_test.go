package guard_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/execguard/execguard/contextx"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

// A read that knows no context is released by closing what it reads from.
func ExampleAfterStop() {
	authority := guardtest.NewValidator("worker:prod:feed:01") // a client of a service, in a program
	g, err := guard.New(authority)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()
	ours, theirs := net.Pipe()
	defer theirs.Close()

	err = g.Run(context.Background(), "worker:prod:feed:01", func(ctx context.Context) error {
		defer ours.Close()
		guard.AfterStop(ctx, func() { _ = ours.Close() })
		authority.Deny("worker:prod:feed:01", guard.CodeDeviceRevoked)
		g.Hint("worker:prod:feed:01") // or wait for the interval
		_, err := io.ReadAll(ours)    // nobody ever writes
		return err
	})
	fmt.Println(errors.Is(err, guard.ErrDenied), errors.Is(err, io.ErrClosedPipe))
	// Output: true true
}

// Why the work was stopped, and a clean-up that the same stop does not cut off.
func ExampleStopped() {
	authority := guardtest.NewValidator("worker:prod:mailer:01")
	g, err := guard.New(authority)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()

	_ = g.Run(context.Background(), "worker:prod:mailer:01", func(ctx context.Context) error {
		fmt.Println("before:", guard.Stopped(ctx))
		authority.Deny("worker:prod:mailer:01", guard.CodeDeviceRevoked)
		g.Hint("worker:prod:mailer:01")
		<-ctx.Done()

		clean, cancel := contextx.Cleanup(ctx, time.Second) // ctx itself has ended
		defer cancel()
		if denied := (*guard.DeniedError)(nil); errors.As(guard.Stopped(ctx), &denied) {
			fmt.Println("stopped:", denied.Decision.Code, "- time to put things away:", clean.Err() == nil)
		}
		return ctx.Err()
	})
	// Output:
	// before: <nil>
	// stopped: DEVICE_REVOKED - time to put things away: true
}

// A process that ends lets its work come to an end, and starts nothing more.
func ExampleGuard_Shutdown() {
	g, err := guard.New(guard.ValidatorFunc(allowAll))
	if err != nil {
		fmt.Println(err)
		return
	}
	started, finish, ended := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		ended <- g.Run(context.Background(), "worker:prod:mailer:01", func(context.Context) error {
			close(started)
			<-finish // the last mail is sent
			return nil
		})
	}()
	<-started
	go close(finish)

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second) // not the signal's, which has ended
	defer cancel()
	fmt.Println("shutdown:", g.Shutdown(ctx))
	fmt.Println("what ran:", <-ended)
	err = g.Run(context.Background(), "worker:prod:mailer:01", func(context.Context) error { return nil })
	fmt.Println("what comes now:", err, errors.Is(err, guard.ErrClosed))
	// Output:
	// shutdown: <nil>
	// what ran: <nil>
	// what comes now: guard: closed true
}

// Close waits for nobody, and so comes last: what still runs has its context ended, and is not taken for finished.
func ExampleGuard_Close() {
	g, err := guard.New(guard.ValidatorFunc(allowAll))
	if err != nil {
		fmt.Println(err)
		return
	}
	err = g.Run(context.Background(), "worker:prod:mailer:01", func(ctx context.Context) error {
		_ = g.Close()
		<-ctx.Done()
		return nil
	})
	fmt.Println(errors.Is(err, guard.ErrClosed), errors.Is(err, guard.ErrDenied))
	// Output: true false
}

// A hint, from a webhook or a message bus, has the next question asked now instead of within the interval. It decides
// nothing: the authority does.
func ExampleGuard_Hint() {
	authority := guardtest.NewValidator("worker:prod:mailer:01")
	g, err := guard.New(authority, guard.WithInterval(time.Hour))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()

	err = g.Run(context.Background(), "worker:prod:mailer:01", func(ctx context.Context) error {
		authority.Deny("", guard.CodeOrgDisabled)
		g.Hint("") // something has changed for every device
		<-ctx.Done()
		return ctx.Err()
	})
	fmt.Println(err)
	// Output: guard: device "worker:prod:mailer:01" stopped: ORG_DISABLED (request script-2)
}
