package machineid

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"

	"github.com/execguard/execguard/guard/internal/httpapi"
)

// maxBody is the most that is read of an answer, and maxList of the one that grows with the
// number of devices, revoked ones included: about 300 bytes each, where the ids are long.
const (
	maxBody = 1 << 20
	maxList = 8 << 20
)

// op is one call of the API: its path below apiPrefix.
type op string

const (
	opRegister      op = "devices/register"
	opValidate      op = "devices/validate"
	opList          op = "devices/list"
	opRevoke        op = "devices/revoke"
	opUnrevoke      op = "devices/unrevoke"
	opRemove        op = "devices/remove"
	opRevokeBatch   op = "devices/revoke_batch"
	opUnrevokeBatch op = "devices/unrevoke_batch"
	opUsage         op = "usage"
	opCheckout      op = "billing/checkout"
)

// longest is how many bytes of an answer are read.
func (o op) longest() int {
	if o == opList {
		return maxList
	}
	return maxBody
}

// templates makes what is the same in every request of a call, all but the key and the body, so
// that no call parses a URL.
func templates(base *url.URL) (map[op]*http.Request, error) {
	all := map[op]*http.Request{}
	for _, o := range []op{
		opRegister, opValidate, opList, opRevoke, opUnrevoke, opRemove, opRevokeBatch, opUnrevokeBatch, opUsage, opCheckout,
	} {
		method := http.MethodPost
		if o == opList || o == opUsage {
			method = http.MethodGet
		}
		target := base.JoinPath(apiPrefix, string(o)).String()
		r, err := http.NewRequestWithContext(context.Background(), method, target, nil)
		if err != nil {
			return nil, errors.New("machineid: the base URL makes no valid request") // err repeats the URL
		}
		r.Header.Set("Accept", "application/json")
		r.Header.Set("User-Agent", "execguard-machineid/"+Version)
		if method == http.MethodPost {
			r.Header.Set("Content-Type", "application/json")
		}
		if o == opValidate {
			// An empty list is not sent. It tells net/http that asking twice does no harm, so
			// that a kept connection which the service closes at that very moment costs a new
			// connection and not a run.
			r.Header["Idempotency-Key"] = []string{}
		}
		all[o] = r
	}
	return all, nil
}

// request makes a request of its own for one call. A cookie jar or a careless transport may add
// to its header, so that is a copy.
func (c *Client) request(ctx context.Context, o op, body []byte) *http.Request {
	template := c.requests[o]
	r := template.WithContext(ctx)
	r.Header = make(http.Header, len(template.Header)+1)
	maps.Copy(r.Header, template.Header)
	c.secret.header(r.Header)
	if body != nil {
		r.ContentLength = int64(len(body))
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		// The very types that net/http knows to be in memory: it then sends header and body at once.
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	return r
}

// call sends one request and reads its answer: the one path of every call. The reply is never
// nil. The error is nil for a status of 2xx or 4xx, all but 429, with a JSON object; what that
// means is for the caller to say.
func (c *Client) call(ctx context.Context, o op, body []byte) (*reply, *Error) {
	ctx, cancel := httpapi.Bound(ctx, c.timeout)
	defer cancel()
	r := &reply{}
	resp, err := c.http.Do(c.request(ctx, o, body))
	if err != nil {
		return r, c.lost(ctx, o, 0, err)
	}
	defer resp.Body.Close()
	r.status = resp.StatusCode
	r.retryAfter = httpapi.RetryAfter(resp.Header.Get("Retry-After"))
	doc, err := httpapi.Read(resp.Body, o.longest())
	if err != nil {
		fail := c.lost(ctx, o, r.status, err)
		fail.RetryAfter = r.retryAfter
		return r, fail
	}
	return r, c.understand(o, r, doc)
}
