package grpcmw_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/execguard/execguard/grpcmw"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

// wantDenial fails the test unless err is a denial with that code and request id as the process that
// denied has it: a status, and not harmless.
func wantDenial(t testing.TB, err error, code guard.Code, requestID string) *guard.DeniedError {
	t.Helper()
	denied := (*guard.DeniedError)(nil)
	if !errors.As(err, &denied) {
		t.Errorf("%T %v holds no denial", err, err)
		return &guard.DeniedError{}
	}
	if denied.Decision.Code != code || denied.Decision.RequestID != requestID {
		t.Errorf("got %+v, want %s of request %s", denied.Decision, code, requestID)
	}
	if errors.Is(err, context.Canceled) {
		t.Errorf("%v matches context.Canceled", err)
	}
	if status.Code(err) == codes.Unknown {
		t.Errorf("%v is no status", err)
	}
	return denied
}

// Pitfall: cancelling a derived context does not release a handler that sits in RecvMsg; only the
// interceptor's return does.
func TestStreamServerReleasesRecvMsg(t *testing.T) {
	a := newAuthority(t)
	inside, got := make(chan context.Context, 1), make(chan error, 1)
	address := serve(t, calls{stream: func(s grpc.ServerStream) error {
		inside <- s.Context()
		err := s.RecvMsg(new(message))
		got <- err
		return err
	}}, guarded(a, grpcmw.Fixed(device))...)
	s := mustOpen(t, dial(t, address), both)
	ctx := within(t, inside, "the handler is called")
	id := a.deny(t, device, guard.CodeDeviceRevoked)
	client := later(func() error { return s.RecvMsg(new(message)) })
	wantWire(t, within(t, client, "the client has its status"), wire{codes.PermissionDenied, "DEVICE_REVOKED", id, "run", -1})
	err := within(t, got, "RecvMsg is released")
	if !wantDenial(t, err, guard.CodeDeviceRevoked, id).InFlight {
		t.Error("the denial is not in flight")
	}
	cause := context.Cause(ctx)
	if denied, ok := grpcmw.FromError(cause); !ok || denied.Decision.RequestID != id || !errors.Is(cause, context.Canceled) {
		t.Errorf("the cause is %v", cause)
	}
}

// Pitfall: nor one that sits in SendMsg because the client does not read. And the first status that
// grpc has wins, so it must not be that of the SendMsg that failed.
func TestStreamServerReleasesSendMsg(t *testing.T) {
	a := newAuthority(t)
	sent, got := make(chan struct{}, 1), make(chan error, 1)
	address := serve(t, calls{stream: func(s grpc.ServerStream) error {
		big := text(strings.Repeat("x", 1<<16))
		for {
			if err := s.SendMsg(big); err != nil {
				got <- err
				return err
			}
			select {
			case sent <- struct{}{}:
			default:
			}
		}
	}}, guarded(a, grpcmw.Fixed(device))...)
	s := mustOpen(t, dial(t, address), both)
	within(t, sent, "a message is sent") // and the client reads none: soon there is no room
	id := a.deny(t, device, guard.CodeDeviceRevoked)
	wantDenial(t, within(t, got, "SendMsg is released"), guard.CodeDeviceRevoked, id)
	client := later(func() (err error) {
		for err == nil {
			err = s.RecvMsg(new(message))
		}
		return err
	})
	wantWire(t, within(t, client, "the client has its status"), wire{codes.PermissionDenied, "DEVICE_REVOKED", id, "run", -1})
}

// S7: a guard that is closed ends streams too; the work is lost, and not to be tried again unasked.
func TestStreamServerClosed(t *testing.T) {
	a := newAuthority(t)
	inside := make(chan struct{})
	address := serve(t, calls{stream: func(s grpc.ServerStream) error {
		close(inside)
		return echo(s)
	}}, guarded(a, grpcmw.Fixed(device))...)
	conn := dial(t, address)
	s := mustOpen(t, conn, both)
	within(t, inside, "the handler is called")
	_ = a.Close()
	err := within(t, later(func() error { return s.RecvMsg(new(message)) }), "the client has its status")
	wantWire(t, err, wire{codes.Aborted, "GUARD_CLOSED", "", "run", -1})
	if _, ok := grpcmw.FromError(err); ok {
		t.Error("a closed guard is a denial")
	}
	wantWire(t, exchange(t.Context(), conn, both), wire{codes.Unavailable, "GUARD_CLOSED", "", "start", 5 * time.Second})
}

