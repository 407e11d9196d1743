package grpcmw_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/execguard/execguard/grpcmw"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

const (
	device = "worker:prod:mailer:01"
	other  = "worker:prod:mailer:02"

	// patience is how long a test waits for what must happen. Nothing here takes a hundredth of it, and
	// it is far less than the guard's interval: what ends within it was ended by the denial.
	patience = 8 * time.Second
)

// The four kinds of call.
const (
	unary = "/test.Calls/Unary"
	down  = "/test.Calls/Down" // the server streams
	up    = "/test.Calls/Up"   // the client does
	both  = "/test.Calls/Both"
)

func streamDesc(method string) *grpc.StreamDesc {
	return &grpc.StreamDesc{
		StreamName: method[len("/test.Calls/"):], ServerStreams: method == down || method == both, ClientStreams: method == up || method == both,
	}
}

type (
	message       = wrapperspb.StringValue
	unaryHandler  = func(ctx context.Context, in *message) (*message, error)
	streamHandler = func(s grpc.ServerStream) error
)

func text(s string) *message { return wrapperspb.String(s) }

// calls is the service: one handler for unary calls, one for all streams. nil answers.
type calls struct {
	unary  unaryHandler
	stream streamHandler
}

func (c calls) register(s grpc.ServiceRegistrar) {
	if c.unary == nil {
		c.unary = func(_ context.Context, in *message) (*message, error) { return text("re: " + in.GetValue()), nil }
	}
	if c.stream == nil {
		c.stream = echo
	}
	desc := &grpc.ServiceDesc{ServiceName: "test.Calls", HandlerType: (*any)(nil)}
	desc.Methods = []grpc.MethodDesc{{MethodName: "Unary", Handler: c.handleUnary}}
	for _, method := range []string{down, up, both} {
		d := streamDesc(method)
		d.Handler = func(_ any, s grpc.ServerStream) error { return c.stream(s) }
		desc.Streams = append(desc.Streams, *d)
	}
	s.RegisterService(desc, c)
}

// handleUnary is what protoc makes of a method.
func (c calls) handleUnary(srv any, ctx context.Context, dec func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
	in := new(message)
	if err := dec(in); err != nil {
		return nil, err
	}
	handler := func(ctx context.Context, req any) (any, error) { return c.unary(ctx, req.(*message)) }
	if interceptor == nil {
		return handler(ctx, in)
	}
	return interceptor(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: unary}, handler)
}

// echo answers every message until the client has no more.
func echo(s grpc.ServerStream) error {
	for {
		in := new(message)
		if err := s.RecvMsg(in); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := s.SendMsg(text("re: " + in.GetValue())); err != nil {
			return err
		}
	}
}

// authority is a guard and the script that it asks.
type authority struct {
	*guard.Guard

	script *guardtest.Validator
}

func newAuthority(t testing.TB, opts ...guard.Option) authority {
	t.Helper()
	script := guardtest.NewValidator(device, other)
	g, err := guard.New(script, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	return authority{g, script}
}

// deny has the authority deny the device, and the guard know of it when deny returns. It returns the
// request id of the denial.
func (a authority) deny(t testing.TB, id string, code guard.Code) string {
	t.Helper()
	a.script.Deny(id, code)
	d, _ := a.Validate(t.Context(), id)
	if d.Code != code {
		t.Errorf("Validate: %+v, want %s", d, code)
	}
	return d.RequestID
}

// serve runs the service on a socket of this machine until the test ends.
func serve(t testing.TB, c calls, opts ...grpc.ServerOption) (address string) {
	t.Helper()
	l := listen(t)
	s := grpc.NewServer(opts...)
	c.register(s)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		<-done
	})
	return l.Addr().String()
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// guarded is the server's half of the interceptors.
func guarded(r guard.Runner, from grpcmw.DeviceFunc, opts ...grpcmw.Option) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(grpcmw.UnaryServer(r, from, opts...)),
		grpc.ChainStreamInterceptor(grpcmw.StreamServer(r, from, opts...)),
	}
}

// guarding is the client's half.
func guarding(r guard.Runner, from grpcmw.DeviceFunc, opts ...grpcmw.Option) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(grpcmw.UnaryClient(r, from, opts...)),
		grpc.WithChainStreamInterceptor(grpcmw.StreamClient(r, from, opts...)),
	}
}

