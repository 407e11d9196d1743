// Package httpmw guards HTTP on both sides: New lets a handler run only while an authority allows
// the request's device, and ends the request when it no longer does, long answers and hijacked
// connections included; Transport does the same for outgoing calls, until their answer has been
// read.
//
// New is a middleware like any other, func(http.Handler) http.Handler, and resembles
// http.TimeoutHandler: only that it is not the time that runs out, and that the answer is not
// buffered. Put it after what authenticates the caller, before what has effects.
//
// Every request that is guarded waits for the authority before it begins (those of one device that
// come at once share a question), and so does every call of Transport. guard.WithReuse saves that, and
// says what it gives up.
//
// It does not stop a handler that ignores its context and neither reads nor writes: Go offers no
// way to. Blocked reads and writes are released by deadlines, as http.ResponseController sets them:
// a ResponseWriter that has none, http.TimeoutHandler's around the guard for one, leaves a blocked read of
// the body blocked. Which requests are guarded is for the router to say: there is no list of exceptions here.
// What is not allowed to begin is told to the guard's observers, but for a request without identity:
// the guard is not asked then, and only WithAnswer hears of it.
//
// # Answers
//
// A request that is refused or stopped is answered with a [Problem], as application/problem+json
// (RFC 9457). Its type is the address of one of the paragraphs below.
//
// # No identity
//
// 401, NO_IDENTITY: the request does not show which device it comes from. The handler was not called.
//
// # Invalid device id
//
// 400, INVALID_DEVICE_ID: it shows one that no device can have. The handler was not called.
//
// # Denied
//
// 403, with the authority's code: the device may not execute. The handler was not called, or was
// stopped before it had written anything.
//
// # Undecided
//
// 503, SYSTEM_UNAVAILABLE: the authority could not be asked; GUARD_CLOSED: this server is about to end.
// With Retry-After where the handler was not called, 5 s if the authority did not say; without, where it
// was stopped before it had written anything: work was begun, and nobody is invited to do it twice.
//
// What is stopped after something was written, even if that lay in a buffer still, ends with a
// connection that is cut (HTTP/1.1) or a stream that is reset (HTTP/2), so that half an answer never
// looks like a whole one. Like any handler that breaks off it panics with http.ErrAbortHandler: who
// recovers from panics outside of it had better let that one pass. If not, the answer is cut all the same, where
// the writers in between have an Unwrap.
//
// # Unhealthy
//
// 503, from Ready and Live alone: GUARD_CLOSED, SYSTEM_UNAVAILABLE or GUARD_STUCK, with the reason as detail.
package httpmw

import (
	"context"
	"errors"
	"net/http"

	"github.com/execguard/execguard/guard"
)

// New returns a middleware that calls the handler under r, for the device that the request comes
// from. The handler's request has the run's context: when the device is denied, that one ends first,
// with the denial as its cause; then reads of the body and writes of the answer that block return;
// and whatever the handler reads, writes or flushes afterwards fails with the denial. A panic of the
// handler goes on unchanged. New panics if r, device or an option is nil.
//
// A connection that the handler hijacks stays guarded, and its request's context live, until it is
// closed: ServeHTTP does not return before that, though the handler has. A denial closes it without a
// farewell, so that a WebSocket's client sees an end and no close frame. It comes wrapped: what its type can do
// beyond net.Conn is out of reach, but for CloseWrite. One that nobody closes keeps its
// run, and Guard.Shutdown waits for that.
func New(r guard.Runner, device DeviceFunc, opts ...Option) func(http.Handler) http.Handler {
	c := newConfig("New", r, device, opts)
	return func(next http.Handler) http.Handler {
		if next == nil {
			mistake("New: the handler is nil")
		}
		return &handler{config: c, runner: r, device: device, next: next}
	}
}

// errAgain is for a Runner that calls its function a second time, as one that is made of Guard.Keep would.
var errAgain = errors.New("httpmw: the Runner called the function again; a request can be handled only once")

// handler is the guarded handler.
type handler struct {
	config
	runner guard.Runner
	device DeviceFunc
	next   http.Handler
}

// ServeHTTP is http.Handler's.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id, err := h.device(r)
	if err != nil {
		h.refuse(w, r, unidentified(r.Context(), err))
		return
	}
	e := &exchange{handler: h, inner: w, request: r}
	err = h.runner.Run(r.Context(), id, e.serve)
	switch {
	case !e.called:
		h.refuse(w, r, refused(err))
	case err != nil:
		e.cut(err)
	}
}

// serve calls the handler, on the goroutine of the request.
func (e *exchange) serve(ctx context.Context) error {
	if e.called {
		return errAgain
	}
	e.ctx, e.called = ctx, true
	r := e.request.WithContext(ctx)
	if hasBody(r) {
		r.Body = body{e}
	}
	defer func() {
		if r.MultipartForm != nil {
			e.request.MultipartForm = r.MultipartForm // where the server looks for files to remove
		}
		e.leave()
	}()
	e.next.ServeHTTP(e.writer(), r)
	e.handled = true
	return nil
}
