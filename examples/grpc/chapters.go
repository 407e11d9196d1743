package main

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// streamIsEnded: the caller is revoked while the handler waits for its next question.
func (s *story) streamIsEnded(ctx context.Context) error {
	return s.with(caller, func(c *grpc.ClientConn) error {
		if err := s.talkUntilRevoked(ctx, c, caller); err != nil {
			return err
		}
		return s.expectDenial("its handler", s.handlerEnd(ctx), true)
	})
}

// talkUntilRevoked has the device revoked in the middle of a talk, which must end with that.
func (s *story) talkUntilRevoked(ctx context.Context, c *grpc.ClientConn, device string) error {
	talk, err := s.startTalk(ctx, c)
	if err != nil {
		return err
	}
	revoked, err := s.revoke(ctx, device)
	if err != nil {
		return err
	}
	ended := talk.RecvMsg(new(message))
	s.sayf("(ended)", "%v after the revocation", time.Since(revoked).Round(10*time.Microsecond))
	return s.expectDenial("Talk", ended, true)
}

// callIsRefused: what the caller asks is not answered any more. Others, and what nobody guards, are
// as ever.
func (s *story) callIsRefused(ctx context.Context) error {
	for _, call := range []struct {
		what, device string
		call         func(ctx context.Context, c *grpc.ClientConn) error
		want         codes.Code
	}{
		{"Ask", caller, ask, codes.PermissionDenied},
		{"Ask", "nobody", ask, codes.Unauthenticated},
		{"Ask", colleague, ask, codes.OK},
		{"Check", "nobody", checkHealth, codes.OK},
		{"Watch", "nobody", watchHealth, codes.OK},
	} {
		err := s.with(call.device, func(c *grpc.ClientConn) error { return call.call(ctx, c) })
		s.sayf(call.what, "%-16v for %-23s %s", status.Code(err), call.device, status.Convert(err).Message())
		if status.Code(err) != call.want {
			return fmt.Errorf("%v was expected, and not: %w", call.want, err)
		}
		if call.want == codes.PermissionDenied {
			if err := s.expectDenial(call.what, err, false); err != nil {
				return err
			}
		}
	}
	return s.expectAnswers(1)
}

func (s *story) expectAnswers(want int32) error {
	if asked := s.desk.asked.Load(); asked != want {
		return fmt.Errorf("%d questions have reached the desk, and %d should have", asked, want)
	}
	return nil
}

func checkHealth(ctx context.Context, c *grpc.ClientConn) error {
	_, err := grpc_health_v1.NewHealthClient(c).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	return err
}

func watchHealth(ctx context.Context, c *grpc.ClientConn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watch, err := grpc_health_v1.NewHealthClient(c).Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		return err
	}
	_, err = watch.Recv()
	return err
}

// ownCallsAreEnded: the program itself is revoked while it talks. The server has nothing against the
// colleague whose token is shown, and sees a client that has cancelled. The next call is not sent.
func (s *story) ownCallsAreEnded(ctx context.Context) error {
	c, err := guardedConn(s.guard, s.address, s.tokens[colleague])
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // all that it was for is over
	if err := s.talkUntilRevoked(ctx, c, program); err != nil {
		return err
	}
	ended := s.handlerEnd(ctx)
	s.sayf("its handler", "%v", ended)
	if status.Code(ended) != codes.Canceled {
		return fmt.Errorf("a talk that its client has cancelled was expected, and not: %w", ended)
	}
	if err := s.expectDenial("Ask", ask(ctx, c), false); err != nil {
		return err
	}
	return s.expectAnswers(1) // the one before: this was not sent
}
