package grpcmw

import (
	"context"
	"crypto/tls"
	"errors"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/execguard/execguard/guard"
)

// ErrNoIdentity is matched by what the DeviceFuncs of this package return where a call does not
// show which device it comes from, and by the error that an interceptor returns then, in this process:
// on the other side that is Unauthenticated with NO_IDENTITY.
var ErrNoIdentity = errors.New("grpcmw: no identity")

// DeviceFunc says which device a call stands for. It is called before the call, on several
// goroutines at once; fullMethod is «/package.Service/Method». An error refuses the call with
// Unauthenticated, or with Unavailable where it matches guard.ErrUnavailable: whoever knows the device could not
// be asked. Its text is neither sent nor printed; errors.Is and errors.As
// find it in process. The guard, which is not asked then, tells its observers nothing of it.
//
// For the client interceptors ctx is the outgoing call's. FromMetadata, FromTLS and FromBearer read
// what is incoming, also there: with them a server that calls another does so for its own caller.
type DeviceFunc func(ctx context.Context, fullMethod string) (deviceID string, err error)

// Fixed says that this process is the device, whoever the call comes from.
func Fixed(deviceID string) DeviceFunc {
	return func(context.Context, string) (string, error) { return deviceID, nil }
}

// FromMetadata takes a claim for the device's id: anybody can send metadata, so use it only behind a
// proxy that sets this key itself and lets no other pass. A call without it, or with more than one
// value, has no identity.
func FromMetadata(key string) DeviceFunc {
	if strings.TrimSpace(key) == "" {
		mistake("FromMetadata: the key is blank")
	}
	return func(ctx context.Context, _ string) (string, error) {
		if vs := metadata.ValueFromIncomingContext(ctx, key); len(vs) == 1 && vs[0] != "" {
			return vs[0], nil
		}
		return "", &identityError{why: "there must be exactly one value of " + key}
	}
}

// FromTLS takes the device's id from the client's certificate, which the server must have verified
// (tls.RequireAndVerifyClientCert): its SPIFFE id, else its first DNS name, else its common name. A
// call without a verified certificate has no identity, and neither has one whose certificate was
// checked by tls.Config.VerifyPeerCertificate alone.
//
// A SPIFFE id has slashes, which MachineID and guard/authority take in no id: for those, wrap FromTLS in a
// DeviceFunc that replaces them.
func FromTLS() DeviceFunc {
	return func(ctx context.Context, _ string) (string, error) {
		id, err := certificateID(connectionState(ctx))
		if err != nil {
			return "", &identityError{why: err.Error()}
		}
		return id, nil
	}
}

// connectionState is what the peer's connection has agreed upon; nil where that is not TLS.
func connectionState(ctx context.Context) *tls.ConnectionState {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return nil
	}
	return &info.State
}

// FromBearer hands the token of the metadata «authorization: Bearer …» to verify, which says whose it
// is. An error of verify that matches guard.ErrUnavailable refuses the call with Unavailable; with any other
// the call has no identity. verify is called on several goroutines at once, with the call's context.
func FromBearer(verify func(ctx context.Context, token string) (deviceID string, err error)) DeviceFunc {
	if verify == nil {
		mistake("FromBearer: the function is nil")
	}
	return func(ctx context.Context, _ string) (string, error) {
		token, ok := bearer(metadata.ValueFromIncomingContext(ctx, "authorization"))
		if !ok {
			return "", &identityError{why: "there must be exactly one bearer token"}
		}
		id, err := verify(ctx, token)
		switch {
		case err == nil:
			return id, nil
		case errors.Is(err, guard.ErrUnavailable):
			return "", err
		default:
			return "", &identityError{why: "the bearer token was refused", err: err}
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

// identityError is why a call has no identity. It never prints what somebody else's error says,
// which may hold the token.
type identityError struct {
	why string
	err error // what verify said; nil: it was not asked
}

func (e *identityError) Error() string { return ErrNoIdentity.Error() + ": " + e.why }

func (e *identityError) Is(target error) bool { return target == ErrNoIdentity }

func (e *identityError) Unwrap() error { return e.err }

// GoString is Error, so that %#v does not look inside.
func (e *identityError) GoString() string { return e.Error() }
