package grpcmw_test

import (
	"context"
	"errors"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/execguard/execguard/grpcmw"
	"github.com/execguard/execguard/guard"
)

// again is a retrying interceptor of the plainest kind, inside the guard: the first try fails when it
// is received from, the second is fine.
type againStream struct {
	grpc.ClientStream
	redo func() (grpc.ClientStream, error)
}

func (s *againStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	for range 3 {
		if status.Code(err) != codes.Unavailable {
			return err
		}
		<-time.After(20 * time.Millisecond) // a back-off
		if s.ClientStream, err = s.redo(); err == nil {
			_ = s.CloseSend()
			err = s.ClientStream.RecvMsg(m)
		}
	}
	return err
}

// An interceptor inside that tries again (go-grpc-middleware has one) makes several calls under one run: the
// end of the first is not the end of the run.
func TestStreamClientOutsideOfARetryingInterceptor(t *testing.T) {
	a := newAuthority(t)
	var mu sync.Mutex
	tries := 0
	address := serve(t, calls{stream: func(s grpc.ServerStream) error {
		mu.Lock()
		tries++
		n := tries
		mu.Unlock()
		if n == 1 {
			return status.Error(codes.Unavailable, "once")
		}
		return s.SendMsg(text("fine"))
	}})
	retry := func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		redo := func() (grpc.ClientStream, error) { return streamer(ctx, desc, cc, method, opts...) }
		s, err := redo()
		if err != nil {
			return nil, err
		}
		return &againStream{s, redo}, nil
	}
	conn := dial(t, address, grpc.WithChainStreamInterceptor(grpcmw.StreamClient(a, grpcmw.Fixed(device)), retry))
	s := mustOpen(t, conn, both)
	m := new(message)
	if err := s.RecvMsg(m); err != nil || m.GetValue() != "fine" {
		t.Fatalf("%q, %v; tries %d", m.GetValue(), err, tries)
	}
}

// Panics at once are logged at once; grpc's own table of loggers is not made for that.
func TestPanicsAtOnceInTheLog(t *testing.T) {
	a := newAuthority(t)
	recovery := func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) (err error) {
		defer func() {
			if recover() != nil {
				err = status.Error(codes.Internal, "recovered")
			}
		}()
		return h(srv, ss)
	}
	gate := make(chan struct{})
	address := serve(t, calls{stream: func(grpc.ServerStream) error {
		<-gate
		panic("x")
	}}, grpc.ChainStreamInterceptor(recovery, grpcmw.StreamServer(a, grpcmw.Fixed(device))))
	conn := dial(t, address)
	var wg sync.WaitGroup
	for range 32 {
		s := mustOpen(t, conn, both)
		wg.Go(func() { _ = s.RecvMsg(new(message)) })
	}
	close(gate)
	wg.Wait()
}

// Trailer may be called after RecvMsg's error, also where that is a denial and grpc is still at work.
func TestStreamClientTrailerAfterADenial(t *testing.T) {
	for range 200 {
		func() {
			a := newAuthority(t)
			goOn := make(chan struct{})
			inside := make(chan struct{})
			address := serve(t, calls{stream: func(s grpc.ServerStream) error {
				close(inside)
				<-goOn
				s.SetTrailer(metadata.Pairs("k", "v"))
				return nil
			}})
			conn := dial(t, address, guarding(a, grpcmw.Fixed(device))...)
			s := mustOpen(t, conn, both)
			<-inside
			a.script.Deny(device, guard.CodeDeviceRevoked)
			go close(goOn)
			_, _ = a.Validate(t.Context(), device)
			err := s.RecvMsg(new(message))
			if err == nil {
				t.Fatal("nil")
			}
			_ = s.Trailer()
		}()
	}
}

