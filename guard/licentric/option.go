package licentric

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

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
	paths      Paths
	routes     map[op]route
}

func configure(opts []Option) (config, error) {
	cfg := config{baseURL: defaultBaseURL, timeout: 30 * time.Second}
	for i, o := range opts {
		if o == nil {
			return config{}, fmt.Errorf("licentric: option %d is nil", i+1)
		}
		if err := o.apply(&cfg); err != nil {
			return config{}, err
		}
	}
	cfg.paths = cfg.paths.withDefaults()
	var err error
	cfg.routes, err = cfg.paths.routes()
	return cfg, err
}

// WithBaseURL sets where the service is: scheme, host, and a path where it does not live at the
// root; /api/v1/ is added, and refused at the end of base. Plain http is refused for every host
// but localhost and the loopback addresses, since it would show the keys to whoever listens.
// Default: https://licentric.com.
func WithBaseURL(base string) Option {
	return option(func(cfg *config) error {
		cfg.baseURL = base
		return nil
	})
}

// WithHTTPClient sends the calls through a copy of client: its transport, cookie jar and timeout
// are used, its CheckRedirect is not, because no redirect is ever followed. The transport sees the
// keys. Default: a client of its own, which keeps up to 64 connections open to the service,
// speaks TLS 1.2 or later and HTTP/2 where it can, and heeds the proxy variables of the
// environment.
func WithHTTPClient(client *http.Client) Option {
	return option(func(cfg *config) error {
		if client == nil {
			return errors.New("licentric: WithHTTPClient: the client is nil")
		}
		cfg.httpClient = client
		return nil
	})
}

// WithTimeout sets the most that one call may take, from looking up the name to the last byte of
// the answer; a context that ends earlier ends it earlier. More than nothing and at most ten
// minutes. Default: 30 s.
func WithTimeout(d time.Duration) Option {
	return option(func(cfg *config) error {
		if d <= 0 || d > 10*time.Minute {
			return fmt.Errorf("licentric: WithTimeout(%v): must be above 0 and at most 10m", d)
		}
		cfg.timeout = d
		return nil
	})
}

// WithPaths tells the client what the vendor has not published, or has moved: see Paths.
// Default: Paths{}.
func WithPaths(paths Paths) Option {
	return option(func(cfg *config) error {
		cfg.paths = paths
		return nil
	})
}
