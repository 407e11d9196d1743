package grpcmw_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/execguard/execguard/grpcmw"
	"github.com/execguard/execguard/guard"
)

// verified is the context of a call whose client has shown a certificate, with no other in its chain; nil: none.
func verified(ctx context.Context, leaf *x509.Certificate) context.Context {
	state := tls.ConnectionState{}
	if leaf != nil {
		state.VerifiedChains = [][]*x509.Certificate{{leaf}}
	}
	return peer.NewContext(ctx, &peer.Peer{AuthInfo: credentials.TLSInfo{State: state}})
}

// The error of a certificate that names no device says why, in this process, and there is no id beside it.
func TestFromTLSSaysWhy(t *testing.T) {
	spiffe := func(ids ...string) *x509.Certificate {
		c := &x509.Certificate{Subject: pkix.Name{CommonName: "never asked"}}
		for _, id := range ids {
			u, _ := url.Parse(id)
			c.URIs = append(c.URIs, u)
		}
		return c
	}
	for why, leaf := range map[string]*x509.Certificate{
		"there is no verified client certificate":                       nil,
		"the client certificate has more than one SPIFFE id":            spiffe("spiffe://a/b", "spiffe://a/c"),
		"the SPIFFE id of the client certificate names no trust domain": spiffe("spiffe:///b"),
		"the client certificate names nobody":                           {},
	} {
		id, err := grpcmw.FromTLS()(verified(t.Context(), leaf), unary)
		if id != "" || !errors.Is(err, grpcmw.ErrNoIdentity) || err.Error() != "grpcmw: no identity: "+why {
			t.Errorf("%q, %v; want: %s", id, err, why)
		}
	}
	if id, err := grpcmw.FromTLS()(verified(t.Context(), spiffe("spiffe://a/b")), unary); id != "spiffe://a/b" || err != nil {
		t.Errorf("%q, %v", id, err)
	}
}

// Where a call shows no device there is no id either, whoever looks at that first; and the error says why.
func TestNoIDBesideAnError(t *testing.T) {
	ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer t", "device", "a", "device", "b"))
	bearer := func(err error) grpcmw.DeviceFunc {
		return grpcmw.FromBearer(func(context.Context, string) (string, error) { return "half", err })
	}
	for want, from := range map[string]func() (string, error){
		"there must be exactly one value of device": func() (string, error) { return grpcmw.FromMetadata("device")(ctx, unary) },
		"there must be exactly one bearer token":    func() (string, error) { return bearer(nil)(t.Context(), unary) },
		"the bearer token was refused":              func() (string, error) { return bearer(errors.New("expired"))(ctx, unary) },
	} {
		if id, err := from(); id != "" || !errors.Is(err, grpcmw.ErrNoIdentity) || err.Error() != "grpcmw: no identity: "+want {
			t.Errorf("%q, %v; want: %s", id, err, want)
		}
	}
	if id, err := bearer(guard.ErrUnavailable)(ctx, unary); id != "" || !errors.Is(err, guard.ErrUnavailable) {
		t.Errorf("could not ask: %q, %v", id, err)
	}
}

// What a status hides from the other side can be found and printed in this process: why a call was refused that no
// authority has refused.
func TestWhyIsFoundInProcess(t *testing.T) {
	silent := runnerFunc(func(context.Context, func(context.Context) error) error { return nil })
	nobody := func(context.Context, string) (string, error) { return "", errors.New("hush") }
	for want, call := range map[string]grpc.UnaryServerInterceptor{
		"grpcmw: the Runner returned without an outcome of the call": grpcmw.UnaryServer(silent, grpcmw.Fixed(device)),
		"grpcmw: no identity: the DeviceFunc refused the call":       grpcmw.UnaryServer(silent, nobody),
	} {
		_, err := call(t.Context(), nil, &grpc.UnaryServerInfo{}, nil)
		var inside interface {
			error
			Unwrap() error
		}
		if !errors.As(err, &inside) || inside.Error() != want {
			t.Errorf("%v holds %v, want: %s", err, inside, want)
		}
	}
}

// refusedWith is what a call comes to that is refused with d.
func refusedWith(t *testing.T, d guard.Decision) error {
	t.Helper()
	r := runnerFunc(func(context.Context, func(context.Context) error) error { return &guard.DeniedError{Decision: d} })
	_, err := grpcmw.UnaryServer(r, grpcmw.Fixed(device))(t.Context(), nil, &grpc.UnaryServerInfo{}, nil)
	if err == nil {
		t.Fatal("it was not refused")
	}
	return err
}

// overTheWire is what the other side has of an error.
func overTheWire(err error) error { return status.ErrorProto(status.Convert(err).Proto()) }

// What an authority says that is no text arrives all the same, with a mark for what cannot be sent or printed.
func TestWordsThatAreNoText(t *testing.T) {
	denied, ok := grpcmw.FromError(overTheWire(refusedWith(t, guard.Decision{Code: "A\x00B\xffC\n", RequestID: "\xf0r\u200b"})))
	if !ok || denied.Decision.Code != "A\uFFFDB\uFFFDC\uFFFD" || denied.Decision.RequestID != "\uFFFDr\uFFFD" {
		t.Errorf("%t, %+q", ok, denied)
	}
}

// The shortest wait that there is, is one.
func TestShortestRetryAfter(t *testing.T) {
	denied, ok := grpcmw.FromError(overTheWire(refusedWith(t, guard.Decision{Code: guard.CodeSystemUnavailable, RetryAfter: time.Nanosecond})))
	if !ok || denied.Decision.RetryAfter != time.Nanosecond {
		t.Errorf("%t, %+v", ok, denied)
	}
}

// A status says nothing of a request id that there is not.
func TestKeysOfAStatus(t *testing.T) {
	for id, want := range map[string][]string{"": {"phase"}, "r": {"phase", "request_id"}} {
		for _, detail := range status.Convert(refusedWith(t, guard.Decision{Code: guard.CodePlanFrozen, RequestID: id})).Details() {
			if got := slices.Sorted(maps.Keys(detail.(*errdetails.ErrorInfo).GetMetadata())); !slices.Equal(got, want) {
				t.Errorf("%q: keys %q, want %q", id, got, want)
			}
		}
	}
}

// An error prints as its status, with every verb (S8).
func TestErrorsPrintTheirStatus(t *testing.T) {
	err := refusedWith(t, guard.Decision{Code: guard.CodePlanFrozen, Reason: "hush"})
	want := status.Convert(err).String()
	for _, verb := range []string{"%v", "%+v", "%s", "%#v"} {
		if got := fmt.Sprintf(verb, err); got != want {
			t.Errorf("%s: %s, want %s", verb, got, want)
		}
	}
}
