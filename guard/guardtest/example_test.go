package guardtest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
	"github.com/execguard/execguard/guard/machineid"
)

// A scripted validator takes an authority's place: here one that revokes a device.
func ExampleValidator() {
	v := guardtest.NewValidator("agent-01")
	g, err := guard.New(v)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()

	work := func(context.Context) error {
		fmt.Println("working")
		return nil
	}
	fmt.Println(g.Run(context.Background(), "agent-01", work))
	v.Deny("agent-01", guard.CodeDeviceRevoked)
	err = g.Run(context.Background(), "agent-01", work)
	fmt.Println(errors.Is(err, guard.ErrDenied), len(v.Calls()), "calls")
	// Output:
	// working
	// <nil>
	// true 2 calls
}

// Answers can be put together: late ones, missing ones, impossible ones.
func ExampleValidator_Next() {
	v := guardtest.NewValidator("agent-01")
	v.Next("agent-01",
		guardtest.Reply(guard.Decision{Allowed: true, Code: guard.CodeDeviceRevoked}, nil),
		guardtest.Delay(time.Millisecond, guardtest.Reply(guard.Decision{}, errors.New("no route to host"))),
	)
	for range 3 {
		d, err := v.Validate(context.Background(), "agent-01")
		fmt.Printf("%t %q %v\n", d.Allowed, d.Code, err)
	}
	// Output:
	// true "DEVICE_REVOKED" <nil>
	// false "" no route to host
	// true "ALLOW" <nil>
}

// All faults. «Could not ask» is what a correct client makes of them, but for the one that is a
// denial which stands.
func ExampleFaults() {
	for _, f := range guardtest.Faults() {
		if f.Code() == guard.CodeSystemUnavailable {
			fmt.Println(f)
		} else {
			fmt.Println(f, "→", f.Code())
		}
	}
	// Output:
	// connection refused
	// connection reset mid-body
	// accepted and silent
	// one byte a second
	// half a body
	// empty body
	// HTML with 200
	// JSON array
	// JSON number
	// JSON null
	// 64 MiB body
	// duplicate keys
	// keys in another case
	// second document after the first
	// allowed as a string
	// allowed as 1
	// allowed as null
	// allowed missing
	// code missing
	// allowed with a deny code
	// denied with the code ALLOW
	// unknown code, allowed
	// unknown code, denied → QUOTA_EXHAUSTED
	// ALLOW with 201
	// ALLOW with 403
	// ALLOW with 500
	// redirect 301
	// redirect 302
	// redirect 307
	// redirect 308
	// 429 without Retry-After
	// 429 with Retry-After in seconds
	// 429 with Retry-After as a date
	// 500
	// 502
	// 503
	// TLS certificate for another name
	// TLS certificate expired
	// TLS certificate self-signed
	// DNS failure
	// DNS silent
	// TLS handshake stalled
	// answer for another device
	// answer late
	// answers out of order
	// flapping
}

// A client is held to the contract by one call, and to the list of faults by a short loop.
func ExampleTestValidator() { //nolint:testableexamples // what it prints is a test's
	TestMyClient := func(t *testing.T) {
		guardtest.TestValidator(t, func(t *testing.T) guardtest.Subject {
			srv := guardtest.NewServer(t)
			return srv.Subject(myClient(t, srv))
		})
		for _, fault := range guardtest.Faults() {
			t.Run(fault.String(), func(t *testing.T) {
				srv := guardtest.NewServer(t)
				srv.Register("agent-01")
				srv.Inject(fault)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if err := fault.Check(myClient(t, srv).Validate(ctx, "agent-01")); err != nil {
					t.Error(err)
				}
			})
		}
	}
	_ = TestMyClient
}

func myClient(t *testing.T, srv *guardtest.Server) guard.Validator {
	t.Helper()
	c, err := machineid.New(srv.Key(), machineid.WithBaseURL(srv.URL()), machineid.WithHTTPClient(srv.Client()))
	if err != nil {
		t.Fatal(err)
	}
	return c
}
