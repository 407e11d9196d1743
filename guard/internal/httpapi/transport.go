package httpapi

import (
	"crypto/tls"
	"net"
	"net/http"
	"time"
)

// Client returns the HTTP client to use: a copy of the user's own, which is not changed, or one
// with a transport of ours where custom is nil. It follows no redirect, because net/http would
// take keys along to the other host.
func Client(custom *http.Client, timeout time.Duration) *http.Client {
	own := http.Client{}
	if custom != nil {
		own = *custom
	} else {
		own.Transport = NewTransport(min(timeout, 10*time.Second) + time.Second)
	}
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &own
}

// NewTransport is much like http.DefaultTransport, which is not cloned because programs replace
// it. 64 kept connections are what a guard's calls need by default. Compression is off, for
// answers are short, and short ones must not grow without bound on the way in.
//
// A connection that is being set up outlives the call that wanted it, since net/http keeps it for
// a later one. The two steps of setting up are therefore bounded, each by setUp, which is longer
// than the call, so that it is the call's own end that the caller is told of.
func NewTransport(setUp time.Duration) *http.Transport {
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
