package grpcmw_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/execguard/execguard/grpcmw"
	"github.com/execguard/execguard/guard"
)

// slowSetter is a stream in which the first SetHeader takes until release is closed.
type slowSetter struct {
	grpc.ServerStream

	ctx     context.Context //nolint:containedctx // a stream has a context
	release chan struct{}
	set     atomic.Int32
}

func (s *slowSetter) Context() context.Context { return s.ctx }

func (s *slowSetter) SetHeader(metadata.MD) error {
	if s.set.Add(1) == 1 {
		<-s.release
	}
	return nil
}

// Who waits behind another that sets metadata when the device is denied sets none: grpc has read it by then.
func TestNoMetadataAfterTheInterceptorHasLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t)
		ss := &slowSetter{ctx: t.Context(), release: make(chan struct{})}
		results := make(chan error, 2)
		left := later(func() error {
			return grpcmw.StreamServer(a, grpcmw.Fixed(device))(nil, ss, &grpc.StreamServerInfo{FullMethod: both}, func(_ any, s grpc.ServerStream) error {
				for range 2 {
					go func() { results <- s.SetHeader(metadata.Pairs("k", "v")) }()
				}
				<-ss.release // a stubborn handler: one that has returned has returned
				return nil
			})
		})
		synctest.Wait()
		id, denied := a.deny(t, device, guard.CodeDeviceRevoked), time.Now()
		wantDenial(t, within(t, left, "the interceptor returns"), guard.CodeDeviceRevoked, id)
		if took := time.Since(denied); took != 10*time.Millisecond {
			t.Errorf("it took %v", took)
		}
		close(ss.release)
		synctest.Wait()
		if first, second := <-results, <-results; (first == nil) == (second == nil) || ss.set.Load() != 1 {
			t.Errorf("%v and %v; metadata was set %d times", first, second, ss.set.Load())
		}
	})
}

// The interceptor waits for a handler that is setting metadata, and does not leave it behind with grpc reading.
func TestDenialWaitsForMetadataThatIsBeingSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t)
		ss := &slowSetter{ctx: t.Context(), release: make(chan struct{})}
		returned, over := false, make(chan struct{})
		defer close(over)
		left := later(func() error {
			return grpcmw.StreamServer(a, grpcmw.Fixed(device))(nil, ss, &grpc.StreamServerInfo{FullMethod: both}, func(_ any, s grpc.ServerStream) error {
				err := s.SetHeader(metadata.Pairs("k", "v"))
				returned = true
				<-over // a stubborn handler
				return err
			})
		})
		synctest.Wait()
		time.AfterFunc(5*time.Millisecond, func() { close(ss.release) })
		id := a.deny(t, device, guard.CodeDeviceRevoked)
		wantDenial(t, within(t, left, "the interceptor returns"), guard.CodeDeviceRevoked, id)
		synctest.Wait()
		if !returned {
			t.Error("it was left behind")
		}
	})
}
