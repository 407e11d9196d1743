package guardtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// Request is what reached a host of the server. Where a fault strikes before there is a request
// (a refused connection, a bad certificate), there is none.
type Request struct {
	Arrived  time.Time
	Method   string
	Path     string
	DeviceID string // as named in the body; "" where it names none
	WithKey  bool   // the organisation's key came with it, in whatever place
}

// Requests returns what reached the authority, in the order in which it came, under faults too.
func (s *Server) Requests() []Request { return s.live.visits.all() }

// Strays returns what reached the host that redirects lead to, which would answer anything with
// an ALLOW. A correct client never goes there; one that goes there WithKey has given the key to
// a stranger.
func (s *Server) Strays() []Request { return s.live.strays.all() }

// Wait blocks until n requests have reached the authority, counted from the first ever, or
// until ctx ends, whose cause it then returns. They need not have been answered. It returns the
// requests so far.
func (s *Server) Wait(ctx context.Context, n int) ([]Request, error) {
	return s.live.visits.wait(ctx, n)
}

// origin is what is known of a request's connection.
type origin struct {
	conn  net.Conn
	since *episode // in which it was accepted
}

type originKey struct{}

// mark notes in which episode a connection was made.
func (s *Server) mark(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, originKey{}, origin{c, s.current()})
}

// serve answers a request that has reached the authority. Under a fault of the network no
// request should: one that comes over a connection from before is cut off, unanswered and
// unrecorded, and only a client that ignores what it saw in the handshake gets an answer.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	e := s.current()
	from, ok := r.Context().Value(originKey{}).(origin)
	if !ok {
		return // cannot be: mark has seen every connection
	}
	if e.onWire() && (from.since != e || e.way.refuses()) {
		// Made before the network went wrong, or accepted at that very moment, and of no more use
		// than any other.
		from.conn.Close()
		return
	}
	v := &visit{
		w: w, r: r, during: e, n: e.count(), conn: from.conn, authority: s.authority,
		elsewhere: s.at("localhost" + s.other.address[strings.LastIndex(s.other.address, ":"):]),
	}
	seen := s.read(r)
	v.deviceID = seen.DeviceID
	if e.held {
		v.decided = v.decide()
	}
	s.live.visits.add(seen) // after the decision, so that who waits for the request may change what is true
	if e.send == nil {
		s.authority.ServeHTTP(w, r)
		return
	}
	e.send(v)
}

// serveStray is the host that redirects lead to. It answers anything, also the GET without a body
// that a client makes of a POST on 301 and 302.
func (s *Server) serveStray(w http.ResponseWriter, r *http.Request) {
	s.live.strays.add(s.read(r))
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, yes)
}

// maxBody bounds what is looked at of a request's body; the authority refuses longer ones.
const maxBody = 1 << 20 // bytes

// read describes a request and leaves it as it was.
func (s *Server) read(r *http.Request) Request {
	seen := Request{Arrived: time.Now(), Method: r.Method, Path: r.URL.Path}
	// It must be read to its end: before, net/http does not notice that a client leaves.
	text, _ := io.ReadAll(io.LimitReader(r.Body, maxBody)) // a broken body is the authority's to refuse
	r.Body = readCloser{io.MultiReader(bytes.NewReader(text), r.Body), r.Body}
	var body struct {
		DeviceID string `json:"deviceId"`
	}
	if json.Unmarshal(text, &body) == nil {
		seen.DeviceID = body.DeviceID
	}
	everything := fmt.Sprint(r.Header, r.URL, string(text))
	seen.WithKey = strings.Contains(everything, s.key())
	return seen
}

type readCloser struct {
	io.Reader
	io.Closer
}
