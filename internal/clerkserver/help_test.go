package clerkserver_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/m2m_token"
	"github.com/clerk/clerk-sdk-go/v2/machine"
	"github.com/clerk/clerk-sdk-go/v2/machinescope"

	"github.com/execguard/execguard/internal/clerkserver"
)

// start starts a server that ends with the test.
func start(t testing.TB, opts ...clerkserver.Option) *clerkserver.Server {
	t.Helper()
	s, err := clerkserver.Start(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// newService makes a service without sockets.
func newService(t testing.TB, opts ...clerkserver.Option) *clerkserver.Service {
	t.Helper()
	s, err := clerkserver.New(opts...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sdk is Clerk's own SDK with one key.
type sdk struct {
	machines *machine.Client
	scopes   *machinescope.Client
	tokens   *m2m_token.Client
}

func newSDK(client *http.Client, url, key string) sdk {
	c := &clerk.ClientConfig{BackendConfig: clerk.BackendConfig{HTTPClient: client, URL: &url, Key: &key}}
	return sdk{machine.NewClient(c), machinescope.NewClient(c), m2m_token.NewClient(c)}
}

// inside gives the SDK a service without sockets.
func inside(s *clerkserver.Service, key string) sdk {
	return newSDK(s.InProcess(), "https://clerk.test/v1", key)
}

// must ends the test where a call of the SDK fails.
func must[T any](t *testing.T, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatalf("%T: %v", v, err)
	}
	return v
}

// wantStatus wants an error in Clerk's form, as the SDK reads it, and returns it.
func wantStatus(t *testing.T, err error, status int) *clerk.APIErrorResponse {
	t.Helper()
	var said *clerk.APIErrorResponse
	if !errors.As(err, &said) {
		t.Fatalf("got %v, want an error of the SDK with the status %d", err, status)
	}
	if said.HTTPStatusCode != status || len(said.Errors) == 0 {
		t.Fatalf("got status %d with %d errors, want %d: %v", said.HTTPStatusCode, len(said.Errors), status, err)
	}
	for _, e := range said.Errors {
		if e.Code == "" || e.Message == "" || e.LongMessage == "" {
			t.Errorf("an error lacks something: %+v", e)
		}
	}
	return said
}

// answer is one answer as it came over the wire.
type answer struct {
	status int
	header http.Header
	body   string
}

func request(t testing.TB, method, url, body string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	return req
}

// ask sends one request without the SDK.
func ask(t testing.TB, client *http.Client, key, method, url, body string) answer {
	t.Helper()
	req := request(t, method, url, body)
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return read(t, resp)
}

// record hands a request straight to the service, also one that no client would send.
func record(t testing.TB, w world, req *http.Request) answer {
	t.Helper()
	resp, err := w.InProcess().Transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	return read(t, resp)
}

func read(t testing.TB, resp *http.Response) answer {
	t.Helper()
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(text)}
}

// code is the code of the first error in an answer, "" where there is none.
func (a answer) code() string {
	var body struct {
		Errors []struct{ Code string }
	}
	if json.NewDecoder(bytes.NewBufferString(a.body)).Decode(&body) != nil || len(body.Errors) == 0 {
		return ""
	}
	return body.Errors[0].Code
}
