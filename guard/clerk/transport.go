package clerk

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/execguard/execguard/guard/internal/httpapi"
	"github.com/execguard/execguard/guard/internal/strictjson"
)

// maxBody is the most that is read of an answer, and maxList of a page of machines: a machine with
// 150 others in its scopes takes about 40 kB.
const (
	maxBody = 1 << 20
	maxList = 8 << 20
)

// exchange is one request and its answer, as our transport saw them: below the SDK, which loses the
// status of what it cannot read. It is written by the goroutine that calls the SDK and read by it
// afterwards.
type exchange struct {
	op  op
	key credential // what is sent as Authorization, and what must not be seen

	status      int // 0: no answer came
	retryAfter  time.Duration
	contentType string
	headerTrace string
	read        bool // the answer was read to its end
	object      strictjson.Object
	malformed   error // why object is empty
	null        bool  // the whole answer was «null»
}

// exchangeKey is where a request's context holds its exchange.
type exchangeKey struct{}

func (x *exchange) in(ctx context.Context) context.Context {
	return context.WithValue(ctx, exchangeKey{}, x)
}

// transport stands between the SDK and the network.
type transport struct{ next http.RoundTripper }

// RoundTrip sends the request with what the SDK lacks, and hands it an answer that was read, judged
// and freed of secrets.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	x, ok := r.Context().Value(exchangeKey{}).(*exchange)
	if !ok {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, errors.New("clerk: a request that none of our calls has made")
	}
	request, err := x.request(r)
	if err != nil {
		return nil, err
	}
	if r.Context().Err() != nil { // a transport that is not ours may not look
		return nil, context.Cause(r.Context())
	}
	answer, err := t.next.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	if answer == nil {
		return nil, errors.New("clerk: the transport returned neither an answer nor an error")
	}
	return x.take(answer)
}

// CloseIdleConnections closes those of the transport behind this one, if it has any.
func (t *transport) CloseIdleConnections() {
	if closer, ok := t.next.(interface{ CloseIdleConnections() }); ok {
		closer.CloseIdleConnections()
	}
}

// request is what is sent in place of r, with the key and a body of known length. net/http sends a
// request again, on another connection, when the service has closed a kept one meanwhile: for that it
// needs GetBody, and for a POST the empty list, which is not sent but tells that asking twice does no
// harm. Calls that change something get neither.
func (x *exchange) request(r *http.Request) (*http.Request, error) {
	own := r.Clone(r.Context())
	x.key.header(own.Header)
	own.Header.Set("Accept", "application/json")
	own.Header.Set("User-Agent", r.Header.Get("User-Agent")+" execguard-clerk/"+Version)
	own.GetBody = nil
	if r.Body == nil {
		return own, nil
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	own.ContentLength = int64(len(body))
	own.Body = io.NopCloser(bytes.NewReader(body))
	if x.op.reads() {
		own.Header["Idempotency-Key"] = []string{}
		own.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	}
	return own, nil
}

// take reads the answer and returns it with a body that the SDK may have: the same document without
// our secrets or, where it cannot be trusted, an empty object, which no judge of ours takes.
func (x *exchange) take(answer *http.Response) (*http.Response, error) {
	x.status = answer.StatusCode
	x.retryAfter = httpapi.RetryAfter(answer.Header.Get("Retry-After"))
	x.contentType = answer.Header.Get("Content-Type")
	x.headerTrace = answer.Header.Get("Clerk-Trace-Id")
	var doc []byte
	if answer.Body != nil {
		defer answer.Body.Close()
		var err error
		if doc, err = httpapi.Read(answer.Body, x.op.longest()); err != nil {
			return nil, err
		}
	}
	x.read = true
	x.null = string(bytes.TrimSpace(doc)) == null
	doc = x.parse(doc)
	answer.ContentLength = int64(len(doc))
	answer.Body = io.NopCloser(bytes.NewReader(doc))
	return answer, nil
}

// parse reads doc strictly, and then once more if there was a secret in it: taking that out could
// mend what must be refused.
func (x *exchange) parse(doc []byte) []byte {
	x.object, x.malformed = strictjson.Parse(doc, members()...)
	if x.malformed == nil {
		clean, changed := x.key.secrets.JSON(doc)
		if changed {
			x.object, x.malformed = strictjson.Parse(clean, members()...)
		}
		doc = clean
	}
	if x.malformed != nil {
		x.object = strictjson.Object{}
		return []byte("{}")
	}
	return doc
}

// members are the names that are read of an answer; in another case they make it invalid.
func members() []string {
	return []string{
		"object", "id", "name", "instance_id", "created_at", "updated_at", "default_token_ttl", "scoped_machines",
		"data", "total_count", "secret_key", "secret", "deleted", "from_machine_id", "to_machine_id",
		"subject", "scopes", "claims", "revoked", "expired", "expiration", "token",
		"errors", "clerk_trace_id", "message", "long_message", "code", "meta",
	}
}
