package guard_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/execguard/execguard/guard/guardtest"
)

// stall is one way for a network to stop working under a client that has kept connections.
type stall struct {
	name     string
	drop     bool  // kept connections are closed when it begins
	door     door  // what becomes of new ones
	requests valve // what goes through on those that are there, kept or new
	answers  valve
	fault    guardtest.Fault // not the proxy's: the server's own, for which there is no proxy
}

// valve says how many bytes of a chunk go through; nil: all of them.
type valve func(chunk []byte) int

// door is how new connections are treated.
type door int

const (
	doorOpen   door = iota
	doorSilent      // accepted, and then nothing
	doorSlam        // accepted and reset
	doorShut        // refused
	doorFull        // the system accepts no more of them: a client's SYN stays without an answer
)

// hangUp, as a number of bytes, resets the connection.
const hangUp = -1

func noBytes([]byte) int     { return 0 }
func fewBytes([]byte) int    { return 20 } // ends in the middle of a header, or of a TLS record
func resetIt([]byte) int     { return hangUp }
func halfABody(b []byte) int { return bytes.Index(b, []byte("\r\n\r\n")) + 4 + 10 }

// stallProxy carries bytes between clients and a server until it stalls, which it does once at most.
type stallProxy struct {
	target   string
	listener net.Listener
	stalled  atomic.Pointer[stall]
	healed   chan struct{} // closed when what was held back may go on
	working  sync.WaitGroup

	mu       sync.Mutex
	conns    map[net.Conn]struct{} // nil: closed
	silent   []net.Conn            // what was accepted at doorSilent
	blockers []net.Conn            // what fills the queue of doorFull
}

func newStallProxy(target string) (*stallProxy, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &stallProxy{target: target, listener: l, healed: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	p.working.Go(p.accept)
	return p, nil
}

func (p *stallProxy) address() string { return p.listener.Addr().String() }

// accept accepts until the listener is closed, or has a deadline in the past.
func (p *stallProxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		switch s := p.stalled.Load(); {
		case s == nil || s.door == doorOpen:
			p.working.Go(func() { p.carry(c) })
		case s.door == doorSlam:
			reset(c)
		default:
			p.hold(c)
		}
	}
}

// keep has c closed when kept connections are, and tells whether the proxy is there at all.
func (p *stallProxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns == nil {
		c.Close()
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

// hold leaves c without an answer until the stall is over.
func (p *stallProxy) hold(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if closed(p.healed) {
		c.Close()
		return
	}
	p.silent = append(p.silent, c)
}

// carry connects a client to the server.
func (p *stallProxy) carry(client net.Conn) {
	defer client.Close()
	server, err := new(net.Dialer).DialContext(context.Background(), "tcp", p.target)
	if err != nil {
		return
	}
	defer server.Close()
	if !p.keep(client) || !p.keep(server) {
		return
	}
	if s := p.stalled.Load(); s != nil && s.door != doorOpen {
		return // it came in just before the door changed
	}
	var pumps sync.WaitGroup
	pumps.Go(func() { p.pump(server, client, func(s *stall) valve { return s.requests }) })
	pumps.Go(func() { p.pump(client, server, func(s *stall) valve { return s.answers }) })
	pumps.Wait()
}

// pump carries one direction, and at its end closes both: nobody here closes one half.
func (p *stallProxy) pump(to, from net.Conn, through func(*stall) valve) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		if err != nil || !p.pass(to, buf[:n], through) {
			return
		}
	}
}

// pass writes a chunk, or as much of it as goes through now and the rest when the stall is over.
func (p *stallProxy) pass(to net.Conn, chunk []byte, through func(*stall) valve) bool {
	n := len(chunk)
	if s := p.stalled.Load(); s != nil && through(s) != nil {
		n = min(n, through(s)(chunk))
	}
	if n == hangUp {
		reset(to)
		return false
	}
	if _, err := to.Write(chunk[:n]); err != nil {
		return false
	}
	if n == len(chunk) {
		return true
	}
	<-p.healed
	_, err := to.Write(chunk[n:])
	return err == nil
}

// reset closes a connection with an RST in the place of a FIN.
func reset(c net.Conn) {
	_ = c.(*net.TCPConn).SetLinger(0)
	c.Close()
}

// stall begins s.
func (p *stallProxy) stall(s *stall) error {
	var err error
	p.stalled.Store(s)
	switch s.door {
	case doorShut:
		p.listener.Close()
	case doorFull:
		err = p.fill()
	case doorOpen, doorSilent, doorSlam:
	}
	if s.drop {
		p.drop()
	}
	return err
}

// drop closes the connections that are there.
func (p *stallProxy) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
	clear(p.conns)
}

// fill accepts no more and takes every place in the queue of those that wait to be accepted.
func (p *stallProxy) fill() error {
	l := p.listener.(*net.TCPListener)
	if err := l.SetDeadline(time.Unix(1, 0)); err != nil {
		return err
	}
	if err := shrinkQueue(l); err != nil {
		return err
	}
	dialer := net.Dialer{Timeout: 20 * time.Millisecond}
	for range 8 {
		c, err := dialer.DialContext(context.Background(), "tcp", p.address())
		if late := net.Error(nil); errors.As(err, &late) && late.Timeout() {
			return nil
		}
		if err != nil {
			return err
		}
		p.mu.Lock()
		p.blockers = append(p.blockers, c)
		p.mu.Unlock()
	}
	return errors.New("the queue of a listener does not fill up on this system")
}

// heal ends the stall for what was held back: the rest of a chunk goes on, silent connections end.
func (p *stallProxy) heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !closed(p.healed) {
		close(p.healed)
	}
	for _, c := range p.silent {
		c.Close()
	}
	p.silent = nil
}

// resume carries all again, after a stall that left the door open.
func (p *stallProxy) resume() {
	p.stalled.Store(nil)
	p.heal()
}

// close ends everything and waits until it has ended.
func (p *stallProxy) close() {
	p.heal()
	p.listener.Close()
	p.drop()
	p.mu.Lock()
	p.conns = nil
	for _, c := range p.blockers {
		c.Close()
	}
	p.mu.Unlock()
	p.working.Wait()
}
