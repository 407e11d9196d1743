package licentricserver

import (
	"errors"
	"io"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/url"
)

// maxBody bounds a request's body.
const maxBody = 1 << 20 // bytes

// question is one request that has been read.
type question struct {
	route         route
	id            string // in the path; "" where there is none
	authorization []string
	address       string // of who asks
	query         url.Values
	fields        fields
	bad           *apiError // what is wrong with the body
	license       *license  // whose key came in the header
}

// reply is one answer that has not been sent.
type reply struct {
	status int
	header http.Header
	body   any // nil for none
}

// data is the envelope of one resource.
type data struct {
	Data any `json:"data"`
}

// Handler returns the service itself, which serves its API without a socket.
func (s *Service) Handler() http.Handler { return s }

// ServeHTTP answers the API, always with JSON: 404 for unknown paths, 405 for other methods, 401
// and 403 before anything in the body is looked at, 413 for bodies over 1 MiB, 415 for other
// types than application/json.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	found, id, err := s.find(r)
	if err != nil {
		err.reply(s.oldErrors).write(w)
		return
	}
	q := &question{
		route:         found,
		id:            id,
		authorization: r.Header.Values("Authorization"),
		address:       addressOf(r),
		query:         r.URL.Query(),
	}
	q.fields, q.bad = readBody(w, r)
	s.answer(q).write(w)
}

// answer serves a question in one step, so that no change of state can fall into the middle.
func (s *Service) answer(q *question) reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[q.route.call]++
	header, err := s.limit(q)
	if err == nil {
		err = s.authorize(q)
	}
	if err == nil {
		err = q.bad
	}
	var out reply
	if err == nil {
		out, err = q.route.serve(s, q)
	}
	if err != nil {
		out = err.reply(s.oldErrors)
	}
	return out.with(header)
}

// with adds headers to an answer.
func (r reply) with(header http.Header) reply {
	if r.header == nil {
		r.header = header
		return r
	}
	maps.Copy(r.header, header)
	return r
}

// write sends an answer that nobody may cache. Its error is the client's going away.
func (r reply) write(w http.ResponseWriter) {
	h := w.Header()
	maps.Copy(h, r.header)
	h.Set("Cache-Control", "no-store")
	if r.body == nil {
		w.WriteHeader(r.status)
		return
	}
	h.Set("Content-Type", "application/json")
	w.WriteHeader(r.status)
	_, _ = io.WriteString(w, text(r.body)+"\n")
}

// readBody reads the body of a request, whatever its method; one without a body has no fields.
func readBody(w http.ResponseWriter, r *http.Request) (fields, *apiError) {
	if r.Body == nil { // a request that no server has read; net/http's own always have one
		return fields{}, nil
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, refuse(http.StatusRequestEntityTooLarge, "the body is longer than 1 MiB")
	case err != nil:
		return nil, refuse(http.StatusBadRequest, "the body cannot be read")
	case len(text) == 0:
		return fields{}, nil
	}
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/json" {
		return nil, refuse(http.StatusUnsupportedMediaType, "the body must be application/json")
	}
	return decode(text)
}

// addressOf is the address without the port, which is another one for each connection.
func addressOf(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil { // in process there is none
		return r.RemoteAddr
	}
	return host
}
