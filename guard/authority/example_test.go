package authority_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/execguard/execguard/guard/authority"
)

// An authority in one's own process: register a device, revoke it, restore it.
func Example() {
	ctx := context.Background()
	a, err := authority.New()
	if err != nil {
		fmt.Println(err)
		return
	}
	org, err := a.AddOrganisation(ctx, "org_choose_it_at_random", authority.PlanFree)
	if err != nil {
		fmt.Println(err)
		return
	}
	show := func(id string) {
		d, err := org.Validate(ctx, id)
		fmt.Println(id, d.Allowed, d.Code, err)
	}
	if _, err := org.Register(ctx, "agent-01"); err != nil {
		fmt.Println(err)
	}
	show("agent-01")
	show("agent-02")
	if _, err := org.Revoke(ctx, "agent-01"); err != nil {
		fmt.Println(err)
	}
	show("agent-01")
	if _, err := org.Unrevoke(ctx, "agent-01"); err != nil {
		fmt.Println(err)
	}
	if err := org.SetState(ctx, authority.StateDisabled); err != nil {
		fmt.Println(err)
	}
	show("agent-01")
	// Output:
	// agent-01 true ALLOW <nil>
	// agent-02 false DEVICE_NOT_FOUND <nil>
	// agent-01 false DEVICE_REVOKED <nil>
	// agent-01 false ORG_DISABLED <nil>
}

// The same over HTTP, for clients in any language.
func ExampleAuthority_ServeHTTP() {
	ctx := context.Background()
	a, err := authority.New()
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := a.AddOrganisation(ctx, "org_choose_it_at_random", authority.PlanPro); err != nil {
		fmt.Println(err)
		return
	}
	srv := httptest.NewServer(a)
	defer srv.Close()

	body := strings.NewReader(`{"deviceId":"agent-01"}`)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, srv.URL+"/api/v1/devices/register", body)
	if err != nil {
		fmt.Println(err)
		return
	}
	req.Header.Set("x-org-key", "org_choose_it_at_random")
	req.Header.Set("Content-Type", "application/json")
	resp, err := srv.Client().Do(req)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status, resp.Header.Get("Content-Type"))
	// Output: 200 OK application/json
}

// A listener learns at once that something has changed, and asks what. A Guard's Hint fits in
// its place: org.Subscribe(g.Hint).
func ExampleOrganisation_Subscribe() {
	ctx := context.Background()
	a, err := authority.New()
	if err != nil {
		fmt.Println(err)
		return
	}
	org, err := a.AddOrganisation(ctx, "org_choose_it_at_random", authority.PlanFree)
	if err != nil {
		fmt.Println(err)
		return
	}
	changed := make(chan string)
	cancel := org.Subscribe(func(deviceID string) { changed <- deviceID })
	defer cancel()
	if _, err := org.Register(ctx, "agent-01"); err != nil {
		fmt.Println(err)
	}
	fmt.Println("changed:", <-changed)
	// Output: changed: agent-01
}
