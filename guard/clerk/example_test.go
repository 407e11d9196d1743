package clerk_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/clerk"
	"github.com/execguard/execguard/httpmw"
	"github.com/execguard/execguard/internal/clerkserver"
)

// A machine is made, allowed, told that it lacks a scope, deleted, and asked about once more.
func Example() {
	service, err := clerkserver.New() // in place of https://api.clerk.com
	if err != nil {
		fmt.Println(err)
		return
	}
	client, err := clerk.New(service.SecretKey(), clerk.WithHTTPClient(service.InProcess()))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	ctx := context.Background()

	made, err := client.Create(ctx, clerk.CreateParams{Name: "worker"})
	fmt.Println(made.Name, made.SecretKey, err) // SecretKey.Reveal() gives it

	decision, err := client.Validator().Validate(ctx, made.ID)
	fmt.Println(decision.Allowed, decision.Code, err)

	api, _ := service.AddMachine("api")
	decision, err = client.Validator(clerk.WithScope(api)).Validate(ctx, made.ID)
	fmt.Println(decision.Allowed, decision.Code, err)

	fmt.Println(client.Delete(ctx, made.ID))
	decision, err = client.Validator().Validate(ctx, made.ID)
	fmt.Println(decision.Allowed, decision.Code, err)

	service.Limit(3 * time.Second)
	decision, err = client.Validator().Validate(ctx, made.ID)
	fmt.Println(decision.Allowed, decision.Code, decision.RetryAfter, errors.Is(err, guard.ErrUnavailable))

	// Output:
	// worker [redacted] <nil>
	// true ALLOW <nil>
	// false DEVICE_REVOKED <nil>
	// <nil>
	// false DEVICE_NOT_FOUND <nil>
	// false SYSTEM_UNAVAILABLE 3s true
}

// An API lets machines in by their tokens, and serves them while they may run.
func ExampleClient_VerifyMachine() {
	service, err := clerkserver.New() // in place of https://api.clerk.com
	if err != nil {
		fmt.Println(err)
		return
	}
	ours, _ := service.AddMachine("api")
	worker, workersKey := service.AddMachine("worker", ours)
	client, err := clerk.New(service.SecretKey(), clerk.WithHTTPClient(service.InProcess()), clerk.WithMachineID(ours))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	g, err := guard.New(client.Validator(clerk.WithScope(ours)))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()
	api := httptest.NewServer(httpmw.New(g, httpmw.FromBearer(client.VerifyMachine))(
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "served") })))
	defer api.Close()

	// The worker, on its side, makes a token with the key of its machine.
	token, err := client.CreateToken(context.Background(), workersKey, clerk.TokenParams{TTL: time.Minute})
	if err != nil {
		fmt.Println(err)
		return
	}
	ask(api, token.Secret.Reveal())
	ask(api, "mt_guessed")
	service.RemoveMachine(worker)
	ask(api, token.Secret.Reveal())
	// Output:
	// 200
	// 401
	// 401
}

// ask makes one call with a token.
func ask(api *httptest.Server, token string) {
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, api.URL, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	r.Header.Set("Authorization", "Bearer "+token)
	answer, err := api.Client().Do(r)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, answer.Body)
	fmt.Println(answer.StatusCode)
}