// A report that ends its goroutine, as t.FailNow does, keeps nobody waiting.
func TestAPanicReportThatEndsItsGoroutine(t *testing.T) {
	a := newAuthority(t)
	recovery := func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) (err error) {
		defer func() {
			if recover() != nil {
				err = status.Error(codes.Internal, "recovered")
			}
		}()
		return h(srv, ss)
	}
	address := serve(t, calls{stream: func(grpc.ServerStream) error { panic("x") }},
		grpc.ChainStreamInterceptor(recovery, grpcmw.StreamServer(a, grpcmw.Fixed(device),
			grpcmw.WithPanicReport(func(context.Context, string, any, []byte) { runtime.Goexit() }))))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	s, err := open(ctx, dial(t, address), both)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RecvMsg(new(message)); status.Code(err) != codes.Internal {
		t.Errorf("%v; the interceptor never returned", err)
	}
}

// The caller leaves, then the device is denied: what lies in the buffer still does not reach the handler.
func TestNoMessageAfterTheCallerLeftAndADenial(t *testing.T) {
	a := newAuthority(t)
	got := make(chan int, 1)
	gone, denied := make(chan struct{}), make(chan struct{})
	address := serve(t, calls{stream: func(s grpc.ServerStream) error {
		_ = s.RecvMsg(new(message))
		<-s.Context().Done()
		close(gone)
		<-denied
		n := 0
		for range 64 {
			if s.RecvMsg(new(message)) == nil {
				n++
			} else {
				break
			}
		}
		got <- n
		return nil
	}}, guarded(a, grpcmw.Fixed(device))...)
	ctx, cancel := context.WithCancel(t.Context())
	conn := dial(t, address)
	s, err := open(ctx, conn, both)
	if err != nil {
		t.Fatal(err)
	}
	for range 64 {
		_ = s.SendMsg(text("m"))
	}
	<-time.After(100 * time.Millisecond)
	cancel()
	<-gone
	a.deny(t, device, guard.CodeDeviceRevoked)
	close(denied)
	if n := <-got; n > 0 {
		t.Errorf("%d messages reached the handler after the denial", n)
	}
}

