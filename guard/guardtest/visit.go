package guardtest

import (
	"bytes"
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
	deviceID  string   // as asked about
	authority http.Handler
	elsewhere string // the URL of the other host
	decided   *held  // what the authority says, under a fault that holds it back
}

const (
	limited  = `{"error":"rate_limited"}`
	htmlPage = `<!DOCTYPE html><html><head><title>Welcome</title></head><body>` + yes + `</body></html>`
	bodySize = 64 << 20 // bytes, of a body that no client should read to its end
)

// status answers with JSON under a status of its own.
func status(code int, body string) func(*visit) {
	return func(v *visit) { v.answer(code, "application/json", body) }
}

// says answers with JSON and 200.
func says(body string) func(*visit) { return status(http.StatusOK, body) }

// page answers with HTML, as a proxy, a captive portal or a wrong address does. It holds an
// ALLOW, for clients that search in a body for one.
func page(code int) func(*visit) {
	return func(v *visit) { v.answer(code, "text/html; charset=utf-8", htmlPage) }
}

func (v *visit) answer(code int, contentType, body string) {
	v.w.Header().Set("Content-Type", contentType)
	v.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	v.w.WriteHeader(code)
	_, _ = v.w.Write([]byte(body)) // its error is the client's going away, here and below
}

// another answers about a device that nobody asked about.
func another(v *visit) {
	v.answer(http.StatusOK, "application/json", head+`,"deviceId":`+strconv.Quote("not-"+v.deviceID)+`}`)
}

// redirect sends the client to the other host. The body would be an ALLOW, for clients that
// look at bodies and not at the status.
func redirect(code int) func(*visit) {
	return func(v *visit) {
		v.w.Header().Set("Location", v.elsewhere+v.r.URL.RequestURI())
		v.answer(code, "application/json", yes)
	}
}

// Retry-After comes in two forms (RFC 9110, section 10.2.3).
func inSeconds() string { return strconv.Itoa(int(retryAfter.Seconds())) }

func asDate() string { return time.Now().Add(retryAfter).UTC().Format(http.TimeFormat) }

// later answers 429 with a Retry-After in one of its two forms.
func later(form func() string) func(*visit) {
	return func(v *visit) {
		v.w.Header().Set("Retry-After", form())
		v.answer(http.StatusTooManyRequests, "application/json", limited)
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
	v.w.Header().Set("Content-Type", "application/json")
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
	v.w.Header().Set("Content-Type", "application/json")
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
	v.w.Header().Set("Content-Type", "application/json")
	_, _ = v.w.Write([]byte(head + `,"padding":"`))
	chunk := bytes.Repeat([]byte("a"), 64<<10)
	for sent := 0; sent < bodySize; sent += len(chunk) {
		if _, err := v.w.Write(chunk); err != nil {
			return
		}
	}
	_, _ = v.w.Write([]byte(`"}`))
}

// late sends what the authority said at the time when the fault is over. To a client that leaves
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
		status(http.StatusServiceUnavailable, `{"error":"unavailable"}`)(v)
		return
	}
	v.authority.ServeHTTP(v.w, v.r)
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

// held is an answer of the authority's that has not been sent yet. It is the least that an
// http.Handler needs to write to.
type held struct {
	header http.Header
	status int
	body   strings.Builder
}

// decide has the authority decide on what is true now.
func (v *visit) decide() *held {
	h := &held{header: make(http.Header), status: http.StatusOK}
	v.authority.ServeHTTP(h, v.r)
	return h
}

func (h *held) Header() http.Header         { return h.header }
func (h *held) WriteHeader(status int)      { h.status = status }
func (h *held) Write(p []byte) (int, error) { return h.body.Write(p) }

func (h *held) send(v *visit) {
	v.answer(h.status, h.header.Get("Content-Type"), h.body.String())
	v.flush()
}
