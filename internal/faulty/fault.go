package faulty

import (
	"fmt"
	"net/http"
	"time"

	"github.com/execguard/execguard/guard"
)

// Fault is one way in which a service, or the network before it, goes wrong. Under every fault
// the first question after Inject gets no ALLOW that a client may act on. Most go on like that;
// «flapping» and «answers out of order» are honest now and then.
type Fault struct {
	Name string

	// Code is what a correct client, or a guard, makes of the fault: CodeSystemUnavailable where
	// it could not ask or must not believe the answer, and a code of the authority's where the
	// answer is a denial that stands.
	Code guard.Code

	RetryAfter time.Duration // what the answer asks for; the client's may be shorter, and is 0 where this is
	NeedsTLS   bool          // it is one of TLS, which a plain server cannot show
	Endless    bool          // it gives no answer before the client leaves, or Heal
}

// String returns the fault's name.
func (f Fault) String() string { return f.Name }

// Check says what is wrong with an answer to a question that was asked under the fault, or nil.
// A validator that could not ask may say so by an error, by CodeSystemUnavailable or by both.
// Where the service said how long to leave it alone, RetryAfter must hold that.
func (f Fault) Check(d guard.Decision, err error) error {
	answer := fmt.Sprintf("allowed %t, code %q, error %v", d.Allowed, d.Code, err)
	switch {
	case d.Allowed || d.Code == guard.CodeAllow:
		return fmt.Errorf("%s: %s, and must not look like an ALLOW", f, answer)
	case d.Code == "" && (err == nil || f.Code != guard.CodeSystemUnavailable):
		return fmt.Errorf("%s: %s, without the code %s", f, answer, f.Code)
	case d.Code != "" && d.Code != f.Code:
		return fmt.Errorf("%s: %s, want the code %s", f, answer, f.Code)
	case f.RetryAfter == 0 && d.RetryAfter != 0, f.RetryAfter > 0 && d.RetryAfter <= 0, d.RetryAfter > f.RetryAfter:
		return fmt.Errorf("%s: RetryAfter is %v, and the authority said %v", f, d.RetryAfter, f.RetryAfter)
	}
	return nil
}

// row is one fault and how it is made.
type row struct {
	Fault
	way  way          // how the network behaves
	cert certificate  // what the server shows in the TLS handshake
	send func(*visit) // how a request is answered; nil: by the service itself
	held bool         // the service decides at once, and send holds the answer back
}

// onWire tells whether the fault strikes before there is a request.
func (r row) onWire() bool { return r.way != wayOpen || r.cert != certGood }

// retryAfter is what a service asks for where it says so.
const retryAfter = 7 * time.Second

// says is a row that consists in what is said with 200.
func says(name string, send func(*visit)) row { return row{Fault: unavailable(name), send: send} }

// unavailable is a fault that leaves a client without an answer.
func unavailable(name string) Fault { return Fault{Name: name, Code: guard.CodeSystemUnavailable} }

func endless(name string) Fault {
	return Fault{Name: name, Code: guard.CodeSystemUnavailable, Endless: true}
}

func ofTLS(name string) Fault {
	return Fault{Name: name, Code: guard.CodeSystemUnavailable, NeedsTLS: true}
}

func asking(name string) Fault {
	return Fault{Name: name, Code: guard.CodeSystemUnavailable, RetryAfter: retryAfter}
}

// spoilt are the faults of connections and of bodies.
func (d Dialect) spoilt() []row {
	return []row{
		{Fault: unavailable("connection refused"), way: wayRefused},
		says("connection reset mid-body", reset),
		{Fault: endless("accepted and silent"), send: silent},
		{Fault: endless("one byte a second"), send: trickle},
		says("half a body", half),
		says("empty body", status(http.StatusOK, Always(""))),
		says("HTML with 200", page(http.StatusOK)),
		says("JSON array", status(http.StatusOK, d.array)),
		says("JSON number", status(http.StatusOK, Always("1"))),
		says("JSON null", status(http.StatusOK, Always("null"))),
		says("64 MiB body", huge),
		says("duplicate keys", status(http.StatusOK, d.doubled)),
		says("keys in another case", status(http.StatusOK, d.shouted)),
		says("second document after the first", status(http.StatusOK, d.both)),
	}
}

// statuses are the faults in which the body may be right and the status is not.
func (d Dialect) statuses() []row {
	return []row{
		says("ALLOW with 201", status(http.StatusCreated, d.Yes)),
		says("ALLOW with 403", status(http.StatusForbidden, d.Yes)),
		says("ALLOW with 500", status(http.StatusInternalServerError, d.Yes)),
		says("redirect 301", redirect(http.StatusMovedPermanently)),
		says("redirect 302", redirect(http.StatusFound)),
		says("redirect 307", redirect(http.StatusTemporaryRedirect)),
		says("redirect 308", redirect(http.StatusPermanentRedirect)),
		says("429 without Retry-After", failure(http.StatusTooManyRequests)),
		{Fault: asking("429 with Retry-After in seconds"), send: later(inSeconds)},
		{Fault: asking("429 with Retry-After as a date"), send: later(asDate)},
		says("500", failure(http.StatusInternalServerError)),
		says("502", page(http.StatusBadGateway)),
		says("503", failure(http.StatusServiceUnavailable)),
	}
}

// beyond are the faults of the network, and those that only show over several answers.
func (d Dialect) beyond() []row {
	mute := Fault{Name: "TLS handshake stalled", Code: guard.CodeSystemUnavailable, NeedsTLS: true, Endless: true}
	all := []row{
		{Fault: ofTLS("TLS certificate for another name"), cert: certWrongName},
		{Fault: ofTLS("TLS certificate expired"), cert: certExpired},
		{Fault: ofTLS("TLS certificate self-signed"), cert: certSelfSigned},
		{Fault: unavailable("DNS failure"), way: wayNameless},
		{Fault: endless("DNS silent"), way: wayNameserverMute},
		{Fault: mute, way: wayStalled},
	}
	if d.Another != nil {
		all = append(all, says("answer for another device", status(http.StatusOK, d.Another)))
	}
	return append(all,
		row{Fault: endless("answer late"), send: late, held: true},
		row{Fault: endless("answers out of order"), send: swapped, held: true},
		says("flapping", flapping),
	)
}
