package faulty

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"time"
)

// certificate is the certificate that the server shows.
type certificate int

const (
	certGood certificate = iota
	certWrongName
	certExpired
	certSelfSigned
	certKinds // how many there are
)

// papers are a server's certificates, made for it and kept in memory only: a file with a private
// key would find its way into somebody's repository, and one with dates would expire there.
type papers struct {
	roots *x509.CertPool // what a client has to trust
	leafs [certKinds]tls.Certificate
}

// newPapers makes an issuer and one certificate of each kind. They share a key, which saves
// time and proves no less: no fault is about keys.
func newPapers() (*papers, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	issuer := template("loopback issuer", now)
	issuer.IsCA, issuer.KeyUsage = true, x509.KeyUsageCertSign
	root, err := sign(issuer, issuer, key)
	if err != nil {
		return nil, err
	}
	p := &papers{roots: x509.NewCertPool()}
	p.roots.AddCert(root.Leaf)
	for kind := range certKinds {
		leaf, parent := describe(kind, now), root.Leaf
		if kind == certSelfSigned {
			parent = leaf
		}
		if p.leafs[kind], err = sign(leaf, parent, key); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// describe gives what a certificate of a kind claims: everything as it should be but the one
// thing that its kind is named for.
func describe(kind certificate, now time.Time) *x509.Certificate {
	c := template("loopback", now)
	c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	c.DNSNames = []string{"localhost"}
	c.KeyUsage, c.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	switch kind {
	case certWrongName:
		c.IPAddresses, c.DNSNames = nil, []string{"elsewhere.invalid"}
	case certExpired:
		c.NotBefore, c.NotAfter = now.AddDate(0, 0, -30), now.AddDate(0, 0, -1)
	case certGood, certSelfSigned, certKinds:
	}
	return c
}

// template is valid for long enough for any test, and a day back for clocks that were set.
func template(name string, now time.Time) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber:          big.NewInt(now.UnixNano()),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.AddDate(0, 0, -1),
		NotAfter:              now.AddDate(0, 0, 30),
		BasicConstraintsValid: true,
	}
}

// sign makes a certificate that all parties here share the key of: issuer and leafs differ in
// what they claim alone.
func sign(c, parent *x509.Certificate, key crypto.Signer) (tls.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}

// server is the configuration of a server that shows the certificate which show names at the
// time of the handshake. Sessions are not resumed: a resumed one shows no certificate at all.
func (p *papers) server(show func() certificate) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS12,
		NextProtos:             []string{"http/1.1"},
		SessionTicketsDisabled: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &p.leafs[show()], nil
		},
	}
}

// client is the configuration of a client that trusts the issuer and nobody else.
func (p *papers) client() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: p.roots}
}
