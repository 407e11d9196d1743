package grpcmw

import (
	"context"

	"google.golang.org/grpc"

	"github.com/execguard/execguard/guard"
)

// UnaryServer returns an interceptor that calls the handler under r, for the device that the call
// comes from. The handler's context is the run's: it ends when the device is denied, with the denial
// as its cause. The interceptor returns when the handler does, and then the denial, whatever the
// handler made of it. What a handler returns that was not denied is handed on unchanged, and so is a
// panic. UnaryServer panics if r, device or an option is nil.
func UnaryServer(r guard.Runner, device DeviceFunc, opts ...Option) grpc.UnaryServerInterceptor {
	c := newConfig("UnaryServer", r, device, opts)
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		id, err := c.device(ctx, info.FullMethod)
		if err != nil {
			return nil, unidentified(ctx, err)
		}
		var u struct { // one allocation for all that the function changes
			call
			resp any
		}
		err = c.runner.Run(ctx, id, func(ctx context.Context) error {
			if err := u.begin(); err != nil {
				return err
			}
			u.resp, u.work = handler(ctx, req)
			return u.work
		})
		if u.called && same(err, u.work) {
			return u.resp, err
		}
		return nil, u.outcome(ctx, err)
	}
}
