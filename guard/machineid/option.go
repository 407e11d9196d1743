package machineid

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/execguard/execguard/guard/internal/httpapi"
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
	baseURLIn  string       // the option or variable that baseURL came from, for messages
	httpClient *http.Client // the user's own; nil: ours
	timeout    time.Duration
	check      func(deviceID string) error
}

func configure(opts []Option) (config, error) {
	cfg := config{baseURL: defaultBaseURL, timeout: 10 * time.Second, check: checkDeviceID}
	for i, o := range opts {
		if o == nil {
			return config{}, fmt.Errorf("machineid: option %d is nil", i+1)
		}
		if err := o.apply(&cfg); err != nil {
			return config{}, err
		}
	}
	return cfg, nil
}

// WithBaseURL sets where the service is: scheme, host, and a path where it does not live at the
// root; /api/v1/ is added, and refused at the end of base. Plain http is refused for every host
// but localhost and the loopback addresses, since it would show the key to whoever listens.
// Default: https://machineid.io.
func WithBaseURL(base string) Option { return baseURL("WithBaseURL", base) }

func baseURL(source, base string) Option {
	return option(func(cfg *config) error {
		cfg.baseURL, cfg.baseURLIn = base, source
		return nil
	})
}

// WithHTTPClient sends the calls through a copy of client: its transport, cookie jar and timeout
// are used, its CheckRedirect is not, because no redirect is ever followed. The transport sees the
// key. Default: a client of its own, which keeps up to 64 connections open to the service,
// speaks TLS 1.2 or later and HTTP/2 where it can, and heeds the proxy variables of the
// environment.
func WithHTTPClient(client *http.Client) Option {
	return option(func(cfg *config) error {
		if client == nil {
			return errors.New("machineid: WithHTTPClient: the client is nil")
		}
		cfg.httpClient = client
		return nil
	})
}

// WithTimeout sets the most that one call may take, from looking up the name to the last byte of
// the answer; a context that ends earlier ends it earlier. More than nothing and at most ten
// minutes. Default: 10 s.
func WithTimeout(d time.Duration) Option {
	return option(func(cfg *config) error {
		if d <= 0 || d > 10*time.Minute {
			return fmt.Errorf("machineid: WithTimeout(%v): must be above 0 and at most 10m", d)
		}
		cfg.timeout = d
		return nil
	})
}

// WithDeviceIDCheck replaces the rule for device ids. check is called before every call that
// names a device, from several goroutines at once, with the id freed of white space around it;
// its error becomes the reason of INVALID_DEVICE_ID. Ids that are blank, not valid UTF-8 or
// contain the organisation key are refused unasked. Default: at most 128 characters of
// A-Za-z0-9._:- that begin with a letter or digit.
func WithDeviceIDCheck(check func(deviceID string) error) Option {
	return option(func(cfg *config) error {
		if check == nil {
			return errors.New("machineid: WithDeviceIDCheck: the check is nil")
		}
		cfg.check = check
		return nil
	})
}

// base returns the URL that every path is appended to.
func (cfg config) base(hidden secret) (*url.URL, error) {
	address := httpapi.Address{
		Source:  "machineid: " + cfg.baseURLIn,
		Default: defaultBaseURL,
		Suffix:  apiPrefix,
		Secret:  "the organisation key",
		Secrets: hidden.Secrets,
	}
	return address.Parse(cfg.baseURL)
}
