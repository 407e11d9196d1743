package faulty

import (
	"bytes"
	"context"
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
	Query    string // as it stood in the URL, without the question mark
	DeviceID string // as Dialect.DeviceID found it
	WithKey  bool   // one of Config.Secrets came with it, in whatever place

	sent func() (http.Header, []byte) // in a closure, so that no fmt verb shows it; nil unless Config.Verbatim
}

// Header returns a copy of the request's header, or nil unless Config.Verbatim is set.
func (r Request) Header() http.Header {
	if r.sent == nil {
		return nil
	}
	header, _ := r.sent()
	return header.Clone()
}

// Body returns a copy of the request's body, at most its first MiB, or nil unless
// Config.Verbatim is set.
func (r Request) Body() []byte {
	if r.sent == nil {
		return nil
	}
	_, body := r.sent()
	return bytes.Clone(body)
}

// Requests returns what reached the service, in the order in which it came, under faults too.
func (s *Server) Requests() []Request { return s.visits.All() }

// Strays returns what reached the host that redirects lead to, which answers anything with a
// yes. A correct client never goes there; one that goes there WithKey has given a secret to a
// stranger.
func (s *Server) Strays() []Request { return s.strays.All() }

// Wait blocks until n requests have reached the service, counted from the first ever, or until
// ctx ends, whose cause it then returns. They need not have been answered. It returns the
// requests so far.
func (s *Server) Wait(ctx context.Context, n int) ([]Request, error) {
	return s.visits.Wait(ctx, n)
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

// serve answers a request that has reached the service. Under a fault of the network no request
// should: one that comes over a connection from before is cut off, unanswered and unrecorded,
// and only a client that ignores what it saw in the handshake gets an answer.
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
		w: w, r: r, during: e, n: e.count(), conn: from.conn, service: s.service, dialect: s.dialect,
		elsewhere: s.at("localhost" + s.other.address[strings.LastIndex(s.other.address, ":"):]),
	}
	seen, question := s.read(r)
	v.question = question
	if e.held {
		v.decided = v.decide()
	}
	s.visits.Add(seen) // after the decision, so that who waits for the request may change what is true
	if e.send == nil {
		s.service.ServeHTTP(w, r)
		return
	}
	e.send(v)
}

// serveStray is the host that redirects lead to. It answers anything, also the GET without a body
// that a client makes of a POST on 301 and 302.
func (s *Server) serveStray(w http.ResponseWriter, r *http.Request) {
	seen, question := s.read(r)
	s.strays.Add(seen)
	w.Header().Set("Content-Type", jsonType)
	_, _ = io.WriteString(w, s.dialect.Yes(question))
}

// maxBody bounds what is looked at of a request's body; the service sees all of it.
const maxBody = 1 << 20 // bytes

// read describes a request and leaves it as it was.
func (s *Server) read(r *http.Request) (Request, Question) {
	seen := Request{Arrived: time.Now(), Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery}
	// It must be read to its end: before, net/http does not notice that a client leaves.
	text, _ := io.ReadAll(io.LimitReader(r.Body, maxBody)) // a broken body is the service's to refuse
	r.Body = readCloser{io.MultiReader(bytes.NewReader(text), r.Body), r.Body}
	asked := Question{Method: seen.Method, Path: seen.Path, Query: seen.Query, Body: text}
	if s.dialect.DeviceID != nil {
		asked.DeviceID = s.dialect.DeviceID(asked)
	}
	seen.DeviceID, seen.WithKey = asked.DeviceID, s.withKey(r, text)
	if s.verbatim {
		header := r.Header.Clone() // the service may change its own
		seen.sent = func() (http.Header, []byte) { return header, text }
	}
	return seen, asked
}

// withKey looks for the secrets in everything that a request consists of.
func (s *Server) withKey(r *http.Request, body []byte) bool {
	if s.secrets == nil {
		return false
	}
	everything := fmt.Sprint(r.Header, r.URL, string(body))
	for _, secret := range s.secrets() {
		if strings.Contains(everything, secret) {
			return true
		}
	}
	return false
}

type readCloser struct {
	io.Reader
	io.Closer
}