func dial(t testing.TB, address string, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	opts = append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, opts...)
	conn, err := grpc.NewClient("passthrough:///"+address, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// call makes a unary call.
func call(ctx context.Context, conn *grpc.ClientConn, in string) (string, error) {
	out := new(message)
	err := conn.Invoke(ctx, unary, text(in), out)
	return out.GetValue(), err
}

// open opens a stream.
func open(ctx context.Context, conn *grpc.ClientConn, method string) (grpc.ClientStream, error) {
	return conn.NewStream(ctx, streamDesc(method), method)
}

func mustOpen(t testing.TB, conn *grpc.ClientConn, method string) grpc.ClientStream {
	t.Helper()
	s, err := open(t.Context(), conn, method)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// exchange makes a call of any kind to the service as it is by default, one message in each direction.
func exchange(ctx context.Context, conn *grpc.ClientConn, method string) error {
	if method == unary {
		_, err := call(ctx, conn, "hello")
		return err
	}
	s, err := open(ctx, conn, method)
	if err != nil {
		return err
	}
	return converse(s)
}

func converse(s grpc.ClientStream) error {
	if err := s.SendMsg(text("hello")); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	for {
		if err := s.RecvMsg(new(message)); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// within returns what comes out of c, and fails the test when nothing does.
func within[T any](t testing.TB, c <-chan T, what string) (v T) {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case v = <-c:
	case <-timer.C:
		t.Fatalf("not within %v: %s", patience, what)
	}
	return v
}

// later calls f on a goroutine of its own.
func later[T any](f func() T) <-chan T {
	c := make(chan T, 1)
	go func() { c <- f() }()
	return c
}

// wire is what a status says besides its code.
type wire struct {
	code      codes.Code
	reason    string
	requestID string
	phase     string
	retry     time.Duration // negative: no RetryInfo
}

// read takes a status to pieces.
func read(t testing.TB, err error) wire {
	t.Helper()
	s, ok := status.FromError(err)
	if !ok {
		t.Fatalf("%T is no status: %v", err, err)
	}
	w := wire{code: s.Code(), retry: -1}
	for _, detail := range s.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.GetDomain() != "execguard" || w.reason != "" {
				t.Errorf("an ErrorInfo too many: %v", detail)
			}
			w.reason, w.requestID, w.phase = detail.GetReason(), detail.GetMetadata()["request_id"], detail.GetMetadata()["phase"]
		case *errdetails.RetryInfo:
			w.retry = detail.GetRetryDelay().AsDuration()
		default:
			t.Errorf("a detail of ours? %T %v", detail, detail)
		}
	}
	return w
}

// wantWire fails the test unless the error is a status that says just that.
func wantWire(t testing.TB, err error, want wire) {
	t.Helper()
	if got := read(t, err); got != want {
		t.Errorf("got %+v\nwant %+v\nfrom %v", got, want, err)
	}
}

// next is the request id that the script gives after id.
func next(id string) string {
	var n int
	_, _ = fmt.Sscanf(id, "script-%d", &n)
	return fmt.Sprintf("script-%d", n+1)
}

// uncomparable is an error that == panics on.
type uncomparable []string

func (uncomparable) Error() string { return "of a slice" }

// ownErrors are what a handler may return of its own, denials of somebody else's guard included.
var ownErrors = []error{
	nil, errors.New("plain"), io.EOF, context.Canceled, uncomparable{"a"}, status.Error(codes.NotFound, "none"),
	guard.ErrClosed, &guard.DeniedError{Decision: guard.Decision{Code: guard.CodeDeviceRevoked}, InFlight: true},
	fmt.Errorf("wrapped: %w", guard.ErrUnavailable),
}

func wantSame(t testing.TB, got, want error) {
	t.Helper()
	if slice, ok := want.(uncomparable); ok {
		if other, ok := got.(uncomparable); !ok || &other[0] != &slice[0] {
			t.Errorf("got %v, want %v", got, want)
		}
		return
	}
	if got != want {
		t.Errorf("got %T %v, want the very %T %v", got, got, want, want)
	}
}

// runnerFunc makes a guard.Runner of a function.
type runnerFunc func(ctx context.Context, fn func(ctx context.Context) error) error

func (f runnerFunc) Run(ctx context.Context, _ string, fn func(ctx context.Context) error) error {
	return f(ctx, fn)
}

type oddRunner struct {
	name   string
	runner guard.Runner
	called int
	wire   wire
}

func (o oddRunner) want(t *testing.T, err error, called int) {
	t.Helper()
	if called != o.called {
		t.Errorf("called %d times, want %d", called, o.called)
	}
	wantWire(t, err, o.wire)
	if o.wire.reason == "SYSTEM_UNAVAILABLE" && (!errors.Is(err, guard.ErrUnavailable) || !errors.Is(err, guard.ErrDenied)) {
		t.Errorf("%v does not match ErrUnavailable and ErrDenied", err)
	}
	if errors.Is(err, errOdd) != strings.HasPrefix(o.name, "has an error of its own") {
		t.Errorf("%v and the Runner's own error", err)
	}
	if errors.Is(err, context.Canceled) || strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), "secret") {
		t.Errorf("%#v", err)
	}
}

