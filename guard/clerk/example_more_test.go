package clerk_test

import (
	"context"
	"fmt"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/clerk"
	"github.com/execguard/execguard/internal/clerkserver"
)

// A worker runs while its machine is there, and is in the scopes that it needs.
func ExampleClient_Validator() {
	service, err := clerkserver.New() // in place of https://api.clerk.com
	if err != nil {
		fmt.Println(err)
		return
	}
	api, _ := service.AddMachine("api")
	worker, _ := service.AddMachine("worker", api)
	client, err := clerk.New(service.SecretKey(), clerk.WithHTTPClient(service.InProcess()))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	g, err := guard.New(client.Validator(clerk.WithScope(api)))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()

	look := func() {
		d, err := g.Validate(context.Background(), worker)
		fmt.Println(d.Allowed, d.Code, err)
	}
	look()
	service.SetScopes(worker) // none
	look()
	service.RemoveMachine(worker)
	look()
	// Output:
	// true ALLOW <nil>
	// false DEVICE_REVOKED <nil>
	// false DEVICE_NOT_FOUND <nil>
}
