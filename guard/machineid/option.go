package machineid

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
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

// base returns the URL that every path is appended to. A value that is no URL is not repeated:
// it may be the key, put into the wrong variable.
func (cfg config) base(hidden secret) (*url.URL, error) {
	u, err := url.Parse(cfg.baseURL)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" {
		return nil, fmt.Errorf("machineid: %s: not an absolute http or https URL, such as %s or http://localhost:8080",
			cfg.baseURLIn, defaultBaseURL)
	}
	clean := &url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.TrimRight(u.Path, "/")}
	why := unfit(clean, hidden)
	if u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		why = "user, query or fragment in a base URL"
	}
	if why != "" {
		return nil, fmt.Errorf("machineid: %s(%q): %s", cfg.baseURLIn, hidden.hide(u.Scheme+"://"+u.Host), why)
	}
	return clean, nil
}

// unfit says why the key must not, or cannot, be sent to u; "" where nothing speaks against it.
func unfit(u *url.URL, hidden secret) string {
	switch {
	case hidden.in([]byte(u.Host + u.Path)):
		return "the organisation key stands in it"
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return "plain http would show the organisation key; use https (http only to localhost)"
	case u.Port() != "" && !validPort(u.Port()):
		return "the port is not in 1 to 65535"
	case strings.HasSuffix(u.Path+"/", apiPrefix): // else every call would be answered «not found»
		return "the path ends in /api/v1, which every call adds by itself: leave it out"
	}
	return ""
}

func validPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

// loopback tells whether host is this machine. Any other name could be anybody, whatever it
// resolves to today.
func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// client returns the HTTP client to use: a copy, so that the user's own is not changed.
func (cfg config) client() *http.Client {
	own := http.Client{}
	if cfg.httpClient != nil {
		own = *cfg.httpClient
	} else {
		own.Transport = newTransport(min(cfg.timeout, 10*time.Second) + time.Second)
	}
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &own
}

// newTransport is much like http.DefaultTransport, which is not cloned because programs replace
// it. 64 kept connections are what a guard's calls need by default. Compression is off, for
// answers are short, and short ones must not grow without bound on the way in.
//
// A connection that is being set up outlives the call that wanted it, since net/http keeps it for
// a later one. The two steps of setting up are therefore bounded, each by setUp, which is longer
// than the call, so that it is the call's own end that the caller is told of.
func newTransport(setUp time.Duration) *http.Transport {
	dialer := &net.Dialer{Timeout: setUp, KeepAlive: 30 * time.Second}
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment, // never used for loopback addresses
		DialContext:            dialer.DialContext,
		ForceAttemptHTTP2:      true,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    setUp,
		MaxIdleConns:           64,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true,
	}
}
