package httpmw

import (
	"bufio"
	"cmp"
	"context"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/execguard/execguard/guard"
)

// The answer as the handler writes it. Everybody asks a ResponseWriter by its type what it can do, so
// that there is one type for each thing that the one inside can do besides, and their combinations:
// each is one pointer, which an interface holds without an allocation.
type (
	writer                struct{ *exchange }
	flushWriter           struct{ writer }
	hijackWriter          struct{ writer }
	fromWriter            struct{ writer }
	flushHijackWriter     struct{ flushWriter }
	flushFromWriter       struct{ flushWriter }
	hijackFromWriter      struct{ hijackWriter }
	flushHijackFromWriter struct{ flushHijackWriter }
)

// writer returns the writer that can do what the one inside can.
func (e *exchange) writer() http.ResponseWriter {
	e.can = abilityOf(e.inner)
	w, can := writer{e}, e.can
	switch {
	case can.flush && can.hijack && can.from:
		return flushHijackFromWriter{flushHijackWriter{flushWriter{w}}}
	case can.flush && can.hijack:
		return flushHijackWriter{flushWriter{w}}
	case can.flush && can.from:
		return flushFromWriter{flushWriter{w}}
	case can.hijack && can.from:
		return hijackFromWriter{hijackWriter{w}}
	case can.flush:
		return flushWriter{w}
	case can.hijack:
		return hijackWriter{w}
	case can.from:
		return fromWriter{w}
	default:
		return w
	}
}

// Header is http.ResponseWriter's. What it holds is noted as late as this, because net/http copies a
// header that somebody has asked for.
func (w writer) Header() http.Header {
	h := w.inner.Header()
	if w.before == nil {
		w.before = fieldsOf(h)
	}
	return h
}

// WriteHeader is http.ResponseWriter's. After a denial it does nothing.
func (w writer) WriteHeader(status int) {
	bytes := 0
	if !final(status) {
		bytes = blocking // it is sent at once
	}
	if w.enter(&w.writing, final(status), bytes) != nil {
		return
	}
	w.inner.WriteHeader(status)
	_ = w.exit(&w.writing, nil)
}

// Write is http.ResponseWriter's.
func (w writer) Write(p []byte) (int, error) {
	if err := w.enter(&w.writing, true, len(p)); err != nil {
		return 0, err
	}
	n, err := w.inner.Write(p)
	w.noteTail(string(p[max(0, n-len(w.tail.last)):n]))
	if halted := w.exit(&w.writing, err); halted != nil {
		return n, halted
	}
	return n, err
}

// WriteString is io.StringWriter's.
func (w writer) WriteString(s string) (int, error) {
	if err := w.enter(&w.writing, true, len(s)); err != nil {
		return 0, err
	}
	n, err := io.WriteString(w.inner, s)
	w.noteTail(s[max(0, n-len(w.tail.last)):n])
	if halted := w.exit(&w.writing, err); halted != nil {
		return n, halted
	}
	return n, err
}

// Unwrap is for http.ResponseController. What is written to the writer inside is not guarded.
func (w writer) Unwrap() http.ResponseWriter { return w.inner }

// SetReadDeadline is for http.ResponseController: a denial's deadline stays.
func (w writer) SetReadDeadline(deadline time.Time) error {
	return w.setDeadline((*http.ResponseController).SetReadDeadline, deadline)
}

// SetWriteDeadline is for http.ResponseController: a denial's deadline stays.
func (w writer) SetWriteDeadline(deadline time.Time) error {
	return w.setDeadline((*http.ResponseController).SetWriteDeadline, deadline)
}

func (e *exchange) setDeadline(set func(*http.ResponseController, time.Time) error, deadline time.Time) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := cmp.Or(e.stopped, guard.Stopped(e.ctx)); err != nil {
		return err
	}
	return set(http.NewResponseController(e.inner), deadline)
}

// FlushError is for http.ResponseController, which would go past the guard otherwise.
func (w writer) FlushError() error {
	flushes := reaches[http.Flusher](w.inner) || reaches[errorFlusher](w.inner)
	if err := w.enter(&w.writing, flushes, blocking); err != nil {
		return err
	}
	err := http.NewResponseController(w.inner).Flush()
	failed := err
	if !flushes {
		failed = nil // it was not tried
	}
	if halted := w.exit(&w.writing, failed); halted != nil {
		return halted
	}
	return err
}

// readFrom is io.ReaderFrom's. The answer begins with the first bytes: a source that has none yet has
// sent nothing.
func (w writer) readFrom(src io.Reader) (int64, error) {
	first := make([]byte, 512)
	n, err := src.Read(first)
	if n > 0 {
		if n, err := w.Write(first[:n]); err != nil {
			return int64(n), err
		}
	}
	if err != nil {
		if err == io.EOF { //nolint:errorlint // a stream's own end, and no EOF inside another error
			err = nil
		}
		return int64(n), err
	}
	rest, err := w.readRest(src)
	return int64(n) + rest, err
}

func (w writer) readRest(src io.Reader) (int64, error) {
	if err := w.enter(&w.writing, true, blocking); err != nil {
		return 0, err
	}
	if !w.can.release {
		src = haltingReader{w.ctx, src} // nothing else would end the copying
	}
	n, err := w.inner.(io.ReaderFrom).ReadFrom(src) //nolint:forcetypeassert // abilityOf has looked
	w.noteTail("?")
	if halted := w.exit(&w.writing, err); halted != nil {
		return n, halted
	}
	return n, err
}

// haltingReader ends with the denial.
type haltingReader struct {
	ctx context.Context //nolint:containedctx // of the one copying that it is made for
	src io.Reader
}

func (h haltingReader) Read(p []byte) (int, error) {
	if err := guard.Stopped(h.ctx); err != nil {
		return 0, err
	}
	return h.src.Read(p)
}

func (w flushWriter) Flush() { _ = w.FlushError() }

func (w hijackWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) { return w.hijack() }

func (w flushHijackWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) { return w.hijack() }

func (w fromWriter) ReadFrom(src io.Reader) (int64, error)            { return w.readFrom(src) }
func (w flushFromWriter) ReadFrom(src io.Reader) (int64, error)       { return w.readFrom(src) }
func (w hijackFromWriter) ReadFrom(src io.Reader) (int64, error)      { return w.readFrom(src) }
func (w flushHijackFromWriter) ReadFrom(src io.Reader) (int64, error) { return w.readFrom(src) }
