package httpmw

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/execguard/execguard/guard"
)

// retryAfter is when a client is asked to come again where the authority has not said.
const retryAfter = 5 * time.Second

// Problem says why a request was refused or stopped. In JSON it is what goes over the wire.
type Problem struct {
	Type   string `json:"type"` // the address of the paragraph that explains it
	Title  string `json:"title"`
	Status int    `json:"status"`

	Code      guard.Code `json:"code"`       // the authority's or the guard's; NO_IDENTITY or GUARD_CLOSED
	RequestID string     `json:"request_id"` // the authority's; "" when it gave none

	RetryAfter time.Duration `json:"-"` // 5 s where the authority did not say; 0: do not invite the client to come again
	Err        error         `json:"-"` // the DeviceFunc's or the guard's; not for the client

	challenge string // for WWW-Authenticate
}

func newProblem(status int, code guard.Code, err error) Problem {
	address, title := kind(status)
	return Problem{Type: address, Title: title, Status: status, Code: code, Err: err}
}

// unidentified is the problem of a request whose device is not known. Whoever was asked about a request
// whose context has ended had no time for an answer.
func unidentified(ctx context.Context, err error) Problem {
	if errors.Is(err, guard.ErrUnavailable) || ctx.Err() != nil {
		p := newProblem(http.StatusServiceUnavailable, guard.CodeSystemUnavailable, err)
		p.RetryAfter = waitOf(err)
		if denied := (*guard.DeniedError)(nil); errors.As(err, &denied) {
			p.RequestID = denied.Decision.RequestID
		}
		return p
	}
	p := newProblem(http.StatusUnauthorized, codeNoIdentity, err)
	if no := (*identityError)(nil); errors.As(err, &no) {
		p.challenge = no.challenge
	}
	return p
}

// refused is the problem of a request whose handler was not called. A handler that was not called
// because of an outer run's end, or for no reason at all, was not allowed by anybody.
func refused(err error) Problem {
	p := problemOf(err, false)
	denied := (*guard.DeniedError)(nil)
	if p.Status == http.StatusServiceUnavailable && !(errors.As(err, &denied) && denied.InFlight) {
		p.RetryAfter = waitOf(err)
	}
	return p
}

// waitOf is when the client may come again.
func waitOf(err error) time.Duration {
	if denied := (*guard.DeniedError)(nil); errors.As(err, &denied) && denied.Decision.RetryAfter > 0 {
		return denied.Decision.RetryAfter
	}
	return retryAfter
}

// stopped is the problem of a request whose handler was called.
func stopped(err error) Problem { return problemOf(err, true) }

func problemOf(err error, called bool) Problem {
	denied := (*guard.DeniedError)(nil)
	switch {
	case errors.As(err, &denied):
		d := denied.Decision
		p := newProblem(statusOf(d.Code, called || denied.InFlight), d.Code, err)
		p.RequestID = d.RequestID
		return p
	case errors.Is(err, guard.ErrClosed):
		return newProblem(http.StatusServiceUnavailable, codeGuardClosed, err)
	default:
		return newProblem(http.StatusServiceUnavailable, guard.CodeSystemUnavailable, err)
	}
}

// What is read of a request that is refused, at most.
const (
	uploadTime = time.Second
	uploadSize = 256 << 10
)

// refuse answers a request whose handler was not called. HTTP/1.1 takes in what is left of the body
// first, so that the connection can be used again: not for ever, and not where the client asked whether to
// send it.
func (c *config) refuse(w http.ResponseWriter, r *http.Request, p Problem) {
	if hasBody(r) && r.ProtoMajor == 1 && !takeIn(w, r) {
		forgetBody(http.NewResponseController(w), w, r)
	}
	c.answer(w, r, p)
}

// takeIn reads a request's body, and tells whether that was all of it.
func takeIn(w http.ResponseWriter, r *http.Request) bool {
	if r.Header.Get("Expect") != "" {
		return false
	}
	if http.NewResponseController(w).SetReadDeadline(time.Now().Add(uploadTime)) != nil {
		return false
	}
	_, err := io.CopyN(io.Discard, r.Body, uploadSize)
	return err == io.EOF //nolint:errorlint // a stream's own end, and no EOF inside another error
}

func hasBody(r *http.Request) bool { return r.Body != nil && r.Body != http.NoBody }

// answer sends p.
func (c *config) answer(w http.ResponseWriter, r *http.Request, p Problem) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	if p.challenge != "" {
		h.Set("Www-Authenticate", p.challenge)
	}
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.FormatFloat(math.Ceil(p.RetryAfter.Seconds()), 'f', 0, 64))
	}
	a := &answerWriter{ResponseWriter: w, status: p.Status}
	c.write(a, r, p)
	if !a.wrote { // an answer nobody writes is a 200
		writeProblem(w, r, p)
	}
}

// writeProblem is the default of WithAnswer.
func writeProblem(w http.ResponseWriter, _ *http.Request, p Problem) {
	text, err := json.Marshal(p)
	if err != nil { // not of strings and a number
		text = nil
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(p.Status)
	_, _ = w.Write(text) // the answer to HEAD has no body, and a client may be gone
}

// fields are what stood in the header before the handler saw it.
type fields []field

type field struct {
	name   string
	values []string
}

var noFields fields //nolint:gochecknoglobals // never changed; the header is empty most times

func fieldsOf(h http.Header) *fields {
	if len(h) == 0 {
		return &noFields
	}
	fs := make(fields, 0, len(h))
	for name, values := range h {
		fs = append(fs, field{name, values})
	}
	return &fs
}

// restore takes back what the handler has prepared: nobody gets that answer, and no proxy or browser
// may act upon it. What others had put there before, for CORS or a request's id, stays.
func (fs fields) restore(h http.Header) {
	clear(h)
	for _, f := range fs {
		h[f.name] = f.values
	}
}

// answerWriter notes whether there is an answer. One without a status would be a 200: it gets the
// problem's.
type answerWriter struct {
	http.ResponseWriter

	status int
	wrote  bool
}

func (a *answerWriter) Write(p []byte) (int, error) {
	a.begin()
	return a.ResponseWriter.Write(p)
}

func (a *answerWriter) WriteHeader(status int) {
	a.wrote = a.wrote || final(status)
	a.ResponseWriter.WriteHeader(status)
}

func (a *answerWriter) begin() {
	if !a.wrote {
		a.WriteHeader(a.status)
	}
}

// Flush is http.Flusher's.
func (a *answerWriter) Flush() { _ = a.FlushError() }

// FlushError is for http.ResponseController.
func (a *answerWriter) FlushError() error {
	a.begin()
	return http.NewResponseController(a.ResponseWriter).Flush()
}

// Unwrap is for http.ResponseController.
func (a *answerWriter) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// final tells the status of an answer from that of an announcement.
func final(status int) bool {
	return status >= http.StatusOK || status == http.StatusSwitchingProtocols
}
