package clerk_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/clerk"
	"github.com/google/go-cmp/cmp"
)

// The rules of the wire document, row by row.
func TestDecisions(t *testing.T) {
	plain := strings.Replace(aMachine, `,"scoped_machines":[`, `,"x":[`, 1)
	null := `{"object":"machine","id":"` + theirs + `","scoped_machines":null}`
	none := `{"object":"machine","id":"` + theirs + `","scoped_machines":[]}`
	for name, c := range map[string]struct {
		status int
		body   string
		scopes []string
		want   guard.Code
		reason string
	}{
		"there":                     {200, aMachine, nil, guard.CodeAllow, ""},
		"there, the scope too":      {200, aMachine, []string{ours}, guard.CodeAllow, ""},
		"there, the scope twice":    {200, aMachine, []string{ours, ours}, guard.CodeAllow, ""},
		"another scope":             {200, aMachine, []string{other}, guard.CodeDeviceRevoked, "the machine " + other + " is not in its scopes"},
		"one of two scopes":         {200, aMachine, []string{ours, other}, guard.CodeDeviceRevoked, "the machine " + other + " is not in its scopes"},
		"itself is no scope":        {200, aMachine, []string{theirs}, guard.CodeDeviceRevoked, "the machine " + theirs + " is not in its scopes"},
		"no list of scopes":         {200, plain, nil, guard.CodeAllow, ""},
		"no list, but a scope":      {200, plain, []string{ours}, guard.CodeDeviceRevoked, "the machine " + ours + " is not in its scopes"},
		"a null list, and a scope":  {200, null, []string{ours}, guard.CodeDeviceRevoked, "the machine " + ours + " is not in its scopes"},
		"an empty list and a scope": {200, none, []string{ours}, guard.CodeDeviceRevoked, "the machine " + ours + " is not in its scopes"},
		"not there":                 {404, refusalOf("resource_not_found"), nil, guard.CodeDeviceNotFound, "resource_not_found: msg"},
		"our key is not known":      {401, refusalOf("authentication_invalid"), nil, guard.CodeInvalidOrgKey, "authentication_invalid: msg"},
		"our key has no right":      {403, refusalOf("authorization_invalid"), nil, guard.CodeInvalidOrgKey, "authorization_invalid: msg"},
	} {
		var opts []clerk.ValidatorOption
		for _, to := range c.scopes {
			opts = append(opts, clerk.WithScope(to))
		}
		d, err := offline(t, canned(c.status, c.body, "Clerk-Trace-Id", trace)).Validator(opts...).Validate(t.Context(), theirs)
		want := guard.Decision{Allowed: c.want == guard.CodeAllow, Code: c.want, RequestID: trace, Reason: c.reason}
		if c.status == 200 {
			want.DeviceID = theirs
		}
		if diff := cmp.Diff(want, d); diff != "" || err != nil {
			t.Errorf("%s: %v, %s", name, err, diff)
		}
	}
}

// What decides nothing is SYSTEM_UNAVAILABLE beside an error, also where Clerk has refused the
// question itself.
func TestUndecidedDecisions(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
	}{
		{400, refusalOf("x")}, {402, refusalOf("x")}, {409, refusalOf("x")}, {422, refusalOf("x")}, {429, refusalOf("x")},
		{500, refusalOf("x")}, {503, "down"}, {301, ""}, {200, ""}, {200, "null"}, {200, "[]"}, {200, "<html>"}, {201, aMachine},
		{404, "<html>"}, {403, aMachine}, {404, aMachine}, {401, "{}"}, {200, aMachine + aMachine}, {200, refusalOf("x")},
	} {
		d, err := offline(t, canned(c.status, c.body, "Clerk-Trace-Id", trace, "Retry-After", "3")).Validator().Validate(t.Context(), theirs)
		wantUndecided(t, d, err)
		if d.RequestID != trace || d.RetryAfter != 3*time.Second || !strings.Contains(d.Reason, fmt.Sprint("HTTP ", c.status)) {
			t.Errorf("%d %.30q: %+v", c.status, c.body, d)
		}
	}
}

