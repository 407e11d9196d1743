package httpmw

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/execguard/execguard/guard"
)

// watch has the answer guarded until its body is over.
func watch(b *answerBody, resp *http.Response) (*http.Response, error) {
	if b.inner == nil {
		b.inner = http.NoBody
	}
	b.closeOnce = sync.OnceValue(b.inner.Close)
	b.unhook = context.AfterFunc(b.ctx, b.cut)
	if err := b.ended(); err != nil { // an answer that comes after a denial is none
		return nil, b.fail(err)
	}
	if b.inner == http.NoBody {
		if err := b.end(nil, nil); err != nil {
			return nil, err
		}
		return resp, nil
	}
	resp.Body = b
	if w, ok := b.inner.(io.ReadWriteCloser); ok && resp.StatusCode == http.StatusSwitchingProtocols {
		resp.Body = &duplexBody{b, w}
	}
	return resp, nil
}

// answerBody is the body of an answer as the caller reads it.
type answerBody struct {
	inner     io.ReadCloser
	closeOnce func() error    // closes inner
	ctx       context.Context //nolint:containedctx // the run's, which goes on until the body is over
	session   *guard.Session
	over      atomic.Bool // it was read to its end, or closed: the end of ctx says nothing any more
	unhook    func() bool // it is cut when ctx ends
}

// cut closes the body when the run's context ends: after a 101 net/http does not watch it any more,
// and other transports may not do so at all.
func (b *answerBody) cut() {
	if err := b.ended(); err != nil {
		_ = b.closeOnce()
		b.session.End(err)
	}
}

// ended is why the call has to end: the denial, or what else has ended its context.
func (b *answerBody) ended() error {
	if b.over.Load() || b.ctx.Err() == nil {
		return nil
	}
	return cmp.Or(guard.Stopped(b.ctx), context.Cause(b.ctx))
}

// Read is io.Reader's. What comes after a denial is not handed on.
func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.pass(b.inner.Read, p)
	if err == nil {
		return n, nil
	}
	work := err
	if err == io.EOF { //nolint:errorlint // a stream's own end, and no EOF inside another error
		work = nil
	}
	err = b.end(work, err)
	if isHalt(err) {
		n = 0
	}
	return n, err
}

// pass lets one read or write through, and nothing once the call has to end.
func (b *answerBody) pass(through func([]byte) (int, error), p []byte) (int, error) {
	if b.over.Load() {
		if err := b.session.Wait(); err != nil {
			return 0, uncanceled(err)
		}
	}
	if err := b.ended(); err != nil {
		return 0, b.fail(err)
	}
	n, err := through(p)
	if err := b.ended(); err != nil {
		return 0, b.fail(err)
	}
	return n, err
}

// Close is io.Closer's. It returns the denial of a call that was cut before its end.
func (b *answerBody) Close() error {
	err := b.closeOnce()
	return b.end(b.ended(), err)
}

// fail ends a call that has to end.
func (b *answerBody) fail(why error) error {
	_ = b.closeOnce()
	return b.end(why, why)
}

// end ends the call with what it came to, and returns the denial or err.
func (b *answerBody) end(work, err error) error {
	b.over.Store(true)
	b.unhook()
	return outcome(b.session, work, err)
}

// duplexBody is the body of an answer that switched protocols, which can be written to.
type duplexBody struct {
	*answerBody

	writer io.Writer
}

// Read is io.Reader's. At its end the other direction may go on: the call is over when the body
// is closed.
func (b *duplexBody) Read(p []byte) (int, error) { return b.pass(b.inner.Read, p) }

// Write is io.Writer's.
func (b *duplexBody) Write(p []byte) (int, error) { return b.pass(b.writer.Write, p) }

// CloseWrite closes one direction, where the connection can, as that of net/http's answers does.
func (b *duplexBody) CloseWrite() error {
	if c, ok := b.writer.(halfCloser); ok {
		return c.CloseWrite()
	}
	return fmt.Errorf("httpmw: CloseWrite: %w", http.ErrNotSupported)
}
