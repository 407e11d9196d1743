package guardtest_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/execguard/execguard/guard/guardtest"
)

const device = "worker:test:01"

// answer is what a plain HTTP client gets, without any judgement of its own.
type answer struct {
	status int
	header http.Header
	body   string // at most the first 4 KiB
	size   int64  // of the whole body
	err    error  // of the request or of reading the body
}

// post asks to validate a device as any HTTP client would.
func post(ctx context.Context, client *http.Client, srv *guardtest.Server, deviceID string) answer {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, srv.URL()+"/api/v1/devices/validate",
		strings.NewReader(`{"deviceId":"`+deviceID+`"}`))
	if err != nil {
		return answer{err: err}
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("x-org-key", srv.Key())
	response, err := client.Do(request)
	if err != nil {
		return answer{err: err}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 4<<10))
	more := int64(0)
	if err == nil {
		more, err = io.Copy(io.Discard, response.Body)
	}
	return answer{response.StatusCode, response.Header, string(body), int64(len(body)) + more, err}
}

// unfollowing is the server's client, which follows no redirect.
func unfollowing(srv *guardtest.Server) *http.Client {
	client := *srv.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &client
}

// newServer has one device, allowed.
func newServer(t *testing.T, opts ...guardtest.Option) *guardtest.Server {
	t.Helper()
	srv := guardtest.NewServer(t, opts...)
	srv.Register(device)
	return srv
}

// saysAllow tells what a careless client would take the answer for.
func (a answer) saysAllow() bool {
	var v struct {
		Allowed bool
		Code    string
	}
	return json.NewDecoder(strings.NewReader(a.body)).Decode(&v) == nil && v.Allowed && v.Code == "ALLOW"
}

// wantAllow fails the test unless a plain client is allowed within some seconds.
func wantAllow(t *testing.T, srv *guardtest.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if a := post(ctx, srv.Client(), srv, device); a.err != nil || a.status != http.StatusOK || !a.saysAllow() {
		t.Errorf("the honest answer is %d %q, %v", a.status, a.body, a.err)
	}
}

// get asks for something else than a decision, without a key, and leaves the body to the test.
func get(t *testing.T, srv *guardtest.Server) *http.Response {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL()+"/api/v1/usage", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := srv.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	return response
}

// patience is how long a client waits for an answer under a fault: long, on a machine that has
// other things to do, and short where the fault is that none comes.
func patience(fault guardtest.Fault) time.Duration {
	if slices.Contains(endless(), fault) {
		return 100 * time.Millisecond
	}
	return aWhile
}
