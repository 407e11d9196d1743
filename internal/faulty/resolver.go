package faulty

import (
	"context"
	"net"
	"sync"
)

// resolver is a name server that knows no name. It is asked by Client's dialer while a fault of
// name resolution is on, so that the error is the real one of package net.
type resolver struct {
	socket net.PacketConn
	askers sync.WaitGroup // counted by Server.asking

	mu      sync.Mutex
	mute    bool    // answer nothing before stop
	waiting []query // that were not answered yet
}

type query struct {
	message []byte
	from    net.Addr
}

// newResolver starts a resolver, which answers at once or, if mute, when it is stopped. Its
// goroutine ends with stop.
func newResolver(mute bool) (*resolver, error) {
	socket, err := (&net.ListenConfig{}).ListenPacket(context.Background(), "udp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &resolver{socket: socket, mute: mute}
	go r.serve()
	return r, nil
}

// serve reads questions until the socket is closed.
func (r *resolver) serve() {
	buf := make([]byte, 1500) // longer than any question
	for {
		n, from, err := r.socket.ReadFrom(buf)
		if err != nil {
			return
		}
		q := query{append([]byte(nil), buf[:n]...), from}
		r.mu.Lock()
		r.waiting = append(r.waiting, q)
		r.mu.Unlock()
		r.answer()
	}
}

// answer tells everyone who waits that there is no such name, unless the resolver is mute.
func (r *resolver) answer() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mute {
		return
	}
	for _, q := range r.waiting {
		if reply, ok := noSuchName(q.message); ok {
			_, _ = r.socket.WriteTo(reply, q.from) // the asker may have left
		}
	}
	r.waiting = nil
}

// noSuchName turns a question into its answer: the same message, marked as a response that says
// NXDOMAIN (RFC 1035, section 4.1.1: QR, recursion desired and available, RCODE 3).
func noSuchName(question []byte) (reply []byte, ok bool) {
	const header = 12
	if len(question) < header {
		return nil, false
	}
	reply = append([]byte(nil), question...)
	reply[2], reply[3] = 0x81, 0x83
	return reply, true
}

// stop answers all who ask, so that nobody sits out a time-out of seconds, and closes the socket
// when they have gone.
func (r *resolver) stop() {
	r.mu.Lock()
	r.mute = false
	r.mu.Unlock()
	r.answer()
	r.askers.Wait()
	r.socket.Close()
}

// dial does what the client's own dialer would do if this were the system's name server. It
// looks up a name that nobody has (RFC 2606) and so never connects.
func (r *resolver) dial(ctx context.Context) (net.Conn, error) {
	dialer := net.Dialer{Resolver: &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "udp", r.socket.LocalAddr().String())
		},
	}}
	return dialer.DialContext(ctx, "tcp", "authority.invalid.:443")
}
