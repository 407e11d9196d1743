package faulty_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/internal/faulty"
)

// names lists the faults of a dialect.
func names(d faulty.Dialect) []string {
	var all []string
	for _, f := range d.Faults() {
		all = append(all, f.Name)
	}
	return all
}

// common are the faults of every service, but for the one that needs Dialect.Another.
func common() (before, after []string) {
	return []string{
			"connection refused", "connection reset mid-body", "accepted and silent", "one byte a second", "half a body",
			"empty body", "HTML with 200", "JSON array", "JSON number", "JSON null", "64 MiB body", "duplicate keys",
			"keys in another case", "second document after the first",
		}, []string{
			"ALLOW with 201", "ALLOW with 403", "ALLOW with 500", "redirect 301", "redirect 302", "redirect 307", "redirect 308",
			"429 without Retry-After", "429 with Retry-After in seconds", "429 with Retry-After as a date", "500", "502", "503",
			"TLS certificate for another name", "TLS certificate expired", "TLS certificate self-signed", "DNS failure", "DNS silent",
			"TLS handshake stalled", "answer late", "answers out of order", "flapping",
		}
}

func TestEveryDialectHasTheCommonFaults(t *testing.T) {
	before, after := common()
	d := dialect()
	d.Another = nil
	if got, want := names(d), slices.Concat(before, after); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestOwnFaultsHaveTheirPlace has new ones between the spoilt bodies and the wrong statuses, and
// one that takes the place of a common fault where that stands.
func TestOwnFaultsHaveTheirPlace(t *testing.T) {
	before, after := common()
	at := slices.Index(after, "answer late")
	after = slices.Insert(after, at, "answer for another device")
	body := faulty.Always("{}")
	d := dialect(
		faulty.Answer{Name: "duplicate keys", Body: body},
		faulty.Answer{Name: "one of mine", Body: body},
		faulty.Answer{Name: "ALLOW with 403", Body: body, Code: guard.CodeInvalidOrgKey},
		faulty.Answer{Name: "another of mine", Body: body, Code: "QUOTA_EXHAUSTED", RetryAfter: time.Second},
	)
	if got, want := names(d), slices.Concat(before, []string{"one of mine", "another of mine"}, after); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, f := range d.Faults() {
		want, wait := guard.CodeSystemUnavailable, time.Duration(0)
		switch f.Name {
		case "ALLOW with 403":
			want = guard.CodeInvalidOrgKey
		case "another of mine":
			want, wait = "QUOTA_EXHAUSTED", time.Second
		case "429 with Retry-After in seconds", "429 with Retry-After as a date":
			wait = 7 * time.Second
		}
		if f.Code != want || f.RetryAfter != wait || f.String() != f.Name {
			t.Errorf("%+v, want the code %s and RetryAfter %v", f, want, wait)
		}
	}
}

func TestFaultsSayWhatTheyAre(t *testing.T) {
	endless := []string{
		"accepted and silent", "one byte a second", "DNS silent", "TLS handshake stalled", "answer late", "answers out of order",
	}
	for _, f := range dialect().Faults() {
		if want := slices.Contains(endless, f.Name); f.Endless != want {
			t.Errorf("%q is endless: %t", f, f.Endless)
		}
		if want := strings.HasPrefix(f.Name, "TLS "); f.NeedsTLS != want {
			t.Errorf("%q needs TLS: %t", f, f.NeedsTLS)
		}
	}
}

func TestStartRefusesWhatIsOfNoUse(t *testing.T) {
	body := faulty.Always("{}")
	without := func(change func(*faulty.Dialect)) faulty.Dialect {
		d := dialect()
		change(&d)
		return d
	}
	for want, d := range map[string]faulty.Dialect{
		"needs Yes and No":                              {},
		"Yes and No":                                    without(func(d *faulty.Dialect) { d.No = nil }),
		"dialect needs Yes":                             without(func(d *faulty.Dialect) { d.Yes = nil }),
		`Yes is "{}"`:                                   without(func(d *faulty.Dialect) { d.Yes = body }),
		`Yes is "[{\"a\":1}]"`:                          without(func(d *faulty.Dialect) { d.Yes = faulty.Always(`[{"a":1}]`) }),
		`Yes is "{\"a\":1"`:                             without(func(d *faulty.Dialect) { d.Yes = faulty.Always(`{"a":1`) }),
		"has no name":                                   dialect(faulty.Answer{Body: body}),
		`"mine" of the dialect has no body`:             dialect(faulty.Answer{Name: "mine"}),
		`"mine" of the dialect has the status 100`:      dialect(faulty.Answer{Name: "mine", Body: body, Status: 100}),
		`"mine" of the dialect has the status 600`:      dialect(faulty.Answer{Name: "mine", Body: body, Status: 600}),
		`"mine" of the dialect has the code of an`:      dialect(faulty.Answer{Name: "mine", Body: body, Code: guard.CodeAllow}),
		`two faults of the name "mine"`:                 dialect(faulty.Answer{Name: "mine", Body: body}, faulty.Answer{Name: "mine", Body: body}),
		`"connection refused" is the network's`:         dialect(faulty.Answer{Name: "connection refused", Body: body}),
		`"TLS certificate expired" is the network's`:    dialect(faulty.Answer{Name: "TLS certificate expired", Body: body}),
		`"TLS handshake stalled" is the network's, and`: dialect(faulty.Answer{Name: "TLS handshake stalled", Body: body}),
	} {
		srv, err := faulty.Start(faulty.Config{Handler: service(), Dialect: d})
		if err == nil || srv != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Start returned %v, want %q", err, want)
		}
	}
	if srv, err := faulty.Start(faulty.Config{Dialect: dialect()}); err == nil || srv != nil || !strings.Contains(err.Error(), "handler") {
		t.Errorf("Start without a handler returned %v", err)
	}
}

