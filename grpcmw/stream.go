package grpcmw

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/execguard/execguard/guard"
)

// StreamServer returns an interceptor that calls the handler under r, for the device that the call
// comes from, on a goroutine of its own. The handler's stream has the run's context: it ends when the
// device is denied, with the denial as its cause. Then the interceptor returns the denial at once,
// and grpc ends the stream, which releases a handler that is blocked in RecvMsg or SendMsg. No
// message passes afterwards, in neither direction: all that the handler tries fails with the denial. What a handler
// returns that was not denied is handed on unchanged, and so is its panic, to which
// WithPanicReport keeps the stack. StreamServer panics if r, device or an option is nil.
func StreamServer(r guard.Runner, device DeviceFunc, opts ...Option) grpc.StreamServerInterceptor {
	c := newConfig("StreamServer", r, device, opts)
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		ctx := ss.Context()
		id, err := c.device(ctx, info.FullMethod)
		if err != nil {
			return unidentified(ctx, err)
		}
		h := &handling{
			stream: ss, method: info.FullMethod, report: c.reportPanic,
			started: make(chan context.Context, 1), over: make(chan struct{}), setting: make(chan struct{}, 1),
		}
		go h.run(c.runner, id, func(s grpc.ServerStream) error { return handler(srv, s) })
		return h.wait()
	}
}

// handling is one stream that is handled, by a goroutine that the interceptor's waits for until the
// handler returns or the guard stops it.
//
// The road not taken: to leave the handler on the interceptor's goroutine, and have RecvMsg and
// SendMsg call grpc's on others. A message would still be filled in when the handler had it back.
type handling struct {
	stream  grpc.ServerStream
	method  string
	report  panicReport
	started chan context.Context // the run's, when the handler is called
	over    chan struct{}        // closed when Run has returned or panicked, unless the interceptor has left
	state   atomic.Int32         // ended or left, whichever comes first
	setting chan struct{}        // has a place for one who sets metadata: grpc reads it when the interceptor has returned

	// Written before over is closed, read after that.
	call

	err     error
	unwound bool // it did not return
	value   any  // of its panic; nil: runtime.Goexit
}

// errLeft is for metadata that nobody will send.
var errLeft = errors.New("grpcmw: the stream was ended by a denial")

const (
	ended int32 = 1 + iota // Run has returned or panicked
	left                   // the interceptor has returned
)

// run is the handler's goroutine.
func (h *handling) run(r guard.Runner, id string, handler func(grpc.ServerStream) error) {
	returned := false
	defer func() { // also where the report ends the goroutine
		if h.state.CompareAndSwap(0, ended) {
			close(h.over)
		}
	}()
	defer func() {
		if !returned {
			h.unwound, h.value = true, recover()
			h.reportPanic()
		}
	}()
	h.err = r.Run(h.stream.Context(), id, func(ctx context.Context) error {
		if err := h.begin(); err != nil {
			return err
		}
		h.started <- ctx
		h.work = handler(&serverStream{h.stream, ctx, h})
		return h.work
	})
	returned = true
}

// setterTime is how long the interceptor waits for a handler that is setting metadata. That takes no
// time, unless a stream outside has a lock of its own that something blocked holds.
const setterTime = 10 * time.Millisecond

// awaitSetter waits for whoever is setting metadata: later ones find that the interceptor has left.
func (h *handling) awaitSetter() {
	timer := time.NewTimer(setterTime)
	defer timer.Stop()
	select {
	case h.setting <- struct{}{}:
	case <-timer.C:
	}
}

// set has metadata set, unless the interceptor has left.
func (h *handling) set(metadata func() error) error {
	select {
	case h.setting <- struct{}{}:
		defer func() { <-h.setting }()
	case <-h.stream.Context().Done(): // the interceptor has kept the place, and returned
	}
	if h.state.Load() == left {
		return errLeft
	}
	return metadata()
}

// wait is the interceptor's goroutine. An end of the caller's does not concern it: grpc releases the
// handler by itself then.
func (h *handling) wait() error {
	var run context.Context
	var done <-chan struct{}
	for {
		select {
		case run = <-h.started:
			done = run.Done()
		case <-h.over:
			return h.outcome()
		case <-done:
			done = nil
			if err := guard.Stopped(run); err != nil && h.state.CompareAndSwap(0, left) {
				h.awaitSetter()
				return lost(err)
			}
		}
	}
}

// outcome goes on as the handler did.
func (h *handling) outcome() error {
	switch {
	case h.unwound && h.value == nil:
		runtime.Goexit()
	case h.unwound:
		panic(h.value) //nolint:forbidigo // the handler's own, for whoever recovers from panics
	}
	return h.call.outcome(h.stream.Context(), h.err)
}

// serverStream is the stream as the handler has it.
type serverStream struct {
	grpc.ServerStream

	ctx context.Context //nolint:containedctx // the run's: a stream has a context
	h   *handling
}

// Context is grpc.ServerStream's.
func (s *serverStream) Context() context.Context { return s.ctx }

// stopped is the denial, nil while messages may pass. Where it is one, the stream inside is left
// alone: grpc sends the first status that it has, and one of a failed call would be the first.
func (s *serverStream) stopped() error {
	if err := guard.Stopped(s.ctx); err != nil {
		return lost(err)
	}
	return nil
}

// RecvMsg is grpc.ServerStream's. A message that came during the denial is not handed on.
func (s *serverStream) RecvMsg(m any) error {
	if err := s.stopped(); err != nil {
		return err
	}
	err := s.ServerStream.RecvMsg(m)
	if stopped := s.stopped(); stopped != nil {
		return stopped
	}
	return err
}

// SendMsg is grpc.ServerStream's.
func (s *serverStream) SendMsg(m any) error {
	if err := s.stopped(); err != nil {
		return err
	}
	err := s.ServerStream.SendMsg(m)
	if stopped := s.stopped(); stopped != nil {
		return stopped
	}
	return err
}

// SetHeader is grpc.ServerStream's.
func (s *serverStream) SetHeader(md metadata.MD) error {
	if err := s.stopped(); err != nil {
		return err
	}
	return s.h.set(func() error { return s.ServerStream.SetHeader(md) })
}

// SendHeader is grpc.ServerStream's.
func (s *serverStream) SendHeader(md metadata.MD) error {
	if err := s.stopped(); err != nil {
		return err
	}
	return s.ServerStream.SendHeader(md)
}

// SetTrailer is grpc.ServerStream's. After a denial it does nothing.
func (s *serverStream) SetTrailer(md metadata.MD) {
	if guard.Stopped(s.ctx) == nil {
		_ = s.h.set(func() error {
			s.ServerStream.SetTrailer(md)
			return nil
		})
	}
}
