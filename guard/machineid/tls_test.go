package machineid_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/execguard/execguard/guard/machineid"
	"go.uber.org/goleak"
)

// certificate makes a self-signed certificate for names and 127.0.0.1, valid until end.
func certificate(t *testing.T, end time.Time, addr net.IP) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "machineid test"},
		NotBefore:             end.Add(-48 * time.Hour),
		NotAfter:              end,
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		IPAddresses:           []net.IP{addr},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, pool
}

// serveTLS starts a server that would allow everything, and counts who gets so far.
func serveTLS(t *testing.T, config *tls.Config) (base string, reached func() bool) {
	t.Helper()
	asked := make(chan struct{}, 1)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		answer(200, allow)(w, r)
	}))
	srv.TLS = config
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv.URL, func() bool { return len(asked) > 0 }
}

func TestTLSFaults(t *testing.T) {
	loopback, tomorrow := net.IPv4(127, 0, 0, 1), time.Now().Add(24*time.Hour)
	good, goodPool := certificate(t, tomorrow, loopback)
	other, otherPool := certificate(t, tomorrow, net.IPv4(192, 0, 2, 1))
	expired, expiredPool := certificate(t, time.Now().Add(-time.Hour), loopback)
	is := func(target any) func(error) bool { return func(err error) bool { return errors.As(err, target) } }
	for name, c := range map[string]struct {
		config *tls.Config
		pool   *x509.CertPool // whom the client trusts; nil: the system's
		found  func(error) bool
	}{
		"self-signed": {&tls.Config{Certificates: []tls.Certificate{good}}, nil, is(new(x509.UnknownAuthorityError))},
		"wrong name":  {&tls.Config{Certificates: []tls.Certificate{other}}, otherPool, is(new(x509.HostnameError))},
		"expired": {&tls.Config{Certificates: []tls.Certificate{expired}}, expiredPool, func(err error) bool {
			var invalid x509.CertificateInvalidError
			return errors.As(err, &invalid) && invalid.Reason == x509.Expired
		}},
		"TLS 1.1": {&tls.Config{Certificates: []tls.Certificate{good}, MinVersion: tls.VersionTLS11, MaxVersion: tls.VersionTLS11}, goodPool,
			func(err error) bool { return err != nil }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Cleanup(func() { goleak.VerifyNone(t) })
			base, reached := serveTLS(t, c.config)
			client := newClient(t, base, machineid.WithHTTPClient(&http.Client{Transport: trusting(t, c.pool)}))
			d, err := client.Validate(t.Context(), device)
			checkUndecided(t, d, err)
			if !c.found(err) {
				t.Errorf("%v (%T)", err, errors.Unwrap(err))
			}
			if reached() {
				t.Error("the server got the request, and with it the key")
			}
		})
	}
}

// The same checks hold without any option: nobody vouches for a test server.
func TestTLSByDefault(t *testing.T) {
	good, _ := certificate(t, time.Now().Add(time.Hour), net.IPv4(127, 0, 0, 1))
	base, reached := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{good}})
	d, err := newClient(t, base).Validate(t.Context(), device)
	checkUndecided(t, d, err)
	if unknown := new(x509.UnknownAuthorityError); !errors.As(err, unknown) || reached() {
		t.Errorf("%v, reached %v", err, reached())
	}
}

// Our own transport, made to trust the test's server, speaks HTTP/2.
func TestHTTP2(t *testing.T) {
	good, pool := certificate(t, time.Now().Add(time.Hour), net.IPv4(127, 0, 0, 1))
	var protocol int
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		protocol = r.ProtoMajor
		answer(200, allow)(w, r)
	}))
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{good}}
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	client := newClient(t, srv.URL, machineid.WithHTTPClient(&http.Client{Transport: trusting(t, pool)}))
	d, err := client.Validate(t.Context(), device)
	if err != nil || !d.Allowed || protocol != 2 {
		t.Errorf("%+v, %v over HTTP/%d", d, err, protocol)
	}
}

func TestTLSHandshakeStalled(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	addr, wait := rawServer(t, silence)
	client := newClient(t, "https://"+addr, machineid.WithTimeout(patience))
	d, err := client.Validate(t.Context(), device)
	checkUndecided(t, d, err)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v: want DeadlineExceeded", err)
	}
	client.CloseIdleConnections()
	wait()
}

// Without anybody's help the handshake ends about a second after the call.
func TestTLSHandshakeEndsByItself(t *testing.T) {
	addr, wait := rawServer(t, silence)
	client := newClient(t, "https://"+addr, machineid.WithTimeout(patience))
	d, err := client.Validate(t.Context(), device)
	checkUndecided(t, d, err)
	start := time.Now()
	if wait(); time.Since(start) > 5*time.Second {
		t.Errorf("the connection was held for %v", time.Since(start))
	}
}

// A server that speaks no TLS gets no key either.
func TestTLSAnsweredPlainly(t *testing.T) {
	addr, _ := rawServer(t, func(conn net.Conn) {
		_, _ = conn.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 54\r\n\r\n" + allow))
		silence(conn)
	})
	d, err := newClient(t, "https://"+addr).Validate(t.Context(), device)
	checkUndecided(t, d, err)
}

// trusting is our own transport with other roots.
func trusting(t *testing.T, pool *x509.CertPool) *http.Transport {
	t.Helper()
	rt := machineid.NewTransport(time.Minute)
	rt.TLSClientConfig.RootCAs = pool
	t.Cleanup(rt.CloseIdleConnections)
	return rt
}
