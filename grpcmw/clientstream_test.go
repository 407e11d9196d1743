package grpcmw_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/execguard/execguard/grpcmw"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

// ends tells of every run that ends, denied or not.
func ends() (<-chan guard.Event, guard.Option) {
	c := make(chan guard.Event, 16)
	return c, guard.WithObserver(func(_ context.Context, e guard.Event) {
		if e.Kind == guard.EventFinished || e.Kind == guard.EventStopped {
			c <- e
		}
	})
}

// waitForever is a handler that has nothing to say.
func waitForever(s grpc.ServerStream) error {
	<-s.Context().Done()
	return s.Context().Err()
}

// A client that sits in any of a stream's methods is released, and gets the denial, not grpc's bare
// «context canceled»; and so does every method afterwards.
func TestStreamClientReleases(t *testing.T) {
	big := text(strings.Repeat("x", 1<<16))
	for name, sit := range map[string]func(s grpc.ClientStream) error{
		"RecvMsg": func(s grpc.ClientStream) error { return s.RecvMsg(new(message)) },
		"SendMsg": func(s grpc.ClientStream) (err error) {
			for err == nil {
				err = s.SendMsg(big)
			}
			return err
		},
		"Header": func(s grpc.ClientStream) error {
			md, err := s.Header()
			if md != nil {
				t.Errorf("a header: %v", md)
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			over, observe := ends()
			a := newAuthority(t, observe)
			inside, gone := make(chan struct{}), make(chan struct{})
			address := serve(t, calls{stream: func(s grpc.ServerStream) error {
				close(inside)
				defer close(gone)
				return waitForever(s)
			}})
			s := mustOpen(t, dial(t, address, guarding(a, grpcmw.Fixed(device))...), both)
			within(t, inside, "the server is called")
			result := later(func() error { return sit(s) })
			id := a.deny(t, device, guard.CodeDeviceRevoked)
			err := within(t, result, "the client is released")
			wantDenial(t, err, guard.CodeDeviceRevoked, id)
			wantWire(t, err, wire{codes.PermissionDenied, "DEVICE_REVOKED", id, "run", -1})
			_, header := s.Header()
			for _, err := range []error{s.RecvMsg(new(message)), s.SendMsg(text("late")), s.CloseSend(), header} {
				wantDenial(t, err, guard.CodeDeviceRevoked, id)
			}
			if e := within(t, over, "the run is over"); e.Kind != guard.EventStopped {
				t.Errorf("%v", e.Kind)
			}
			within(t, gone, "the server's context ends")
		})
	}
}

// What has come but was not received before the denial does not reach the caller.
func TestStreamClientReceivesNothingAfterADenial(t *testing.T) {
	a := newAuthority(t)
	sent := make(chan struct{})
	address := serve(t, calls{stream: func(s grpc.ServerStream) error {
		for range 3 {
			if err := s.SendMsg(text("x")); err != nil {
				return err
			}
		}
		close(sent)
		return waitForever(s)
	}})
	s := mustOpen(t, dial(t, address, guarding(a, grpcmw.Fixed(device))...), down)
	if err := s.RecvMsg(new(message)); err != nil {
		t.Fatal(err)
	}
	within(t, sent, "all is sent")
	id := a.deny(t, device, guard.CodeDeviceRevoked)
	out := new(message)
	wantDenial(t, s.RecvMsg(out), guard.CodeDeviceRevoked, id)
	if out.GetValue() != "" {
		t.Errorf("received %v", out)
	}
}

