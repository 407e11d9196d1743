package clerkserver

import (
	"bytes"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	contentType = "application/json" // exactly: Clerk names no charset
	traceHeader = "Clerk-Trace-Id"
	maxBody     = 1 << 20 // bytes, of a request
)

// call is one request that has found its route and its caller.
type call struct {
	ids    []string // those in the path, in its order
	form   form
	caller *machine // whose secret key it came with; nil: the instance's
}

// ServeHTTP answers a call of the API. Paths may begin with /v1 or leave it out.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	trace := hex16()
	s.mu.Lock()
	way, body, p := s.answer(w.Header(), r, body, err)
	s.mu.Unlock()
	status := way.status
	if p != nil {
		status, body = p.status, s.explain(way, p, trace)
	}
	if !s.traceless {
		w.Header().Set(traceHeader, trace)
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) //nolint:gosec // it is JSON, and the error is the client's going away
}

// answer does what a request asks for, or says why not. The order of the questions is a real
// service's: who asks too often is not even looked at, and who may not ask learns nothing.
func (s *Service) answer(h http.Header, r *http.Request, body []byte, broken error) (route, []byte, *problem) {
	way, ids, p := find(r.Method, r.URL.Path)
	if wait, over := s.overLimit(); over {
		if wait > 0 {
			h.Set("Retry-After", strconv.Itoa(int((wait+time.Second-1)/time.Second)))
		}
		return way, nil, tooMany()
	}
	if len(s.refusals) > 0 {
		next := s.refusals[0]
		s.refusals = s.refusals[1:]
		return way, nil, &next
	}
	if p != nil {
		return way, nil, p
	}
	c := &call{ids: ids}
	if c.caller, p = s.authenticate(r.Header, way.keys); p != nil {
		return way, nil, p
	}
	if broken != nil {
		return way, nil, refuse(http.StatusRequestEntityTooLarge, "request_too_large", "is too large", "The request cannot be read.")
	}
	if c.form, p = way.read(r, body); p != nil {
		return way, nil, p
	}
	result, p := way.serve(s, c)
	if p != nil {
		return way, nil, p
	}
	if s.deleteNull && r.Method == http.MethodDelete {
		result = nil
	}
	return way, encode(result), nil
}

// authenticate finds whose key a request came with, and whether it is one for this call.
func (s *Service) authenticate(h http.Header, keys keyring) (*machine, *problem) {
	given := h.Values("Authorization")
	if len(given) != 1 {
		return nil, unauthenticated()
	}
	secret, ok := strings.CutPrefix(given[0], "Bearer ")
	switch {
	case !ok || secret == "":
		return nil, unauthenticated()
	case secret == s.key():
		return nil, s.admit(keys)
	}
	for _, m := range s.machines {
		if m.holds(secret) && keys == instanceOnly {
			return nil, forbidden("This call needs the secret key of the instance.")
		} else if m.holds(secret) {
			return m, nil
		}
	}
	return nil, unauthenticated()
}

// admit says whether the instance's key is good for a call.
func (s *Service) admit(keys keyring) *problem {
	switch {
	case s.standing == standingUnknown:
		return unauthenticated()
	case s.standing == standingRestricted:
		return forbidden("This key has no right to do that.")
	case keys == machineOnly:
		return forbidden("This call needs the secret key of a machine.")
	}
	return nil
}

// explain makes the body of a refusal.
func (s *Service) explain(way route, p *problem, trace string) []byte {
	said := problemJSON{Errors: p.list, TraceID: trace}
	if way.tokens || s.traceless {
		said.TraceID = ""
	}
	return encode(said)
}

// read takes the form out of a request.
func (way route) read(r *http.Request, body []byte) (form, *problem) {
	f := form{refuse: invalid}
	if way.tokens {
		f.refuse = bad
	}
	switch r.Method {
	case http.MethodGet:
		f.members = asked(r)
		return f, nil
	case http.MethodDelete:
		// There is nothing to be said in it. Clerk's own SDK for Go says null.
		if text := string(bytes.TrimSpace(body)); text != "" && text != null && text != "{}" {
			return f, badRequest("A DELETE has no parameters.")
		}
		return f, nil
	}
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != contentType {
		return f, refuse(http.StatusUnsupportedMediaType, "unsupported_content_type", "is not supported", "The body has to be application/json.")
	}
	if json.Unmarshal(body, &f.members) != nil || f.members == nil {
		return f, badRequest("The body is not one JSON object.")
	}
	return f, nil
}

// asked makes a form of a query. Its values are no JSON, and only looked at by those who know.
func asked(r *http.Request) map[string]json.RawMessage {
	members := make(map[string]json.RawMessage)
	for name, values := range r.URL.Query() {
		members[name] = json.RawMessage(values[0])
	}
	return members
}

// encode writes JSON as Clerk does, which leaves < and & as they are.
func encode(v any) []byte {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	_ = e.Encode(v) //nolint:errchkjson // of types of ours, and claims that were read as JSON
	return bytes.TrimRight(text.Bytes(), "\n")
}