// A handler that ignores its context is not waited for; its run counts until it returns.
func TestStreamServerLeavesAStubbornHandler(t *testing.T) {
	stopped := make(chan guard.Event, 1)
	a := newAuthority(t, guard.WithObserver(func(_ context.Context, e guard.Event) {
		if e.Kind == guard.EventStopped {
			stopped <- e
		}
	}))
	inside, release, outer := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	own := errors.New("at last")
	opts := []grpc.ServerOption{grpc.ChainStreamInterceptor(
		func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			err := handler(srv, ss)
			outer <- err
			return err
		}, grpcmw.StreamServer(a, grpcmw.Fixed(device)))}
	address := serve(t, calls{stream: func(grpc.ServerStream) error {
		close(inside)
		<-release
		return own
	}}, opts...)
	s := mustOpen(t, dial(t, address), both)
	within(t, inside, "the handler is called")
	id := a.deny(t, device, guard.CodeDeviceRevoked)
	wantDenial(t, within(t, outer, "the interceptors outside return"), guard.CodeDeviceRevoked, id)
	if code := status.Code(within(t, later(func() error { return s.RecvMsg(new(message)) }), "the client's status")); code != codes.PermissionDenied {
		t.Error(code)
	}
	select {
	case e := <-stopped:
		t.Errorf("the run is over while its handler goes on: %+v", e)
	default:
	}
	close(release)
	if e := within(t, stopped, "the run is over"); !errors.Is(e.Err, own) {
		t.Errorf("the observers are told %v, without what the handler returned", e.Err)
	}
}

// GracefulStop waits for interceptors, and so no longer for a handler that was left.
func TestGracefulStopDoesNotWaitForALeftHandler(t *testing.T) {
	a := newAuthority(t)
	inside, release, returned := make(chan struct{}), make(chan struct{}), make(chan struct{})
	s := grpc.NewServer(append(guarded(a, grpcmw.Fixed(device)), grpc.WaitForHandlers(true))...)
	calls{stream: func(grpc.ServerStream) error {
		defer close(returned)
		close(inside)
		<-release
		return nil
	}}.register(s)
	l := listen(t)
	served := later(func() error { return s.Serve(l) })
	stream := mustOpen(t, dial(t, l.Addr().String()), both)
	within(t, inside, "the handler is called")
	a.deny(t, device, guard.CodeDeviceRevoked)
	_ = within(t, later(func() error { return stream.RecvMsg(new(message)) }), "the client's status")
	within(t, later(func() bool { s.GracefulStop(); return true }), "GracefulStop returns")
	if err := within(t, served, "Serve returns"); err != nil {
		t.Error(err)
	}
	close(release)
	within(t, returned, "the handler returns")
}

// What came before the denial and was not received, and what is sent after it, does not pass.
func TestNoMessagePassesAfterADenial(t *testing.T) {
	a := newAuthority(t)
	inside, goOn, results := make(chan struct{}), make(chan struct{}), make(chan []error, 1)
	in := text("untouched")
	address := serve(t, calls{stream: func(s grpc.ServerStream) error {
		if err := s.RecvMsg(new(message)); err != nil {
			return err
		}
		close(inside)
		<-goOn
		s.SetTrailer(metadata.Pairs("late", "trailer"))
		results <- []error{
			s.RecvMsg(in), s.SendMsg(text("late")), s.SendMsg("not even a message"),
			s.SetHeader(metadata.Pairs("late", "header")), s.SendHeader(metadata.Pairs("late", "header")),
		}
		return nil
	}}, guarded(a, grpcmw.Fixed(device))...)
	s := mustOpen(t, dial(t, address), both)
	for _, m := range []string{"first", "second"} { // the second lies in grpc's buffer when the denial comes
		if err := s.SendMsg(text(m)); err != nil {
			t.Fatal(err)
		}
	}
	within(t, inside, "the first message arrives")
	id := a.deny(t, device, guard.CodeDeviceRevoked)
	close(goOn)
	for i, err := range within(t, results, "the handler goes on") {
		if err == nil {
			t.Errorf("call %d passes", i)
			continue
		}
		wantDenial(t, err, guard.CodeDeviceRevoked, id)
	}
	if in.GetValue() != "untouched" {
		t.Errorf("the handler received %q", in.GetValue())
	}
	out := new(message)
	err := within(t, later(func() error { return s.RecvMsg(out) }), "the client has its status")
	wantWire(t, err, wire{codes.PermissionDenied, "DEVICE_REVOKED", id, "run", -1})
	header, _ := s.Header()
	if len(header.Get("late"))+len(s.Trailer().Get("late")) > 0 || out.GetValue() != "" {
		t.Errorf("header %v, trailer %v, message %v", header, s.Trailer(), out)
	}
}

