package main

import (
	"context"
	"net"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/execguard/execguard/grpcmw"
	"github.com/execguard/execguard/guard"
)

// newServer is all that a server needs: its calls go on only while their caller's device may
// execute, streams included. Health checks are for everybody.
func newServer(g guard.Runner, tokens owners) *grpc.Server {
	device := grpcmw.FromBearer(tokens.owner)
	return grpc.NewServer(
		grpc.ChainUnaryInterceptor(selectUnary(notHealth, grpcmw.UnaryServer(g, device))),
		grpc.ChainStreamInterceptor(selectStream(notHealth, grpcmw.StreamServer(g, device))),
	)
}

func notHealth(fullMethod string) bool {
	return !strings.HasPrefix(fullMethod, "/grpc.health.v1.Health/")
}

// selectUnary has an interceptor see only some of the calls. That is all there is to leaving
// others out; the selector of go-grpc-middleware does the same.
func selectUnary(selected func(fullMethod string) bool, inner grpc.UnaryServerInterceptor) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if !selected(info.FullMethod) {
			return handler(ctx, req)
		}
		return inner(ctx, req, info, handler)
	}
}

// selectStream is selectUnary for streams. A health check can be one: Watch.
func selectStream(selected func(fullMethod string) bool, inner grpc.StreamServerInterceptor) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		if !selected(info.FullMethod) {
			return handler(srv, stream)
		}
		return inner(srv, stream, info, handler)
	}
}

// serve serves the desk and its health on a loopback port, where address says, until stop is called.
func serve(ctx context.Context, server *grpc.Server, d *desk) (address string, stop func() error, err error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	d.register(server)
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	return listener.Addr().String(), func() error {
		server.Stop() // every call is over by now, or ends with its connection
		return <-served
	}, nil
}
