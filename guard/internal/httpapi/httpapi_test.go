package httpapi_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard/internal/httpapi"
)

func TestBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for given, want := range map[time.Duration]time.Duration{0: 5, 3: 3, 5: 5, 9: 5} {
			parent, cancel := t.Context(), func() {}
			if given != 0 {
				parent, cancel = context.WithTimeout(t.Context(), given*time.Second)
			}
			ctx, stop := httpapi.Bound(parent, 5*time.Second)
			if end, ok := ctx.Deadline(); !ok || time.Until(end) != want*time.Second {
				t.Errorf("with %d s: %v, want %d s", given, time.Until(end), want)
			}
			if same := ctx == parent; same != (given == 3 || given == 5) {
				t.Errorf("with %d s: the same context: %v", given, same)
			}
			stop()
			cancel()
		}
	})
}

// endless never ends, and counts what was read.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	e.read += len(p)
	return len(p), nil
}

func TestRead(t *testing.T) {
	const most = 1 << 20
	for n, good := range map[int]bool{0: true, most - 1: true, most: true, most + 1: false} {
		if doc, err := httpapi.Read(strings.NewReader(strings.Repeat("a", n)), most); (err == nil) != good || good && len(doc) != n {
			t.Errorf("%d bytes: %d, %v", n, len(doc), err)
		}
	}
	body := &endless{}
	if _, err := httpapi.Read(body, most); err == nil || body.read > 2*most {
		t.Errorf("read %d bytes: %v", body.read, err)
	}
	if _, err := httpapi.Read(iotest.ErrReader(io.ErrUnexpectedEOF), most); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}

// What net/http says of a call comes without its URL, with the end of the context, without the key.
func TestLost(t *testing.T) {
	s := httpapi.NewSecrets("secret")
	ctx, cancel := context.WithCancelCause(t.Context())
	mine := errors.New("a cause of the caller's")
	wrapped := &url.Error{Op: "Get", URL: "https://service.example/", Err: mine}
	if err := s.Lost(ctx, wrapped); err != mine { //nolint:errorlint // the very same is meant
		t.Errorf("%v", err)
	}
	cancel(mine)
	if err := s.Lost(ctx, wrapped); !errors.Is(err, mine) || !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "service") {
		t.Errorf("%v", err)
	}
	if err := s.Lost(ctx, errors.New("the secret")); !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "the secret") {
		t.Errorf("%v", err)
	}
}

func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for value, want := range map[string]time.Duration{
			"": 0, "0": 0, "7": 7 * time.Second, "86400": 24 * time.Hour, "86401": 24 * time.Hour, "99999999999999999999": 24 * time.Hour,
			"-1": 0, "1.5": 0, "soon": 0, "7 s": 0, "010": 10 * time.Second, "0x10": 0,
			time.Now().Add(9 * time.Second).UTC().Format(http.TimeFormat):  9 * time.Second,
			time.Now().Add(-9 * time.Second).UTC().Format(http.TimeFormat): 0,
			time.Now().AddDate(1, 0, 0).UTC().Format(http.TimeFormat):      24 * time.Hour,
		} {
			if got := httpapi.RetryAfter(value); got != want {
				t.Errorf("%q: %v, want %v", value, got, want)
			}
		}
	})
}

// The base URL: over plain http to this machine only, and no message repeats what may be a key.
func TestAddress(t *testing.T) {
	a := httpapi.Address{
		Source: "WithBaseURL", Default: "https://service.example", Suffix: "/v1/", Secret: "the key", Secrets: httpapi.NewSecrets("the-secret"),
	}
	for raw, want := range map[string]string{
		"https://a.example":             "https://a.example",
		"https://a.example:8443/base//": "https://a.example:8443/base",
		"http://localhost:8080":         "http://localhost:8080",
		"http://LOCALHOST":              "http://LOCALHOST",
		"http://127.0.0.9":              "http://127.0.0.9",
		"http://[::1]:1":                "http://[::1]:1",
	} {
		if u, err := a.Parse(raw); err != nil || u.String() != want {
			t.Errorf("%s: %v, %v, want %s", raw, u, err, want)
		}
	}
	for raw, why := range map[string]string{
		"":                             "not an absolute",
		"the-secret":                   "not an absolute",
		"ftp://a.example":              "not an absolute",
		"https://":                     "not an absolute",
		"https://a b":                  "not an absolute",
		"https://the-secret.example":   "the key stands in it",
		"https://a.example/the-secret": "the key stands in it",
		"http://a.example":             "plain http would show the key",
		"http://localhost.example":     "plain http would show the key",
		"http://10.0.0.1":              "plain http would show the key",
		"https://a.example:0":          "the port",
		"https://a.example:70000":      "the port",
		"https://a.example/v1":         "adds by itself",
		"https://a.example/v1/":        "adds by itself",
		"https://u@a.example":          "user, query or fragment",
		"https://a.example?":           "user, query or fragment",
		"https://a.example?q=1":        "user, query or fragment",
		"https://a.example#f":          "user, query or fragment",
	} {
		if u, err := a.Parse(raw); err == nil || !strings.Contains(err.Error(), why) || strings.Contains(err.Error(), "the-secret") {
			t.Errorf("%s: %v, %v, want %q", raw, u, err, why)
		}
	}
}

// The user's own client is copied and not changed, and no client follows a redirect.
func TestClient(t *testing.T) {
	mine := &http.Client{Timeout: time.Minute, Transport: http.NewFileTransport(http.Dir("."))}
	for _, custom := range []*http.Client{nil, mine} {
		got := httpapi.Client(custom, time.Second)
		if err := got.CheckRedirect(nil, nil); !errors.Is(err, http.ErrUseLastResponse) || got.Transport == nil || got == custom {
			t.Errorf("%+v, %v", got, err)
		}
	}
	if mine.CheckRedirect != nil || httpapi.Client(mine, time.Second).Timeout != time.Minute {
		t.Error("the client was changed or not used")
	}
}