// Everything else passes as without a guard.
func TestStreamServerIsTransparent(t *testing.T) {
	a := newAuthority(t)
	own := status.Error(codes.ResourceExhausted, "no more beer")
	address := serve(t, calls{stream: func(s grpc.ServerStream) error {
		s.SetTrailer(metadata.Pairs("k", "trailer"))
		if err := errors.Join(s.SetHeader(metadata.Pairs("k", "set")), s.SendHeader(metadata.Pairs("k", "sent"))); err != nil {
			return err
		}
		if err := echo(s); err != nil {
			return err
		}
		if d, ok := guard.DecisionFrom(s.Context()); !ok || !d.Allowed {
			return errors.New("the stream's context is not the run's")
		}
		return own
	}}, guarded(a, grpcmw.Fixed(device))...)
	s := mustOpen(t, dial(t, address), both)
	for i := range 10 {
		out := new(message)
		if err := errors.Join(s.SendMsg(text(strconv.Itoa(i))), s.RecvMsg(out)); err != nil || out.GetValue() != "re: "+strconv.Itoa(i) {
			t.Fatalf("%v, %v", out, err)
		}
	}
	_ = s.CloseSend()
	err := s.RecvMsg(new(message))
	if status.Code(err) != codes.ResourceExhausted || status.Convert(err).Message() != "no more beer" {
		t.Errorf("got %v, want %v", err, own)
	}
	header, _ := s.Header()
	if got := strings.Join(append(header.Get("k"), s.Trailer().Get("k")...), " "); got != "set sent trailer" {
		t.Errorf("metadata: %s", got)
	}
}

// A client that goes is no denial: the handler ends as without a guard, and the device may go on.
func TestStreamServerCallerLeaves(t *testing.T) {
	finished := make(chan guard.Event, 1)
	a := newAuthority(t, guard.WithObserver(func(_ context.Context, e guard.Event) {
		if e.Kind == guard.EventFinished {
			finished <- e
		}
	}))
	inside := make(chan struct{})
	address := serve(t, calls{stream: func(s grpc.ServerStream) error {
		close(inside)
		return s.RecvMsg(new(message))
	}}, guarded(a, grpcmw.Fixed(device))...)
	ctx, leave := context.WithCancel(t.Context())
	if _, err := open(ctx, dial(t, address), both); err != nil {
		t.Fatal(err)
	}
	within(t, inside, "the handler is called")
	leave()
	if e := within(t, finished, "the run ends"); status.Code(e.Err) != codes.Canceled {
		t.Errorf("the handler was told %v", e.Err)
	}
}

// The caller's end is not the guard's: the interceptor waits for the handler as grpc would, however long
// that takes, and idly.
func TestStreamServerWaitsForTheHandlerOfACallerWhoLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t)
		own := errors.New("cleaned up")
		ctx, leave := context.WithCancel(t.Context())
		result := later(func() error {
			return handle(ctx, a, grpcmw.Fixed(device), func(_ any, s grpc.ServerStream) error {
				<-s.Context().Done()
				time.Sleep(time.Hour)
				return own
			})
		})
		synctest.Wait()
		leave()
		synctest.Wait() // which needs every goroutine to be at rest
		if len(result) > 0 {
			t.Errorf("the interceptor has not waited: %v", <-result)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(result) == 0 || <-result != own {
			t.Error("the interceptor has not returned what the handler did")
		}
	})
}

