package guardtest_test

import (
	"net/http"
	"os"
	"os/exec"
	"testing"

	"github.com/execguard/execguard/guard/guardtest"
)

const askedProcess = "EXECGUARD_TEST_ASK"

// TestFirstRequestFromAnotherProcess is for the race detector: between a server's making and a request from another
// process nothing but a socket stands, and that puts no order into memory.
func TestFirstRequestFromAnotherProcess(t *testing.T) {
	if url := os.Getenv(askedProcess); url != "" {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		defer http.DefaultClient.CloseIdleConnections()
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		return
	}
	s := guardtest.NewServer(t, guardtest.WithPlainHTTP())
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFirstRequestFromAnotherProcess$")
	child.Env = append(os.Environ(), askedProcess+"="+s.URL()+"/api/v1/usage")
	if out, err := child.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
