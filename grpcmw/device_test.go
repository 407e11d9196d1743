package grpcmw_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"github.com/execguard/execguard/grpcmw"
	"github.com/execguard/execguard/guard"
)

var noIdentity = wire{codes.Unauthenticated, "NO_IDENTITY", "", "start", -1}

// wantIdentity makes a call of each sort and fails the test unless the authority is asked about want,
// or, where want is "", the call has no identity and the authority is not asked at all.
func wantIdentity(t *testing.T, a authority, ctx context.Context, conn *grpc.ClientConn, want string) {
	t.Helper()
	for _, method := range []string{unary, both} {
		asked := len(a.script.Calls())
		err := exchange(ctx, conn, method)
		questions := a.script.Calls()[asked:]
		if want == "" {
			wantWire(t, err, noIdentity)
			if len(questions) > 0 {
				t.Errorf("%s: the authority was asked: %+v", method, questions)
			}
			if _, ok := grpcmw.FromError(err); ok {
				t.Errorf("%s: no identity is a denial", method)
			}
			continue
		}
		if err != nil || len(questions) != 1 || questions[0].DeviceID != want {
			t.Errorf("%s: %v, asked %+v, want %q", method, err, questions, want)
		}
	}
}

func TestFixed(t *testing.T) {
	a := newAuthority(t)
	wantIdentity(t, a, t.Context(), dial(t, serve(t, calls{}, guarded(a, grpcmw.Fixed(device))...)), device)
}

func TestFromMetadata(t *testing.T) {
	a := newAuthority(t)
	conn := dial(t, serve(t, calls{}, guarded(a, grpcmw.FromMetadata("X-Device"))...)) // keys have no case
	for _, c := range []struct {
		sent []string
		want string
	}{
		{[]string{"x-device", device}, device},
		{[]string{"X-DEVICE", device}, device},
		{nil, ""},
		{[]string{"x-device", ""}, ""},
		{[]string{"device", device}, ""},
		{[]string{"x-device", device, "x-device", device}, ""},
		{[]string{"x-device", device, "x-device", other}, ""},
	} {
		wantIdentity(t, a, metadata.AppendToOutgoingContext(t.Context(), c.sent...), conn, c.want)
	}
}

// S2: an id that is blank is refused unasked, whoever gave it.
func TestBlankDevices(t *testing.T) {
	a := newAuthority(t)
	for _, id := range []string{"", " ", "\t"} {
		conn := dial(t, serve(t, calls{}, guarded(a, grpcmw.Fixed(id))...))
		for _, method := range []string{unary, both} {
			wantWire(t, exchange(t.Context(), conn, method), wire{codes.InvalidArgument, "INVALID_DEVICE_ID", "", "start", -1})
		}
	}
	if calls := a.script.Calls(); len(calls) > 0 {
		t.Errorf("asked: %+v", calls)
	}
}

