package licentric_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/licentric"
	"github.com/execguard/execguard/internal/licentricserver"
)

// A program activates its machine, works while its licence is in order, and is stopped when the
// licence is suspended. A local server stands in for the service.
func Example() {
	service, err := licentricserver.Start(licentricserver.WithPlainHTTP())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer service.Close() //nolint:errcheck // the program is over
	license, err := service.AddLicense(licentricserver.License{Entitlements: []string{"pro"}})
	if err != nil {
		fmt.Println(err)
		return
	}

	client, err := licentric.New("", licentric.WithBaseURL(service.URL())) // no API key: a user's machine has none
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	const fingerprint = "machine-7f3a9c" // licentric.Fingerprint makes one
	ctx := context.Background()

	g, err := guard.New(client.Validator(license.Key, licentric.WithEntitlements("pro")))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()
	work := func(context.Context) error {
		fmt.Println("working")
		return nil
	}
	fmt.Println(g.Run(ctx, fingerprint, work))

	machine, err := client.Activate(ctx, license.Key, licentric.Activation{Fingerprint: fingerprint, Platform: "linux"})
	fmt.Println(machine.Fingerprint, err)
	fmt.Println(g.Run(ctx, fingerprint, work))

	_, err = client.Activate(ctx, license.Key, licentric.Activation{Fingerprint: fingerprint})
	if failed := (*licentric.Error)(nil); errors.As(err, &failed) {
		fmt.Println(failed.Status, failed.Code)
	}

	if err := service.Suspend(license.ID); err != nil {
		fmt.Println(err)
	}
	fmt.Println(g.Run(ctx, fingerprint, work))

	// Output:
	// guard: device "machine-7f3a9c" refused: DEVICE_NOT_FOUND: FINGERPRINT_NOT_FOUND
	// machine-7f3a9c <nil>
	// working
	// <nil>
	// 409 CONFLICT
	// guard: device "machine-7f3a9c" refused: PLAN_FROZEN: SUSPENDED
}

// A client with an API key lists the machines of a licence and checks out a file for one of them,
// with which that machine goes on offline.
func ExampleClient_Checkout() {
	service, err := licentricserver.Start(licentricserver.WithPlainHTTP())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer service.Close() //nolint:errcheck // the program is over
	license, err := service.AddLicense(licentricserver.License{})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, fingerprint := range []string{"machine-7f3a9c", "machine-9d0e4c"} {
		if _, err := service.AddMachine(license.ID, fingerprint); err != nil {
			fmt.Println(err)
		}
	}

	client, err := licentric.New(service.APIKey(), licentric.WithBaseURL(service.URL()))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	ctx := context.Background()
	for machine, err := range client.Machines(ctx, licentric.MachinesParams{LicenseID: license.ID}) {
		fmt.Println(machine.Fingerprint, err)
	}
	file, err := client.Checkout(ctx, license.ID, licentric.CheckoutParams{Fingerprint: "machine-7f3a9c"})
	if err != nil {
		fmt.Println(err)
		return
	}
	offline, err := licentric.Offline(file.Certificate, licentric.FormatCertificate, service.PublicKey())
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, fingerprint := range []string{"machine-7f3a9c", "machine-9d0e4c"} {
		decision, err := offline.Validate(ctx, fingerprint)
		fmt.Println(decision.Code, err)
	}

	// Output:
	// machine-7f3a9c <nil>
	// machine-9d0e4c <nil>
	// ALLOW <nil>
	// DEVICE_NOT_FOUND <nil>
}
