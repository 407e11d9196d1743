package faulty

import (
	"bytes"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// visit is one request under a fault, and what the fault may do with it.
type visit struct {
	w         http.ResponseWriter
	r         *http.Request
	during    *episode
	n         int      // which request of the episode this is, counted from 1
	conn      net.Conn // what the request came over
	question  Question
	service   http.Handler
	dialect   Dialect
	elsewhere string // the URL of the other host
	decided   *held  // what the service says, under a fault that holds it back
}

const (
	jsonType  = "application/json"
	htmlStart = `<!DOCTYPE html><html><head><title>Welcome</title></head><body>`
	htmlEnd   = `</body></html>`
	bodySize  = 64 << 20 // bytes, of a body that no client should read to its end
)

// status answers with JSON under a status of its own.
func status(code int, body func(Question) string) func(*visit) {
	return func(v *visit) { v.answer(code, jsonType, body(v.question)) }
}

// failure answers with an error in the service's own form.
func failure(code int) func(*visit) {
	return func(v *visit) { v.answer(code, jsonType, v.dialect.failure(code)) }
}

// page answers with HTML, as a proxy, a captive portal or a wrong address does. It holds an
// ALLOW, for clients that search in a body for one.
func page(code int) func(*visit) {
	return func(v *visit) { v.answer(code, "text/html; charset=utf-8", htmlStart+v.yes()+htmlEnd) }
}

// yes is what a careless client would take for permission if it were not for the fault.
func (v *visit) yes() string { return v.dialect.Yes(v.question) }

// answer sends a whole answer. Without a type, net/http looks at the body and says what it is, as
// it does for the service.
func (v *visit) answer(code int, contentType, body string) {
	if contentType != "" {
		v.w.Header().Set("Content-Type", contentType)
	}
	v.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	v.w.WriteHeader(code)
	_, _ = v.w.Write([]byte(body)) // its error is the client's going away, here and below
}

// redirect sends the client to the other host. The body would be an ALLOW, for clients that
// look at bodies and not at the status.
func redirect(code int) func(*visit) {
	return func(v *visit) {
		v.w.Header().Set("Location", v.elsewhere+v.r.URL.RequestURI())
		v.answer(code, jsonType, v.yes())
	}
}

// Retry-After comes in two forms (RFC 9110, section 10.2.3).
func inSeconds() string { return strconv.Itoa(int(retryAfter.Seconds())) }

func asDate() string { return time.Now().Add(retryAfter).UTC().Format(http.TimeFormat) }

// later answers 429 with a Retry-After in one of its two forms.
func later(form func() string) func(*visit) {
	return func(v *visit) {
		v.w.Header().Set("Retry-After", form())
		failure(http.StatusTooManyRequests)(v)
	}
}

// silent has read the request and never says a word.
func silent(v *visit) {
	v.wait(nil)
	v.conn.Close()
}

// begin sends what makes a client believe in an answer: the status, the headers and half of the
// body that they announce.
func (v *visit) begin() {
	yes := v.yes()
	v.w.Header().Set("Content-Type", jsonType)
	v.w.Header().Set("Content-Length", strconv.Itoa(len(yes)))
	_, _ = v.w.Write([]byte(yes[:len(yes)/2]))
	v.flush()
}

func (v *visit) flush() { _ = http.NewResponseController(v.w).Flush() }

// half ends the connection in the middle of a body, in good order: the client sees its end.
func half(v *visit) {
	v.begin()
	v.conn.Close()
}

// reset ends it as a crashed server's kernel does: without lingering, what is left to be sent
// is dropped and the peer is sent a reset.
func reset(v *visit) {
	v.begin()
	if tcp, ok := beneath(v.conn).(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	beneath(v.conn).Close() // below TLS, which would say good-bye first
}

// beneath is the connection under TLS, or the connection itself.
func beneath(c net.Conn) net.Conn {
	if over, ok := c.(interface{ NetConn() net.Conn }); ok {
		return over.NetConn()
	}
	return c
}

// trickle sends an ALLOW that never ends, one byte a second and the first at once, so that no
// single read ever takes long.
func trickle(v *visit) {
	defer v.during.closing(v.conn)()
	v.w.Header().Set("Content-Type", jsonType)
	head := v.dialect.head(v.question)
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for i := 0; ; i++ {
		next := " " // may stand before the closing brace, and so for ever
		if i < len(head) {
			next = head[i : i+1]
		}
		if _, err := v.w.Write([]byte(next)); err != nil {
			return
		}
		v.flush()
		if !v.wait(second.C) {
			v.conn.Close()
			return
		}
	}
}

// huge sends an ALLOW that is well-formed and far too long. Its length is not announced, so that
// a client has to count for itself.
func huge(v *visit) {
	defer v.during.closing(v.conn)() // or a client that reads nothing would keep it here
	v.w.Header().Set("Content-Type", jsonType)
	_, _ = v.w.Write([]byte(v.dialect.head(v.question) + `,"padding":"`))
	chunk := bytes.Repeat([]byte("a"), 64<<10)
	for sent := 0; sent < bodySize; sent += len(chunk) {
		if _, err := v.w.Write(chunk); err != nil {
			return
		}
	}
	_, _ = v.w.Write([]byte(`"}`))
}

// late sends what the service said at the time when the fault is over. To a client that leaves
// it sends nothing, not even what net/http sends for a handler that just returns: whoever is
// still on the way out would take it for an answer.
func late(v *visit) {
	select {
	case <-v.during.over:
		v.decided.send(v)
	case <-v.r.Context().Done():
		v.conn.Close()
	}
}

// swapped holds the answer to every odd request until the next one has been answered.
func swapped(v *visit) {
	turn := v.during.turn((v.n - 1) / 2)
	if v.n%2 == 0 {
		defer close(turn)
		v.decided.send(v)
		return
	}
	select {
	case <-turn:
		v.decided.send(v)
	case <-v.during.over:
		v.decided.send(v)
	case <-v.r.Context().Done():
		v.conn.Close()
	}
}

// flapping fails every odd request and is honest about the others. The first is odd, so that a
// walk over all faults never sees an ALLOW in its first answer.
func flapping(v *visit) {
	if v.n%2 == 1 {
		failure(http.StatusServiceUnavailable)(v)
		return
	}
	v.service.ServeHTTP(v.w, v.r)
}

// wait waits for a tick and returns true, or for the client to leave or the fault to be over.
func (v *visit) wait(tick <-chan time.Time) bool {
	select {
	case <-tick:
		return true
	case <-v.during.over:
	case <-v.r.Context().Done():
	}
	return false
}

// held is an answer of the service's that has not been sent yet. It is the least that an
// http.Handler needs to write to.
type held struct {
	header http.Header
	status int // 0: not said yet
	body   strings.Builder
}

// decide has the service decide on what is true now.
func (v *visit) decide() *held {
	h := &held{header: make(http.Header)}
	v.service.ServeHTTP(h, v.r)
	h.WriteHeader(http.StatusOK)
	return h
}

func (h *held) Header() http.Header         { return h.header }
func (h *held) Write(p []byte) (int, error) { return h.body.Write(p) }

// WriteHeader keeps the first status, as net/http does.
func (h *held) WriteHeader(status int) {
	if h.status == 0 {
		h.status = status
	}
}

func (h *held) send(v *visit) {
	maps.Copy(v.w.Header(), h.header)
	v.answer(h.status, h.header.Get("Content-Type"), h.body.String())
	v.flush()
}