// TestCheckKnowsRightFromWrong walks what an answer can be; guard/guardtest does so for MachineID's
// faults, by name.
func TestCheckKnowsRightFromWrong(t *testing.T) {
	unavailable := faulty.Fault{Name: "U", Code: guard.CodeSystemUnavailable}
	denied := faulty.Fault{Name: "D", Code: guard.CodeInvalidOrgKey}
	later := faulty.Fault{Name: "L", Code: guard.CodeSystemUnavailable, RetryAfter: 7 * time.Second}
	boom := errorString("boom")
	for _, test := range []struct {
		fault faulty.Fault
		d     guard.Decision
		err   error
		says  string // "": right
	}{
		{unavailable, guard.Decision{Code: guard.CodeSystemUnavailable}, nil, ""},
		{unavailable, guard.Decision{}, boom, ""},
		{unavailable, guard.Decision{}, nil, "U: allowed false, code \"\", error <nil>, without the code SYSTEM_UNAVAILABLE"},
		{unavailable, guard.Decision{Allowed: true}, boom, "must not look like an ALLOW"},
		{unavailable, guard.Decision{Code: guard.CodeAllow}, boom, "must not look like an ALLOW"},
		{unavailable, guard.Decision{Code: guard.CodeInvalidOrgKey}, nil, "want the code SYSTEM_UNAVAILABLE"},
		{unavailable, guard.Decision{RetryAfter: 1}, boom, "RetryAfter is 1ns"},
		{unavailable, guard.Decision{RetryAfter: -1}, boom, "RetryAfter is -1ns"},
		{denied, guard.Decision{Code: guard.CodeInvalidOrgKey}, nil, ""},
		{denied, guard.Decision{Code: guard.CodeInvalidOrgKey}, boom, ""},
		{denied, guard.Decision{}, boom, "without the code INVALID_ORG_KEY"},
		{denied, guard.Decision{Code: guard.CodeSystemUnavailable}, boom, "want the code INVALID_ORG_KEY"},
		{later, guard.Decision{RetryAfter: 7 * time.Second}, boom, ""},
		{later, guard.Decision{RetryAfter: 1}, boom, ""},
		{later, guard.Decision{}, boom, "the authority said 7s"},
		{later, guard.Decision{RetryAfter: 8 * time.Second}, boom, "RetryAfter is 8s"},
	} {
		got := ""
		if err := test.fault.Check(test.d, test.err); err != nil {
			got = err.Error()
		}
		if (got == "") != (test.says == "") || !strings.Contains(got, test.says) {
			t.Errorf("%s: %+v, %v: Check says %q, want %q", test.fault, test.d, test.err, got, test.says)
		}
	}
}

type errorString string

func (e errorString) Error() string { return string(e) }
