package machineid_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/machineid"
)

// A device registers itself, is allowed, is revoked, and meets a service that is down.
func Example() {
	revoked, down := false, false
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case down:
			http.Error(w, "oops", http.StatusServiceUnavailable)
		case r.URL.Path == "/api/v1/devices/register":
			fmt.Fprint(w, `{"status":"ok","planTier":"free","limit":3,"devicesUsed":1,"remaining":2}`)
		case r.URL.Path == "/api/v1/devices/revoke":
			revoked = true
			fmt.Fprint(w, `{"status":"ok"}`)
		case revoked:
			fmt.Fprint(w, `{"allowed":false,"code":"DEVICE_REVOKED","request_id":"r-2"}`)
		default:
			fmt.Fprint(w, `{"allowed":true,"code":"ALLOW","request_id":"r-1"}`)
		}
	}))
	defer service.Close()

	client, err := machineid.New("org_example_key", machineid.WithBaseURL(service.URL))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.CloseIdleConnections()
	ctx := context.Background()

	registration, err := client.Register(ctx, "agent-01")
	fmt.Println(registration.Status, registration.Remaining, err)

	decision, err := client.Validate(ctx, "agent-01")
	fmt.Println(decision.Allowed, decision.Code, decision.RequestID, err)

	_, err = client.Revoke(ctx, "agent-01")
	fmt.Println(err)

	decision, err = client.Validate(ctx, "agent-01")
	fmt.Println(decision.Allowed, decision.Code, decision.RequestID, err)

	down = true
	decision, err = client.Validate(ctx, "agent-01")
	fmt.Println(decision.Allowed, decision.Code, errors.Is(err, guard.ErrUnavailable))

	var failed *machineid.Error
	if _, err = client.Usage(ctx); errors.As(err, &failed) {
		fmt.Println(failed.Status, err)
	}

	// Output:
	// ok 2 <nil>
	// true ALLOW r-1 <nil>
	// <nil>
	// false DEVICE_REVOKED r-2 <nil>
	// false SYSTEM_UNAVAILABLE true
	// 503 machineid: usage: HTTP 503
}
