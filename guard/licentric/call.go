package licentric

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"

	"github.com/execguard/execguard/guard/internal/httpapi"
)

// maxBody is the most that is read of an answer, and maxList of a page of machines, of which
// there may be a hundred, each with metadata.
const (
	maxBody = 1 << 20
	maxList = 8 << 20
)

// longest is how many bytes of an answer are read.
func (o op) longest() int {
	if o == opMachines {
		return maxList
	}
	return maxBody
}

// request is what differs from one request of a call to the next.
type request struct {
	op      op
	id      string              // in the path; "" where there is none
	query   string              // escaped
	sign    func(h http.Header) // or nil
	body    []byte              // or nil
	secrets httpapi.Secrets     // what the answer must not be seen to repeat
}

// build makes a request of its own for one call. A cookie jar or a careless transport may add to
// its header, so that is a copy.
func (c *Client) build(ctx context.Context, q request) *http.Request {
	e := c.endpoints[q.op]
	r := e.template.WithContext(ctx)
	r.URL = e.address(q.id, q.query)
	r.Header = make(http.Header, len(e.template.Header)+2)
	maps.Copy(r.Header, e.template.Header)
	if q.sign != nil {
		q.sign(r.Header)
	}
	if q.body != nil {
		r.Header["Content-Type"] = []string{"application/json"}
		r.ContentLength = int64(len(q.body))
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(q.body)), nil }
		// The very types that net/http knows to be in memory: it then sends header and body at once.
		r.Body = io.NopCloser(bytes.NewReader(q.body))
	}
	return r
}

// call sends one request and reads its answer: the one path of every call. The reply is never
// nil. The error is nil for a status of 2xx or 4xx, all but 429, with a JSON object, and for a 204
// without a body; what that means is for the caller to say.
func (c *Client) call(ctx context.Context, q request) (*reply, *Error) {
	r := &reply{op: q.op}
	if c.closed.Load() {
		return r, r.undecided(errClosed.Error())
	}
	if ctx.Err() != nil { // a transport that is not ours may not look
		return r, r.lost(ctx, q, context.Cause(ctx))
	}
	ctx, cancel := httpapi.Bound(ctx, c.timeout)
	defer cancel()
	resp, err := c.http.Do(c.build(ctx, q))
	if err != nil {
		return r, r.lost(ctx, q, err)
	}
	defer c.release(resp.Body)
	r.status = resp.StatusCode
	r.retryAfter = httpapi.RetryAfter(resp.Header.Get("Retry-After"))
	doc, err := httpapi.Read(resp.Body, q.op.longest())
	if err != nil {
		return r, r.lost(ctx, q, err)
	}
	return r, r.understand(q.secrets, doc)
}

// release gives a connection back, or closes it where Close has come meanwhile.
func (c *Client) release(body io.Closer) {
	_ = body.Close()
	if c.closed.Load() {
		c.http.CloseIdleConnections()
	}
}

// ask is call for all calls but validate, whose refusals are known by their status.
func (c *Client) ask(ctx context.Context, q request) (*reply, *Error) {
	r, fail := c.call(ctx, q)
	switch {
	case fail != nil:
	case r.status >= http.StatusBadRequest:
		fail = r.refused()
	case !absent(r.object.Raw("error")):
		fail = r.undecided("an error with a status that is none")
	}
	return r, fail
}

// licensed is a request that a licence key signs.
func (c *Client) licensed(o op, licenseKey string) (request, *Error) {
	if err := httpapi.CheckKey(licenseKey); err != nil {
		return request{}, unasked(o, wordInvalid, "the licence key "+err.Error())
	}
	return request{op: o, sign: authorise("License", licenseKey), secrets: c.secrets.With(licenseKey)}, nil
}

// managed is a request that the API key signs.
func (c *Client) managed(o op) (request, *Error) {
	if c.bearer == nil {
		return request{}, unasked(o, wordNoKey, "the client was made without an API key")
	}
	return request{op: o, sign: c.bearer, secrets: c.secrets}, nil
}

// encode makes a body of a value of ours. Signs that HTML knows are sent as they are.
func encode(o op, value any) ([]byte, *Error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil { // metadata of the caller's, such as a channel
		return nil, unasked(o, wordInvalid, "the request has no JSON form")
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
