package machineid_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/authority"
	"github.com/execguard/execguard/guard/machineid"
)

// askedOnce is what a program with the Python SDK does: register, ask once, work.
func askedOnce(ctx context.Context, client *machineid.Client, device string, work func(ctx context.Context) error) error {
	if _, err := client.Register(ctx, device); err != nil { // nil: the status is «ok» or «exists»
		return err
	}
	d, err := client.Validate(ctx, device)
	if err != nil {
		return err // nobody could decide: d.Code is SYSTEM_UNAVAILABLE
	}
	if !d.Allowed {
		return fmt.Errorf("%s may not execute: %s (request %s)", device, d.Code, d.RequestID)
	}
	return work(ctx) // and nobody looks again
}

// askedOn is the same under a guard, which goes on asking while the work runs.
func askedOn(ctx context.Context, client *machineid.Client, device string, work func(ctx context.Context) error) error {
	if _, err := client.Register(ctx, device); err != nil {
		return err
	}
	g, err := guard.New(client) // one for the whole program
	if err != nil {
		return err
	}
	defer g.Close()
	return g.Run(ctx, device, work)
}

// What the Python SDK's calls are here, at an authority in this process.
func Example_fromPython() {
	ctx := context.Background()
	service, client, err := locally(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer service.Close()
	defer client.CloseIdleConnections()
	work := func(context.Context) error {
		fmt.Println("working")
		return nil
	}
	fmt.Println(askedOnce(ctx, client, "python-starter:01", work))
	fmt.Println(askedOn(ctx, client, "python-starter:01", work))

	_, err = client.Revoke(ctx, "python-starter:01")
	fmt.Println(err)
	failed := (*machineid.Error)(nil)
	if err = askedOn(ctx, client, "python-starter:01", work); errors.As(err, &failed) {
		fmt.Println(failed.Op, failed.Status, failed.Code)
	}
	_, err = client.Unrevoke(ctx, "python-starter:01") // restore
	fmt.Println(err)
	usage, err := client.Usage(ctx)
	fmt.Println(usage.PlanTier, usage.DevicesUsed, "of", usage.Limit, err)
	all, err := client.List(ctx) // list_devices
	fmt.Println(all.Devices, err)
	_, err = client.Remove(ctx, "python-starter:01")
	fmt.Println(err)
	// Output:
	// working
	// <nil>
	// working
	// <nil>
	// <nil>
	// devices/register 403 device_revoked
	// <nil>
	// free 1 of 3 <nil>
	// [{python-starter:01 active}] <nil>
	// <nil>
}

// locally starts an authority on this machine, and a client of it.
func locally(ctx context.Context) (*httptest.Server, *machineid.Client, error) {
	a, err := authority.New()
	if err != nil {
		return nil, nil, err
	}
	if _, err := a.AddOrganisation(ctx, "org_choose_it_at_random", authority.PlanFree); err != nil {
		return nil, nil, err
	}
	service := httptest.NewServer(a)
	client, err := machineid.New("org_choose_it_at_random", machineid.WithBaseURL(service.URL))
	if err != nil {
		service.Close()
		return nil, nil, err
	}
	return service, client, nil
}

// Many devices at once: each id has an outcome of its own, and one that is unknown is no error.
func ExampleClient_RevokeBatch() {
	ctx := context.Background()
	service, client, err := locally(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer service.Close()
	defer client.CloseIdleConnections()
	for _, device := range []string{"agent-01", "agent-02"} {
		if _, err := client.Register(ctx, device); err != nil {
			fmt.Println(err)
		}
	}
	batch, err := client.RevokeBatch(ctx, []string{"agent-01", "agent-02", "agent-99"})
	for _, item := range batch.Items {
		fmt.Println(item.DeviceID, item.Status)
	}
	fmt.Println(err)
	// Output:
	// agent-01 revoked
	// agent-02 revoked
	// agent-99 not_found
	// <nil>
}

// At the plan's limit a new device is not registered; those that are go on.
func ExampleClient_Register() {
	ctx := context.Background()
	service, client, err := locally(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer service.Close()
	defer client.CloseIdleConnections()
	for _, device := range []string{"agent-01", "agent-01", "agent-02", "agent-03", "agent-04"} {
		registration, err := client.Register(ctx, device)
		fmt.Println(device, registration.Status, registration.DevicesUsed, "of", registration.Limit)
		if failed := (*machineid.Error)(nil); errors.As(err, &failed) {
			fmt.Println(failed.Code)
		}
	}
	// Output:
	// agent-01 ok 1 of 3
	// agent-01 exists 1 of 3
	// agent-02 ok 2 of 3
	// agent-03 ok 3 of 3
	// agent-04 blocked 3 of 3
	// device_limit_reached
}

// A client says what is wrong with its settings before it sends anything, and never shows the key.
func ExampleNew() {
	_, err := machineid.New("org_choose_it_at_random", machineid.WithBaseURL("http://authority.example"))
	fmt.Println(err)
	client, err := machineid.New("org_choose_it_at_random", machineid.WithBaseURL("http://localhost:8080"))
	fmt.Println(client, err)
	// Output:
	// machineid: WithBaseURL("http://authority.example"): plain http would show the organisation key; use https (http only to localhost)
	// machineid.Client(http://localhost:8080, timeout 10s) <nil>
}

// A program's settings stand in its environment; what is missing is named.
func ExampleFromEnv() {
	for name, value := range map[string]string{
		"MACHINEID_ORG_KEY":   "org_choose_it_at_random",
		"MACHINEID_BASE_URL":  "http://localhost:8080", // without it: the hosted service
		"MACHINEID_DEVICE_ID": "",
	} {
		defer os.Setenv(name, os.Getenv(name)) //nolint:errcheck // a good name
		if err := os.Setenv(name, value); err != nil {
			fmt.Println(err)
			return
		}
	}
	client, err := machineid.FromEnv()
	fmt.Println(client, err)
	_, err = machineid.DeviceIDFromEnv()
	fmt.Println(err)
	// Output:
	// machineid.Client(http://localhost:8080, timeout 10s) <nil>
	// machineid: MACHINEID_DEVICE_ID is not set
}