// An answer that breaks off has no word of anybody's, whatever its status.
func TestBrokenRefusals(t *testing.T) {
	for _, status := range []int{401, 403, 404} {
		client := offline(t, transport(func(r *http.Request) (*http.Response, error) {
			answer := reply(r, status, "", "Retry-After", "3", "Clerk-Trace-Id", trace)
			answer.Body = io.NopCloser(io.MultiReader(strings.NewReader(refusalOf("x")), iotest.ErrReader(io.ErrUnexpectedEOF)))
			return answer, nil
		}))
		d, err := client.Validator().Validate(t.Context(), theirs)
		wantUndecided(t, d, err)
		if failed := wantError[*clerk.Error](t, err); failed.Status != status || failed.TraceID != trace || d.RetryAfter != 3*time.Second || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d: %+v, %v", status, d, err)
		}
	}
}

// S2: ids that no machine has are refused unasked; the id is asked about as it was given.
func TestDeviceIDs(t *testing.T) {
	asked := ""
	client := offline(t, transport(func(r *http.Request) (*http.Response, error) {
		asked = r.URL.Path
		return reply(r, 404, refusalOf("resource_not_found")), nil
	}))
	long := "mch_" + strings.Repeat("x", 125)
	for _, id := range []string{
		"", " ", "\t\r\n", "mch_", "mch", "user_1", " " + theirs, theirs + "\n", theirs + " ", "MCH_a", "mch_a-b", "mch_a/../b", "../secrets?x=1",
		"mch_a?x=1", "mch_a#b", "mch_ä", "mch_a\x00", "mch_%2e", long, "mch_" + key, "mch_a.b", "xmch_a", "mch_a\nmch_b",
	} {
		d, err := client.Validator().Validate(t.Context(), id)
		if d.Allowed || d.Code != guard.CodeInvalidDeviceID || d.Reason == "" || err != nil || asked != "" {
			t.Errorf("%q: %+v, %v, asked %q", id, d, err, asked)
		}
		wantNoSecret(t, d)
	}
	for _, id := range []string{theirs, "mch_0", "mch__", long[:128]} {
		if d, err := client.Validator().Validate(t.Context(), id); d.Code != guard.CodeDeviceNotFound || err != nil || asked != "/v1/machines/"+id {
			t.Errorf("%q: %+v, %v, asked %q", id, d, err, asked)
		}
	}
}

// A Validator that was made by mistake allows nothing, says why, and asks nobody.
func TestFlawedValidators(t *testing.T) {
	client := offline(t, transport(func(*http.Request) (*http.Response, error) {
		t.Error("asked")
		return nil, errors.New("asked")
	}))
	for want, v := range map[string]guard.Validator{
		"WithScope: the id must be mch_": client.Validator(clerk.WithScope(key)),
		"WithScope: the id is blank":     client.Validator(clerk.WithScope(ours), clerk.WithScope(" ")),
		"option 2 of Validator is nil":   client.Validator(clerk.WithScope(ours), nil),
	} {
		d, err := v.Validate(t.Context(), theirs)
		wantUndecided(t, d, err)
		if !strings.Contains(d.Reason, want) {
			t.Errorf("%+v, want %s", d, want)
		}
		if g, err := guard.New(guard.Fallback(v, v)); g != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New made %v, %v, want %s", g, err, want)
		}
		wantNoSecret(t, v)
	}
}

// A context that is over before the call, or ends in it, is told by its own error and its cause, and
// nobody is asked for it.
func TestContexts(t *testing.T) {
	reason := errors.New("a reason of the caller's")
	gone, cancel := context.WithCancelCause(t.Context())
	cancel(reason)
	asked := 0
	hangs := transport(func(r *http.Request) (*http.Response, error) {
		asked++
		<-r.Context().Done()
		return nil, context.Cause(r.Context())
	})
	client := offline(t, hangs)
	for name, c := range calls() {
		if _, err := c.do(gone, client); !errors.Is(err, context.Canceled) || !errors.Is(err, reason) || !errors.Is(err, guard.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if asked > 0 {
		t.Errorf("%d requests for a caller who had left", asked)
	}
	short, stop := context.WithTimeoutCause(t.Context(), 5*time.Millisecond, reason)
	defer stop()
	d, err := client.Validator().Validate(short, theirs)
	wantUndecided(t, d, err)
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, reason) {
		t.Errorf("%v", err)
	}
}
