package faulty

import (
	"net"
	"sync"
)

// episode is the time between two changes of fault. What a fault has to remember is kept here,
// and so forgotten with it; a visit belongs to the episode in which its request came.
type episode struct {
	row
	over chan struct{} // closed when the episode ends

	mu    sync.Mutex
	seen  int                   // requests
	turns map[int]chan struct{} // of «answers out of order»: closed when the second of a pair is answered
	conns map[net.Conn]struct{} // to close at the end; nil once it is over
}

func newEpisode(r row) *episode {
	return &episode{
		row:   r,
		over:  make(chan struct{}),
		turns: make(map[int]chan struct{}),
		conns: make(map[net.Conn]struct{}),
	}
}

// count numbers a request, from 1.
func (e *episode) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seen++
	return e.seen
}

// turn returns the channel of the i-th pair of requests.
func (e *episode) turn(i int) chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.turns[i] == nil {
		e.turns[i] = make(chan struct{})
	}
	return e.turns[i]
}

// closing has c closed when the episode ends, or at once where it has ended, unless forget is
// called before.
func (e *episode) closing(c net.Conn) (forget func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.conns == nil {
		c.Close()
		return func() {}
	}
	e.conns[c] = struct{}{}
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.conns, c)
	}
}

// holds tells whether a connection is kept until the end.
func (e *episode) holds() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.conns) > 0
}

// end ends the episode: waits end, and connections that it held are closed. It is called once.
// The lock is not held while connections are closed, for a close may wait for a writer.
func (e *episode) end() {
	e.mu.Lock()
	conns := e.conns
	e.conns = nil
	e.mu.Unlock()
	close(e.over)
	for c := range conns {
		c.Close()
	}
}
