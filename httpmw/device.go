package httpmw

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/execguard/execguard/guard"
)

// ErrNoIdentity is matched by what the DeviceFuncs of this package return where a request does not
// show which device it comes from.
var ErrNoIdentity = errors.New("httpmw: no identity")

// DeviceFunc says which device a request stands for. It is called before the handler, or before the
// request is sent, on several goroutines at once. For New an error refuses the request with 401, or with
// 503 where it matches guard.ErrUnavailable: whoever knows the device could not be asked. Its text is not
// sent; WithAnswer finds it in Problem.Err. For Transport r is the outgoing request, and an error is
// returned as it is: FromHeader and FromBearer read what is about to be sent, FromTLS finds nothing.
type DeviceFunc func(r *http.Request) (deviceID string, err error)

// Fixed says that this process is the device, whoever the request comes from.
func Fixed(deviceID string) DeviceFunc {
	return func(*http.Request) (string, error) { return deviceID, nil }
}

// FromHeader takes a claim for the device's id: anybody can write a header, so use it only behind a
// proxy that sets this one itself and lets no other pass. A request without it, or with more than
// one, has no identity.
func FromHeader(name string) DeviceFunc {
	if strings.TrimSpace(name) == "" {
		mistake("FromHeader: the name is blank")
	}
	name = http.CanonicalHeaderKey(name)
	return func(r *http.Request) (string, error) {
		if vs := r.Header[name]; len(vs) == 1 && vs[0] != "" {
			return vs[0], nil
		}
		return "", &identityError{why: "there must be exactly one header " + name}
	}
}

// FromTLS takes the device's id from the client's certificate, which the server must have verified
// (tls.RequireAndVerifyClientCert): its SPIFFE id, else its first DNS name, else its common name. A
// request without a verified certificate has no identity, and neither has one whose certificate was
// checked by tls.Config.VerifyPeerCertificate alone.
//
// A SPIFFE id has slashes, which MachineID and guard/authority take in no id: for those, wrap FromTLS in a
// DeviceFunc that replaces them.
func FromTLS() DeviceFunc {
	return func(r *http.Request) (string, error) {
		id, err := certificateID(r.TLS)
		if err != nil {
			return "", &identityError{why: err.Error()}
		}
		return id, nil
	}
}

// FromBearer hands the token of «Authorization: Bearer …» to verify, which says whose it is. An error
// of verify that matches guard.ErrUnavailable refuses the request with 503; with any other the request has no
// identity. verify is called on several goroutines at once, with the request's context.
func FromBearer(verify func(ctx context.Context, token string) (deviceID string, err error)) DeviceFunc {
	if verify == nil {
		mistake("FromBearer: the function is nil")
	}
	return func(r *http.Request) (string, error) {
		token, ok := bearer(r.Header["Authorization"])
		if !ok {
			return "", &identityError{why: "there must be exactly one bearer token", challenge: "Bearer"}
		}
		id, err := verify(r.Context(), token)
		switch {
		case err == nil:
			return id, nil
		case errors.Is(err, guard.ErrUnavailable):
			return "", err
		default:
			return "", &identityError{why: "the bearer token was refused", challenge: `Bearer error="invalid_token"`, err: err}
		}
	}
}

// bearer is the token of the one credential there must be (RFC 6750, section 2.1).
func bearer(credentials []string) (token string, ok bool) {
	if len(credentials) != 1 {
		return "", false
	}
	scheme, token, ok := strings.Cut(credentials[0], " ")
	token = strings.TrimLeft(token, " ")
	return token, ok && strings.EqualFold(scheme, "Bearer") && token != "" && !strings.ContainsAny(token, " \t,")
}

// identityError is why a request has no identity. It never prints what somebody else's error
// says, which may hold the token.
type identityError struct {
	why       string
	challenge string // for WWW-Authenticate
	err       error  // what verify said; nil: it was not asked
}

func (e *identityError) Error() string { return ErrNoIdentity.Error() + ": " + e.why }

func (e *identityError) Is(target error) bool { return target == ErrNoIdentity }

func (e *identityError) Unwrap() error { return e.err }

// GoString is Error, so that %#v does not look inside.
func (e *identityError) GoString() string { return e.Error() }
