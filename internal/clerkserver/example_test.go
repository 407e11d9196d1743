package clerkserver_test

import (
	"context"
	"fmt"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/machine"

	"github.com/execguard/execguard/internal/clerkserver"
)

// A machine is there, is removed, and comes back; then nobody can be asked.
func ExampleStart() {
	srv, err := clerkserver.Start()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = srv.Close() }()
	id, _ := srv.AddMachine("builder")

	client := machine.NewClient(&clerk.ClientConfig{BackendConfig: clerk.BackendConfig{
		HTTPClient: srv.Client(), URL: clerk.String(srv.BaseURL()), Key: clerk.String(srv.SecretKey()),
	}})
	show := func(when string) {
		m, err := client.Get(context.Background(), id)
		if err != nil {
			fmt.Println(when, "- an error")
			return
		}
		fmt.Println(when, "-", m.Name)
	}

	show("added")
	srv.RemoveMachine(id)
	show("removed")
	srv.RestoreMachine(id)
	show("restored")
	if err := srv.Inject("connection refused"); err != nil {
		fmt.Println(err)
	}
	show("refused")
	// Output:
	// added - builder
	// removed - an error
	// restored - builder
	// refused - an error
}
