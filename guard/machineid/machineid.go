package machineid

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/internal/httpapi"
)

// Version is the version of this client. It is sent in the User-Agent.
const Version = "0.1.0"

// defaultBaseURL is the hosted service. Every path begins with apiPrefix.
const (
	defaultBaseURL = "https://machineid.io"
	apiPrefix      = "/api/v1/"
)

// Client talks to MachineID for one organisation. It is made by New or FromEnv, is safe for
// concurrent use and needs no Close; CloseIdleConnections is there for who counts goroutines.
//
// Every call blocks until the answer is read, ctx ends or the client's timeout is over. It leaves
// nothing running but a connection that is kept, or still being set up, for the next call; our own
// transport gives the latter up after 11 s at most for each of its two steps, or on
// CloseIdleConnections. Every error is an *Error.
type Client struct {
	http     *http.Client
	requests map[op]*http.Request // what is the same in every request of a call; never changed
	timeout  time.Duration
	check    func(deviceID string) error
	secret   secret
	base     string // for String; the requests have it parsed
}

var _ guard.Validator = (*Client)(nil)

// New makes a client for the organisation whose key is orgKey. It sends nothing. The key must
// be of visible ASCII signs, which is what a header can carry; no error repeats it.
func New(orgKey string, opts ...Option) (*Client, error) {
	hidden, err := newSecret(orgKey)
	if err != nil {
		return nil, err
	}
	cfg, err := configure(opts)
	if err != nil {
		return nil, err
	}
	base, err := cfg.base(hidden)
	if err != nil {
		return nil, err
	}
	client := &Client{timeout: cfg.timeout, check: cfg.check, secret: hidden, base: base.String()}
	client.http = httpapi.Client(cfg.httpClient, cfg.timeout)
	client.requests, err = templates(base)
	return client, err
}

// FromEnv makes a client of the environment: MACHINEID_ORG_KEY, which must be set, and
// MACHINEID_BASE_URL. White space around them is dropped, for files that are read into an
// environment end in newlines. Options override the environment.
func FromEnv(opts ...Option) (*Client, error) {
	key := strings.TrimSpace(os.Getenv("MACHINEID_ORG_KEY"))
	if key == "" {
		return nil, errors.New("machineid: MACHINEID_ORG_KEY is not set" + keySource)
	}
	if base := strings.TrimSpace(os.Getenv("MACHINEID_BASE_URL")); base != "" {
		opts = append([]Option{baseURL("MACHINEID_BASE_URL", base)}, opts...)
	}
	return New(key, opts...)
}

// DeviceIDFromEnv returns the device id in MACHINEID_DEVICE_ID without the white space around
// it, or an error that names the variable where it is unset or blank, and where it holds the
// organisation's key, because the two were exchanged: a device's id stands in every error and
// log record. Whether the id is otherwise a good one the client judges that it is given to.
func DeviceIDFromEnv() (string, error) {
	id := strings.TrimSpace(os.Getenv("MACHINEID_DEVICE_ID"))
	if id == "" {
		return "", errors.New("machineid: MACHINEID_DEVICE_ID is not set")
	}
	if key := strings.TrimSpace(os.Getenv("MACHINEID_ORG_KEY")); holdsKey(id, key) {
		return "", errors.New("machineid: MACHINEID_DEVICE_ID holds an organisation key; was it exchanged with MACHINEID_ORG_KEY?")
	}
	return id, nil
}

// holdsKey tells whether the key, or what looks like one where the key does not, stands in place of the device's id.
func holdsKey(id, key string) bool {
	exchanged := strings.HasPrefix(id, keyPrefix) && key != "" && !strings.HasPrefix(key, keyPrefix)
	return exchanged || httpapi.NewSecrets(key).In([]byte(id))
}

// String names the base URL and the timeout and nothing else, so that a client may be logged.
func (c *Client) String() string {
	return fmt.Sprintf("machineid.Client(%s, timeout %v)", c.base, c.timeout)
}

// GoString is String, for %#v.
func (c *Client) GoString() string { return c.String() }

// CloseIdleConnections closes the connections that no call is using, kept or being set up, those
// of a client given to WithHTTPClient too, and with them the goroutines that net/http has for
// each. Calls in flight are not disturbed, and the client stays usable.
func (c *Client) CloseIdleConnections() { c.http.CloseIdleConnections() }
