package grpcmw_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/execguard/execguard/grpcmw"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

// TestEveryKindOfCall is the plain case: allowed calls of every kind pass, guarded on both sides, and when
// the device is denied none does, whichever side is guarded.
func TestEveryKindOfCall(t *testing.T) {
	for _, method := range []string{unary, down, up, both} {
		t.Run(method, func(t *testing.T) {
			server, client := newAuthority(t), newAuthority(t)
			address := serve(t, calls{}, guarded(server, grpcmw.Fixed(device))...)
			conn := dial(t, address, guarding(client, grpcmw.Fixed(device))...)
			if err := exchange(t.Context(), conn, method); err != nil {
				t.Fatal(err)
			}
			id := server.deny(t, device, guard.CodeDeviceRevoked)
			wantWire(t, exchange(t.Context(), conn, method), wire{codes.PermissionDenied, "DEVICE_REVOKED", next(id), "start", -1})
			server.script.Allow(device)
			id = client.deny(t, device, guard.CodeDeviceNotFound)
			wantWire(t, exchange(t.Context(), conn, method), wire{codes.PermissionDenied, "DEVICE_NOT_FOUND", next(id), "start", -1})
		})
	}
}

// respond calls the interceptor itself.
func respond(ctx context.Context, r guard.Runner, from grpcmw.DeviceFunc, h grpc.UnaryHandler) (any, error) {
	return grpcmw.UnaryServer(r, from)(ctx, text("in"), &grpc.UnaryServerInfo{FullMethod: unary}, h)
}

// What the handler returns is handed on as it is, the very same, the answer beside an error included.
func TestUnaryServerHandsOnTheVerySame(t *testing.T) {
	a := newAuthority(t)
	for _, own := range ownErrors {
		resp, err := respond(t.Context(), a, grpcmw.Fixed(device), func(_ context.Context, req any) (any, error) { return req, own })
		wantSame(t, err, own)
		if m, ok := resp.(*message); !ok || m.GetValue() != "in" {
			t.Errorf("beside %v: %v", own, resp)
		}
	}
}

func TestUnaryServerOddRunners(t *testing.T) {
	for _, o := range oddRunners {
		t.Run(o.name, func(t *testing.T) {
			called := 0
			resp, err := respond(t.Context(), o.runner, grpcmw.Fixed(device), func(context.Context, any) (any, error) {
				called++
				return text("out"), nil
			})
			o.want(t, err, called)
			if resp != nil {
				t.Errorf("an answer: %v", resp)
			}
		})
	}
}

// A Runner that loses the work's error makes no success of it.
func TestRunnersThatLoseErrors(t *testing.T) {
	lossy := runnerFunc(func(ctx context.Context, fn func(context.Context) error) error {
		_ = fn(ctx)
		return nil
	})
	own := errors.New("own")
	_, err := respond(t.Context(), lossy, grpcmw.Fixed(device), func(context.Context, any) (any, error) { return text("out"), own })
	for _, err := range []error{
		err,
		handle(t.Context(), lossy, grpcmw.Fixed(device), func(any, grpc.ServerStream) error { return own }),
		invoke(t.Context(), lossy, grpcmw.Fixed(device), func(context.Context) error { return own }),
	} {
		wantWire(t, err, wire{codes.Aborted, "SYSTEM_UNAVAILABLE", "", "run", -1})
	}
}

// A denial is one also where the caller has gone in the meantime.
func TestDeniedAndGone(t *testing.T) {
	ctx, leave := context.WithCancel(t.Context())
	denies := runnerFunc(func(context.Context, func(context.Context) error) error {
		leave()
		return &guard.DeniedError{Decision: guard.Decision{Code: guard.CodeDeviceRevoked}}
	})
	_, err := respond(ctx, denies, grpcmw.Fixed(device), func(context.Context, any) (any, error) { return text("out"), nil })
	wantWire(t, err, wire{codes.PermissionDenied, "DEVICE_REVOKED", "", "start", -1})
}

