package httpmw

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/url"
	"slices"
)

// Why a connection does not show a device.
var (
	errUnverified = errors.New("there is no verified client certificate")
	errAmbiguous  = errors.New("the client certificate has more than one SPIFFE id")
	errMalformed  = errors.New("the SPIFFE id of the client certificate names no trust domain")
	errNameless   = errors.New("the client certificate names nobody")
)

// certificateID is the device that the verified certificate of the other side names: its SPIFFE id,
// of which there may be only one (X509-SVID, section 2), else its first DNS name, else its common name.
func certificateID(state *tls.ConnectionState) (string, error) {
	if state == nil || len(state.VerifiedChains) == 0 || len(state.VerifiedChains[0]) == 0 {
		return "", errUnverified
	}
	leaf := state.VerifiedChains[0][0]
	ids := spiffeIDs(leaf)
	switch {
	case len(ids) > 1:
		return "", errAmbiguous
	case len(ids) == 1 && ids[0].Host == "":
		return "", errMalformed
	case len(ids) == 1:
		return ids[0].String(), nil
	case len(leaf.DNSNames) > 0 && leaf.DNSNames[0] != "":
		return leaf.DNSNames[0], nil
	case leaf.Subject.CommonName != "":
		return leaf.Subject.CommonName, nil
	default:
		return "", errNameless
	}
}

func spiffeIDs(leaf *x509.Certificate) []*url.URL {
	return slices.DeleteFunc(slices.Clone(leaf.URIs), func(u *url.URL) bool { return u.Scheme != "spiffe" })
}