// A message that is on its way when the denial comes does not reach the caller either, nor is it taken for
// sent; and nor does the one answer of a stream that has no other. Afterwards the stream inside is left alone.
func TestStreamClientDeniedInsideTheStream(t *testing.T) {
	for _, c := range []struct {
		method string
		during func(s grpc.ClientStream) error
	}{
		{both, func(s grpc.ClientStream) error { return s.RecvMsg(nil) }},
		{up, func(s grpc.ClientStream) error { return s.RecvMsg(nil) }},
		{both, func(s grpc.ClientStream) error { return s.SendMsg(nil) }},
	} {
		over, observe := ends()
		a := newAuthority(t, observe)
		var id string
		touched := 0
		deny := func() error {
			touched++
			id = a.deny(t, device, guard.CodeDeviceRevoked)
			return nil
		}
		s, err := stream(t.Context(), a, c.method, &fakeClient{recv: deny, send: deny})
		if err != nil {
			t.Fatal(err)
		}
		for _, err := range []error{c.during(s), s.RecvMsg(nil), s.SendMsg(nil)} {
			wantDenial(t, err, guard.CodeDeviceRevoked, id)
		}
		if touched != 1 {
			t.Errorf("the stream inside was touched %d times", touched)
		}
		within(t, over, "the run is over") // without a word of grpc's
	}
}

// The end of a stream is seen without grpc's help too: what stands between may keep its OnFinish from it.
func TestStreamClientEndsByItself(t *testing.T) {
	own := status.Error(codes.FailedPrecondition, "not on Sundays")
	for _, c := range []struct {
		name      string
		end, work error
	}{{"RecvMsg", io.EOF, nil}, {"RecvMsg", own, own}, {"SendMsg", own, own}, {"Header", own, own}} {
		over, observe := ends()
		a := newAuthority(t, observe)
		says := func() error { return c.end }
		s, err := stream(t.Context(), a, both, &fakeClient{recv: says, send: says, header: says})
		if err != nil {
			t.Fatal(err)
		}
		switch c.name {
		case "RecvMsg":
			err = s.RecvMsg(nil)
		case "SendMsg":
			err = s.SendMsg(nil)
		case "Header":
			_, err = s.Header()
		}
		wantSame(t, err, c.end)
		if e := within(t, over, "the run is over"); !errors.Is(e.Err, c.work) {
			t.Errorf("%s: the run came to %v, want %v", c.name, e.Err, c.work)
		}
	}
}

