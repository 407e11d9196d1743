package clerkserver

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
)

// inProcess is the transport of InProcess.
type inProcess struct{ service *Service }

// RoundTrip answers at once. It keeps to what is asked of an http.RoundTripper: it does not
// change the request, closes its body, and returns the cause of a context that is over.
func (t inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		defer r.Body.Close()
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	seen := *r // a handler's request always has a body
	if seen.Body == nil {
		seen.Body = http.NoBody
	}
	a := answer{header: make(http.Header)}
	t.service.ServeHTTP(&a, &seen)
	return &http.Response{
		Status: strconv.Itoa(a.status) + " " + http.StatusText(a.status), StatusCode: a.status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: a.header, Body: io.NopCloser(&a.body), ContentLength: int64(a.body.Len()), Request: r,
	}, nil
}

// answer is the least that an http.Handler needs to write to.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(p []byte) (int, error) { return a.body.Write(p) }
