package faulty

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/execguard/execguard/guard"
)

// Question is one request as a Dialect sees it.
type Question struct {
	Method   string
	Path     string
	Query    string // as it stood in the URL, without the question mark
	Body     []byte // at most the first MiB, to be read only
	DeviceID string // what Dialect.DeviceID found
}

// Dialect tells how one service speaks. Its functions are called on many goroutines at once,
// and with the zero Question when a server starts, so that a mistake is found then.
type Dialect struct {
	// DeviceID says whom a question is about, or "". It is asked first: the question that it
	// sees has no DeviceID. Nil finds nobody.
	DeviceID func(Question) string

	// Yes is a complete ALLOW that answers the question, as a JSON object with one member at
	// least. It is sent with 200, whole or spoilt. Required.
	Yes func(Question) string

	// No is a complete denial of it. Required.
	No func(Question) string

	// Another is an ALLOW about another device than the question's. Without it the fault
	// «answer for another device» is left out.
	Another func(Question) string

	// Failure is the body of an error with a status (429, 500, 503). Nil: {"error":"…"}.
	Failure func(status int) string

	// Own lists the faults of this dialect. They stand between the spoilt bodies and the wrong
	// statuses. One that bears the name of a common fault is shown in its place.
	Own []Answer
}

// Answer is a fault that consists in what is said.
type Answer struct {
	Name       string                // of the fault
	Code       guard.Code            // see Fault.Code; "": SYSTEM_UNAVAILABLE
	RetryAfter time.Duration         // see Fault.RetryAfter; the answer must say it, in Header say
	Status     int                   // 0: 200
	Header     http.Header           // beside Content-Type, which is application/json unless named here
	Body       func(Question) string // required
}

// Always is a body that depends on nothing.
func Always(body string) func(Question) string {
	return func(Question) string { return body }
}

// Faults lists the faults that a server of this dialect can show, in the order in which the
// guard's contract (guard/CONTRACT.md) speaks of them.
func (d Dialect) Faults() []Fault {
	var all []Fault
	for _, r := range d.table() {
		all = append(all, r.Fault)
	}
	return all
}

// find returns the row of a name.
func (d Dialect) find(name string) (row, error) {
	var known []string
	for _, r := range d.table() {
		if r.Name == name {
			return r, nil
		}
		known = append(known, r.Name)
	}
	return row{}, fmt.Errorf("unknown fault %q, the known ones are %q", name, known)
}

// table puts the dialect's own rows among the common ones.
func (d Dialect) table() []row {
	before, after := d.spoilt(), slices.Concat(d.statuses(), d.beyond())
	own := make([]row, 0, len(d.Own))
	for _, a := range d.Own {
		r := a.row()
		if !replace(before, r) && !replace(after, r) {
			own = append(own, r)
		}
	}
	return slices.Concat(before, own, after)
}

// replace puts r into the place of the row of its name, and tells whether there is one.
func replace(rows []row, r row) bool {
	i := slices.IndexFunc(rows, func(at row) bool { return at.Name == r.Name })
	if i >= 0 {
		rows[i] = r
	}
	return i >= 0
}

// row makes a fault of an answer.
func (a Answer) row() row {
	r := row{Fault: Fault{Name: a.Name, Code: a.Code, RetryAfter: a.RetryAfter}, send: a.send}
	if r.Code == "" {
		r.Code = guard.CodeSystemUnavailable
	}
	return r
}

// send answers with it.
func (a Answer) send(v *visit) {
	for key, values := range a.Header {
		v.w.Header()[http.CanonicalHeaderKey(key)] = slices.Clone(values)
	}
	status, contentType := a.Status, v.w.Header().Get("Content-Type")
	if status == 0 {
		status = http.StatusOK
	}
	if contentType == "" {
		contentType = jsonType
	}
	v.answer(status, contentType, a.Body(v.question))
}

// flaw says what no server can be made of. What a dialect says wrongly is not seen here: that
// its server's tests must.
func (d Dialect) flaw() error {
	if d.Yes == nil || d.No == nil {
		return errors.New("a dialect needs Yes and No")
	}
	var yes map[string]json.RawMessage
	if text := d.Yes(Question{}); json.Unmarshal([]byte(text), &yes) != nil || len(yes) == 0 {
		return fmt.Errorf("the dialect's Yes is %q, and must be a JSON object that is not empty", text)
	}
	common := slices.Concat(d.spoilt(), d.statuses(), d.beyond())
	for i, a := range d.Own {
		if err := a.flaw(common); err != nil {
			return err
		}
		if slices.ContainsFunc(d.Own[:i], func(b Answer) bool { return a.Name == b.Name }) {
			return fmt.Errorf("the dialect has two faults of the name %q", a.Name)
		}
	}
	return nil
}

func (a Answer) flaw(common []row) error {
	switch {
	case a.Name == "":
		return errors.New("a fault of the dialect has no name")
	case a.Body == nil:
		return fmt.Errorf("fault %q of the dialect has no body", a.Name)
	case a.Status != 0 && (a.Status < http.StatusOK || a.Status > 599):
		return fmt.Errorf("fault %q of the dialect has the status %d", a.Name, a.Status)
	case a.Code == guard.CodeAllow:
		return fmt.Errorf("fault %q of the dialect has the code of an ALLOW", a.Name)
	case slices.ContainsFunc(common, func(r row) bool { return r.Name == a.Name && (r.onWire() || r.send == nil) }):
		return fmt.Errorf("fault %q is the network's, and none of a dialect", a.Name)
	}
	return nil
}

// failure is the body of an error.
func (d Dialect) failure(status int) string {
	if d.Failure == nil {
		return `{"error":` + strconv.Quote(strings.ToLower(http.StatusText(status))) + `}`
	}
	return d.Failure(status)
}
