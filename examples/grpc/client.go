package main

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/execguard/execguard/grpcmw"
	"github.com/execguard/execguard/guard"
)

// guardedConn is all that a client needs: the calls it makes go on only while this program may
// execute, streams included.
func guardedConn(g guard.Runner, address, token string) (*grpc.ClientConn, error) {
	self := grpcmw.Fixed(program)
	return connect(address, token,
		grpc.WithChainUnaryInterceptor(grpcmw.UnaryClient(g, self)),
		grpc.WithChainStreamInterceptor(grpcmw.StreamClient(g, self)),
	)
}

// connect makes a connection whose calls show the token. It does without TLS, on a loopback port.
func connect(address, token string, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	opts = append(opts,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithPerRPCCredentials(bearer(token)),
	)
	return grpc.NewClient(address, opts...)
}

// bearer is the token that every call shows; "" shows none.
type bearer string

// GetRequestMetadata is credentials.PerRPCCredentials'.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	if b == "" {
		return map[string]string{}, nil
	}
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

// RequireTransportSecurity is credentials.PerRPCCredentials'. Beyond a loopback port it should be true.
func (b bearer) RequireTransportSecurity() bool { return false }

// String keeps the token out of what is printed.
func (b bearer) String() string { return "bearer" }

// startTalk begins a talk of a few questions and answers.
func (s *story) startTalk(ctx context.Context, c *grpc.ClientConn) (grpc.ClientStream, error) {
	desc := talkDesc()
	talk, err := c.NewStream(ctx, &desc, methodTalk)
	if err != nil {
		return nil, err
	}
	for _, question := range []string{"one", "two", "three"} {
		answer := new(message)
		if err := errors.Join(talk.SendMsg(wrapperspb.String(question)), talk.RecvMsg(answer)); err != nil {
			return nil, fmt.Errorf("talk: %w", err)
		}
		s.sayf("Talk", "%s? %s", question, answer.GetValue())
	}
	return talk, nil
}

// ask asks one question.
func ask(ctx context.Context, c *grpc.ClientConn) error {
	return c.Invoke(ctx, methodAsk, wrapperspb.String("may I?"), new(message))
}
