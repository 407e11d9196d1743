package faulty

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"testing"
	"time"
)

// TestCertificatesDifferInOneThing verifies each kind for each name of the server, and then
// again without the one thing that is wrong with it: nothing else may be.
func TestCertificatesDifferInOneThing(t *testing.T) {
	p, err := newPapers()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for kind, test := range map[certificate]struct {
		wrong func(error) bool
		mend  func(leaf *x509.Certificate, o *x509.VerifyOptions)
	}{
		certGood: {func(err error) bool { return err == nil }, func(*x509.Certificate, *x509.VerifyOptions) {}},
		certWrongName: {
			func(err error) bool { return errors.As(err, new(x509.HostnameError)) },
			func(_ *x509.Certificate, o *x509.VerifyOptions) { o.DNSName = "elsewhere.invalid" },
		},
		certExpired: {
			func(err error) bool {
				invalid := x509.CertificateInvalidError{}
				return errors.As(err, &invalid) && invalid.Reason == x509.Expired
			},
			func(_ *x509.Certificate, o *x509.VerifyOptions) { o.CurrentTime = now.AddDate(0, 0, -7) },
		},
		certSelfSigned: {
			func(err error) bool { return errors.As(err, new(x509.UnknownAuthorityError)) },
			func(leaf *x509.Certificate, o *x509.VerifyOptions) {
				o.Roots = x509.NewCertPool()
				o.Roots.AddCert(leaf)
			},
		},
	} {
		for _, name := range []string{"127.0.0.1", "[::1]", "localhost"} {
			leaf, o := p.leafs[kind].Leaf, x509.VerifyOptions{Roots: p.roots, DNSName: name, CurrentTime: now}
			if kind == certExpired { // the issuer began when the leaf ended
				o.Roots = x509.NewCertPool()
				o.Roots.AddCert(leaf)
			}
			if _, err := leaf.Verify(o); !test.wrong(err) {
				t.Errorf("kind %d for %s: %v", kind, name, err)
			}
			test.mend(leaf, &o)
			if _, err := leaf.Verify(o); err != nil {
				t.Errorf("kind %d for %s, mended: %v", kind, name, err)
			}
		}
	}
}

// TestHandshakeShowsWhatIsCurrent changes the certificate under one configuration, and sees
// that no session is resumed with an earlier one.
func TestHandshakeShowsWhatIsCurrent(t *testing.T) {
	p, err := newPapers()
	if err != nil {
		t.Fatal(err)
	}
	shown := certGood
	server, client := p.server(func() certificate { return shown }), p.client()
	client.ServerName, client.ClientSessionCache = "localhost", tls.NewLRUClientSessionCache(8)
	for _, step := range []struct {
		show certificate
		ok   bool
	}{{certGood, true}, {certExpired, false}, {certGood, true}, {certWrongName, false}, {certSelfSigned, false}, {certGood, true}} {
		shown = step.show
		err, resumed := handshake(t, server, client)
		if (err == nil) != step.ok || resumed {
			t.Errorf("kind %d: %v, resumed %t", step.show, err, resumed)
		}
	}
}

// handshake lets a client and a server meet, and a byte go over. It takes a socket: over a pipe,
// which has no buffer, an alert that nobody waits for would block for ever.
func handshake(t *testing.T, server, client *tls.Config) (err error, resumed bool) { //nolint:revive // the error is what is tested
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c := tls.Server(far, server)
		_, _ = c.Write([]byte("x")) // fails where the client has turned away
		far.Close()
	}()
	c := tls.Client(near, client)
	_, err = c.Read(make([]byte, 1))
	near.Close()
	<-done
	return err, c.ConnectionState().DidResume
}
