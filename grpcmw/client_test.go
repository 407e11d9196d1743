package grpcmw_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/execguard/execguard/grpcmw"
	"github.com/execguard/execguard/guard"
)

// invoke calls the interceptor itself.
func invoke(ctx context.Context, r guard.Runner, from grpcmw.DeviceFunc, f func(ctx context.Context) error) error {
	return grpcmw.UnaryClient(r, from)(ctx, unary, text("in"), new(message), nil,
		func(ctx context.Context, _ string, _, _ any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
			return f(ctx)
		})
}

// What the server answers is handed on as it is, the very same.
func TestUnaryClientHandsOnTheVerySame(t *testing.T) {
	a := newAuthority(t)
	for _, own := range append(ownErrors, status.Error(codes.Canceled, "the server was tired")) {
		wantSame(t, invoke(t.Context(), a, grpcmw.Fixed(device), func(context.Context) error { return own }), own)
	}
}

func TestUnaryClientOddRunners(t *testing.T) {
	for _, o := range oddRunners {
		t.Run(o.name, func(t *testing.T) {
			called := 0
			err := invoke(t.Context(), o.runner, grpcmw.Fixed(device), func(context.Context) error {
				called++
				return nil
			})
			o.want(t, err, called)
		})
	}
}

// Pitfall: grpc's own error of a call that is cancelled is a bare «context canceled» that matches
// nothing. The caller gets the denial, and the server's context ends.
func TestUnaryClientDeniedWhileItRuns(t *testing.T) {
	a := newAuthority(t)
	inside, gone := make(chan struct{}), make(chan struct{})
	address := serve(t, calls{unary: func(ctx context.Context, _ *message) (*message, error) {
		close(inside)
		<-ctx.Done()
		close(gone)
		return nil, ctx.Err()
	}})
	conn := dial(t, address, guarding(a, grpcmw.Fixed(device))...)
	result := later(func() error { return exchange(t.Context(), conn, unary) })
	within(t, inside, "the server is called")
	id := a.deny(t, device, guard.CodeDeviceRevoked)
	err := within(t, result, "the call returns")
	wantWire(t, err, wire{codes.PermissionDenied, "DEVICE_REVOKED", id, "run", -1})
	denied := wantDenial(t, err, guard.CodeDeviceRevoked, id)
	if got, ok := grpcmw.FromError(err); !ok || got != denied || !denied.InFlight || denied.DeviceID != device {
		t.Errorf("FromError: %+v, %t", got, ok)
	}
	within(t, gone, "the server's context ends")
}

// Nothing is sent where the call is refused.
func TestUnaryClientRefused(t *testing.T) {
	a := newAuthority(t)
	a.script.Deny(device, guard.CodePlanFrozen)
	err := invoke(t.Context(), a, grpcmw.Fixed(device), func(context.Context) error {
		t.Error("invoked")
		return nil
	})
	wantWire(t, err, wire{codes.PermissionDenied, "PLAN_FROZEN", "script-1", "start", -1})
	if wantDenial(t, err, guard.CodePlanFrozen, "script-1").InFlight {
		t.Error("in flight")
	}
	_ = a.Close()
	err = invoke(t.Context(), a, grpcmw.Fixed(device), func(context.Context) error { return nil })
	wantWire(t, err, wire{codes.Unavailable, "GUARD_CLOSED", "", "start", 5 * time.Second})
	if !errors.Is(err, guard.ErrClosed) {
		t.Errorf("%v does not match ErrClosed", err)
	}
}

// A run whose device is denied takes the calls with it that it makes for others; what they get is
// that denial too, and the caller's own cancel stays what it is.
func TestUnaryClientInsideAnotherRun(t *testing.T) {
	outer, inner := newAuthority(t), newAuthority(t)
	inside := make(chan struct{}, 1)
	address := serve(t, calls{unary: func(ctx context.Context, _ *message) (*message, error) {
		inside <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	conn := dial(t, address, guarding(inner, grpcmw.Fixed(other))...)
	_ = outer.Run(t.Context(), device, func(ctx context.Context) error {
		result := later(func() error { return exchange(ctx, conn, unary) })
		within(t, inside, "the server is called")
		id := outer.deny(t, device, guard.CodeDeviceRevoked)
		wantDenial(t, within(t, result, "the call returns"), guard.CodeDeviceRevoked, id)
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	result := later(func() error { return exchange(ctx, conn, unary) })
	within(t, inside, "the server is called")
	cancel()
	wantWire(t, within(t, result, "the call returns"), wire{code: codes.Canceled, retry: -1})
}

// The authority's own client may share the connection: under a context that a guard gave its
// validator calls of either kind pass, without a question that would wait for itself.
func TestClientsOfTheAuthorityPass(t *testing.T) {
	address := serve(t, calls{})
	var conn *grpc.ClientConn
	questions := 0
	g, err := guard.New(guard.ValidatorFunc(func(ctx context.Context, _ string) (guard.Decision, error) {
		questions++
		for _, method := range []string{unary, both} {
			if err := exchange(ctx, conn, method); err != nil {
				return guard.Decision{}, err
			}
		}
		return guard.Decision{Allowed: true, Code: guard.CodeAllow}, nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	conn = dial(t, address, guarding(g, grpcmw.Fixed(device))...)
	if err := exchange(t.Context(), conn, unary); err != nil {
		t.Fatal(err)
	}
	if questions != 1 {
		t.Errorf("%d questions", questions)
	}
}

// An authority that is asked over gRPC and is not there is «could not ask», within the guard's timeout,
// also where its client would wait for a connection without end.
func TestAuthorityOverGRPCThatIsNotThere(t *testing.T) {
	l := listen(t)
	l.Close()
	away := dial(t, l.Addr().String(), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	g, err := guard.New(guard.ValidatorFunc(func(ctx context.Context, _ string) (guard.Decision, error) {
		return guard.Decision{Code: guard.CodeSystemUnavailable}, exchange(ctx, away, unary)
	}), guard.WithTimeout(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	conn := dial(t, serve(t, calls{}, guarded(g, grpcmw.Fixed(device))...))
	err = within(t, later(func() error { return exchange(t.Context(), conn, unary) }), "the call returns")
	wantWire(t, err, wire{codes.Unavailable, "SYSTEM_UNAVAILABLE", "", "start", 5 * time.Second})
}

// A server that calls another on behalf of its caller: the same identity is shown on.
func TestUnaryClientOnBehalfOfTheCaller(t *testing.T) {
	a := newAuthority(t)
	behind := dial(t, serve(t, calls{}), guarding(a, grpcmw.FromMetadata("device"))...)
	address := serve(t, calls{unary: func(ctx context.Context, in *message) (*message, error) {
		out, err := call(ctx, behind, in.GetValue())
		return text(out), err
	}})
	conn := dial(t, address)
	_, err := call(withDevice(t.Context(), device), conn, "hello")
	if err != nil {
		t.Error(err)
	}
	a.script.Deny(other, guard.CodeDeviceRevoked)
	_, err = call(withDevice(t.Context(), other), conn, "hello")
	if denied, ok := grpcmw.FromError(err); !ok || denied.Decision.Code != guard.CodeDeviceRevoked || errors.As(err, &denied) {
		t.Errorf("the denial of the server's client is told as its own: %v", err)
	}
}
