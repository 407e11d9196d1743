package grpcmw_test

import (
	"io"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc/grpclog"
)

// grpcLog is where grpc's errors go: it may be told so only before anything else.
var grpcLog logged

func TestMain(m *testing.M) {
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, &grpcLog))
	goleak.VerifyTestMain(m)
}
