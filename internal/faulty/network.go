package faulty

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
)

// way is how the network treats a connection.
type way int

const (
	wayOpen           way = iota
	wayRefused            // nobody listens
	wayNameless           // there is no such name, and nobody listens for those who have the address
	wayNameserverMute     // as before, but the name server does not even say so
	wayStalled            // accepted, and then nothing
)

// network is one HTTP server on one loopback port that can stop listening and start again.
type network struct {
	http    *http.Server
	address string
	wrap    func(net.Listener) net.Listener // what the server accepts from in place of the socket

	// While nobody listens, any other process could be given the port. An accepted connection
	// keeps it ours: a port that is in use is neither handed out nor bound by others, and can
	// still be listened on by whom it belongs to.
	keep [2]net.Conn

	serving sync.WaitGroup // the goroutines that accept
	open    sync.WaitGroup // connections

	mu       sync.Mutex
	listener net.Listener // nil while nobody listens
}

// newNetwork listens, and serves nobody before start. mark puts what a handler is to know of a connection into the
// context of its requests; it may be nil.
func newNetwork(handler http.HandlerFunc, wrap func(net.Listener) net.Listener,
	mark func(context.Context, net.Conn) context.Context,
) (*network, error) {
	n := &network{wrap: wrap}
	n.http = &http.Server{ //nolint:gosec // no time-outs: some faults are about clients' own
		Handler:     handler,
		ConnState:   n.track,
		ConnContext: mark,
		ErrorLog:    slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), // clients that leave are no news here
		Protocols:   new(http.Protocols),
	}
	n.http.Protocols.SetHTTP1(true) // the faults are about connections, and want one each
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	n.address = l.Addr().String()
	if err := n.keepPort(l); err != nil {
		l.Close()
		return nil, err
	}
	n.listener = l
	return n, nil
}

// start serves. What the handler reads must be there by then: a request may come from another process, and a
// socket puts no order into memory.
func (n *network) start() { n.serve(n.listener) }

// keepPort fills keep. It must be called before anything else accepts from l.
func (n *network) keepPort(l net.Listener) (err error) {
	if n.keep[0], err = (&net.Dialer{}).DialContext(context.Background(), "tcp", n.address); err != nil {
		return err
	}
	n.keep[1], err = l.Accept()
	return err
}

// track counts connections, so that close can wait for the last.
func (n *network) track(_ net.Conn, s http.ConnState) {
	switch s {
	case http.StateNew:
		n.open.Add(1)
	case http.StateClosed, http.StateHijacked:
		n.open.Done()
	case http.StateActive, http.StateIdle:
	}
}

// serve accepts from l on a goroutine of its own. An http.Server may serve one listener after
// the other, and forgets each when it is closed.
func (n *network) serve(l net.Listener) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.listener = l
	n.serving.Go(func() { _ = n.http.Serve(n.wrap(l)) }) // it ends with the listener
}

// refuse stops listening. Connections stay; those that the kernel has accepted and the server has
// not are reset.
func (n *network) refuse() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listener != nil {
		n.listener.Close()
		n.listener = nil
	}
}

// listen starts again where refuse has stopped.
func (n *network) listen() error {
	n.mu.Lock()
	listening := n.listener != nil
	n.mu.Unlock()
	if listening {
		return nil
	}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", n.address)
	if err == nil {
		n.serve(l)
	}
	return err
}

// dropIdle closes the connections that wait for another request. Those in use are marked to be
// closed if their answer falls into this moment, and otherwise live on: see Server.serve.
func (n *network) dropIdle() {
	n.http.SetKeepAlivesEnabled(false)
	n.http.SetKeepAlivesEnabled(true)
}

// close ends everything and waits until it has ended. A connection may be accepted while the
// server closes the others, which then takes a second look.
func (n *network) close() {
	n.http.Close()
	n.serving.Wait()
	n.http.Close()
	n.open.Wait()
	for _, c := range n.keep {
		c.Close()
	}
}

// gate is a listener that keeps some connections from the server.
type gate struct {
	net.Listener
	current func() *episode
	holding *sync.WaitGroup
}

// Accept returns the next connection that may go on.
func (g gate) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		e := g.current()
		if e.way != wayStalled {
			return c, nil
		}
		g.holding.Go(func() {
			defer e.closing(c)()
			_, _ = io.Copy(io.Discard, c) // until the client leaves or the episode ends
			c.Close()
		})
	}
}
