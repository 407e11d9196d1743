package guardtest

import (
	"fmt"
	"net/http"
	"time"

	"github.com/execguard/execguard/guard"
)

// Fault is one way in which an authority, or the network before it, goes wrong. Its value is
// its name. The example of Faults prints the name of each, and is tested against the table that
// Server.Inject looks in; a name that is not there it refuses.
//
// Under every fault the first question after Inject gets no ALLOW that a client may act on.
// Most faults go on like that; «flapping» and «answers out of order» are honest now and then.
// Faults that never answer last until the client leaves, Heal, or the end of the test.
type Fault string

// Faults returns every fault, in the order in which the guard's contract (guard/CONTRACT.md)
// speaks of them. The example prints all of their names.
func Faults() []Fault {
	var all []Fault
	for _, r := range faults() {
		all = append(all, r.Fault)
	}
	return all
}

// String returns the fault's name.
func (f Fault) String() string { return string(f) }

// Code is what a correct client, or a guard, makes of the fault: CodeSystemUnavailable where it
// could not ask or must not believe the answer, and the authority's own code where the answer
// is a denial that stands. It is "" for a name that Faults does not list.
func (f Fault) Code() guard.Code {
	r, _ := find(f)
	return r.want
}

// Check says what is wrong with an answer to a question that was asked under the fault, or nil.
// A validator that could not ask may say so by an error, by CodeSystemUnavailable or by both.
// Where the authority said how long to leave it alone, RetryAfter must hold that.
//
//	err := fault.Check(validator.Validate(ctx, deviceID))
func (f Fault) Check(d guard.Decision, err error) error {
	r, ok := find(f)
	answer := reply{Decision: d, err: err}
	switch {
	case !ok:
		return unknown(f)
	case d.Allowed || d.Code == guard.CodeAllow:
		return fmt.Errorf("%s: %v, and must not look like an ALLOW", f, answer)
	case d.Code == "" && (err == nil || r.want != guard.CodeSystemUnavailable):
		return fmt.Errorf("%s: %v, without the code %s", f, answer, r.want)
	case d.Code != "" && d.Code != r.want:
		return fmt.Errorf("%s: %v, want the code %s", f, answer, r.want)
	case r.wait == 0 && d.RetryAfter != 0, r.wait > 0 && d.RetryAfter <= 0, d.RetryAfter > r.wait:
		return fmt.Errorf("%s: RetryAfter is %v, and the authority said %v", f, d.RetryAfter, r.wait)
	}
	return nil
}

// NeedsTLS tells whether the fault is one of TLS, which a server WithPlainHTTP cannot show.
func (f Fault) NeedsTLS() bool {
	r, _ := find(f)
	return r.way == wayStalled || r.cert != certGood
}

func unknown(f Fault) error {
	return fmt.Errorf("guardtest: unknown fault %q, the known ones are %q", string(f), Faults())
}

// row is one fault: its name, how it is made, and what a correct client makes of it.
type row struct {
	Fault
	way  way           // how the network behaves
	cert certificate   // what the server shows in the TLS handshake
	send func(*visit)  // how a request is answered; nil: by the authority itself
	held bool          // the authority decides at once, and send holds the answer back
	want guard.Code    // see Fault.Code
	wait time.Duration // the most that RetryAfter may be, and 0 where it must be 0
}

// onWire tells whether the fault strikes before there is a request.
func (r row) onWire() bool { return r.way != wayOpen || r.cert != certGood }

func find(f Fault) (row, bool) {
	for _, r := range faults() {
		if r.Fault == f {
			return r, true
		}
	}
	return row{}, false
}

// yes is an ALLOW as the authority sends it, and head the same without its end: what a careless
// client would take for permission if it were not for the fault.
const (
	head = `{"allowed":true,"code":"ALLOW","request_id":"5f0c7a52-9d0e-4c1b-8d1e-3f6a0e2b7c41"`
	yes  = head + `}`
	no   = `{"allowed":false,"code":"DEVICE_REVOKED","request_id":"0c9be1d7-5b1b-4f0a-9a57-64f1f3b8a2de"}`
)

// retryAfter is what the authority asks for where it says so.
const retryAfter = 7 * time.Second

