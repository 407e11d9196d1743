package guard_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

// The customer's licence and our own switch must both agree.
func ExampleAll() {
	licence, house := guardtest.NewValidator("press:17"), guardtest.NewValidator("press:17")
	g, err := guard.New(guard.All(licence, house))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()
	work := func(context.Context) error { return nil }
	fmt.Println(g.Run(context.Background(), "press:17", work))
	house.Deny("press:17", guard.CodeDeviceRevoked)
	fmt.Println(errors.Is(g.Run(context.Background(), "press:17", work), guard.ErrDenied))
	// Output:
	// <nil>
	// true
}

// A file stands in for a service that cannot be asked, and never for one that has said no.
func ExampleFallback() {
	service, file := guardtest.NewValidator("press:17"), guardtest.NewValidator("press:17")
	g, err := guard.New(guard.Fallback(service, file)) // licentric.OfflineWith, in a program
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()
	cable := func(context.Context, string) (guard.Decision, error) {
		return guard.Decision{}, errors.New("no route to host")
	}
	work := func(ctx context.Context) error {
		d, _ := guard.DecisionFrom(ctx)
		fmt.Printf("working %q\n", d.Reason)
		return nil
	}

	_ = g.Run(context.Background(), "press:17", work)
	service.Always("", cable) // pulled
	_ = g.Run(context.Background(), "press:17", work)

	service.Always("", nil) // plugged in
	service.Deny("press:17", guard.CodeDeviceRevoked)
	fmt.Println(g.Run(context.Background(), "press:17", work))
	service.Always("", cable) // pulling it again revives nobody
	fmt.Println(errors.Is(g.Run(context.Background(), "press:17", work), guard.ErrDenied))
	// Output:
	// working ""
	// working "offline: the authority could not be asked: no route to host"
	// guard: device "press:17" refused: DEVICE_REVOKED (request script-2)
	// true
}
