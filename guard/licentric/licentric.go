package licentric

import (
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/execguard/execguard/guard/internal/httpapi"
)

// Version is the version of this client. It is sent in the User-Agent.
const Version = "0.1.0"

// defaultBaseURL is the hosted service. Every path begins with apiPrefix.
const (
	defaultBaseURL = "https://licentric.com"
	apiPrefix      = "/api/v1/"
)

// Client talks to Licentric. It is made by New and is safe for concurrent use.
//
// Every call blocks until the answer is read, ctx ends or the client's timeout is over. It leaves
// nothing running but a connection that is kept, or still being set up, for the next call; our own
// transport gives the latter up after 11 s at most for each of its two steps, or on Close. Every
// error is an *Error.
type Client struct {
	http      *http.Client
	endpoints map[op]endpoint // what is the same in every request of a call; never changed
	paths     Paths           // the names that the vendor has not published
	timeout   time.Duration
	secrets   httpapi.Secrets
	bearer    func(h http.Header) // signs a management call; nil where there is no API key
	base      string              // for String; the endpoints have it parsed
	closed    atomic.Bool
}

// New makes a client. It sends nothing. apiKey, which begins with lk_live_ or lk_test_, signs the
// management calls: Checkout, Machine and Machines. All others are signed by a licence key, so
// that a program which its users install needs no API key, and must not have one: New("") makes
// a client that refuses the management calls. No error repeats a key.
func New(apiKey string, opts ...Option) (*Client, error) {
	c := &Client{secrets: httpapi.NewSecrets(apiKey)}
	if apiKey != "" {
		if err := httpapi.CheckKey(apiKey); err != nil {
			return nil, fmt.Errorf("licentric: the API key %w", err)
		}
		c.bearer = authorise("Bearer", apiKey)
	}
	cfg, err := configure(opts)
	if err != nil {
		return nil, err
	}
	base, err := httpapi.Address{
		Source: "licentric: WithBaseURL", Default: defaultBaseURL, Suffix: apiPrefix, Secret: "the keys", Secrets: c.secrets,
	}.Parse(cfg.baseURL)
	if err != nil {
		return nil, err
	}
	c.base, c.timeout, c.paths = base.String(), cfg.timeout, cfg.paths
	c.http = httpapi.Client(cfg.httpClient, cfg.timeout)
	if c.endpoints, err = endpoints(base, cfg.routes); err != nil {
		return nil, err
	}
	return c, nil
}

// authorise returns what signs a request. The key is in a closure, where fmt cannot see it.
func authorise(scheme, key string) func(h http.Header) {
	value := []string{scheme + " " + key}
	return func(h http.Header) { h["Authorization"] = value }
}

// Close ends the client: calls that begin later are refused with an error that matches
// guard.ErrUnavailable, calls in flight are not disturbed, and connections are closed as soon as
// no call is using them, those of a client given to WithHTTPClient too. It does not block, may be
// called twice, and returns nil.
func (c *Client) Close() error {
	c.closed.Store(true)
	c.http.CloseIdleConnections()
	return nil
}

// String names the base URL and the timeout and nothing else, so that a client may be logged.
func (c *Client) String() string {
	return fmt.Sprintf("licentric.Client(%s, timeout %v)", c.base, c.timeout)
}

// GoString is String, for %#v.
func (c *Client) GoString() string { return c.String() }

// errClosed is why a call after Close was not sent.
var errClosed = errors.New("the client is closed")
