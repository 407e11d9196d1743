package grpcmw_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/execguard/execguard/grpcmw"
	"github.com/execguard/execguard/guard"
)

// reported is what a panic report was given.
type reported struct {
	ctx    context.Context
	method string
	value  any
	stack  string
}

func reports() (<-chan reported, grpcmw.Option) {
	c := make(chan reported, 8)
	return c, grpcmw.WithPanicReport(func(ctx context.Context, method string, value any, stack []byte) {
		c <- reported{ctx, method, value, string(stack)}
	})
}

// explode is a handler that can be found in a stack.
func explode(value any) { panic(value) }

// secretive is a panic value with something in it.
type secretive struct{ Token string }

// recovered calls f and returns what it panics with.
func recovered(f func()) (value any) {
	defer func() { value = recover() }()
	f()
	return nil
}

// A panic comes to the interceptors outside with the very value that it had, and its stack to the report.
func TestStreamServerRaisesPanicsAgain(t *testing.T) {
	a := newAuthority(t)
	type key struct{}
	ctx := context.WithValue(t.Context(), key{}, "the call's")
	for _, value := range []any{"text", 7, errors.New("error"), &secretive{"secret"}, uncomparable{"a"}} {
		c, report := reports()
		got := recovered(func() {
			_ = handle(ctx, a, grpcmw.Fixed(device), func(any, grpc.ServerStream) error {
				explode(value)
				return nil
			}, report)
		})
		if slice, ok := value.(uncomparable); ok {
			wantSame(t, got.(error), slice)
		} else if got != value {
			t.Errorf("raised %v, want %v", got, value)
		}
		r := within(t, c, "the panic is reported")
		if fmt.Sprint(r.value) != fmt.Sprint(value) || r.method != both || r.ctx.Value(key{}) != "the call's" || !strings.Contains(r.stack, "grpcmw_test.explode") {
			t.Errorf("reported %v of %s, %s", r.value, r.method, r.stack)
		}
	}
}

// A recovery interceptor outside makes a status of it, over a real connection, and the server lives on.
func TestPanicsWithARecoveryInterceptor(t *testing.T) {
	a := newAuthority(t)
	c, report := reports()
	recovery := errors.New("recovered")
	turn := func(err *error) {
		if recover() != nil {
			*err = status.Error(codes.Internal, recovery.Error())
		}
	}
	address := serve(t, calls{
		unary:  func(context.Context, *message) (*message, error) { panic("unary") },
		stream: func(grpc.ServerStream) error { panic("stream") },
	}, grpc.ChainUnaryInterceptor(
		func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (_ any, err error) {
			defer turn(&err)
			return h(ctx, req)
		}, grpcmw.UnaryServer(a, grpcmw.Fixed(device), report),
	), grpc.ChainStreamInterceptor(
		func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) (err error) {
			defer turn(&err)
			return h(srv, ss)
		}, grpcmw.StreamServer(a, grpcmw.Fixed(device), report),
	))
	conn := dial(t, address)
	for _, method := range []string{unary, down, up, both} {
		err := exchange(t.Context(), conn, method)
		if status.Code(err) != codes.Internal || status.Convert(err).Message() != "recovered" {
			t.Errorf("%s: %v", method, err)
		}
		if method != unary { // which goes on unwinding where it began
			within(t, c, "the panic is reported")
		}
	}
	if len(c) > 0 {
		t.Errorf("reported besides: %v", <-c)
	}
}

// leaveThen makes a stream whose interceptor has returned with the denial, and lets the handler go on with last.
func leaveThen(t *testing.T, last func(), opts ...grpcmw.Option) (over <-chan struct{}) {
	t.Helper()
	stopped := make(chan struct{})
	a := newAuthority(t, guard.WithObserver(func(_ context.Context, e guard.Event) {
		if e.Kind == guard.EventStopped {
			close(stopped)
		}
	}))
	inside, release := make(chan struct{}), make(chan struct{})
	result := later(func() error {
		return handle(t.Context(), a, grpcmw.Fixed(device), func(any, grpc.ServerStream) error {
			close(inside)
			<-release
			last()
			return nil
		}, opts...)
	})
	within(t, inside, "the handler is called")
	id := a.deny(t, device, guard.CodeDeviceRevoked)
	wantDenial(t, within(t, result, "the interceptor returns"), guard.CodeDeviceRevoked, id)
	close(release)
	return stopped
}

