package clerk

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	sdk "github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/m2m_token"
	"github.com/clerk/clerk-sdk-go/v2/machine"
	"github.com/clerk/clerk-sdk-go/v2/machinescope"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/internal/httpapi"
)

// Version is the version of this client. It is sent in the User-Agent.
const Version = "0.1.0"

// Client talks to Clerk for one instance. It is made by New and safe for concurrent use.
//
// Every call blocks until the answer is read, ctx ends or the client's timeout is over, and leaves
// nothing running but a connection that is kept, or still being set up, for the next call; Close
// ends those.
type Client struct {
	machines *machine.Client
	scopes   *machinescope.Client
	tokens   *m2m_token.Client
	http     *http.Client

	key        credential
	timeout    time.Duration
	newBackOff func() guard.BackOff // nil: reads are not retried
	own        string               // our own machine id; "": not told
	endless    bool                 // tokens without an end are taken
	cache      *tokenCache          // nil: no token is remembered
	base       string               // for String
	closed     atomic.Bool
}

// New makes a client for the instance whose secret key is secretKey (sk_test_… or sk_live_…). It
// sends nothing. The key must be of visible ASCII signs, which is what a header can carry; no error
// repeats it.
func New(secretKey string, opts ...Option) (*Client, error) {
	if err := httpapi.CheckKey(secretKey); err != nil {
		return nil, fmt.Errorf("clerk: the secret key %w", err)
	}
	cfg, err := configure(opts)
	if err != nil {
		return nil, err
	}
	key := newCredential(secretKey)
	address := httpapi.Address{
		Source: "clerk: WithBaseURL", Default: defaultBaseURL, Secret: "the secret key", Secrets: key.secrets,
	}
	base, err := address.Parse(cfg.baseURL)
	if err != nil {
		return nil, err
	}
	c := &Client{
		http: cfg.client(), key: key, timeout: cfg.timeout, newBackOff: cfg.newBackOff,
		own: cfg.own, endless: cfg.endless, cache: cfg.cache, base: base.String(),
	}
	c.connect()
	return c, nil
}

// connect sets the SDK up. It is given no key, since it would keep one where fmt can look, and
// without a word about it the package's global one: the transport adds the key.
func (c *Client) connect() {
	config := &sdk.ClientConfig{BackendConfig: sdk.BackendConfig{
		HTTPClient: c.http, URL: sdk.String(c.base), Key: sdk.String(""),
	}}
	c.machines = machine.NewClient(config)
	c.scopes = machinescope.NewClient(config)
	c.tokens = m2m_token.NewClient(config)
}

// Close forgets the tokens that were remembered and closes the connections that no call is using,
// those of a client given to WithHTTPClient too. Calls in flight are not disturbed; later ones are
// refused unasked with an *Error that matches guard.ErrUnavailable. It returns nil, and may be
// called more than once.
func (c *Client) Close() error {
	c.closed.Store(true)
	c.cache.forgetAll()
	c.http.CloseIdleConnections()
	return nil
}

// String names the base URL and the timeout and nothing else, so that a client may be logged.
func (c *Client) String() string {
	return fmt.Sprintf("clerk.Client(%s, timeout %v)", c.base, c.timeout)
}

// GoString is String, for %#v.
func (c *Client) GoString() string { return c.String() }
