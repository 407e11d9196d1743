package httpmw

import (
	"io"
	"mime"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/execguard/execguard/guard"
)

// lastEventTime bounds what is done for a client that may not read.
const lastEventTime = time.Second

// cut ends a request that was stopped: with an answer where none was begun, else by cutting the
// connection.
func (e *exchange) cut(err error) {
	e.mu.Lock()
	e.stopped = err // also where no timer has fired: what the handler left behind writes no more
	hijacked, wrote, eof, broken := e.conn != nil, e.wrote, e.eof, e.broken
	whole := e.events && !e.broken && e.writing == 0 && e.tail.betweenEvents()
	e.mu.Unlock()
	rc, p := http.NewResponseController(e.inner), stopped(err)
	switch {
	case hijacked: // and closed by now
	case wrote:
		defer e.breakOff(rc) // also where the last event's function panics
		if whole {
			e.sendLastEvent(rc, p)
		}
		if f := e.request.MultipartForm; f != nil {
			_ = f.RemoveAll() // the server does not after a panic
		}
		panic(http.ErrAbortHandler) //nolint:forbidigo // net/http's way to abort an answer
	default:
		e.answerStopped(rc, p, eof, broken)
	}
}

// answerStopped sends the answer in the place of the handler's.
func (e *exchange) answerStopped(rc *http.ResponseController, p Problem, eof, released bool) {
	if e.before != nil {
		e.before.restore(e.inner.Header())
	}
	if !eof {
		forgetBody(rc, e.inner, e.request)
	}
	if released {
		_ = rc.SetWriteDeadline(time.Now().Add(lastEventTime)) // what was inside is out
	}
	e.answer(e.inner, e.request, p)
}

// breakOff sees to it that nothing more of the answer is sent, not even what is in a buffer.
func (e *exchange) breakOff(rc *http.ResponseController) {
	_ = rc.SetWriteDeadline(past)
	forgetBody(rc, e.inner, e.request)
	if !e.request.ProtoAtLeast(1, 1) {
		reset(rc)
	}
}

// reset ends a connection of HTTP/1.0, where the end of an answer may be nothing but that of the
// connection, so that it does not look like one.
func reset(rc *http.ResponseController) {
	c, _, err := rc.Hijack()
	if err != nil {
		return
	}
	if t, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = t.NetConn() // TLS would say farewell
	}
	if tcp, ok := c.(interface{ SetLinger(sec int) error }); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

// cutPanic is for a handler that panicked after a denial: whoever recovers from that outside must
// not make a proper end of half an answer.
func (e *exchange) cutPanic() {
	e.mu.Lock()
	wrote := e.wrote
	e.mu.Unlock()
	if wrote && guard.Stopped(e.ctx) != nil {
		e.breakOff(http.NewResponseController(e.inner))
	}
}

// forgetBody keeps the server from waiting for the rest of the request's body.
func forgetBody(rc *http.ResponseController, w http.ResponseWriter, r *http.Request) {
	if !hasBody(r) {
		return
	}
	_ = rc.SetReadDeadline(past)
	if r.ProtoMajor == 1 {
		// A client that is still sending must get to read the answer before the connection is reset: a
		// server does that for bodies that are too large, so it is told that this one was.
		tooLarge := http.MaxBytesReader(innermost(w), io.NopCloser(strings.NewReader("..")), 1)
		_, _ = io.Copy(io.Discard, tooLarge)
		w.Header().Set("Connection", "close")
	}
}

// sendLastEvent ends an event stream with one more event.
func (e *exchange) sendLastEvent(rc *http.ResponseController, p Problem) {
	event := e.lastEvent(p)
	if len(event) == 0 || rc.SetWriteDeadline(time.Now().Add(lastEventTime)) != nil {
		return
	}
	if _, err := e.inner.Write(event); err == nil {
		_ = rc.Flush()
	}
}

// isEventStream tells whether the answer is one to which an event can be added.
func isEventStream(h http.Header) bool {
	kind, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && kind == "text/event-stream" && h.Get("Content-Encoding") == "" && h.Get("Content-Length") == ""
}

// tail is the end of what was written: its last three bytes.
type tail struct{ last [3]byte }

// betweenEvents tells whether an event would begin here: after an empty line, or at the beginning.
func (t *tail) betweenEvents() bool {
	end := string(t.last[:])
	return t.last == [3]byte{} || strings.HasSuffix(end, "\n\n") || end == "\n\r\n" || strings.HasSuffix(end, "\r\r")
}

// noteTail notes the end of what was written, on the handler's goroutine.
func (e *exchange) noteTail(end string) {
	if e.lastEvent == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, b := range []byte(end) {
		e.tail.last = [3]byte{e.tail.last[1], e.tail.last[2], b}
	}
}

// innermost is the writer that all others unwrap to: the server's own.
func innermost(w http.ResponseWriter) http.ResponseWriter {
	for {
		u, ok := w.(unwrapper)
		if !ok {
			return w
		}
		w = u.Unwrap()
	}
}