// Work that was cut short must never look finished, whatever the handler makes of it.
func TestUnaryServerDeniedWhileItRuns(t *testing.T) {
	own := errors.New("could not finish")
	for name, end := range map[string]func(ctx context.Context) error{
		"obeys":                func(ctx context.Context) error { return ctx.Err() },
		"returns the cause":    context.Cause,
		"returns a status":     func(ctx context.Context) error { return status.FromContextError(ctx.Err()).Err() },
		"has a word to say":    func(context.Context) error { return own },
		"pretends to be ready": func(context.Context) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			a := newAuthority(t)
			inside, outer := make(chan struct{}), make(chan error, 1)
			address := serve(t, calls{unary: func(ctx context.Context, _ *message) (*message, error) {
				close(inside)
				<-ctx.Done()
				if denied, ok := grpcmw.FromError(context.Cause(ctx)); !ok || !denied.InFlight {
					t.Errorf("the cause is %v", context.Cause(ctx))
				}
				return text("half done"), end(ctx)
			}}, grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
				resp, err := h(ctx, req)
				outer <- err
				return resp, err
			}, grpcmw.UnaryServer(a, grpcmw.Fixed(device))))
			conn := dial(t, address)
			client := later(func() error {
				_, err := call(t.Context(), conn, "hello")
				return err
			})
			within(t, inside, "the handler is called")
			id := a.deny(t, device, guard.CodeDeviceRevoked)
			wantWire(t, within(t, client, "the client has its status"), wire{codes.PermissionDenied, "DEVICE_REVOKED", id, "run", -1})
			err := within(t, outer, "the interceptor returns")
			wantDenial(t, err, guard.CodeDeviceRevoked, id)
			if errors.Is(err, own) != (name == "has a word to say") {
				t.Errorf("%v and the handler's own error", err)
			}
		})
	}
}

// Retry policies replay what is answered Unavailable: so that is said before the start only.
func TestRetryPoliciesReplayOnlyWhatHasNotBegun(t *testing.T) {
	const policy = `{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 3, "initialBackoff": "0.001s",
		"maxBackoff": "0.001s", "backoffMultiplier": 1, "retryableStatusCodes": ["UNAVAILABLE"]}}]}`
	a := newAuthority(t, guard.WithInterval(20*time.Millisecond), guard.WithTimeout(time.Second))
	var begun atomic.Int32
	var cut atomic.Bool
	cut.Store(true)
	address := serve(t, calls{unary: func(ctx context.Context, _ *message) (*message, error) {
		begun.Add(1)
		if cut.Load() {
			a.script.Deny(device, guard.CodeSystemUnavailable)
			<-ctx.Done() // at the next question of the watch (S3)
		}
		return text("done"), nil
	}}, guarded(a, grpcmw.Fixed(device))...)
	conn := dial(t, address, grpc.WithDefaultServiceConfig(policy))

	_, err := call(t.Context(), conn, "hello")
	if w := read(t, err); begun.Load() != 1 || w.code != codes.Aborted || w.reason != "SYSTEM_UNAVAILABLE" || w.phase != "run" || w.retry >= 0 {
		t.Errorf("begun %d times: %+v", begun.Load(), w)
	}
	begun.Store(0)
	cut.Store(false)
	a.script.Allow(device)
	a.script.Next(device, guardtest.Reply(guard.Decision{}, errors.New("one outage"))) // and the next try is allowed
	if _, err := call(t.Context(), conn, "hello"); err != nil || begun.Load() != 1 {
		t.Errorf("begun %d times: %v", begun.Load(), err)
	}
}

// The caller's end before the start is the caller's, and not a denial; neither is a deadline's.
func TestUnaryServerCallerLeavesBeforeTheStart(t *testing.T) {
	a := newAuthority(t)
	a.script.Always(device, guardtest.Hang())
	never := func(context.Context, any) (any, error) {
		t.Error("called")
		return text(""), nil
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("secret"))
	_, err := respond(ctx, a, grpcmw.Fixed(device), never)
	wantWire(t, err, wire{code: codes.Canceled, retry: -1})
	if status.Convert(err).Message() != context.Canceled.Error() {
		t.Errorf("another word: %v", err)
	}
	short, done := context.WithTimeout(t.Context(), time.Millisecond)
	defer done()
	_, err = respond(short, a, grpcmw.Fixed(device), never)
	wantWire(t, err, wire{code: codes.DeadlineExceeded, retry: -1})
}

