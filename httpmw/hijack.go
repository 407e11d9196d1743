package httpmw

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"io"
	"net"
	"net/http"
	"sync"

	"github.com/execguard/execguard/guard"
)

// hijack hands the connection to the handler. It stays guarded until it is closed: the run waits
// for that, and a denial closes it.
func (e *exchange) hijack() (net.Conn, *bufio.ReadWriter, error) {
	if err := e.enter(&e.writing, false, blocking); err != nil {
		return nil, nil, err
	}
	raw, buffered, err := http.NewResponseController(e.inner).Hijack()
	if err != nil {
		if halted := e.exit(&e.writing, nil); halted != nil {
			err = halted
		}
		return nil, nil, err
	}
	c := &conn{Conn: raw, ctx: e.ctx, closed: make(chan struct{})}
	e.mu.Lock()
	e.conn, e.wrote = c, true
	if !e.hooked {
		e.hook()
	}
	e.mu.Unlock()
	if halted := cmp.Or(e.exit(&e.writing, nil), guard.Stopped(e.ctx)); halted != nil {
		c.sever()
		return nil, nil, halted
	}
	rebind(buffered, c)
	if half, ok := raw.(halfCloser); ok {
		return halfConn{c, half}, buffered, nil
	}
	return c, buffered, nil
}

// rebind has the buffers that come with a hijacked connection read and write through c. What the
// client has sent already comes first.
func rebind(buffered *bufio.ReadWriter, c *conn) {
	if buffered == nil {
		return
	}
	early, _ := buffered.Peek(buffered.Reader.Buffered())
	buffered.Reader.Reset(io.MultiReader(bytes.NewReader(bytes.Clone(early)), c))
	_, _ = buffered.Peek(len(early)) // it is where everybody looks for it
	if buffered.Writer.Buffered() > 0 {
		_ = buffered.Flush()
	}
	buffered.Writer.Reset(c)
}

// conn is a hijacked connection.
type conn struct {
	net.Conn

	ctx    context.Context //nolint:containedctx // the run's, which goes on until the connection is closed
	once   sync.Once
	closed chan struct{}
}

// Read is net.Conn's.
func (c *conn) Read(p []byte) (int, error) { return c.pass(c.Conn.Read, p) }

// Write is net.Conn's.
func (c *conn) Write(p []byte) (int, error) { return c.pass(c.Conn.Write, p) }

// pass lets one read or write through, and nothing after a denial.
func (c *conn) pass(through func([]byte) (int, error), p []byte) (int, error) {
	if halted := guard.Stopped(c.ctx); halted != nil {
		return 0, halted
	}
	n, err := through(p)
	if halted := guard.Stopped(c.ctx); halted != nil {
		return 0, halted
	}
	return n, err
}

// Close is net.Conn's.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { close(c.closed) })
	return err
}

// sever closes the connection without a farewell: TLS would wait for a client that does not read.
func (c *conn) sever() {
	switch inner := c.Conn.(type) {
	case interface{ NetConn() net.Conn }:
		_ = inner.NetConn().Close()
	case interface{ sever() }: // another guard's
		inner.sever()
	}
	_ = c.Close()
}

// halfCloser is a connection of which one direction can be closed, as httputil.ReverseProxy does.
type halfCloser interface{ CloseWrite() error }

type halfConn struct {
	*conn
	halfCloser
}