// Two guards, one inside the other: whichever says no, the stream ends, with its denial.
func TestStreamServerNested(t *testing.T) {
	for _, who := range []string{device, other} {
		a, b := newAuthority(t), newAuthority(t)
		inside, returned := make(chan struct{}), make(chan error, 1)
		address := serve(t, calls{stream: func(s grpc.ServerStream) error {
			close(inside)
			err := s.RecvMsg(new(message))
			returned <- err
			return err
		}}, grpc.ChainStreamInterceptor(
			grpcmw.StreamServer(a, grpcmw.Fixed(device)), grpcmw.StreamServer(b, grpcmw.Fixed(other)),
		))
		s := mustOpen(t, dial(t, address), both)
		within(t, inside, "the handler is called")
		which := map[string]authority{device: a, other: b}[who]
		id := which.deny(t, who, guard.CodeDeviceRevoked)
		err := within(t, later(func() error { return s.RecvMsg(new(message)) }), "the client has its status")
		wantWire(t, err, wire{codes.PermissionDenied, "DEVICE_REVOKED", id, "run", -1})
		wantDenial(t, within(t, returned, "the handler is released"), guard.CodeDeviceRevoked, id)
	}
}

// TestDenialsAtAnyMoment has a denial meet a stream wherever it may: before its start, while a
// message is on its way into a message that the handler uses again and again, at its end. The race
// detector watches over the message, and the client over the answer.
func TestDenialsAtAnyMoment(t *testing.T) {
	rounds := 1000
	if testing.Short() {
		rounds = 100
	}
	a := newAuthority(t)
	var handlers sync.WaitGroup
	address := serve(t, calls{stream: func(s grpc.ServerStream) error {
		handlers.Add(1)
		defer handlers.Done()
		in := new(message)
		for {
			if err := s.RecvMsg(in); err != nil {
				in.Value = "mine again"
				return err
			}
			in.Value += "."
			if err := s.SendMsg(in); err != nil {
				in.Value = "mine again"
				return err
			}
		}
	}}, guarded(a, grpcmw.FromMetadata("device"))...)
	conn := dial(t, address)
	var all sync.WaitGroup
	var started atomic.Int32
	for i := range rounds {
		id := "device-" + strconv.Itoa(i)
		a.script.Allow(id)
		all.Go(func() {
			if denyAtRandom(t, a, conn, id) == "run" {
				started.Add(1)
			}
		})
		if i%8 == 7 {
			all.Wait()
		}
	}
	all.Wait()
	handlers.Wait()
	if n := int(started.Load()); n == 0 || n == rounds {
		t.Errorf("%d of %d streams had begun when they were denied: that is not any moment", n, rounds)
	}
}

// denyAtRandom denies the device when as many messages have been sent, or as many answered, as chance has it.
func denyAtRandom(t *testing.T, a authority, conn *grpc.ClientConn, id string) (phase string) {
	s, err := open(metadata.AppendToOutgoingContext(t.Context(), "device", id), conn, both)
	if err != nil {
		t.Error(err)
		return ""
	}
	const messages = 40
	var denial sync.WaitGroup
	defer denial.Wait()
	moment, answered := rand.IntN(messages), rand.IntN(3) > 0
	deny := func(now bool) {
		if now {
			denial.Go(func() { a.deny(t, id, guard.CodeDeviceRevoked) })
		}
	}
	denial.Go(func() {
		for i := range messages {
			deny(!answered && i == moment)
			_ = s.SendMsg(text(id)) // on and on, also while it is denied and afterwards
		}
	})
	for i := 0; ; i++ {
		deny(answered && i == moment)
		out := new(message)
		if err := s.RecvMsg(out); err != nil {
			w := read(t, err)
			if w.code != codes.PermissionDenied || w.reason != "DEVICE_REVOKED" {
				t.Errorf("%s: %+v, %v", id, w, err)
			}
			return w.phase
		}
		if out.GetValue() != id+"." {
			t.Errorf("received %q", out.GetValue())
		}
	}
}

