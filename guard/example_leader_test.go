package guard_test

import (
	"context"
	"fmt"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

// lead is what an elector's two callbacks do: its beginning is OnStartedLeading, its end OnStoppedLeading.
func lead(ctx context.Context, g *guard.Guard, device string, serve func(ctx context.Context) error) error {
	return g.Keep(ctx, device, func(ctx context.Context) error {
		fmt.Println("started")
		err := serve(ctx) // returns when ctx ends: the next start waits for it
		fmt.Println("stopped:", guard.Stopped(ctx) != nil)
		return err
	})
}

// What was led by an elector, led by a permission: lost, and had again.
func ExampleGuard_Keep_leaderElection() {
	authority := guardtest.NewValidator("controller:prod:01")
	g, err := guard.New(authority, guard.WithInterval(20*time.Millisecond)) // for the example: the default is 10 s
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()
	times := 0
	err = lead(context.Background(), g, "controller:prod:01", func(ctx context.Context) error {
		if times++; times == 2 {
			return nil // the work is done
		}
		authority.Deny("controller:prod:01", guard.CodeDeviceRevoked)
		<-ctx.Done()
		authority.Allow("controller:prod:01")
		return ctx.Err()
	})
	fmt.Println(err)
	// Output:
	// started
	// stopped: true
	// started
	// stopped: false
	// <nil>
}

// The times of an elector with client-go's defaults, RetryPeriod 2 s and RenewDeadline 10 s, as options.
func ExampleGuard_StopBound() {
	authority := guardtest.NewValidator()
	g, err := guard.New(authority,
		guard.WithInterval(2*time.Second),   // RetryPeriod: between two renewals
		guard.WithTimeout(1*time.Second),    // of one call
		guard.WithRetry(nil, 9*time.Second)) // with the timeout, RenewDeadline: how long a failing renewal is tried again
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()
	fmt.Println(g.StopBound())
	// Output: 12s
}