func TestFromBearer(t *testing.T) {
	a := newAuthority(t)
	inner := errors.New("the signature of s3cret is wrong")
	from := grpcmw.FromBearer(func(ctx context.Context, token string) (string, error) {
		switch {
		case len(metadata.ValueFromIncomingContext(ctx, "authorization")) == 0:
			return "", errors.New("not the call's context")
		case token == "s3cret":
			return "", inner
		case token == "away":
			return "", fmt.Errorf("the keys for %s: %w", token, guard.ErrUnavailable)
		}
		return token, nil
	})
	conn := dial(t, serve(t, calls{}, guarded(a, from)...))
	for _, c := range []struct {
		sent []string
		want string
	}{
		{[]string{"Bearer " + device}, device},
		{[]string{"bEARER " + device}, device},
		{[]string{"Bearer  " + device}, device}, // RFC 9110 lets there be more than one space
		{nil, ""},
		{[]string{""}, ""},
		{[]string{"Bearer " + device + ",Bearer " + device}, ""},
		{[]string{"Bearer"}, ""},
		{[]string{"Bearer "}, ""},
		{[]string{device}, ""},
		{[]string{"Basic " + device}, ""},
		{[]string{"Bearer " + device + " x"}, ""},
		{[]string{"Bearer " + device, "Bearer " + device}, ""},
		{[]string{"Bearer s3cret"}, ""},
	} {
		ctx := t.Context()
		for _, v := range c.sent {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", v)
		}
		wantIdentity(t, a, ctx, conn, c.want)
	}
	away := wire{codes.Unavailable, "SYSTEM_UNAVAILABLE", "", "start", 5 * time.Second}
	for _, method := range []string{unary, both} {
		wantWire(t, exchange(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer away"), conn, method), away)
	}
	incoming := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer away"))
	if _, err := from(incoming, unary); !errors.Is(err, guard.ErrUnavailable) || errors.Is(err, grpcmw.ErrNoIdentity) {
		t.Errorf("«could not ask» is no identity: %v", err)
	}
}

// leaky shows its token to who prints it with %#v, and to who asks for its text.
type leaky struct {
	token string
	inner error
}

func (l leaky) Error() string   { return "unavailable: " + l.token }
func (l leaky) Unwrap() []error { return []error{l.inner, guard.ErrUnavailable} }

// S8: in process the verifier's own error can be found, on the wire and in texts it cannot.
func TestDeviceErrorsStayInside(t *testing.T) {
	a := newAuthority(t)
	inner := errors.New("s3cret")
	incoming := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer s3cret"))
	for name, from := range map[string]grpcmw.DeviceFunc{
		"bearer":          grpcmw.FromBearer(func(context.Context, string) (string, error) { return "", inner }),
		"own":             func(context.Context, string) (string, error) { return device, inner },
		"cancelled":       func(context.Context, string) (string, error) { return "", errors.Join(inner, context.Canceled) },
		"denied":          func(context.Context, string) (string, error) { return "", errors.Join(inner, guard.ErrDenied) },
		"unavailable":     func(context.Context, string) (string, error) { return "", errors.Join(inner, guard.ErrUnavailable) },
		"unavailable too": func(context.Context, string) (string, error) { return "", leaky{"s3cret", inner} },
		"uncomparable":    func(context.Context, string) (string, error) { return "", errors.Join(inner, uncomparable{"s3cret"}) },
	} {
		_, err := respond(incoming, a, from, func(context.Context, any) (any, error) {
			t.Error("called")
			return text(""), nil
		})
		want := noIdentity
		unavailable := strings.HasPrefix(name, "unavailable")
		if unavailable {
			want = wire{codes.Unavailable, "SYSTEM_UNAVAILABLE", "", "start", 5 * time.Second}
		}
		wantWire(t, err, want)
		if !errors.Is(err, inner) || errors.Is(err, context.Canceled) || errors.Is(err, grpcmw.ErrNoIdentity) == unavailable {
			t.Errorf("%s: %v", name, err)
		}
		if printed := fmt.Sprintf("%v %+v %#v %s", err, err, err, fmt.Errorf("outside: %w", err)); strings.Contains(printed, "s3cret") {
			t.Errorf("%s prints %s", name, printed)
		}
	}
	_, err := grpcmw.FromBearer(func(context.Context, string) (string, error) { return "", inner })(incoming, unary)
	if !errors.Is(err, grpcmw.ErrNoIdentity) || !errors.Is(err, inner) || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("got %v", err)
	}
}

// The DeviceFunc is told which method is called.
func TestDeviceByMethod(t *testing.T) {
	a := newAuthority(t)
	from := func(_ context.Context, method string) (string, error) { return method, nil }
	conn := dial(t, serve(t, calls{}, guarded(a, from)...))
	mine := dial(t, serve(t, calls{}), guarding(a, from)...)
	for _, method := range []string{unary, down, up, both} {
		a.script.Allow(method)
		if err := errors.Join(exchange(t.Context(), conn, method), exchange(t.Context(), mine, method)); err != nil {
			t.Error(err)
		}
	}
}

// A client whose call shows no device sends nothing: what it knows of is its own caller, and here is none.
func TestClientsWithoutIdentity(t *testing.T) {
	a := newAuthority(t)
	for name, from := range map[string]grpcmw.DeviceFunc{
		"metadata": grpcmw.FromMetadata("device"),
		"TLS":      grpcmw.FromTLS(),
		"bearer":   grpcmw.FromBearer(func(context.Context, string) (string, error) { return device, nil }),
	} {
		conn := dial(t, serve(t, calls{
			unary: func(context.Context, *message) (*message, error) {
				t.Error(name, "was sent")
				return text(""), nil
			},
			stream: func(grpc.ServerStream) error {
				t.Error(name, "was sent")
				return nil
			},
		}), guarding(a, from)...)
		wantIdentity(t, a, withDevice(t.Context(), device), conn, "")
	}
}

// certify makes a certificate, signed by ca, or a CA itself where that is nil.
func certify(t *testing.T, ca *tls.Certificate, change func(c *x509.Certificate)) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	change(template)
	parent, signer := template, any(key)
	if ca != nil {
		parent, signer = ca.Leaf, ca.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func authorityCertificate(t *testing.T, name string) *tls.Certificate {
	t.Helper()
	return certify(t, nil, func(c *x509.Certificate) {
		c.Subject.CommonName = name
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
	})
}

func pool(ca *tls.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(ca.Leaf)
	return p
}

// mutual is a server with TLS that asks its clients for certificates as auth says.
type mutual struct {
	ca      *tls.Certificate
	address string
}

func serveTLS(t *testing.T, a authority, auth tls.ClientAuthType) mutual {
	t.Helper()
	ca := authorityCertificate(t, "a CA")
	own := certify(t, ca, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} })
	creds := credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{*own}, ClientAuth: auth, ClientCAs: pool(ca)})
	return mutual{ca, serve(t, calls{}, append(guarded(a, grpcmw.FromTLS()), grpc.Creds(creds))...)}
}

