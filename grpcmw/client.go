package grpcmw

import (
	"context"

	"google.golang.org/grpc"

	"github.com/execguard/execguard/guard"
)

// UnaryClient returns an interceptor that makes a call only under r, for the device that it stands
// for, and cancels it when the device is denied. The error is the denial then, with the status that a
// server would answer with, and not grpc's «context canceled». What the server answers is handed on
// unchanged. Calls of a Guard's own Validator pass unguarded (guard.Validating). UnaryClient panics if
// r, device or an option is nil.
func UnaryClient(r guard.Runner, device DeviceFunc, opts ...Option) grpc.UnaryClientInterceptor {
	c := newConfig("UnaryClient", r, device, opts)
	return func(
		ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption,
	) error {
		if guard.Validating(ctx) {
			return invoker(ctx, method, req, reply, cc, opts...)
		}
		id, err := c.device(ctx, method)
		if err != nil {
			return unidentified(ctx, err)
		}
		var u call
		err = c.runner.Run(ctx, id, func(ctx context.Context) error {
			if err := u.begin(); err != nil {
				return err
			}
			u.work = invoker(ctx, method, req, reply, cc, opts...)
			return u.work
		})
		return uncanceled(ctx, u.outcome(ctx, err))
	}
}
