package clerk

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

// The transport sends nothing that did not come through a call of ours, for it would add no key and
// judge nothing; and it closes the body, as net/http asks of it.
func TestTransportServesNobodyElse(t *testing.T) {
	client, err := New("sk_test_key", WithHTTPClient(&http.Client{Transport: unasked{t}}))
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range []io.ReadCloser{nil, &closed{Reader: strings.NewReader("{}")}} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://api.clerk.com/v1/machines", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Body = body
		if answer, err := client.http.Do(r); err == nil {
			answer.Body.Close()
			t.Error("an answer")
		}
		if kept, ok := body.(*closed); ok && !kept.closed {
			t.Error("the body was left open")
		}
	}
}

// A request body that breaks off is not sent.
func TestTransportReadsTheBody(t *testing.T) {
	x := &exchange{op: opCreate, key: newCredential("sk_test_key")}
	broken := errors.New("broken")
	r, err := http.NewRequestWithContext(x.in(t.Context()), http.MethodPost, "https://api.clerk.com/v1/machines", io.NopCloser(&failing{broken}))
	if err != nil {
		t.Fatal(err)
	}
	if answer, err := (&transport{next: unasked{t}}).RoundTrip(r); !errors.Is(err, broken) {
		answer.Body.Close()
		t.Errorf("%v", err)
	}
}

// The body that the SDK has made is read and closed, as net/http asks of a transport.
func TestTransportClosesTheBody(t *testing.T) {
	x := &exchange{op: opCreate, key: newCredential("sk_test_key")}
	body := &closed{Reader: strings.NewReader("{}")}
	r, err := http.NewRequestWithContext(x.in(t.Context()), http.MethodPost, "https://api.clerk.com/v1/machines", body)
	if err != nil {
		t.Fatal(err)
	}
	if answer, err := (&transport{next: silent{}}).RoundTrip(r); err == nil {
		answer.Body.Close()
		t.Error("an answer")
	}
	if !body.closed {
		t.Error("the body was left open")
	}
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }

type closed struct {
	io.Reader

	closed bool
}

func (c *closed) Close() error {
	c.closed = true
	return nil
}

// unasked is a transport that must not be asked.
type unasked struct{ t *testing.T }

func (u unasked) RoundTrip(*http.Request) (*http.Response, error) {
	u.t.Error("sent")
	return nil, errors.New("sent")
}