// A run whose device is denied takes the streams with it that it has opened for others, and they get that
// denial.
func TestStreamClientInsideAnotherRun(t *testing.T) {
	outer, inner := newAuthority(t), newAuthority(t)
	over := make(chan struct{})
	conn := dial(t, serve(t, calls{stream: waitForever}), guarding(inner, grpcmw.Fixed(other))...)
	_ = outer.Run(t.Context(), device, func(ctx context.Context) error {
		defer close(over)
		s, err := open(ctx, conn, both)
		if err != nil {
			t.Error(err)
			return err
		}
		result := later(func() error { return s.RecvMsg(new(message)) })
		id := outer.deny(t, device, guard.CodeDeviceRevoked)
		wantDenial(t, within(t, result, "the client is released"), guard.CodeDeviceRevoked, id)
		return nil
	})
	within(t, over, "the run was let begin")

	// And for certain while the client is inside, where grpc has only its «context canceled» to say.
	outer.script.Allow(device)
	var id string
	err := outer.Run(t.Context(), device, func(ctx context.Context) error {
		s, err := grpcmw.StreamClient(inner, grpcmw.Fixed(other))(ctx, streamDesc(both), nil, both, (&fakeClient{recv: func() error {
			id = outer.deny(t, device, guard.CodeDeviceRevoked)
			return status.FromContextError(ctx.Err()).Err()
		}}).streamer)
		if err != nil {
			t.Error(err)
			return err
		}
		wantDenial(t, s.RecvMsg(nil), guard.CodeDeviceRevoked, id)
		return nil
	})
	if denied, ok := grpcmw.FromError(err); !ok || denied.Decision.RequestID != id {
		t.Errorf("the outer run: %v", err)
	}
	if err := inner.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// The run ends with the stream, in each of the ways in which one ends, and the caller gets what he would
// have got without a guard.
func TestStreamClientEnds(t *testing.T) {
	own := status.Error(codes.FailedPrecondition, "not on Sundays")
	serverSays := func(err error) streamHandler { return func(grpc.ServerStream) error { return err } }
	recv := func(s grpc.ClientStream) error { return s.RecvMsg(new(message)) }
	for _, c := range []struct {
		name    string
		method  string
		handler streamHandler
		end     func(s grpc.ClientStream) error
		code    codes.Code // of what end returns
		work    codes.Code // of what the run came to
	}{
		{"io.EOF", both, serverSays(nil), recv, codes.Unknown, codes.OK},
		{"an error", both, serverSays(own), recv, codes.FailedPrecondition, codes.FailedPrecondition},
		{"the one answer", up, func(s grpc.ServerStream) error { return s.SendMsg(text("x")) }, recv, codes.OK, codes.OK},
		{"none of one answer", up, serverSays(own), recv, codes.FailedPrecondition, codes.FailedPrecondition},
		{"without a header", both, serverSays(own), func(s grpc.ClientStream) error {
			_, err := s.Header()
			return err
		}, codes.OK, codes.FailedPrecondition},
		{"a message that is none", both, waitForever, func(s grpc.ClientStream) error {
			return s.SendMsg("no message")
		}, codes.Internal, codes.Internal},
	} {
		t.Run(c.name, func(t *testing.T) {
			over, observe := ends()
			a := newAuthority(t, observe)
			s := mustOpen(t, dial(t, serve(t, calls{stream: c.handler}), guarding(a, grpcmw.Fixed(device))...), c.method)
			err := within(t, later(func() error { return c.end(s) }), "the stream ends")
			if status.Code(err) != c.code || c.name == "io.EOF" && err != io.EOF {
				t.Errorf("got %v, want %s", err, c.code)
			}
			e := within(t, over, "the run is over")
			if e.Kind != guard.EventFinished || status.Code(e.Err) != c.work {
				t.Errorf("the run came to %v, want %s", e.Err, c.work)
			}
			if c.name == "io.EOF" && s.RecvMsg(new(message)) != io.EOF {
				t.Error("the end is not the end")
			}
		})
	}
}

// SendMsg says io.EOF when the stream is over, and only RecvMsg knows why.
func TestStreamClientSendsToOneThatIsOver(t *testing.T) {
	over, observe := ends()
	a := newAuthority(t, observe)
	s, err := stream(t.Context(), a, both, &fakeClient{send: func() error { return io.EOF }, recv: func() error {
		return status.Error(codes.FailedPrecondition, "not on Sundays")
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SendMsg(nil); err != io.EOF {
		t.Errorf("got %v", err)
	}
	if len(over) > 0 {
		t.Error("the run is over")
	}
	if err := s.RecvMsg(nil); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("got %v", err)
	}
	within(t, over, "the run is over")
}

// A stream that is dropped without being read to its end stays guarded as long as grpc keeps it: until
// its context ends.
func TestStreamClientDropped(t *testing.T) {
	over, observe := ends()
	a := newAuthority(t, observe)
	conn := dial(t, serve(t, calls{stream: waitForever}), guarding(a, grpcmw.Fixed(device))...)
	ctx, cancel := context.WithCancel(t.Context())
	s, err := open(ctx, conn, both)
	if err != nil {
		t.Fatal(err)
	}
	if len(over) > 0 {
		t.Error("the run is over")
	}
	cancel()
	if e := within(t, over, "the run is over"); e.Kind != guard.EventFinished {
		t.Errorf("%v", e.Kind)
	}
	wantWire(t, s.RecvMsg(new(message)), wire{code: codes.Canceled, retry: -1})
}

// A stream that cannot be opened ends the run too: with the error of who could not, or with the denial.
func TestStreamClientCannotOpen(t *testing.T) {
	over, observe := ends()
	a := newAuthority(t, observe)
	l := listen(t)
	l.Close()
	_, err := open(t.Context(), dial(t, l.Addr().String(), guarding(a, grpcmw.Fixed(device))...), both)
	if w := read(t, err); w.code != codes.Unavailable || w.reason != "" {
		t.Errorf("got %v", err)
	}
	within(t, over, "the run is over")

	for _, own := range ownErrors[1:] {
		_, err := stream(t.Context(), a, both, &fakeClient{open: func(context.Context) error { return own }})
		wantSame(t, err, own)
		within(t, over, "the run is over")
	}

	var id string
	_, err = stream(t.Context(), a, both, &fakeClient{open: func(ctx context.Context) error {
		id = a.deny(t, device, guard.CodeDeviceRevoked)
		return status.FromContextError(ctx.Err()).Err()
	}})
	wantDenial(t, err, guard.CodeDeviceRevoked, id)
	within(t, over, "the run is over")
	_, err = stream(t.Context(), a, both, nil) // refused
	wantWire(t, err, wire{codes.PermissionDenied, "DEVICE_REVOKED", next(id), "start", -1})
	_ = a.Close()
	_, err = stream(t.Context(), a, both, nil)
	wantWire(t, err, wire{codes.Unavailable, "GUARD_CLOSED", "", "start", 5 * time.Second})
}

// A streamer that panics leaves no run behind.
func TestStreamClientStreamerPanics(t *testing.T) {
	over, observe := ends()
	a := newAuthority(t, observe)
	if v := recovered(func() {
		_, _ = stream(t.Context(), a, both, &fakeClient{open: func(context.Context) error { panic("x") }})
	}); v != "x" {
		t.Errorf("raised %v", v)
	}
	within(t, over, "the run is over")
}

// What the stream says of its own passes, another guard's denial included: it is not taken for this one's.
func TestStreamClientHandsOnTheVerySame(t *testing.T) {
	a := newAuthority(t)
	for _, own := range ownErrors {
		s, err := stream(t.Context(), a, up, &fakeClient{recv: func() error { return own }})
		if err != nil {
			t.Fatal(err)
		}
		wantSame(t, s.RecvMsg(nil), own)
	}
}

// A Runner that does not keep to the contract gets nothing through.
func TestStreamClientOddRunners(t *testing.T) {
	for _, o := range oddRunners {
		t.Run(o.name, func(t *testing.T) {
			called := 0
			s, err := stream(t.Context(), o.runner, up, &fakeClient{
				open: func(context.Context) error {
					called++
					return nil
				},
				recv: func() error { return nil },
			})
			if o.called == 0 {
				o.want(t, err, called)
			} else if o.name == "has an error of its own afterwards" {
				o.want(t, s.RecvMsg(nil), called)
			}
		})
	}
}

// Two guards, one inside the other, on one connection: whichever says no, the caller gets its denial.
func TestStreamClientNested(t *testing.T) {
	for _, who := range []string{device, other} {
		a, b := newAuthority(t), newAuthority(t)
		conn := dial(t, serve(t, calls{stream: waitForever}), grpc.WithChainStreamInterceptor(
			grpcmw.StreamClient(a, grpcmw.Fixed(device)), grpcmw.StreamClient(b, grpcmw.Fixed(other)),
		))
		s := mustOpen(t, conn, both)
		result := later(func() error { return s.RecvMsg(new(message)) })
		which := map[string]authority{device: a, other: b}[who]
		id := which.deny(t, who, guard.CodeDeviceRevoked)
		wantDenial(t, within(t, result, "the client is released"), guard.CodeDeviceRevoked, id)
	}
}

// Pitfall: ClientStream.Context turns grpc's retries off. The guard does not call it, and leaves the
// caller's options alone.
func TestStreamClientTouchesNothing(t *testing.T) {
	a := newAuthority(t)
	opts := make([]grpc.CallOption, 1, 8)
	opts[0] = grpc.WaitForReady(true)
	f := &fakeClient{recv: func() error { return nil }, send: func() error { return nil }}
	s, err := grpcmw.StreamClient(a, grpcmw.Fixed(device))(t.Context(), streamDesc(both), nil, both, f.streamer, opts...)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.SendMsg(nil), s.RecvMsg(nil)); err != nil {
		t.Error(err)
	}
	if len(f.opts) != 2 || opts[:2][1] != nil {
		t.Errorf("options %v, the caller's %v", f.opts, opts[:2])
	}
	f.opts[1].(grpc.OnFinishCallOption).OnFinish(nil) // grpc says so when nobody reads to the end
	if err := a.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// fakeClient is a stream without a connection. It has no Context: who asks for it panics.
type fakeClient struct {
	grpc.ClientStream

	open   func(ctx context.Context) error // nil: it can be opened
	send   func() error
	recv   func() error
	header func() error
	opts   []grpc.CallOption
}

func (f *fakeClient) streamer(ctx context.Context, _ *grpc.StreamDesc, _ *grpc.ClientConn, _ string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	f.opts = opts
	if f.open != nil {
		if err := f.open(ctx); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (f *fakeClient) SendMsg(any) error { return f.send() }

func (f *fakeClient) RecvMsg(any) error { return f.recv() }

func (f *fakeClient) Header() (metadata.MD, error) { return nil, f.header() }

// stream calls the interceptor itself.
func stream(ctx context.Context, r guard.Runner, method string, f *fakeClient) (grpc.ClientStream, error) {
	return grpcmw.StreamClient(r, grpcmw.Fixed(device))(ctx, streamDesc(method), nil, method, f.streamer)
}

// B1, on the clock: a stream that was idle for hours is open, and ends, on both sides, within interval + timeout
// of the revocation that nobody gave a hint of.
func TestStreamsEndWithinTheStopBound(t *testing.T) {
	for name, side := range map[string]func(a authority) ([]grpc.ServerOption, []grpc.DialOption){
		"server": func(a authority) ([]grpc.ServerOption, []grpc.DialOption) {
			return guarded(a, grpcmw.Fixed(device)), nil
		},
		"client": func(a authority) ([]grpc.ServerOption, []grpc.DialOption) {
			return nil, guarding(a, grpcmw.Fixed(device))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority(t, guard.WithInterval(10*time.Second), guard.WithTimeout(3*time.Second))
				server, client := side(a)
				s := mustOpen(t, bufferedConn(t, server, client), both)
				time.Sleep(5*time.Hour + 1234*time.Millisecond)
				if err := errors.Join(s.SendMsg(text("still there?")), s.RecvMsg(new(message))); err != nil {
					t.Fatal(err)
				}
				a.script.Deny(device, guard.CodeDeviceRevoked)
				began := time.Now()
				err := s.RecvMsg(new(message))
				if took := time.Since(began); took > 13*time.Second || took <= 0 {
					t.Errorf("it took %v", took)
				}
				wantCode(t, err, codes.PermissionDenied)
			})
		})
	}
}

// B2: the same where the authority falls silent.
func TestStreamsEndAtTheStopLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t, guard.WithInterval(10*time.Second), guard.WithTimeout(3*time.Second))
		s := mustOpen(t, bufferedConn(t, guarded(a, grpcmw.Fixed(device)), nil), both)
		time.Sleep(time.Hour)
		a.script.Always(device, guardtest.Hang())
		calls := a.script.Calls()
		err := s.RecvMsg(new(message))
		if took := time.Since(calls[len(calls)-1].Sent); took > 13*time.Second {
			t.Errorf("it took %v from the last ALLOW's request on", took)
		}
		wantCode(t, err, codes.Aborted)
	})
}

func wantCode(t testing.TB, err error, code codes.Code) {
	t.Helper()
	if status.Code(err) != code {
		t.Errorf("got %v, want %s", err, code)
	}
}

// bufferedConn is a connection without sockets, for a bubble whose clock is to go on.
func bufferedConn(t testing.TB, server []grpc.ServerOption, client []grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	l := bufconn.Listen(1 << 16)
	s := grpc.NewServer(server...)
	calls{}.register(s)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:///bufconn", append(client,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		s.Stop()
		<-done
	})
	return conn
}
