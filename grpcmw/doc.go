// Package grpcmw guards gRPC on both sides: its four interceptors let a call run only while an
// authority allows the device, and end it when the authority no longer does, streams that have
// been open for hours included. The other side gets a status with the code in it, and FromError reads
// it back.
//
// They are interceptors like any others, and resemble those of go-grpc-middleware that authenticate:
// only that these ask again while the call goes on, and that a no is final for it.
//
//	          UnaryServer             StreamServer                UnaryClient             StreamClient
//	runs      on grpc's goroutine     on one of its own           on the caller's         on a goroutine of its own
//	denied    context cancelled       and the stream ended        context cancelled       context cancelled
//	returns   when the handler does   at once                     when the invoker does   the denial, from then on
//
// Every call that is guarded waits for the authority before it begins (those of one device that come
// at once share a question). guard.WithReuse saves that, and says what it gives up.
//
// # What the other side gets
//
//	what happened                                   before the start              while the call ran
//	the authority said no                           PermissionDenied              the same
//	the device's id is no id                        InvalidArgument               PermissionDenied
//	the authority could not be asked, guard closed  Unavailable, with RetryInfo   Aborted
//	the call shows no device (ErrNoIdentity)        Unauthenticated               -
//	the caller's context ended                      Canceled, DeadlineExceeded    as without a guard
//
// Unavailable asks to be tried again, and retry policies do: so nothing whose work was begun is
// answered so by the guard. Beside the status there is an ErrorInfo of the domain «execguard»: the guard's code, or
// NO_IDENTITY or GUARD_CLOSED, as its reason, and in its metadata request_id and phase, which is
// «start» or «run». No other word of an error of the guard's leaves the
// process; what a handler returns is its own affair.
//
// # What it does not promise
//
// It does not end a handler that ignores its context. That of a unary call is waited for. A stream
// is ended all the same, because nothing else releases a handler that is blocked in RecvMsg or
// SendMsg: grpc does so when the interceptor returns, and at no other event. So a stream's handler may
// go on after the interceptors outside of it have returned, its run counts until it returns
// itself, and GracefulStop and WaitForHandlers do not wait for it. Interceptors outside that count messages see
// the last of them beside their own return: put those inside. What it still receives, sends or
// sets fails with the denial. What had been sent before is delivered first, so a client that does
// not read has its status when it does.
//
// Metadata that is set through the context (grpc.SetHeader, grpc.SetTrailer) goes past the guard; messages do
// not. Under Server.ServeHTTP a handler that is blocked in SendMsg is not released: net/http blocks there, so put
// httpmw around that.
//
// It does not notice by itself that a peer is gone or revoked: keepalive looks at connections, and
// MaxConnectionAge lets streams go on unless MaxConnectionAgeGrace is set.
//
// # Where it stands among others
//
// After what authenticates the caller, if the DeviceFunc needs that, after recovery and logging, and
// before whatever has effects. grpc calls the one interceptor of grpc.UnaryInterceptor before all of
// grpc.ChainUnaryInterceptor, whatever the order of the options: put all into one chain. A unary
// call's request has been read and decoded by then.
//
// Every call is guarded. Leaving some out, health checks and reflection above all, is composition: a
// selector as in go-grpc-middleware, or the few lines of the example of [UnaryServer].
//
// A client of the authority itself over gRPC should neither wait for a connection without end
// (WaitForReady) nor go without a deadline; calls that a Guard's own questions make pass the client
// interceptors unguarded ([guard.Validating]).
package grpcmw