// faults is the table: one row a fault.
func faults() []row {
	const unavailable, newCode = guard.CodeSystemUnavailable, guard.Code("QUOTA_EXHAUSTED")
	return []row{
		{Fault: "connection refused", way: wayRefused, want: unavailable},
		{Fault: "connection reset mid-body", send: reset, want: unavailable},
		{Fault: "accepted and silent", send: silent, want: unavailable},
		{Fault: "one byte a second", send: trickle, want: unavailable},
		{Fault: "half a body", send: half, want: unavailable},
		{Fault: "empty body", send: says(""), want: unavailable},
		{Fault: "HTML with 200", send: page(http.StatusOK), want: unavailable},
		{Fault: "JSON array", send: says(`[` + yes + `]`), want: unavailable},
		{Fault: "JSON number", send: says(`1`), want: unavailable},
		{Fault: "JSON null", send: says(`null`), want: unavailable},
		{Fault: "64 MiB body", send: huge, want: unavailable},
		{Fault: "duplicate keys", send: says(`{"allowed":false,"allowed":true,"code":"DEVICE_REVOKED","code":"ALLOW"}`), want: unavailable},
		{Fault: "keys in another case", send: says(`{"Allowed":true,"CODE":"ALLOW"}`), want: unavailable},
		{Fault: "second document after the first", send: says(yes + "\n" + no), want: unavailable},
		{Fault: "allowed as a string", send: says(`{"allowed":"true","code":"ALLOW"}`), want: unavailable},
		{Fault: "allowed as 1", send: says(`{"allowed":1,"code":"ALLOW"}`), want: unavailable},
		{Fault: "allowed as null", send: says(`{"allowed":null,"code":"ALLOW"}`), want: unavailable},
		{Fault: "allowed missing", send: says(`{"code":"ALLOW"}`), want: unavailable},
		{Fault: "code missing", send: says(`{"allowed":true}`), want: unavailable},
		{Fault: "allowed with a deny code", send: says(`{"allowed":true,"code":"DEVICE_REVOKED"}`), want: unavailable},
		{Fault: "denied with the code ALLOW", send: says(`{"allowed":false,"code":"ALLOW"}`), want: unavailable},
		{Fault: "unknown code, allowed", send: says(`{"allowed":true,"code":"QUOTA_EXHAUSTED"}`), want: unavailable},
		{Fault: "unknown code, denied", send: says(`{"allowed":false,"code":"QUOTA_EXHAUSTED"}`), want: newCode},
		{Fault: "ALLOW with 201", send: status(http.StatusCreated, yes), want: unavailable},
		{Fault: "ALLOW with 403", send: status(http.StatusForbidden, yes), want: unavailable},
		{Fault: "ALLOW with 500", send: status(http.StatusInternalServerError, yes), want: unavailable},
		{Fault: "redirect 301", send: redirect(http.StatusMovedPermanently), want: unavailable},
		{Fault: "redirect 302", send: redirect(http.StatusFound), want: unavailable},
		{Fault: "redirect 307", send: redirect(http.StatusTemporaryRedirect), want: unavailable},
		{Fault: "redirect 308", send: redirect(http.StatusPermanentRedirect), want: unavailable},
		{Fault: "429 without Retry-After", send: status(http.StatusTooManyRequests, limited), want: unavailable},
		{Fault: "429 with Retry-After in seconds", send: later(inSeconds), want: unavailable, wait: retryAfter},
		{Fault: "429 with Retry-After as a date", send: later(asDate), want: unavailable, wait: retryAfter},
		{Fault: "500", send: status(http.StatusInternalServerError, `{"error":"internal"}`), want: unavailable},
		{Fault: "502", send: page(http.StatusBadGateway), want: unavailable},
		{Fault: "503", send: status(http.StatusServiceUnavailable, `{"allowed":false,"code":"SYSTEM_UNAVAILABLE"}`), want: unavailable},
		{Fault: "TLS certificate for another name", cert: certWrongName, want: unavailable},
		{Fault: "TLS certificate expired", cert: certExpired, want: unavailable},
		{Fault: "TLS certificate self-signed", cert: certSelfSigned, want: unavailable},
		{Fault: "DNS failure", way: wayNameless, want: unavailable},
		{Fault: "DNS silent", way: wayNameserverMute, want: unavailable},
		{Fault: "TLS handshake stalled", way: wayStalled, want: unavailable},
		{Fault: "answer for another device", send: another, want: unavailable},
		{Fault: "answer late", send: late, held: true, want: unavailable},
		{Fault: "answers out of order", send: swapped, held: true, want: unavailable},
		{Fault: "flapping", send: flapping, want: unavailable},
	}
}
