package grpcmw_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/execguard/execguard/grpcmw"
	"github.com/execguard/execguard/guard"
)

// mailer is a service with one method, Send, which protoc would have written down.
type mailer struct{}

func (mailer) register(s *grpc.Server) {
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "example.Mailer", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Send", Handler: func(
			srv any, ctx context.Context, dec func(any) error, interceptor grpc.UnaryServerInterceptor,
		) (any, error) {
			in := new(emptypb.Empty)
			if err := dec(in); err != nil {
				return nil, err
			}
			send := func(context.Context, any) (any, error) { return in, nil }
			return interceptor(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: "/example.Mailer/Send"}, send)
		}}},
	}, mailer{})
}

// start serves s on this machine and connects to it.
func start(s *grpc.Server) (conn *grpc.ClientConn, stop func(), err error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	conn, err = grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	return conn, func() {
		_ = conn.Close()
		s.Stop()
		<-done
	}, err
}

// revoked is an authority that has revoked every device.
func revoked(context.Context, string) (guard.Decision, error) {
	return guard.Decision{Code: guard.CodeDeviceRevoked, RequestID: "req-1"}, nil
}

func ExampleUnaryServer() {
	g, err := guard.New(guard.ValidatorFunc(revoked))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()

	this := grpcmw.Fixed("worker:prod:mailer:01")
	s := grpc.NewServer(
		grpc.ChainUnaryInterceptor(grpcmw.UnaryServer(g, this)), // recovery, logging and authentication go before it
		grpc.ChainStreamInterceptor(grpcmw.StreamServer(g, this)),
	)
	mailer{}.register(s)
	conn, stop, err := start(s)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stop()

	err = conn.Invoke(context.Background(), "/example.Mailer/Send", &emptypb.Empty{}, &emptypb.Empty{})
	fmt.Println(err)
	// Output: rpc error: code = PermissionDenied desc = execguard: DEVICE_REVOKED
}

// Calls are left out by composition: here those that a load balancer and a debugger make, which come
// from no device. A selector of go-grpc-middleware does the same.
func ExampleUnaryServer_except() {
	g, err := guard.New(guard.ValidatorFunc(revoked))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()

	unguarded := func(method string) bool {
		return strings.HasPrefix(method, "/grpc.health.v1.Health/") || strings.HasPrefix(method, "/grpc.reflection.")
	}
	this := grpcmw.Fixed("worker:prod:mailer:01")
	unary, stream := grpcmw.UnaryServer(g, this), grpcmw.StreamServer(g, this)
	s := grpc.NewServer(
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			if unguarded(info.FullMethod) {
				return next(ctx, req)
			}
			return unary(ctx, req, info, next)
		}),
		grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			if unguarded(info.FullMethod) {
				return next(srv, ss)
			}
			return stream(srv, ss, info, next)
		}),
	)
	mailer{}.register(s)
	healthpb.RegisterHealthServer(s, health.NewServer())
	conn, stop, err := start(s)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stop()

	h, err := healthpb.NewHealthClient(conn).Check(context.Background(), &healthpb.HealthCheckRequest{})
	fmt.Println(h.GetStatus(), err)
	err = conn.Invoke(context.Background(), "/example.Mailer/Send", &emptypb.Empty{}, &emptypb.Empty{})
	fmt.Println(status.Code(err))
	// Output:
	// SERVING <nil>
	// PermissionDenied
}

func ExampleFromError() {
	g, err := guard.New(guard.ValidatorFunc(revoked))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()
	s := grpc.NewServer(grpc.UnaryInterceptor(grpcmw.UnaryServer(g, grpcmw.Fixed("worker:prod:mailer:01"))))
	mailer{}.register(s)
	conn, stop, err := start(s)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stop()

	err = conn.Invoke(context.Background(), "/example.Mailer/Send", &emptypb.Empty{}, &emptypb.Empty{})
	if denied, ok := grpcmw.FromError(err); ok {
		fmt.Println(denied.Decision.Code, denied.Decision.RequestID, "- had it begun:", denied.InFlight)
		fmt.Println("could the authority be asked:", !errors.Is(denied, guard.ErrUnavailable))
	}
	_, ok := grpcmw.FromError(status.Error(codes.NotFound, "no such mail"))
	fmt.Println(ok)
	// Output:
	// DEVICE_REVOKED req-1 - had it begun: false
	// could the authority be asked: true
	// false
}

// A stream that is guarded on the client's side ends with the denial, whatever the server does.
func ExampleStreamClient() {
	var denies atomic.Bool
	g, err := guard.New(guard.ValidatorFunc(func(ctx context.Context, device string) (guard.Decision, error) {
		if denies.Load() {
			return revoked(ctx, device)
		}
		return guard.Decision{Allowed: true, Code: guard.CodeAllow}, nil
	}))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()

	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, health.NewServer())
	conn, stop, err := start(s)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stop()

	watch := grpcmw.StreamClient(g, grpcmw.Fixed("agent:prod:probe:01"))
	desc := &grpc.StreamDesc{StreamName: "Watch", ServerStreams: true}
	stream, err := watch(context.Background(), desc, conn, "/grpc.health.v1.Health/Watch",
		func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return cc.NewStream(ctx, desc, method, opts...) // grpc.WithChainStreamInterceptor does this for all streams
		})
	if err != nil {
		fmt.Println(err)
		return
	}
	update := new(healthpb.HealthCheckResponse)
	err = errors.Join(stream.SendMsg(&healthpb.HealthCheckRequest{}), stream.CloseSend(), stream.RecvMsg(update))
	fmt.Println(update.GetStatus(), err)

	denies.Store(true)
	_, _ = g.Validate(context.Background(), "agent:prod:probe:01") // or within the stop bound, by itself
	fmt.Println(stream.RecvMsg(update))
	// Output:
	// SERVING <nil>
	// rpc error: code = PermissionDenied desc = execguard: DEVICE_REVOKED
}
