package main

import (
	"context"
	"crypto/rand"
	"errors"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The methods of the service, as interceptors see them.
const (
	methodAsk  = "/demo.Desk/Ask"
	methodTalk = "/demo.Desk/Talk"
)

// message is what both methods take and give, made for the purpose that nothing has to be compiled.
type message = wrapperspb.StringValue

// desk is what is served: a question has one answer, a talk has many. It knows nothing of guards.
type desk struct {
	asked atomic.Int32 // questions that were answered
	talks chan error   // how each talk has ended, as its handler saw it
}

func newDesk() *desk { return &desk{talks: make(chan error, 8)} }

// ask answers a question.
func (d *desk) ask(in *message) *message {
	d.asked.Add(1)
	return wrapperspb.String("yes, " + in.GetValue())
}

// talk answers until the other side ends it. Between two questions it is blocked in RecvMsg, where
// no context reaches it: only the stream's end does.
func (d *desk) talk(s grpc.ServerStream) (err error) {
	defer func() { d.talks <- err }()
	for {
		in := new(message)
		if err := s.RecvMsg(in); err != nil {
			return err
		}
		if err := s.SendMsg(wrapperspb.String("yes, " + in.GetValue())); err != nil {
			return err
		}
	}
}

// talkDesc describes the stream to both sides.
func talkDesc() grpc.StreamDesc {
	return grpc.StreamDesc{StreamName: "Talk", ServerStreams: true, ClientStreams: true}
}

// register does what a .proto file and its compiler do otherwise.
func (d *desk) register(s grpc.ServiceRegistrar) {
	talk := talkDesc()
	talk.Handler = func(_ any, s grpc.ServerStream) error { return d.talk(s) }
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "demo.Desk",
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Ask", Handler: d.handleAsk}},
		Streams:     []grpc.StreamDesc{talk},
	}, d)
}

// handleAsk is called by grpc for each question.
//
//nolint:revive // the order of the arguments is grpc's
func (d *desk) handleAsk(srv any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
	in := new(message)
	if err := decode(in); err != nil {
		return nil, err
	}
	handler := func(context.Context, any) (any, error) { return d.ask(in), nil }
	if interceptor == nil {
		return handler(ctx, in)
	}
	return interceptor(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: methodAsk}, handler)
}

// owners is who was given which token: token → device.
type owners map[string]string

// give makes a token for a device.
func (o owners) give(device string) (token string) {
	token = rand.Text()
	o[token] = device
	return token
}

// owner says whose a token is. A token that is known to nobody is no identity.
func (o owners) owner(_ context.Context, token string) (deviceID string, err error) {
	if device, ok := o[token]; ok {
		return device, nil
	}
	return "", errors.New("nobody was given this token")
}
