package guardtest

import (
	"fmt"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/internal/faulty"
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
	for _, f := range dialect().Faults() {
		all = append(all, Fault(f.Name))
	}
	return all
}

// String returns the fault's name.
func (f Fault) String() string { return string(f) }

// Code is what a correct client, or a guard, makes of the fault: CodeSystemUnavailable where it
// could not ask or must not believe the answer, and the authority's own code where the answer
// is a denial that stands. It is "" for a name that Faults does not list.
func (f Fault) Code() guard.Code {
	found, _ := find(f)
	return found.Code
}

// Check says what is wrong with an answer to a question that was asked under the fault, or nil.
// A validator that could not ask may say so by an error, by CodeSystemUnavailable or by both.
// Where the authority said how long to leave it alone, RetryAfter must hold that.
//
//	err := fault.Check(validator.Validate(ctx, deviceID))
func (f Fault) Check(d guard.Decision, err error) error {
	found, ok := find(f)
	if !ok {
		return fmt.Errorf("guardtest: unknown fault %q, the known ones are %q", string(f), Faults())
	}
	return found.Check(d, err)
}

// NeedsTLS tells whether the fault is one of TLS, which a server WithPlainHTTP cannot show.
func (f Fault) NeedsTLS() bool {
	found, _ := find(f)
	return found.NeedsTLS
}

func find(f Fault) (faulty.Fault, bool) {
	for _, known := range dialect().Faults() {
		if known.Name == string(f) {
			return known, true
		}
	}
	return faulty.Fault{}, false
}
