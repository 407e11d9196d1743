package grpcmw

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/metadata"

	"github.com/execguard/execguard/guard"
)

// errUnwound is what a call came to whose streamer did not return.
var errUnwound = errors.New("grpcmw: the streamer panicked or ended its goroutine")

// StreamClient returns an interceptor that opens a stream only under r, for the device that it
// stands for, and guards it until it ends in any of its ways: RecvMsg returns an error, io.EOF
// included, or the one answer of a stream without others; the call cannot be made; its context ends. When
// the device is denied, the stream is cancelled, and every method of it that has an error to return
// returns the denial. A stream that is dropped without any of these stays guarded until its context
// ends or its connection is closed, as grpc keeps it until then. Calls of a Guard's own Validator pass unguarded
// (guard.Validating). StreamClient panics if r, device or an option is nil.
func StreamClient(r guard.Runner, device DeviceFunc, opts ...Option) grpc.StreamClientInterceptor {
	c := newConfig("StreamClient", r, device, opts)
	return func(
		ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption,
	) (grpc.ClientStream, error) {
		if guard.Validating(ctx) {
			return streamer(ctx, desc, cc, method, opts...)
		}
		id, err := c.device(ctx, method)
		if err != nil {
			return nil, unidentified(ctx, err)
		}
		run, session, err := guard.Begin(ctx, c.runner, id)
		if err != nil {
			return nil, refused(ctx, err)
		}
		s := &clientStream{ctx: run, session: session, conn: cc, single: !desc.ServerStreams}
		guard.AfterStop(run, func() { s.end(guard.Stopped(run)) }) // a stream that is dropped, too
		return s.open(func() (grpc.ClientStream, error) {
			return streamer(run, desc, cc, method, append(opts[:len(opts):len(opts)], grpc.OnFinish(s.tried))...)
		})
	}
}

// clientStream is the stream as the caller has it.
type clientStream struct {
	grpc.ClientStream

	ctx     context.Context //nolint:containedctx // the run's: a stream has a context
	session *guard.Session
	conn    *grpc.ClientConn
	single  bool         // the server sends one message, and with it the stream is over
	inside  atomic.Int32 // calls of the caller's that are under way
	try     atomic.Pointer[finished]
}

func (s *clientStream) open(streamer func() (grpc.ClientStream, error)) (grpc.ClientStream, error) {
	returned := false
	defer func() {
		if !returned {
			s.end(errUnwound)
		}
	}()
	s.inside.Add(1)
	inner, err := streamer()
	s.inside.Add(-1)
	returned = true
	if err != nil {
		return nil, s.over(err)
	}
	s.try.Store(nil) // it was opened in the end
	s.ClientStream = inner
	return s, nil
}

// finished is what the call itself came to, so that a denial in it, of another guard or another
// process, is not taken for this guard's.
type finished struct{ err error }

func (f *finished) Error() string { return f.err.Error() }

func (f *finished) Unwrap() error { return f.err }

// end ends the run, without waiting.
func (s *clientStream) end(err error) {
	if err == nil || err == io.EOF { //nolint:errorlint // a stream's own end, and no EOF inside another error
		s.session.End(nil)
		return
	}
	s.session.End(&finished{err})
}

// tried is called by grpc when a call is over. While a call of the caller's is under way that may be
// one try of many, if something inside tries again: then it is for that one to say what came of it. When
// none is, nobody may ever read the stream to its end.
func (s *clientStream) tried(err error) {
	s.try.Store(&finished{err})
	if s.inside.Load() == 0 {
		s.end(err)
	}
}

// endWithConn ends the run where the connection was closed while a call of the caller's was under way:
// there will be no other try, and the caller need not look at the stream again.
func (s *clientStream) endWithConn() {
	if last := s.try.Swap(nil); last != nil && s.conn != nil && s.conn.GetState() == connectivity.Shutdown {
		s.end(last.err)
	}
}

// over is for a call that is over: it returns the denial, where there was one before the end, or err.
func (s *clientStream) over(err error) error {
	s.end(err)
	result := s.session.Wait()
	if _, own := result.(*finished); own || result == nil { //nolint:errorlint // that the denial may hold one too is the point
		return uncanceled(s.ctx, err)
	}
	if !isHalt(result) && same(result, context.Cause(s.ctx)) {
		return err // the caller's context has ended
	}
	return lost(result)
}

// stopped is the denial, nil while the stream may go on or when it has ended otherwise. The caller
// who is told it has no more business with the stream.
func (s *clientStream) stopped() error {
	if err := guard.Stopped(s.ctx); err != nil {
		s.end(err)
		return s.over(lost(err))
	}
	return nil
}

// Trailer is grpc.ClientStream's. After a denial there is none: grpc's may be on its way still.
func (s *clientStream) Trailer() metadata.MD {
	if s.stopped() != nil {
		return nil
	}
	return s.ClientStream.Trailer()
}

// Header is grpc.ClientStream's.
func (s *clientStream) Header() (metadata.MD, error) {
	s.inside.Add(1)
	md, err := s.ClientStream.Header()
	s.inside.Add(-1)
	if err != nil {
		return nil, s.over(err)
	}
	if last := s.try.Load(); last != nil && md == nil {
		s.end(last.err) // the answer was nothing but a trailer
	}
	if stopped := s.stopped(); stopped != nil {
		return nil, stopped
	}
	return md, nil
}

// CloseSend is grpc.ClientStream's.
func (s *clientStream) CloseSend() error {
	err := s.ClientStream.CloseSend()
	if stopped := s.stopped(); stopped != nil {
		return stopped
	}
	return err
}

// SendMsg is grpc.ClientStream's. Its io.EOF says only that RecvMsg knows more.
func (s *clientStream) SendMsg(m any) error {
	if err := s.stopped(); err != nil {
		return err
	}
	s.inside.Add(1)
	err := s.ClientStream.SendMsg(m)
	s.inside.Add(-1)
	if err != nil && err != io.EOF { //nolint:errorlint // a stream's own end, and no EOF inside another error
		return s.over(err)
	}
	s.endWithConn()
	if stopped := s.stopped(); stopped != nil {
		return stopped
	}
	return err
}

// RecvMsg is grpc.ClientStream's. A message that came during the denial is not handed on.
func (s *clientStream) RecvMsg(m any) error {
	if err := s.stopped(); err != nil {
		return err
	}
	s.inside.Add(1)
	err := s.ClientStream.RecvMsg(m)
	s.inside.Add(-1)
	if err != nil || s.single {
		return s.over(err)
	}
	s.endWithConn()
	return s.stopped()
}
