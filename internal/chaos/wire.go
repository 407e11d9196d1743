package chaos

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Wire carries connections between clients and a server, and makes them fail. It is made by
// NewWire; its methods are safe for concurrent use.
//
// github.com/Shopify/toxiproxy/v2, the proxy for such a purpose, will not do here: at v2.12.0 a
// change of its toxics waits, under the lock of the whole proxy, for connections whose client has
// left in the middle of an answer, and these never come to it. Clients that leave are what a
// guard's time-out is.
type Wire struct {
	target  string
	address string
	keep    [2]net.Conn // an accepted connection: while nobody listens, nobody else gets the port
	working sync.WaitGroup
	now     atomic.Pointer[spell]

	changing sync.Mutex // held while one trouble becomes another

	mu       sync.Mutex
	listener net.Listener // nil: connections are refused
	conns    map[net.Conn]struct{}
	closed   bool
}

// spell is the time for which a trouble lasts.
type spell struct {
	Trouble
	over chan struct{} // closed when the next one begins
}

// NewWire starts one to a server's address (host:port), without trouble. It runs until Close.
func NewWire(target string) (*Wire, error) {
	w := &Wire{target: target, conns: map[net.Conn]struct{}{}}
	w.now.Store(&spell{over: make(chan struct{})})
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w.address = l.Addr().String()
	if w.keep[0], err = new(net.Dialer).DialContext(context.Background(), "tcp", w.address); err == nil {
		w.keep[1], err = l.Accept()
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	w.listen(l)
	return w, nil
}

// Addr is where clients find it: host:port.
func (w *Wire) Addr() string { return w.address }

// Set begins a trouble in the place of any other; the zero Trouble is none. What the old one has
// held back goes on its way. An error says that the port could not be listened on again.
func (w *Wire) Set(t Trouble) error {
	w.changing.Lock()
	defer w.changing.Unlock()
	if w.isClosed() {
		return nil
	}
	close(w.now.Swap(&spell{Trouble: t, over: make(chan struct{})}).over)
	if t.Drop {
		w.drop()
	}
	return w.door(t.Door != Refuse)
}

// door opens or closes the port.
func (w *Wire) door(open bool) error {
	w.mu.Lock()
	l := w.listener
	if !open {
		w.listener = nil
	}
	w.mu.Unlock()
	switch {
	case open && l == nil:
		l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", w.address)
		if err != nil {
			return fmt.Errorf("chaos: the wire: %w", err)
		}
		w.listen(l)
	case !open && l != nil:
		l.Close()
	}
	return nil
}

// Close ends all connections, and returns when nothing of the wire runs any more.
func (w *Wire) Close() {
	w.changing.Lock()
	defer w.changing.Unlock()
	w.mu.Lock()
	done := w.closed
	w.closed = true
	w.mu.Unlock()
	if done {
		return
	}
	close(w.now.Swap(&spell{Trouble: Trouble{Door: Refuse}, over: make(chan struct{})}).over)
	_ = w.door(false) // closing fails at nothing
	w.drop()
	w.working.Wait()
	for _, c := range w.keep {
		c.Close()
	}
}

func (w *Wire) isClosed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closed
}

func (w *Wire) listen(l net.Listener) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.listener = l
	w.working.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			w.working.Go(func() { w.carry(c) })
		}
	})
}

// hold has c closed by drop, and tells whether there is still a wire.
func (w *Wire) hold(c net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return false
	}
	w.conns[c] = struct{}{}
	return true
}

// leave closes c, and forgets it.
func (w *Wire) leave(c net.Conn) {
	c.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, c)
}

// drop resets the connections that are there.
func (w *Wire) drop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		abrupt(c) // all of them first: when the one side is closed, its pump closes the other
	}
	for c := range w.conns {
		c.Close()
	}
}

// reset closes a connection with an RST in the place of a FIN.
func reset(c net.Conn) {
	abrupt(c)
	c.Close()
}

// abrupt has a connection end with an RST, whoever closes it.
func abrupt(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
}

// carry connects a client to the server, as the door lets it.
func (w *Wire) carry(client net.Conn) {
	defer w.leave(client)
	if !w.hold(client) {
		return
	}
	s := w.now.Load()
	switch s.Door {
	case Slam:
		reset(client)
		return
	case Silent:
		<-s.over
	case Open, Refuse: // who was accepted right before the door closed is inside
	}
	server, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(context.Background(), "tcp", w.target)
	if err != nil {
		return
	}
	defer w.leave(server)
	if !w.hold(server) {
		return
	}
	var pumps sync.WaitGroup
	pumps.Go(func() { w.pump(server, client, func(t Trouble) Flow { return t.Requests }) })
	pumps.Go(func() { w.pump(client, server, func(t Trouble) Flow { return t.Answers }) })
	pumps.Wait()
}
