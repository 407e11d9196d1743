package clerk

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/internal/httpapi"
)

const defaultBaseURL = "https://api.clerk.com/v1"

// Option changes how a Client works.
type Option interface {
	apply(cfg *config) error
}

type option func(cfg *config) error

func (o option) apply(cfg *config) error { return o(cfg) }

// config is what the options have left behind; New alone reads it.
type config struct {
	baseURL    string
	httpClient *http.Client // the user's own; nil: ours
	timeout    time.Duration
	newBackOff func() guard.BackOff
	own        string
	endless    bool
	cache      *tokenCache
}

func configure(opts []Option) (config, error) {
	cfg := config{baseURL: defaultBaseURL, timeout: 10 * time.Second}
	for i, o := range opts {
		if o == nil {
			return config{}, fmt.Errorf("clerk: option %d is nil", i+1)
		}
		if err := o.apply(&cfg); err != nil {
			return config{}, err
		}
	}
	return cfg, nil
}

// client returns the HTTP client that the SDK sends through: a copy of the user's own, or ours, with
// our transport in front of its.
func (cfg config) client() *http.Client {
	client := httpapi.Client(cfg.httpClient, cfg.timeout)
	next := client.Transport
	if next == nil {
		next = http.DefaultTransport
	}
	client.Transport = &transport{next: next}
	return client
}

// WithBaseURL sets where the service is, the version included: every path is appended to base. Plain
// http is refused for every host but localhost and the loopback addresses, since it would show the
// key to whoever listens, and the hosted service without its version, whose «not found» would be a
// machine's. Default: https://api.clerk.com/v1.
func WithBaseURL(base string) Option {
	return option(func(cfg *config) error {
		if strings.TrimRight(base, "/") == strings.TrimSuffix(defaultBaseURL, "/v1") {
			return errors.New("clerk: WithBaseURL: the version is missing; it is " + defaultBaseURL)
		}
		cfg.baseURL = base
		return nil
	})
}

// WithHTTPClient sends the calls through a copy of client: its transport, cookie jar and timeout
// are used, its CheckRedirect is not, because no redirect is ever followed. The transport sees the
// keys. Default: a client of its own, which keeps up to 64 connections open to the service, speaks
// TLS 1.2 or later and HTTP/2 where it can, and heeds the proxy variables of the environment.
func WithHTTPClient(client *http.Client) Option {
	return option(func(cfg *config) error {
		if client == nil {
			return errors.New("clerk: WithHTTPClient: the client is nil")
		}
		cfg.httpClient = client
		return nil
	})
}

// WithTimeout sets the most that one request may take, from looking up the name to the last byte of
// the answer; a context that ends earlier ends it earlier. A read that is retried takes as many
// timeouts as tries, and the waits between them. More than nothing and at most ten minutes. Default:
// 10 s.
func WithTimeout(d time.Duration) Option {
	return option(func(cfg *config) error {
		if d <= 0 || d > 10*time.Minute {
			return fmt.Errorf("clerk: WithTimeout(%v): must be above 0 and at most 10m", d)
		}
		cfg.timeout = d
		return nil
	})
}

// WithMachineID tells which machine this program is, mch_…: VerifyMachine takes only tokens in whose
// scopes it stands. Default: none, and VerifyMachine takes no token.
func WithMachineID(own string) Option {
	return option(func(cfg *config) error {
		if err := checkID(own, machinePrefix); err != nil {
			return fmt.Errorf("clerk: WithMachineID: %w", err)
		}
		cfg.own = own
		return nil
	})
}

// WithTokenCache gives up that a revoked token is refused at once: VerifyMachine takes a token that
// it has verified for up to ttl longer without asking, counted from when it asked, and never past the
// token's end. No more than size tokens are remembered, by a hash, the oldest making way for a new one;
// those that were refused are not. What this client itself revokes or deletes it forgets at once.
// ttl is above nothing and at most a day, size 1 to 1048576. Default: no token is remembered.
func WithTokenCache(ttl time.Duration, size int) Option {
	return option(func(cfg *config) error {
		if ttl <= 0 || ttl > 24*time.Hour {
			return fmt.Errorf("clerk: WithTokenCache: the time is %v: it must be above 0 and at most 24h", ttl)
		}
		if size < 1 || size > 1<<20 {
			return fmt.Errorf("clerk: WithTokenCache: %d tokens: it must be between 1 and %d", size, 1<<20)
		}
		cfg.cache = newTokenCache(ttl, size)
		return nil
	})
}

// WithEndlessTokens gives up that every token runs out: tokens whose expiration is null are taken
// too, and only revoking them ends them. Default: they are refused.
func WithEndlessTokens() Option {
	return option(func(cfg *config) error {
		cfg.endless = true
		return nil
	})
}