// errOdd is a Runner's own: to be found in process, and nowhere else.
var errOdd = errors.New("secret")

// oddRunners do what no Guard does; none of it may look like a success, or like work not begun.
var oddRunners = []oddRunner{
	{"returns nil without calling", runnerFunc(func(context.Context, func(context.Context) error) error {
		return nil
	}), 0, wire{codes.Unavailable, "SYSTEM_UNAVAILABLE", "", "start", 5 * time.Second}},
	{"has an error of its own before", runnerFunc(func(context.Context, func(context.Context) error) error {
		return errOdd
	}), 0, wire{codes.Unavailable, "SYSTEM_UNAVAILABLE", "", "start", 5 * time.Second}},
	{"is cancelled by itself", runnerFunc(func(context.Context, func(context.Context) error) error {
		return context.Canceled
	}), 0, wire{codes.Unavailable, "SYSTEM_UNAVAILABLE", "", "start", 5 * time.Second}},
	{"has an error of its own afterwards", runnerFunc(func(ctx context.Context, fn func(context.Context) error) error {
		return errors.Join(fn(ctx), errOdd)
	}), 1, wire{codes.Aborted, "SYSTEM_UNAVAILABLE", "", "run", -1}},
	{"calls again, as Keep does", runnerFunc(func(ctx context.Context, fn func(context.Context) error) error {
		_ = fn(ctx)
		return fn(ctx)
	}), 1, wire{codes.Aborted, "SYSTEM_UNAVAILABLE", "", "run", -1}},
	{"denies, wrapped", runnerFunc(func(context.Context, func(context.Context) error) error {
		return fmt.Errorf("secret: %w", &guard.DeniedError{Decision: guard.Decision{
			Code: guard.CodeSystemUnavailable, RequestID: "r", RetryAfter: time.Minute,
		}})
	}), 0, wire{codes.Unavailable, "SYSTEM_UNAVAILABLE", "r", "start", time.Minute}},
	{"hands on what stopped an outer run", runnerFunc(func(context.Context, func(context.Context) error) error {
		return &guard.DeniedError{Decision: guard.Decision{Code: guard.CodeSystemUnavailable}, InFlight: true}
	}), 0, wire{codes.Aborted, "SYSTEM_UNAVAILABLE", "", "run", -1}},
	{"denies for a reason that was unavailable", runnerFunc(func(context.Context, func(context.Context) error) error {
		denied := &guard.DeniedError{Decision: guard.Decision{Code: guard.CodeDeviceRevoked}}
		return errors.Join(denied, guard.ErrUnavailable)
	}), 0, wire{codes.PermissionDenied, "DEVICE_REVOKED", "", "start", -1}},
	{"denies with words that are ours", runnerFunc(func(context.Context, func(context.Context) error) error {
		return &guard.DeniedError{Decision: guard.Decision{Code: "GUARD_CLOSED"}}
	}), 0, wire{codes.PermissionDenied, "GUARD_CLOSED", "", "start", -1}},
	{"denies with bytes that are no text", runnerFunc(func(context.Context, func(context.Context) error) error {
		return &guard.DeniedError{Decision: guard.Decision{Code: "A\xff", RequestID: "\xfe"}}
	}), 0, wire{codes.PermissionDenied, "A\uFFFD", "\uFFFD", "start", -1}},
}

// withDevice has a call claim to come from a device.
func withDevice(ctx context.Context, id string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "device", id)
}
