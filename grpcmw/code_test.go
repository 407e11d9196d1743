package grpcmw_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/execguard/execguard/grpcmw"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

// Every code that a guard knows, one that it does not, and one that means something else on our wire.
var everyCode = []guard.Code{
	guard.CodeOrgDisabled, guard.CodeSystemUnavailable, guard.CodePlanFrozen, guard.CodePlanNotActive,
	guard.CodeEntitlementExpired, guard.CodeDeviceRevoked, guard.CodeDeviceNotFound, guard.CodeOrgNotFound,
	guard.CodeInvalidOrgKey, guard.CodeInvalidDeviceID, "MOON_IN_THE_WRONG_PHASE",
}

// expected is what a code looks like on the wire.
func expected(code guard.Code, phase string) wire {
	w := wire{code: codes.PermissionDenied, reason: string(code), phase: phase, retry: -1}
	switch {
	case code == guard.CodeSystemUnavailable && phase == "start":
		w.code, w.retry = codes.Unavailable, 5*time.Second
	case code == guard.CodeSystemUnavailable:
		w.code = codes.Aborted
	case code == guard.CodeInvalidDeviceID && phase == "start":
		w.code = codes.InvalidArgument
	}
	return w
}

// wantCodeEverywhere fails the test unless the status, what FromError makes of it, and the denial inside
// where there is one, say the same.
func wantCodeEverywhere(t *testing.T, err error, code guard.Code, phase, requestID string, local bool) {
	t.Helper()
	w := expected(code, phase)
	w.requestID = requestID
	wantWire(t, err, w)
	denied, ok := grpcmw.FromError(err)
	if !ok || denied.Decision.Code != code || denied.Decision.RequestID != requestID || denied.InFlight != (phase == "run") {
		t.Errorf("FromError: %+v, %t", denied, ok)
		return
	}
	if !local && denied.Decision.RetryAfter != max(w.retry, 0) {
		t.Errorf("FromError says %v, the wire %v", denied.Decision.RetryAfter, w.retry)
	}
	if !errors.Is(denied, guard.ErrDenied) || errors.Is(denied, guard.ErrUnavailable) != (code == guard.CodeSystemUnavailable) {
		t.Errorf("%v matches the wrong sentinels", denied)
	}
	if inside := (*guard.DeniedError)(nil); errors.As(err, &inside) != local {
		t.Errorf("%v: a denial inside: %v", err, inside)
	}
}

func TestEveryCodeBeforeTheStart(t *testing.T) {
	for _, code := range everyCode {
		for _, method := range []string{unary, both} {
			t.Run(string(code)+method, func(t *testing.T) {
				a := newAuthority(t)
				a.script.Deny(device, code)
				never := calls{
					unary: func(context.Context, *message) (*message, error) {
						t.Error("called")
						return text(""), nil
					},
					stream: func(grpc.ServerStream) error {
						t.Error("called")
						return nil
					},
				}
				conn := dial(t, serve(t, never, guarded(a, grpcmw.Fixed(device))...))
				wantCodeEverywhere(t, exchange(t.Context(), conn, method), code, "start", "script-1", false)
				conn = dial(t, serve(t, never), guarding(a, grpcmw.Fixed(device))...)
				wantCodeEverywhere(t, exchange(t.Context(), conn, method), code, "start", "script-2", true)
			})
		}
	}
}

// A guard stops on «could not ask» as the answer to its watch's own question (S3), so that the
// interval is short here. Whatever the code: RequestID is that of the answer that stopped the run.
func TestEveryCodeWhileItRuns(t *testing.T) {
	for _, code := range everyCode {
		for _, method := range []string{unary, both} {
			for _, side := range []string{"server", "client"} {
				t.Run(string(code)+method+side, func(t *testing.T) {
					a := newAuthority(t, guard.WithInterval(20*time.Millisecond), guard.WithTimeout(time.Second))
					causes := make(chan error, 1)
					inside := make(chan struct{})
					service := calls{
						unary: func(ctx context.Context, _ *message) (*message, error) {
							close(inside)
							<-ctx.Done()
							causes <- context.Cause(ctx)
							return text("done"), nil
						},
						stream: func(s grpc.ServerStream) error {
							close(inside)
							<-s.Context().Done()
							causes <- context.Cause(s.Context())
							return nil
						},
					}
					from := grpcmw.Fixed(device)
					var conn *grpc.ClientConn
					if side == "server" {
						conn = dial(t, serve(t, service, guarded(a, from)...))
					} else {
						conn = dial(t, serve(t, service), guarding(a, from)...)
					}
					result := later(func() error { return exchange(t.Context(), conn, method) })
					within(t, inside, "the call begins")
					answer := guard.Decision{Code: code, RequestID: "the-one"}
					a.script.Always(device, guardtest.Reply(answer, nil))
					wantCodeEverywhere(t, within(t, result, "the call ends"), code, "run", "the-one", side == "client")
					cause := within(t, causes, "the handler is told")
					if denied, ok := grpcmw.FromError(cause); side == "server" && (!ok || denied.Decision.Code != code || denied.Decision.RequestID != "the-one") {
						t.Errorf("the cause is %v", cause)
					}
				})
			}
		}
	}
}

// The authority's own wish goes before the default, and is sent only where it is an invitation.
func TestRetryAfter(t *testing.T) {
	for _, code := range []guard.Code{guard.CodeSystemUnavailable, guard.CodeDeviceRevoked} {
		a := newAuthority(t)
		a.script.Always(device, guardtest.Reply(guard.Decision{Code: code, RetryAfter: 90 * time.Second}, nil))
		err := exchange(t.Context(), dial(t, serve(t, calls{}, guarded(a, grpcmw.Fixed(device))...)), unary)
		want := expected(code, "start")
		if code == guard.CodeSystemUnavailable {
			want.retry = 90 * time.Second
		}
		wantWire(t, err, want)
		if denied, ok := grpcmw.FromError(err); !ok || denied.Decision.RetryAfter != max(want.retry, 0) {
			t.Errorf("FromError: %+v, %t", denied, ok)
		}
	}
}
