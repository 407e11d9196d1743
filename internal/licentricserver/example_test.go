package licentricserver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/execguard/execguard/internal/licentricserver"
)

// A licence is made, a machine is active on it, and each change of either is in the next answer.
func Example() {
	srv, err := licentricserver.Start()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() {
		if err := srv.Close(); err != nil {
			fmt.Println(err)
		}
	}()
	l, err := srv.AddLicense(licentricserver.License{Entitlements: []string{"SYNC"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	question := fmt.Sprintf(`{"key":%q,"fingerprint":"fp-of-this-machine"}`, l.Key)
	for _, step := range []struct {
		name   string
		change func() error
	}{
		{"new", func() error { return nil }},
		{"machine added", func() error { _, err := srv.AddMachine(l.ID, "fp-of-this-machine"); return err }},
		{"suspended", func() error { return srv.Suspend(l.ID) }},
		{"reinstated", func() error { return srv.Reinstate(l.ID) }},
		{"machine removed", func() error { return srv.RemoveMachine(l.ID, "fp-of-this-machine") }},
		{"under a fault", func() error { return srv.Inject("503") }},
	} {
		if err := step.change(); err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s: %s\n", step.name, post(srv, question))
	}
	// Output:
	// new: 200 FINGERPRINT_NOT_FOUND
	// machine added: 200 VALID
	// suspended: 200 SUSPENDED
	// reinstated: 200 VALID
	// machine removed: 200 FINGERPRINT_NOT_FOUND
	// under a fault: 503 SERVICE_UNAVAILABLE
}

// post asks to validate and returns the status and the code.
func post(srv *licentricserver.Server, body string) string {
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, srv.URL()+"/api/v1/licenses/validate-key", bytes.NewReader([]byte(body)))
	if err != nil {
		return err.Error()
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := srv.Client().Do(r)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	var answer struct{ Code string }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return err.Error()
	}
	return fmt.Sprint(resp.StatusCode, " ", answer.Code)
}
