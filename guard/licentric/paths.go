package licentric

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// Paths is what the vendor has published only in part: where its calls are, and how some members
// of their bodies are named. Deactivate, Heartbeat, Checkout and the names are our reading of the
// documentation; the others are documented. An empty field keeps the default.
//
// A path stands below /api/v1, begins with a slash and consists of letters, digits and "-._~/",
// with {id} as one of its segments where the call is about one machine or one licence. A method
// may stand before it: "POST /machines/{id}/deactivate".
type Paths struct {
	Validate   string // default "POST /licenses/validate-key"
	Activate   string // default "POST /machines"
	Deactivate string // default "DELETE /machines/{id}"; the machine's id
	Heartbeat  string // default "POST /machines/{id}/heartbeat"; the machine's id
	Checkout   string // default "POST /licenses/{id}/checkout"; the licence's id
	Machines   string // default "GET /machines"
	Machine    string // default "GET /machines/{id}"; the machine's id

	FingerprintMember  string // of validate's request; default "fingerprint"
	EntitlementsMember string // of validate's request; default "entitlements"
	CertificateMember  string // of checkout's answer: the file; default "certificate"
}

// op is one call of the API.
type op string

const (
	opValidate   op = "validate"
	opActivate   op = "activate"
	opDeactivate op = "deactivate"
	opHeartbeat  op = "heartbeat"
	opCheckout   op = "checkout"
	opMachines   op = "machines"
	opMachine    op = "machine"
)

// idSegment is the place of an id in a path.
const idSegment = "{id}"

// withDefaults fills the names that were not told.
func (p Paths) withDefaults() Paths {
	p.FingerprintMember = cmp.Or(p.FingerprintMember, "fingerprint")
	p.EntitlementsMember = cmp.Or(p.EntitlementsMember, "entitlements")
	p.CertificateMember = cmp.Or(p.CertificateMember, "certificate")
	return p
}

// route is the method and the path of one call.
type route struct {
	method string
	path   string
}

// routes is the table of calls: the documented or inferred place, and the one that was told.
func (p Paths) routes() (map[op]route, error) {
	all := map[op]route{}
	for _, call := range []struct {
		op          op
		told, field string
		usual       route
	}{
		{opValidate, p.Validate, "Validate", route{http.MethodPost, "/licenses/validate-key"}},
		{opActivate, p.Activate, "Activate", route{http.MethodPost, "/machines"}},
		{opDeactivate, p.Deactivate, "Deactivate", route{http.MethodDelete, "/machines/{id}"}},
		{opHeartbeat, p.Heartbeat, "Heartbeat", route{http.MethodPost, "/machines/{id}/heartbeat"}},
		{opCheckout, p.Checkout, "Checkout", route{http.MethodPost, "/licenses/{id}/checkout"}},
		{opMachines, p.Machines, "Machines", route{http.MethodGet, "/machines"}},
		{opMachine, p.Machine, "Machine", route{http.MethodGet, "/machines/{id}"}},
	} {
		r, err := call.usual.moved(call.told)
		if err != nil {
			return nil, fmt.Errorf("licentric: WithPaths: %s: %w", call.field, err)
		}
		all[call.op] = r
	}
	return all, p.namesApart()
}

// namesApart refuses names under which two members of validate's request would be one.
func (p Paths) namesApart() error {
	if p.FingerprintMember == p.EntitlementsMember || p.FingerprintMember == keyMember || p.EntitlementsMember == keyMember {
		return errors.New(`licentric: WithPaths: FingerprintMember, EntitlementsMember and "key" must differ`)
	}
	return nil
}

// moved is the route at the place that was told, or where it usually is.
func (r route) moved(told string) (route, error) {
	if told == "" {
		return r, nil
	}
	to := route{method: r.method, path: told}
	if method, path, ok := strings.Cut(told, " "); ok {
		to = route{method: method, path: path}
	}
	return to, r.mayMove(to)
}

// mayMove says why to cannot stand in for r, or nil. What reads must go on reading, because
// net/http sends a GET again by itself when a kept connection turns out to be closed.
func (r route) mayMove(to route) error {
	switch to.method {
	case http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
	default:
		return errors.New("the method must be GET, POST, PUT, PATCH or DELETE")
	}
	if (r.method == http.MethodGet) != (to.method == http.MethodGet) {
		return fmt.Errorf("the method must not change from %s to %s", r.method, to.method)
	}
	if !strings.HasPrefix(to.path, "/") {
		return errors.New("the path must begin with /")
	}
	ids := 0
	for segment := range strings.SplitSeq(to.path[1:], "/") {
		if segment == idSegment {
			ids++
		} else if !plain(segment) {
			return errors.New("the path must consist of segments of A-Za-z0-9-._~ and " + idSegment)
		}
	}
	if want := strings.Count(r.path, idSegment); ids != want {
		return fmt.Errorf("the path must have the segment %s %d times", idSegment, want)
	}
	return nil
}

// plain tells whether a segment means itself in every URL: nothing to escape, not «.» or «..».
func plain(segment string) bool {
	for i := range len(segment) {
		if !alphanumeric(segment[i]) && strings.IndexByte("-._~", segment[i]) < 0 {
			return false
		}
	}
	return strings.Trim(segment, ".") != ""
}

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// endpoint is what is the same in every request of a call, all but id, query, key and body, so
// that no call parses a URL.
type endpoint struct{ template *http.Request }

func endpoints(base *url.URL, routes map[op]route) (map[op]endpoint, error) {
	all := map[op]endpoint{}
	for o, to := range routes {
		target := base.JoinPath(apiPrefix, to.path).String()
		r, err := http.NewRequestWithContext(context.Background(), to.method, target, nil)
		if err != nil {
			return nil, errors.New("licentric: the base URL makes no valid request") // err repeats the URL
		}
		r.Header.Set("Accept", "application/json")
		r.Header.Set("User-Agent", "execguard-licentric/"+Version)
		if o == opValidate || o == opHeartbeat {
			// An empty list is not sent. It tells net/http that asking twice does no harm, so
			// that a kept connection which the service closes at that very moment costs a new
			// connection and not a run.
			r.Header["Idempotency-Key"] = []string{}
		}
		all[o] = endpoint{r}
	}
	return all, nil
}

// address is where a request goes that is about id.
func (e endpoint) address(id, query string) *url.URL {
	u := *e.template.URL
	if id != "" {
		u.Path = strings.Replace(u.Path, idSegment, id, 1)
	}
	u.RawQuery = query
	return &u
}