// Where an outer run's stop ended the caller's context, that is the answer, and its work had begun.
func TestUnaryServerInsideAStoppedRun(t *testing.T) {
	a, b := newAuthority(t), newAuthority(t)
	for name, from := range map[string]grpcmw.DeviceFunc{
		"known":   grpcmw.Fixed(other),
		"unknown": func(ctx context.Context, _ string) (string, error) { return "", ctx.Err() },
	} {
		a.script.Allow(device)
		var id string
		_ = a.Run(t.Context(), device, func(ctx context.Context) error {
			id = a.deny(t, device, guard.CodeDeviceRevoked)
			_, err := respond(ctx, b, from, func(context.Context, any) (any, error) { return text(""), nil })
			wantWire(t, err, wire{codes.PermissionDenied, "DEVICE_REVOKED", id, "run", -1})
			wantDenial(t, err, guard.CodeDeviceRevoked, id)
			if t.Failed() {
				t.Log(name)
			}
			return nil
		})
	}
	_ = a.Run(t.Context(), other, func(ctx context.Context) error {
		_ = a.Close()
		_, err := respond(ctx, b, grpcmw.Fixed(other), func(context.Context, any) (any, error) { return text(""), nil })
		wantWire(t, err, wire{codes.Aborted, "GUARD_CLOSED", "", "run", -1})
		if !errors.Is(err, guard.ErrClosed) {
			t.Errorf("%v does not match ErrClosed", err)
		}
		return nil
	})
}

// S7, before the start: callers that wait get the answer at once, and may try again elsewhere.
func TestUnaryServerClosed(t *testing.T) {
	a := newAuthority(t)
	a.script.Always(device, guardtest.Hang())
	address := serve(t, calls{}, guarded(a, grpcmw.Fixed(device))...)
	conn := dial(t, address)
	waiting := later(func() error { return exchange(t.Context(), conn, unary) })
	if _, err := a.script.Wait(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	_ = a.Close()
	closed := wire{codes.Unavailable, "GUARD_CLOSED", "", "start", 5 * time.Second}
	err := within(t, waiting, "who waits is told")
	wantWire(t, err, closed)
	wantWire(t, exchange(t.Context(), conn, unary), closed)
	if _, ok := grpcmw.FromError(err); ok {
		t.Error("a closed guard is a denial")
	}
}

// A guarded call costs three allocations: the run, and the function with what it changes.
func TestUnaryServerAllocations(t *testing.T) {
	a := newAuthority(t, guard.WithReuse(10*time.Second))
	guarded := grpcmw.UnaryServer(a, grpcmw.Fixed(device))
	ctx, in, info := t.Context(), text("in"), &grpc.UnaryServerInfo{FullMethod: unary}
	handler := func(_ context.Context, req any) (any, error) { return req, nil }
	if _, err := guarded(ctx, in, info, handler); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = guarded(ctx, in, info, handler) }); n > 3 {
		t.Errorf("%v allocations", n)
	}
}

// A wiring mistake is found when the program starts.
func TestMistakes(t *testing.T) {
	a := newAuthority(t)
	from := grpcmw.Fixed(device)
	for want, f := range map[string]func(){
		"grpcmw: UnaryServer: the Runner is nil":       func() { grpcmw.UnaryServer(nil, from) },
		"grpcmw: StreamServer: the Runner is nil":      func() { grpcmw.StreamServer((*guard.Guard)(nil), from) },
		"grpcmw: UnaryClient: the Runner is nil":       func() { grpcmw.UnaryClient(runnerFunc(nil), from) },
		"grpcmw: StreamClient: the Runner is nil":      func() { grpcmw.StreamClient(nil, from) },
		"grpcmw: UnaryServer: the DeviceFunc is nil":   func() { grpcmw.UnaryServer(a, nil) },
		"grpcmw: StreamServer: the DeviceFunc is nil":  func() { grpcmw.StreamServer(a, nil) },
		"grpcmw: UnaryClient: the DeviceFunc is nil":   func() { grpcmw.UnaryClient(a, nil) },
		"grpcmw: StreamClient: the DeviceFunc is nil":  func() { grpcmw.StreamClient(a, nil) },
		"grpcmw: UnaryServer: an Option is nil":        func() { grpcmw.UnaryServer(a, from, nil) },
		"grpcmw: StreamClient: an Option is nil":       func() { grpcmw.StreamClient(a, from, nil) },
		"grpcmw: WithPanicReport: the function is nil": func() { grpcmw.WithPanicReport(nil) },
		"grpcmw: FromBearer: the function is nil":      func() { grpcmw.FromBearer(nil) },
		"grpcmw: FromMetadata: the key is blank":       func() { grpcmw.FromMetadata(" ") },
	} {
		if err, ok := recovered(f).(error); !ok || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
