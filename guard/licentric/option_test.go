package licentric_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/licentric"
)

// What cannot work is refused by New, with the name of the option, and without a key.
func TestNewRefuses(t *testing.T) {
	paths := func(p licentric.Paths) licentric.Option { return licentric.WithPaths(p) }
	for name, c := range map[string]struct {
		key  string
		opt  licentric.Option
		want string
	}{
		"blank key":            {" ", nil, "API key is blank"},
		"key of two lines":     {apiKey + "\n", nil, "API key contains white space"},
		"key not in ASCII":     {"lk_live_ü", nil, "API key contains"},
		"nil client":           {apiKey, licentric.WithHTTPClient(nil), "WithHTTPClient"},
		"no time":              {apiKey, licentric.WithTimeout(0), "WithTimeout(0s)"},
		"too much time":        {apiKey, licentric.WithTimeout(11 * time.Minute), "WithTimeout(11m0s)"},
		"base is a key":        {"", licentric.WithBaseURL(apiKey), "WithBaseURL: not an absolute"},
		"base holds the key":   {apiKey, licentric.WithBaseURL("https://x.example/" + apiKey), "WithBaseURL"},
		"plain http":           {apiKey, licentric.WithBaseURL("http://licentric.example"), "plain http would show the keys"},
		"plain http, no key":   {"", licentric.WithBaseURL("http://licentric.example"), "plain http would show the keys"},
		"prefix twice":         {apiKey, licentric.WithBaseURL("https://licentric.example/api/v1"), "leave it out"},
		"query":                {apiKey, licentric.WithBaseURL("https://licentric.example/?a=b"), "WithBaseURL"},
		"no slash":             {"", paths(licentric.Paths{Validate: "licenses"}), "WithPaths: Validate: the path must begin with /"},
		"no id":                {"", paths(licentric.Paths{Heartbeat: "/beat"}), "WithPaths: Heartbeat: the path must have the segment {id} 1 times"},
		"two ids":              {"", paths(licentric.Paths{Machine: "/{id}/{id}"}), "WithPaths: Machine"},
		"an id too many":       {"", paths(licentric.Paths{Activate: "/machines/{id}"}), "WithPaths: Activate: the path must have the segment {id} 0 times"},
		"part of a segment":    {"", paths(licentric.Paths{Checkout: "/l-{id}"}), "WithPaths: Checkout"},
		"climbing":             {"", paths(licentric.Paths{Machines: "/../x"}), "WithPaths: Machines"},
		"standing":             {"", paths(licentric.Paths{Machines: "/./x"}), "WithPaths: Machines"},
		"query in a path":      {"", paths(licentric.Paths{Validate: "/x?y"}), "WithPaths: Validate"},
		"escape in a path":     {"", paths(licentric.Paths{Validate: "/x%2fy"}), "WithPaths: Validate"},
		"empty segment":        {"", paths(licentric.Paths{Validate: "//x"}), "WithPaths: Validate"},
		"end of a path":        {"", paths(licentric.Paths{Validate: "/x/"}), "WithPaths: Validate"},
		"another host":         {"", paths(licentric.Paths{Validate: "https://x.example/"}), "WithPaths: Validate: the path must begin with /"},
		"unknown method":       {"", paths(licentric.Paths{Deactivate: "OFF /m/{id}"}), "WithPaths: Deactivate: the method must be"},
		"method in lower case": {"", paths(licentric.Paths{Deactivate: "post /m/{id}"}), "WithPaths: Deactivate: the method must be"},
		"reading that writes":  {"", paths(licentric.Paths{Machine: "POST /m/{id}"}), "must not change from GET to POST"},
		"writing that reads":   {"", paths(licentric.Paths{Validate: "GET /v"}), "must not change from POST to GET"},
		"names alike":          {"", paths(licentric.Paths{FingerprintMember: "entitlements"}), "must differ"},
		"name of the key":      {"", paths(licentric.Paths{EntitlementsMember: "key"}), "must differ"},
	} {
		var opts []licentric.Option
		if c.opt != nil {
			opts = append(opts, c.opt)
		}
		client, err := licentric.New(c.key, opts...)
		if err == nil || client != nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "licentric: ") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		checkSecret(t, err)
	}
	if _, err := licentric.New(apiKey, licentric.WithTimeout(time.Second), nil); err == nil || err.Error() != "licentric: option 2 is nil" {
		t.Errorf("%v", err)
	}
}