// A request id of the authority's that is large does not make the status unreadable.
func TestALargeRequestIDIsCutShort(t *testing.T) {
	g, err := guard.New(guard.ValidatorFunc(func(context.Context, string) (guard.Decision, error) {
		return guard.Decision{Code: guard.CodeDeviceRevoked, RequestID: strings.Repeat("r", 20000)}, nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	address := serve(t, calls{}, guarded(g, grpcmw.Fixed(device))...)
	conn := dial(t, address, grpc.WithMaxHeaderListSize(16<<10))
	_, err = call(t.Context(), conn, "x")
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("%v", err)
	}
}

func TestAStreamDroppedAfterADenialIsOver(t *testing.T) {
	a := newAuthority(t)
	before := runtime.NumGoroutine()
	icpt := grpcmw.StreamClient(a, grpcmw.Fixed(device))
	ctx, cancel := context.WithCancel(t.Context())
	_, err := icpt(ctx, streamDesc(both), nil, both, func(context.Context, *grpc.StreamDesc, *grpc.ClientConn, string, ...grpc.CallOption) (grpc.ClientStream, error) {
		return deafStream{}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	a.deny(t, device, guard.CodeDeviceRevoked)
	cancel()
	sctx, c2 := context.WithTimeout(t.Context(), time.Second)
	defer c2()
	if err := a.Shutdown(sctx); err != nil {
		t.Errorf("the run never ends: %v", err)
	}
	_ = before
}

type deafStream struct{ grpc.ClientStream }

// Header of a stream that was opened at the second try does not take the first for its end.
func TestHeaderAfterARetriedOpen(t *testing.T) {
	a := newAuthority(t)
	address := serve(t, calls{stream: func(s grpc.ServerStream) error {
		if err := s.SendHeader(metadata.Pairs("a", "b")); err != nil {
			return err
		}
		return echo(s)
	}})
	tries := 0
	retry := func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		for {
			tries++
			try := ctx
			if tries == 1 { // a per-try timeout, as in go-grpc-middleware's retry
				expired, cancel := context.WithTimeout(ctx, 0)
				defer cancel()
				try = expired
			}
			s, err := streamer(try, desc, cc, method, opts...)
			if err == nil {
				return s, nil
			}
			if tries > 3 {
				return nil, err
			}
		}
	}
	opts := append(guarding(a, grpcmw.Fixed(device)), grpc.WithChainStreamInterceptor(retry))
	s := mustOpen(t, dial(t, address, opts...), both)
	if md, err := s.Header(); err != nil || len(md["a"]) != 1 {
		t.Fatalf("Header: %v, %v", md, err)
	}
	if err := s.SendMsg(text("x")); err != nil {
		t.Errorf("SendMsg after Header: %v", err)
	}
	if err := s.RecvMsg(new(message)); err != nil {
		t.Errorf("RecvMsg after Header: %v", err)
	}
}

// A connection that is closed while SendMsg blocks ends the run, also where the stream is dropped then.
func TestConnClosedDuringABlockedSend(t *testing.T) {
	leaks := 0
	for range 10 {
		over, observe := ends()
		a := newAuthority(t, observe)
		address := serve(t, calls{stream: waitForever})
		conn := dial(t, address, guarding(a, grpcmw.Fixed(device))...)
		s, err := conn.NewStream(t.Context(), streamDesc(both), both)
		if err != nil {
			t.Fatal(err)
		}
		big := text(strings.Repeat("x", 1<<16))
		sends := make(chan struct{}, 1000)
		done := later(func() (err error) {
			for err == nil {
				err = s.SendMsg(big)
				sends <- struct{}{}
			}
			return err
		})
		for quiet := false; !quiet; {
			select {
			case <-sends:
			case <-time.After(100 * time.Millisecond):
				quiet = true
			}
		}
		_ = conn.Close()
		err = within(t, done, "SendMsg returns")
		if !errors.Is(err, io.EOF) {
			t.Logf("SendMsg: %v", err)
		}
		select {
		case <-over:
		case <-time.After(300 * time.Millisecond):
			leaks++
		}
	}
	if leaks > 0 {
		t.Errorf("%d of 10 runs go on after ClientConn.Close", leaks)
	}
}

// lockingStream is what an interceptor outside makes so that handlers may send from several goroutines.
type lockingStream struct {
	grpc.ServerStream
	mu      sync.Mutex
	setting chan struct{}
}

func (s *lockingStream) SendMsg(m any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ServerStream.SendMsg(m)
}

func (s *lockingStream) SetTrailer(md metadata.MD) {
	close(s.setting)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ServerStream.SetTrailer(md)
}

// A handler that sets a trailer while a stream outside is locked by a blocked SendMsg, which only the
// interceptor's return releases, does not keep the denial from reaching.
func TestDenialWhileTrailerWaitsForABlockedSend(t *testing.T) {
	a := newAuthority(t)
	setting := make(chan struct{})
	handlerOver := make(chan struct{})
	big := text(strings.Repeat("x", 1<<16))
	sends := make(chan struct{}, 10000)
	c := calls{stream: func(s grpc.ServerStream) error {
		defer close(handlerOver)
		var wg sync.WaitGroup
		wg.Go(func() {
			for s.SendMsg(big) == nil {
				sends <- struct{}{}
			}
		})
		for quiet := false; !quiet; {
			select {
			case <-sends:
			case <-time.After(200 * time.Millisecond):
				quiet = true
			}
		}
		wg.Go(func() { s.SetTrailer(metadata.Pairs("a", "b")) })
		wg.Wait()
		return s.Context().Err()
	}}
	outside := func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
		return h(srv, &lockingStream{ServerStream: ss, setting: setting})
	}
	returned := make(chan struct{})
	watch := func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
		defer close(returned)
		return h(srv, ss)
	}
	address := serve(t, c, grpc.ChainStreamInterceptor(outside, watch, grpcmw.StreamServer(a, grpcmw.Fixed(device))))
	s := mustOpen(t, dial(t, address), both)
	_ = s.SendMsg(text("begin"))
	within(t, setting, "SetTrailer waits")
	a.deny(t, device, guard.CodeDeviceRevoked)
	select {
	case <-returned:
	case <-time.After(3 * time.Second):
		t.Error("denied 3 s ago, and the stream goes on: the denial does not reach")
	}
}
