package licentricserver

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// Call names one call of the API.
type Call string

// The calls of the API.
const (
	CallValidate   Call = "validate"
	CallActivate   Call = "activate"
	CallDeactivate Call = "deactivate"
	CallHeartbeat  Call = "heartbeat"
	CallCheckout   Call = "checkout"
	CallMachines   Call = "machines"
	CallMachine    Call = "machine"
)

// apiPrefix stands before every path.
const apiPrefix = "/api/v1"

// idSegment is the place of an id in a path.
const idSegment = "{id}"

// Paths says where calls are, below /api/v1: "/machines/{id}", or with a method of its own,
// "POST /machines/{id}/stop"; and what members are called that are not documented. Empty fields keep what the
// vendor documents, or, of deactivate, heartbeat and checkout, what we believe.
type Paths struct {
	Validate   string
	Activate   string
	Deactivate string // with {id}, the machine's
	Heartbeat  string // with {id}, the machine's
	Checkout   string // with {id}, the licence's
	Machines   string
	Machine    string // with {id}, the machine's

	FingerprintMember  string // of validate's request; the default is "fingerprint"
	EntitlementsMember string // of validate's request; the default is "entitlements"
	CertificateMember  string // of checkout's answer, the file; the default is "certificate"
}

// named fills the names of members that were not told.
func (p Paths) named() Paths {
	p.FingerprintMember = cmp.Or(p.FingerprintMember, "fingerprint")
	p.EntitlementsMember = cmp.Or(p.EntitlementsMember, "entitlements")
	p.CertificateMember = cmp.Or(p.CertificateMember, "certificate")
	return p
}

// route is one call of the API: where it is, who may make it, and what does it.
type route struct {
	call     Call
	method   string
	segments []string // of the path below apiPrefix
	auth     auth
	scope    Scope // that a key needs; "" where none does
	serve    func(*Service, *question) (reply, *apiError)
}

// auth is what a call asks of the Authorization header.
type auth int

const (
	authNone    auth = iota // the licence key is in the body
	authLicense             // License <licence key>
	authBearer              // Bearer <API key>
)

// routes is the table of calls. Deactivate, heartbeat and checkout are where we believe them to
// be; the other places are documented.
func (p Paths) routes() ([]route, error) {
	table := []route{
		{call: CallValidate, serve: (*Service).validate},
		{call: CallActivate, auth: authLicense, serve: (*Service).activate},
		{call: CallDeactivate, auth: authLicense, serve: (*Service).deactivate},
		{call: CallHeartbeat, auth: authLicense, serve: (*Service).heartbeat},
		{call: CallCheckout, auth: authBearer, scope: ScopeCheckout, serve: (*Service).checkout},
		{call: CallMachines, auth: authBearer, scope: ScopeMachines, serve: (*Service).listMachines},
		{call: CallMachine, auth: authBearer, scope: ScopeMachines, serve: (*Service).getMachine},
	}
	for i, told := range []struct{ path, usual string }{
		{p.Validate, "POST /licenses/validate-key"},
		{p.Activate, "POST /machines"},
		{p.Deactivate, "DELETE /machines/{id}"},
		{p.Heartbeat, "POST /machines/{id}/heartbeat"},
		{p.Checkout, "POST /licenses/{id}/checkout"},
		{p.Machines, "GET /machines"},
		{p.Machine, "GET /machines/{id}"},
	} {
		if err := table[i].place(told.path, told.usual); err != nil {
			return nil, err
		}
	}
	return table, nil
}

// place puts a route where it was told to be, or where it usually is.
func (r *route) place(told, usual string) error {
	method, path, _ := strings.Cut(usual, " ")
	ids := strings.Count(path, idSegment)
	if told != "" {
		path = told
		if m, rest, ok := strings.Cut(told, " "); ok {
			method, path = m, rest
		}
	}
	if !strings.HasPrefix(path, "/") || strings.Count(path, idSegment) != ids {
		return fmt.Errorf("licentricserver: WithPaths: %s: %q must begin with / and have %s %d times", r.call, told, idSegment, ids)
	}
	r.method, r.segments = method, strings.Split(path, "/")
	return nil
}

// find returns the route of a request and the id in its path. Where only other methods are
// served on that path, the error says so.
func (s *Service) find(r *http.Request) (found route, id string, err *apiError) {
	path, below := strings.CutPrefix(r.URL.EscapedPath(), apiPrefix)
	err = refuse(http.StatusNotFound, "no such path")
	if !below {
		return route{}, "", err
	}
	for _, candidate := range s.routes {
		id, ok := candidate.match(path)
		if ok && candidate.method == r.Method {
			return candidate, id, nil
		}
		if ok {
			err = refuse(http.StatusMethodNotAllowed, "no such method here")
		}
	}
	return route{}, "", err
}

// match compares segment by segment, so that an id with a slash in it, properly escaped, stays one.
func (r *route) match(path string) (id string, ok bool) {
	segments := strings.Split(path, "/")
	if len(segments) != len(r.segments) {
		return "", false
	}
	for i, want := range r.segments {
		switch text, err := url.PathUnescape(segments[i]); {
		case err != nil || text == "":
			if i > 0 { // the path begins with a slash
				return "", false
			}
		case want == idSegment:
			id = text
		case want != text:
			return "", false
		}
	}
	return id, true
}
