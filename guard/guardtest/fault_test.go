package guardtest_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

// TestFaultsCoverTheContract holds the table to the contract's list, as far as a server or a
// network can show it; what is the validator's own (panics, ignored contexts) is scripted.
func TestFaultsCoverTheContract(t *testing.T) {
	names := map[guardtest.Fault]bool{}
	for _, f := range guardtest.Faults() {
		if names[f] {
			t.Errorf("%q is there twice", f)
		}
		names[f] = true
		if f.Code() == "" || f.Code() == guard.CodeAllow {
			t.Errorf("%q: code %q", f, f.Code())
		}
	}
	for _, part := range []string{
		"connection refused", "connection reset mid-body", "accepted and silent", "one byte a second", "half a body",
		"empty body", "HTML with 200", "JSON array", "JSON number", "JSON null", "64 MiB body", "duplicate keys",
		"keys in another case", "second document after the first", "allowed as a string", "allowed as 1", "allowed as null",
		"allowed missing", "allowed with a deny code", "unknown code", "ALLOW with 4", "ALLOW with 5",
		"redirect 301", "redirect 302", "redirect 307", "redirect 308", "429 with Retry-After", "429 without Retry-After",
		"500", "502", "503", "TLS certificate for another name", "TLS certificate expired", "TLS certificate self-signed",
		"DNS failure", "TLS handshake stalled", "answer for another device", "answers out of order", "flapping",
	} {
		covered := false
		for f := range names {
			covered = covered || strings.HasPrefix(f.String(), part)
		}
		if !covered {
			t.Errorf("no fault begins with %q", part)
		}
	}
}

func TestFaultsAreACopy(t *testing.T) {
	guardtest.Faults()[0] = "thunder"
	if got := guardtest.Faults()[0]; got == "thunder" {
		t.Error("a caller has changed the list")
	}
}

func TestFaultsOfTLSSaySo(t *testing.T) {
	for _, f := range guardtest.Faults() {
		if want := strings.HasPrefix(f.String(), "TLS "); f.NeedsTLS() != want {
			t.Errorf("%q needs TLS: %t", f, f.NeedsTLS())
		}
	}
}

// TestFaultsWithoutTLS shows all others on a server that has none.
func TestFaultsWithoutTLS(t *testing.T) {
	srv := newServer(t, guardtest.WithPlainHTTP())
	client := newClient(t, srv)
	for _, fault := range guardtest.Faults() {
		if fault.NeedsTLS() {
			continue
		}
		srv.Inject(fault)
		ctx, cancel := context.WithTimeout(t.Context(), patience(fault))
		if err := fault.Check(client.Validate(ctx, device)); err != nil {
			t.Error(err)
		}
		cancel()
	}
	srv.Heal()
	wantAllow(t, srv)
}

// careless is what a client may look like that works well while nothing goes wrong: it follows
// redirects, looks at no status, and decodes as encoding/json does by default.
type careless struct{ srv *guardtest.Server }

func (c careless) Validate(ctx context.Context, deviceID string) (guard.Decision, error) {
	a := post(ctx, c.srv.Client(), c.srv, deviceID)
	if a.saysAllow() {
		return guard.Decision{Allowed: true, Code: guard.CodeAllow}, nil
	}
	return guard.Decision{Code: guard.CodeSystemUnavailable}, a.err
}

// TestFaultsCatchACarelessClient shows that Check has something to say, and where.
func TestFaultsCatchACarelessClient(t *testing.T) {
	catch := map[guardtest.Fault]bool{
		"64 MiB body":    false, // read to its end, which is bad enough, but cut off by this test
		"duplicate keys": true, "keys in another case": true, "second document after the first": true,
		"unknown code, denied": true, // calls it an outage
		"ALLOW with 201":       true, "ALLOW with 403": true, "ALLOW with 500": true,
		"redirect 301": true, "redirect 302": true, "redirect 307": true, "redirect 308": true,
		"429 with Retry-After in seconds": true, "429 with Retry-After as a date": true, // forgets how long
		"answer for another device": true,
	}
	srv := newServer(t)
	for _, fault := range guardtest.Faults() {
		srv.Inject(fault)
		ctx, cancel := context.WithTimeout(t.Context(), patience(fault))
		err := fault.Check(careless{srv}.Validate(ctx, device))
		cancel()
		if (err != nil) != catch[fault] {
			t.Errorf("%q: Check says %v", fault, err)
		}
	}
	if n := len(srv.Strays()); n != 4 {
		t.Errorf("%d requests went to the other host, want one for each redirect", n)
	}
}

func TestCheckKnowsRightFromWrong(t *testing.T) {
	boom := errors.New("boom")
	decision := func(code guard.Code) guard.Decision {
		return guard.Decision{Allowed: code == guard.CodeAllow, Code: code}
	}
	wait := func(d time.Duration) guard.Decision {
		return guard.Decision{Code: guard.CodeSystemUnavailable, RetryAfter: d}
	}
	for _, test := range []struct {
		fault guardtest.Fault
		d     guard.Decision
		err   error
		says  string // "": right
	}{
		{"500", decision(guard.CodeSystemUnavailable), nil, ""},
		{"500", decision(guard.CodeSystemUnavailable), boom, ""},
		{"500", guard.Decision{}, boom, ""},
		{"500", guard.Decision{}, nil, "without the code SYSTEM_UNAVAILABLE"},
		{"500", decision(guard.CodeDeviceRevoked), nil, "want the code SYSTEM_UNAVAILABLE"},
		{"500", decision(guard.CodeAllow), nil, "must not look like an ALLOW"},
		{"500", decision(guard.CodeAllow), boom, "must not look like an ALLOW"},
		{"500", guard.Decision{Code: guard.CodeAllow}, boom, "must not look like an ALLOW"},
		{"500", guard.Decision{Allowed: true}, boom, "must not look like an ALLOW"},
		{"500", wait(time.Second), boom, "RetryAfter is 1s"},
		{"unknown code, denied", decision("QUOTA_EXHAUSTED"), nil, ""},
		{"unknown code, denied", decision(guard.CodeSystemUnavailable), nil, "want the code QUOTA_EXHAUSTED"},
		{"unknown code, denied", guard.Decision{}, boom, "without the code QUOTA_EXHAUSTED"},
		{"unknown code, allowed", decision("QUOTA_EXHAUSTED"), nil, "want the code SYSTEM_UNAVAILABLE"},
		{"429 without Retry-After", wait(0), boom, ""},
		{"429 without Retry-After", wait(time.Second), boom, "RetryAfter is 1s"},
		{"429 with Retry-After in seconds", wait(7 * time.Second), boom, ""},
		{"429 with Retry-After in seconds", wait(0), boom, "the authority said 7s"},
		{"429 with Retry-After in seconds", wait(-time.Second), boom, "the authority said 7s"},
		{"429 with Retry-After in seconds", wait(8 * time.Second), boom, "RetryAfter is 8s"},
		{"429 with Retry-After as a date", wait(5 * time.Second), boom, ""},
		{"thunder", decision(guard.CodeSystemUnavailable), nil, `unknown fault "thunder"`},
	} {
		got := ""
		if err := test.fault.Check(test.d, test.err); err != nil {
			got = err.Error()
		}
		if (got == "") != (test.says == "") || !strings.Contains(got, test.says) {
			t.Errorf("%s: %+v, %v: Check says %q, want %q", test.fault, test.d, test.err, got, test.says)
		}
	}
	if c := guardtest.Fault("thunder").Code(); c != "" {
		t.Errorf("an unknown fault has the code %q", c)
	}
}
