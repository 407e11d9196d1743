package grpcmw_test

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/execguard/execguard/grpcmw"
	"github.com/execguard/execguard/guard"
)

// A stream that nobody reads to its end is over when grpc says so, whatever was called before: each of its methods is
// left again.
func TestStreamClientDroppedAfterEachMethod(t *testing.T) {
	fine := func() error { return nil }
	for name, call := range map[string]func(s grpc.ClientStream) error{
		"none":    func(grpc.ClientStream) error { return nil },
		"SendMsg": func(s grpc.ClientStream) error { return s.SendMsg(nil) },
		"RecvMsg": func(s grpc.ClientStream) error { return s.RecvMsg(nil) },
		"Header": func(s grpc.ClientStream) error {
			_, err := s.Header()
			return err
		},
	} {
		over, observe := ends()
		a := newAuthority(t, observe)
		f := &fakeClient{send: fine, recv: fine, header: fine}
		s, err := stream(t.Context(), a, both, f)
		if err != nil {
			t.Fatal(err)
		}
		if err := call(s); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		f.opts[0].(grpc.OnFinishCallOption).OnFinish(nil)
		within(t, over, "the run is over after "+name)
	}
}

// headed is a stream whose server sends a header and is done, all during one call of Header.
type headed struct {
	*fakeClient
}

func (h headed) Header() (metadata.MD, error) {
	h.opts[0].(grpc.OnFinishCallOption).OnFinish(nil)
	return metadata.Pairs("k", "v"), nil
}

func (h headed) streamer(
	ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	_, err := h.fakeClient.streamer(ctx, desc, conn, method, opts...)
	return h, err
}

// Where the whole answer has come while the caller asked for its header, there are messages that are not handed on yet:
// the run goes on, and a denial withholds them.
func TestHeaderOfAStreamThatIsDone(t *testing.T) {
	a := newAuthority(t)
	f := &fakeClient{recv: func() error { return nil }}
	s, err := grpcmw.StreamClient(a, grpcmw.Fixed(device))(t.Context(), streamDesc(both), nil, both, headed{f}.streamer)
	if err != nil {
		t.Fatal(err)
	}
	if md, err := s.Header(); err != nil || len(md.Get("k")) != 1 {
		t.Fatalf("%v, %v", md, err)
	}
	id := a.deny(t, device, guard.CodeDeviceRevoked)
	wantDenial(t, s.RecvMsg(nil), guard.CodeDeviceRevoked, id)
}

// finishing is what a call inside comes to during which grpc says that the try is over, and whose own result is no end.
func (f *fakeClient) finishing() error {
	f.opts[0].(grpc.OnFinishCallOption).OnFinish(status.Error(codes.Canceled, "grpc: the client connection is closing"))
	return nil
}

// A try that ends during a call of the caller's ends the run only where the connection was closed: otherwise something
// inside may try again, and a denial still counts.
func TestStreamClientTryThatEndsDuringACall(t *testing.T) {
	for name, call := range map[string]func(s grpc.ClientStream) error{
		"SendMsg": func(s grpc.ClientStream) error { return s.SendMsg(nil) },
		"RecvMsg": func(s grpc.ClientStream) error { return s.RecvMsg(nil) },
	} {
		for where, conn := range map[string]*grpc.ClientConn{"closed": dial(t, "127.0.0.1:1"), "open": dial(t, "127.0.0.1:1"), "none": nil} {
			if where == "closed" {
				_ = conn.Close()
			}
			over, observe := ends()
			a := newAuthority(t, observe)
			fine := func() error { return nil }
			f := &fakeClient{send: fine, recv: fine}
			s, err := grpcmw.StreamClient(a, grpcmw.Fixed(device))(t.Context(), streamDesc(both), conn, both, f.streamer)
			if err != nil {
				t.Fatal(err)
			}
			before := call(s) // which is no end, whatever became of the connection
			f.send, f.recv = f.finishing, f.finishing
			if err := errors.Join(before, call(s)); err != nil {
				t.Errorf("%s, %s: %v", name, where, err)
			}
			if where == "closed" {
				if e := within(t, over, "the run is over after "+name); status.Code(e.Err) != codes.Canceled {
					t.Errorf("%s: the run came to %v", name, e.Err)
				}
				continue
			}
			id := a.deny(t, device, guard.CodeDeviceRevoked)
			wantDenial(t, s.RecvMsg(nil), guard.CodeDeviceRevoked, id)
		}
	}
}

// trailing is a stream that has a trailer.
type trailing struct {
	grpc.ClientStream
}

func (trailing) Trailer() metadata.MD { return metadata.Pairs("k", "v") }

// The trailer is grpc's, until the device is denied.
func TestStreamClientTrailer(t *testing.T) {
	a := newAuthority(t)
	s, err := grpcmw.StreamClient(a, grpcmw.Fixed(device))(t.Context(), streamDesc(both), nil, both,
		func(context.Context, *grpc.StreamDesc, *grpc.ClientConn, string, ...grpc.CallOption) (grpc.ClientStream, error) {
			return trailing{}, nil
		})
	if err != nil {
		t.Fatal(err)
	}
	if md := s.Trailer(); len(md.Get("k")) != 1 {
		t.Errorf("trailer = %v", md)
	}
	a.deny(t, device, guard.CodeDeviceRevoked)
	if md := s.Trailer(); md != nil {
		t.Errorf("after the denial: %v", md)
	}
}