// When the interceptor has returned there is nobody to raise it for: it is reported, and swallowed.
func TestStreamServerReportsLatePanics(t *testing.T) {
	c, report := reports()
	over := leaveThen(t, func() { explode("late") }, report)
	r := within(t, c, "the panic is reported")
	if r.value != "late" || r.method != both || !strings.Contains(r.stack, "grpcmw_test.explode") {
		t.Errorf("reported %v of %s, %s", r.value, r.method, r.stack)
	}
	within(t, over, "the run is over")
}

// A report that panics itself ends nothing either, and runtime.Goexit is no panic.
func TestStreamServerLateEndsAreQuiet(t *testing.T) {
	called := make(chan struct{}, 2)
	within(t, leaveThen(t, func() { explode("late") }, grpcmw.WithPanicReport(func(context.Context, string, any, []byte) {
		called <- struct{}{}
		explode("again")
	})), "the run is over")
	within(t, called, "the panic is reported")
	within(t, leaveThen(t, runtime.Goexit, grpcmw.WithPanicReport(func(context.Context, string, any, []byte) {
		t.Error("Goexit was reported")
	})), "the run is over")
}

// runtime.Goexit, which is what t.FailNow calls, ends the interceptor's goroutine as it would without a guard.
func TestStreamServerGoesOnExiting(t *testing.T) {
	a := newAuthority(t)
	exited := make(chan bool, 1)
	go func() {
		returned := false
		defer func() { exited <- !returned && recover() == nil }()
		_ = handle(t.Context(), a, grpcmw.Fixed(device), func(any, grpc.ServerStream) error {
			runtime.Goexit()
			return nil
		})
		returned = true
	}()
	if !within(t, exited, "the goroutine ends") {
		t.Error("it returned or panicked")
	}
}

// The run is over when a panic passes, so that the device is not watched on behalf of nobody.
func TestPanicsEndTheRun(t *testing.T) {
	a := newAuthority(t)
	explodes := func(any, grpc.ServerStream) error { panic("x") }
	_ = recovered(func() { _ = handle(t.Context(), a, grpcmw.Fixed(device), explodes) })
	_ = recovered(func() {
		_, _ = grpcmw.UnaryServer(a, grpcmw.Fixed(device))(t.Context(), nil, &grpc.UnaryServerInfo{}, func(context.Context, any) (any, error) {
			panic("y")
		})
	})
	if err := a.Shutdown(t.Context()); err != nil {
		t.Errorf("runs are left: %v", err)
	}
}

// logged collects grpc's log.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// S8: without a report, grpc's log has the stack and the runtime's own words, and no value of anybody's.
func TestPanicsInTheLog(t *testing.T) {
	a := newAuthority(t)
	before := len(grpcLog.String())
	none := map[string]int(nil)
	for want, f := range map[string]func(){
		"*grpcmw_test.secretive":         func() { explode(&secretive{"secret"}) },
		"panicked: string":               func() { explode("secret") },
		"assignment to entry in nil map": func() { none["secret"] = 1 },
		"interface conversion":           func() { _ = any(t).(error) },
	} {
		_ = recovered(func() {
			_ = handle(t.Context(), a, grpcmw.Fixed(device), func(any, grpc.ServerStream) error {
				f()
				return nil
			})
		})
		if got := grpcLog.String()[before:]; !strings.Contains(got, want) || !strings.Contains(got, both) || !strings.Contains(got, "panic_test.go") {
			t.Errorf("%s is not in the log:\n%s", want, got)
		}
	}
	if got := grpcLog.String()[before:]; strings.Contains(got, "secret\"") || strings.Contains(got, ": secret") {
		t.Errorf("a secret in the log:\n%s", got)
	}
}