func (m mutual) dial(t *testing.T, cert *tls.Certificate) *grpc.ClientConn {
	t.Helper()
	c := &tls.Config{RootCAs: pool(m.ca), ServerName: "127.0.0.1"}
	if cert != nil {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil } // whoever signed it
	}
	return dial(t, m.address, grpc.WithTransportCredentials(credentials.NewTLS(c)))
}

func uris(t *testing.T, texts ...string) (all []*url.URL) {
	t.Helper()
	for _, text := range texts {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, u)
	}
	return all
}

func TestFromTLS(t *testing.T) {
	const spiffe = "spiffe://example.org/ns/prod/sa/mailer"
	a := newAuthority(t, guard.WithTimeout(time.Second))
	m := serveTLS(t, a, tls.VerifyClientCertIfGiven)
	for _, c := range []struct {
		name   string
		change func(c *x509.Certificate)
		want   string
	}{
		{"SPIFFE goes first", func(c *x509.Certificate) {
			c.URIs, c.DNSNames, c.Subject = uris(t, "https://example.org/x", spiffe), []string{"dns.example.org"}, pkix.Name{CommonName: "cn"}
		}, spiffe},
		{"two SPIFFE ids", func(c *x509.Certificate) {
			c.URIs, c.DNSNames = uris(t, spiffe, spiffe+"2"), []string{"dns.example.org"}
		}, ""},
		{"the first DNS name", func(c *x509.Certificate) {
			c.DNSNames, c.Subject = []string{"dns.example.org", "b.example.org"}, pkix.Name{CommonName: "cn"}
		}, "dns.example.org"},
		{"other URIs are none", func(c *x509.Certificate) {
			c.URIs, c.DNSNames = uris(t, "https://example.org/x"), []string{"dns.example.org"}
		}, "dns.example.org"},
		{"the common name", func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: "cn"} }, "cn"},
		{"nobody", func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(10, 0, 0, 1)} }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.want != "" {
				a.script.Allow(c.want)
			}
			wantIdentity(t, a, t.Context(), m.dial(t, certify(t, m.ca, c.change)), c.want)
		})
	}
	t.Run("absent", func(t *testing.T) { wantIdentity(t, a, t.Context(), m.dial(t, nil), "") })
}

// A certificate that nobody has verified is a claim: whoever made it, and whatever it says.
func TestFromTLSUnverified(t *testing.T) {
	a := newAuthority(t)
	stranger := authorityCertificate(t, "another CA")
	name := func(c *x509.Certificate) { c.Subject.CommonName = device }
	for _, auth := range []tls.ClientAuthType{tls.RequestClientCert, tls.RequireAnyClientCert} {
		m := serveTLS(t, a, auth)
		wantIdentity(t, a, t.Context(), m.dial(t, certify(t, stranger, name)), "")
		wantIdentity(t, a, t.Context(), m.dial(t, certify(t, m.ca, name)), "") // it would pass, but nobody has looked
	}
}

// The very connection that requires what it needs to.
func TestFromTLSRequired(t *testing.T) {
	a := newAuthority(t)
	m := serveTLS(t, a, tls.RequireAndVerifyClientCert)
	wantIdentity(t, a, t.Context(), m.dial(t, certify(t, m.ca, func(c *x509.Certificate) { c.Subject.CommonName = device })), device)
	wantCode(t, exchange(t.Context(), m.dial(t, nil), unary), codes.Unavailable)
	if n := len(a.script.Calls()); n != 2 {
		t.Errorf("%d questions, want the 2 of the first connection", n)
	}
}

// Without TLS there is no certificate, and without a connection neither.
func TestFromTLSWithoutTLS(t *testing.T) {
	a := newAuthority(t)
	wantIdentity(t, a, t.Context(), dial(t, serve(t, calls{}, guarded(a, grpcmw.FromTLS())...)), "")
	if _, err := grpcmw.FromTLS()(t.Context(), unary); !errors.Is(err, grpcmw.ErrNoIdentity) {
		t.Errorf("got %v", err)
	}
}