func TestNewAccepts(t *testing.T) {
	for _, opt := range []licentric.Option{
		licentric.WithBaseURL("https://licentric.example:8443/behind/"), licentric.WithBaseURL("http://localhost:1"),
		licentric.WithBaseURL("http://[::1]:80"), licentric.WithTimeout(10 * time.Minute), licentric.WithPaths(licentric.Paths{}),
		licentric.WithHTTPClient(http.DefaultClient),
	} {
		for _, key := range []string{"", apiKey} {
			if _, err := licentric.New(key, opt); err != nil {
				t.Error(err)
			}
		}
	}
}

// A client is logged as where it asks and how long it waits, and not a field more.
func TestClientPrints(t *testing.T) {
	client, err := licentric.New(apiKey)
	if err != nil {
		t.Fatal(err)
	}
	const want = "licentric.Client(https://licentric.com, timeout 30s)"
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(verb, client); got != want {
			t.Errorf("%s: %s, want %s", verb, got, want)
		}
		if got := fmt.Sprintf(verb, client.Validator(licenseKey)); got != "licentric.Validator("+want+")" {
			t.Errorf("%s: %s", verb, got)
		}
	}
}

// WithTimeout ends a call that nothing else ends, and is not what ends one that ends earlier.
func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent := transport(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, context.Cause(r.Context())
		})
		for _, c := range []struct {
			opts []licentric.Option
			own  time.Duration
			want time.Duration
		}{
			{nil, 0, 30 * time.Second},
			{[]licentric.Option{licentric.WithTimeout(7 * time.Second)}, 0, 7 * time.Second},
			{[]licentric.Option{licentric.WithTimeout(7 * time.Second)}, 5 * time.Second, 5 * time.Second},
			{[]licentric.Option{licentric.WithTimeout(7 * time.Second)}, 9 * time.Second, 7 * time.Second},
		} {
			client := offsocket(t, apiKey, silent, c.opts...)
			for name, call := range calls {
				ctx, cancel := t.Context(), func() {}
				if c.own > 0 {
					ctx, cancel = context.WithTimeout(ctx, c.own)
				}
				start := time.Now()
				_, err := call(ctx, client)
				cancel()
				if took := time.Since(start); took != c.want || !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, guard.ErrUnavailable) {
					t.Errorf("%s: %v after %v, want %v", name, err, took, c.want)
				}
			}
		}
	})
}

// After Close nothing is sent, and what was in flight ends as it would have.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release, asked := make(chan struct{}), 0
		client := offsocket(t, apiKey, transport(func(r *http.Request) (*http.Response, error) {
			asked++
			<-release
			return response(r, 200, []byte(valid)), nil
		}))
		v := client.Validator(licenseKey)
		inFlight := make(chan guard.Decision, 1)
		go func() {
			d, _ := v.Validate(t.Context(), device)
			inFlight <- d
		}()
		synctest.Wait()
		for range 2 {
			if err := client.Close(); err != nil {
				t.Error(err)
			}
		}
		for name, call := range calls {
			_, err := call(t.Context(), client)
			if !errors.Is(err, guard.ErrUnavailable) || typedError(t, err).Message != "the client is closed" {
				t.Errorf("%s: %v", name, err)
			}
		}
		d, err := v.Validate(t.Context(), device)
		checkUndecided(t, d, err)
		close(release)
		if d := <-inFlight; !d.Allowed || asked != 1 {
			t.Errorf("%+v, asked %d times", d, asked)
		}
	})
}
