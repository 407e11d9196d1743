package httpmw

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/execguard/execguard/guard"
)

// exchange is one request under the guard: what its handler reads and writes goes through it.
//
// Invariant: stopped is set before anything that blocks is released, and once it is set nothing
// passes any more. So only what is inside at that moment has to be released, and where nothing has
// been written by then the answer is still the guard's to give.
type exchange struct {
	*handler
	inner   http.ResponseWriter
	request *http.Request   // as it came
	ctx     context.Context //nolint:containedctx // the run's, which the handler's request has
	before  *fields         // of the answer's header; nil: the handler has not seen that
	can     ability
	called  bool // the handler was
	handled bool // it has returned

	mu      sync.Mutex
	hooked  bool  // release is called on a stop
	over    bool  // the handler has returned
	wrote   bool  // an answer was begun
	broken  bool  // a write has failed, perhaps in the middle
	eof     bool  // the request's body was read to its end
	events  bool  // the answer is an event stream that is to end with an event of ours
	tail    tail  // how the answer ends
	reading int32 // reads of the body that are inside
	writing int32 // writes that are inside
	stopped error // the denial
	conn    *conn // the hijacked connection
}

// past is a deadline that is over.
var past = time.Unix(1, 0) //nolint:gochecknoglobals // never changed

func isHalt(err error) bool {
	return errors.Is(err, guard.ErrDenied) || errors.Is(err, guard.ErrClosed)
}

// enter lets one read or write in, which may begin the answer, or says why not. The first that may
// block has the hook set up: a handler that writes a few bytes pays nothing for it, nor does one whose
// writer could not be released anyway.
func (e *exchange) enter(inside *int32, answers bool, bytes int) error {
	if err := guard.Stopped(e.ctx); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopped != nil {
		return e.stopped
	}
	if bytes > int(e.can.room) && !e.hooked && !e.over && e.can.release {
		e.hook()
	}
	e.can.room = int32(max(int(e.can.room)-bytes, noRoom)) //nolint:gosec // it shrinks
	*inside++
	if answers && !e.wrote {
		// Now and not later: the header belongs to the handler, which may set trailers meanwhile.
		e.wrote, e.events = true, e.lastEvent != nil && isEventStream(e.inner.Header())
	}
	return nil
}

// exit lets it out with its error, and says why it must not have been let in.
func (e *exchange) exit(inside *int32, err error) error {
	e.mu.Lock()
	*inside--
	e.broken = e.broken || err != nil && inside == &e.writing
	e.eof = e.eof || inside == &e.reading && err == io.EOF //nolint:errorlint // a stream's own end, and no EOF inside another error
	stopped := e.stopped
	e.mu.Unlock()
	if stopped != nil || inside == &e.writing {
		return stopped // a write that came out before anybody had to release it was in time
	}
	return guard.Stopped(e.ctx)
}

// hook has release called on a stop. The caller holds mu.
func (e *exchange) hook() {
	e.hooked = true
	guard.AfterStop(e.ctx, e.release)
}

// release frees what blocks inside. It runs after the context has ended, and not before: with the
// deadline first, net/http would end the request's context itself, without a cause.
func (e *exchange) release() {
	c, at := e.free(guard.Stopped(e.ctx))
	if c != nil {
		c.sever()
		return
	}
	for wait := retryRelease; e.inside(); wait = min(2*wait, lastEventTime) {
		<-time.After(wait)
		e.freeAgain(at)
	}
}

// retryRelease is when what does not come out is released again, and then less and less often. Over
// TLS that happens: the server closes the connection because of our deadline, and the farewell gets a
// deadline of its own. A read may be writing: «100 Continue».
const retryRelease = 10 * time.Millisecond

// free frees what goes through the server, and returns from when on no write may block any more, or
// the connection if it was hijacked.
func (e *exchange) free(err error) (hijacked *conn, at time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.over {
		return nil, at
	}
	e.stopped = err
	if e.conn != nil {
		return e.conn, at
	}
	rc := http.NewResponseController(e.inner)
	at = past
	if e.events { // what is inside may be an event, and another one is to follow
		at = time.Now().Add(lastEventTime)
	}
	if e.writing > 0 && e.wrote { // else the answer is still ours to give, and HTTP/2 has no way back
		_ = rc.SetWriteDeadline(at)
	}
	// In HTTP/1.1 what begins an answer reads the rest of the request first.
	if e.reading > 0 || e.writing > 0 && e.request.ProtoMajor == 1 {
		_ = rc.SetReadDeadline(past)
	}
	return nil, at
}

// inside tells whether there is anything to release.
func (e *exchange) inside() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return !e.over && (e.writing > 0 || e.reading > 0 && e.request.ProtoMajor == 1)
}

// freeAgain releases what is still inside, from then on.
func (e *exchange) freeAgain(from time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.over && time.Now().After(from) && (e.writing > 0 || e.reading > 0) {
		e.broken = true
		_ = http.NewResponseController(e.inner).SetWriteDeadline(past)
	}
}

// leave ends the guard's part when the handler has returned or panicked, before the server has the
// connection back: a deadline set later would hit the next request. A hijacked connection stays
// guarded until somebody closes it, whoever works on it, or a denial does; that of a handler that panicked
// is nobody's any more.
func (e *exchange) leave() {
	e.mu.Lock()
	c := e.conn
	e.over = c == nil
	e.mu.Unlock()
	switch {
	case c == nil && !e.handled:
		e.cutPanic()
		return
	case c == nil:
		return
	case e.handled:
		<-c.closed
	}
	c.sever()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.over = true
}
