package grpcmw_test

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/execguard/execguard/grpcmw"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

// A client whose calls are made only while its own device is allowed: nothing is sent otherwise.
func ExampleUnaryClient() {
	g, err := guard.New(guard.ValidatorFunc(revoked))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()
	self := grpcmw.Fixed("worker:prod:mailer:01")
	conn, err := grpc.NewClient("localhost:1", // where nobody listens
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithChainUnaryInterceptor(grpcmw.UnaryClient(g, self)),
		grpc.WithChainStreamInterceptor(grpcmw.StreamClient(g, self)),
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close() //nolint:errcheck // the program is over
	_, err = healthpb.NewHealthClient(conn).Check(context.Background(), &healthpb.HealthCheckRequest{})
	fmt.Println(err)
	fmt.Println(errors.Is(err, guard.ErrDenied))
	// Output:
	// rpc error: code = PermissionDenied desc = execguard: DEVICE_REVOKED
	// true
}

// A stream that its server ends, because the client's device is denied while it is open.
func ExampleStreamServer() {
	authority := guardtest.NewValidator("agent:prod:7")
	g, err := guard.New(authority)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()
	s := grpc.NewServer(grpc.ChainStreamInterceptor(grpcmw.StreamServer(g, grpcmw.FromMetadata("x-device"))))
	healthpb.RegisterHealthServer(s, health.NewServer())
	conn, stop, err := start(s)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stop()

	ctx := metadata.AppendToOutgoingContext(context.Background(), "x-device", "agent:prod:7")
	stream, err := healthpb.NewHealthClient(conn).Watch(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		fmt.Println(err)
		return
	}
	update, err := stream.Recv()
	fmt.Println(update.GetStatus(), err)
	authority.Deny("agent:prod:7", guard.CodeDeviceRevoked)
	g.Hint("agent:prod:7") // or within the stop bound, by itself
	_, err = stream.Recv()
	denied, _ := grpcmw.FromError(err)
	fmt.Println(denied.Decision.Code, "- had it begun:", denied.InFlight)
	// Output:
	// SERVING <nil>
	// DEVICE_REVOKED - had it begun: true
}

// Metadata that a proxy in front sets, and lets nobody else set.
func ExampleFromMetadata() {
	from := grpcmw.FromMetadata("x-device")
	_, err := from(context.Background(), "/example.Mailer/Send")
	fmt.Println(err)
	ctx := metadata.NewIncomingContext(context.Background(), metadata.Pairs("x-device", "agent:prod:7"))
	fmt.Println(from(ctx, "/example.Mailer/Send"))
	// Output:
	// grpcmw: no identity: there must be exactly one value of x-device
	// agent:prod:7 <nil>
}