// fakeStream is a stream without a network.
type fakeStream struct {
	grpc.ServerStream

	ctx     context.Context
	touched func(what string) // nil: nobody wants to know
}

func (f fakeStream) touch(what string) {
	if f.touched != nil {
		f.touched(what)
	}
}

func (f fakeStream) Context() context.Context { return f.ctx }

func (f fakeStream) RecvMsg(any) error {
	f.touch("RecvMsg")
	return nil
}

func (f fakeStream) SendMsg(any) error {
	f.touch("SendMsg")
	return nil
}

func (f fakeStream) SetHeader(metadata.MD) error {
	f.touch("SetHeader")
	return nil
}

func (f fakeStream) SendHeader(metadata.MD) error {
	f.touch("SendHeader")
	return nil
}

func (f fakeStream) SetTrailer(metadata.MD) { f.touch("SetTrailer") }

// A message that comes at the very moment of the denial is not handed on; one that was sent then is not
// taken for sent; and afterwards the stream inside is left alone altogether.
func TestDenialsInsideTheStream(t *testing.T) {
	for _, during := range []string{"RecvMsg", "SendMsg"} {
		a := newAuthority(t)
		var id string
		touched := ""
		inner := fakeStream{ctx: t.Context(), touched: func(what string) {
			touched += what + " "
			if id = a.deny(t, device, guard.CodeDeviceRevoked); what != during {
				t.Errorf("%s reached the stream inside", what)
			}
		}}
		over := make(chan struct{})
		err := grpcmw.StreamServer(a, grpcmw.Fixed(device))(nil, inner, &grpc.StreamServerInfo{FullMethod: both}, func(_ any, s grpc.ServerStream) error {
			defer close(over)
			first, second := s.RecvMsg, s.SendMsg
			if during == "SendMsg" {
				first, second = second, first
			}
			for _, err := range []error{first(nil), second(nil), first(nil), s.SetHeader(nil), s.SendHeader(nil)} {
				wantDenial(t, err, guard.CodeDeviceRevoked, id)
			}
			s.SetTrailer(nil)
			return nil
		})
		within(t, over, "the handler returns")
		wantDenial(t, err, guard.CodeDeviceRevoked, id)
		if touched != during+" " {
			t.Errorf("the stream inside was touched: %s", touched)
		}
	}
}

// handle calls the interceptor itself.
func handle(ctx context.Context, r guard.Runner, from grpcmw.DeviceFunc, h grpc.StreamHandler, opts ...grpcmw.Option) error {
	return grpcmw.StreamServer(r, from, opts...)(nil, fakeStream{ctx: ctx}, &grpc.StreamServerInfo{FullMethod: both}, h)
}

// What the handler returns is handed on as it is, the very same.
func TestStreamServerHandsOnTheVerySame(t *testing.T) {
	a := newAuthority(t)
	for _, own := range ownErrors {
		err := handle(t.Context(), a, grpcmw.Fixed(device), func(any, grpc.ServerStream) error { return own })
		wantSame(t, err, own)
	}
}

// The contract of Run: a Runner that keeps to it calls the function once or not at all.
func TestStreamServerOddRunners(t *testing.T) {
	for _, o := range oddRunners {
		t.Run(o.name, func(t *testing.T) {
			called := 0
			err := handle(t.Context(), o.runner, grpcmw.Fixed(device), func(any, grpc.ServerStream) error {
				called++
				return nil
			})
			o.want(t, err, called)
		})
	}
}

// The caller's end before the start is the caller's, and not a denial.
func TestStreamServerCallerLeavesBeforeTheStart(t *testing.T) {
	a := newAuthority(t)
	a.script.Always(device, guardtest.Hang())
	ctx, cancel := context.WithCancel(t.Context())
	done := later(func() error {
		return handle(ctx, a, grpcmw.Fixed(device), func(any, grpc.ServerStream) error {
			t.Error("called")
			return nil
		})
	})
	if _, err := a.script.Wait(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	cancel()
	wantWire(t, within(t, done, "the interceptor returns"), wire{code: codes.Canceled, retry: -1})
}
