package clerkserver_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2/m2m_token"

	"github.com/execguard/execguard/internal/clerkserver"
	"github.com/execguard/execguard/internal/faulty"
)

// scene is a server with a machine, another that it has access to, and a token for that.
type scene struct {
	*clerkserver.Server
	right
	one, token string
}

func newScene(t *testing.T, opts ...clerkserver.Option) scene {
	s := start(t, opts...)
	own, _ := s.AddMachine("own")
	one, _ := s.AddMachine("one", own)
	_, token, err := s.IssueToken(one, clerkserver.TokenSpec{TTL: time.Hour})
	must(t, token, err)
	return scene{s, newRight(s, own), one, token}
}

func (s scene) Inject(t *testing.T, f faulty.Fault) {
	t.Helper()
	if err := s.Server.Inject(f.Name); err != nil {
		t.Fatal(err)
	}
}

func (s scene) Heal(t *testing.T) {
	t.Helper()
	if err := s.Server.Heal(); err != nil {
		t.Fatal(err)
	}
}

// wantYes wants the right client to get what it wants.
func (s scene) wantYes(t *testing.T) {
	t.Helper()
	if d, err := s.mayRun(t.Context(), s.one); !d.Allowed {
		t.Errorf("the machine: %+v, %v", d, err)
	}
	if who, err := s.isWho(t.Context(), s.token); who != s.one || err != nil {
		t.Errorf("the token: %q, %v", who, err)
	}
}

// TestFaultsAreNoAllow walks every fault with both questions: none lets a right client through,
// each shows as it says, and all are over when they are healed.
func TestFaultsAreNoAllow(t *testing.T) {
	s := newScene(t)
	s.wantYes(t)
	for _, f := range s.Faults() {
		t.Run(f.Name, func(t *testing.T) {
			s.Inject(t, f)
			c := s.forFault(f)
			if err := f.Check(c.mayRun(t.Context(), s.one)); err != nil {
				t.Error(err)
			}
			s.Inject(t, f) // anew: some count requests
			if who, err := c.isWho(t.Context(), s.token); err == nil {
				t.Errorf("the token passes for %q's", who)
			}
			s.Heal(t)
			s.wantYes(t)
		})
	}
	if strays := s.Strays(); len(strays) != 0 {
		t.Errorf("the right client went astray: %v", strays)
	}
}

// TestFaultsHoldNoMore: who is not there and what is no token meet the same faults, or a fault
// of the network would look like a 404.
func TestFaultsHoldNoMore(t *testing.T) {
	s := newScene(t, clerkserver.WithPlainHTTP())
	for _, f := range s.Faults() {
		if f.NeedsTLS || f.Name == "answer late" || f.Name == "answers out of order" {
			continue // the last two hold back what is true
		}
		s.Inject(t, f)
		c := s.forFault(f)
		if err := f.Check(c.mayRun(t.Context(), "mch_000000000000000000000000000")); err != nil {
			t.Errorf("a stranger: %v", err)
		}
		if who, err := c.isWho(t.Context(), "mt_nobody"); err == nil && f.Name != "flapping" {
			t.Errorf("%s: a stranger's token passes for %q's", f, who)
		}
	}
}

// TestOneFaultIsForOptingIn: a token without an end is the only one that passes for who asked
// for it, or the walk above would prove nothing about the rest of that answer.
func TestOneFaultIsForOptingIn(t *testing.T) {
	s := newScene(t)
	s.endless = true
	var passed []string
	for _, f := range s.Faults() {
		s.Inject(t, f)
		if who, err := s.forFault(f).isWho(t.Context(), s.token); err == nil && who == s.one {
			passed = append(passed, f.Name)
		}
	}
	if fmt.Sprint(passed) != "[token: expiration as null]" {
		t.Errorf("these pass: %q", passed)
	}
}

// TestFaultsBite: an application that uses the SDK as it comes, and looks at nothing but the
// error and the id, is fooled. What does not fool it today has a fault of its own to be one.
func TestFaultsBite(t *testing.T) {
	s := newScene(t)
	naive := newSDK(s.Client(), s.BaseURL(), s.SecretKey())
	var machines, tokens []string
	for _, f := range s.Faults() {
		if f.Endless || f.Name == "64 MiB body" {
			continue // which cost it its time or its memory
		}
		s.Inject(t, f)
		if m, err := naive.machines.Get(t.Context(), s.one); err == nil && m.ID == s.one {
			machines = append(machines, f.Name)
		}
		s.Inject(t, f)
		if m, err := naive.tokens.Verify(t.Context(), &m2m_token.VerifyParams{Token: s.token}); err == nil && m.Subject == s.one && !m.Revoked && !m.Expired {
			tokens = append(tokens, f.Name)
		}
	}
	compare(t, "sdk_fooled", "machine:\n  "+strings.Join(machines, "\n  ")+"\ntoken:\n  "+strings.Join(tokens, "\n  ")+"\n")
}

// TestFaultsFitEveryCall: whatever is asked, a fault of an answer is still JSON or HTML as it
// says, spoils what it is about, and changes nothing.
func TestFaultsFitEveryCall(t *testing.T) {
	s := newScene(t, clerkserver.WithPlainHTTP())
	names := strings.NewReplacer("ONE", s.one, "TWO", s.own, "TOKEN", s.token, "ID", "mt_00000000000000000000000000000000")
	before, err := newSDK(s.Client(), s.URL(), s.SecretKey()).machines.Get(t.Context(), s.one)
	must(t, before, err)
	for _, call := range everyCall() {
		path := names.Replace(call.path)
		for _, f := range []string{
			"id of another machine", "id missing", "id as null", "id as a number", "id as an array", "object of another kind", "object missing",
			"object as null", "deleted, and all there", "errors with 200", "errors beside an ALLOW", "ALLOW in an envelope", "duplicate keys",
		} {
			if err := s.Server.Inject(f); err != nil {
				t.Fatal(err)
			}
			got := ask(t, s.Client(), s.SecretKey(), call.method, s.URL()+path, names.Replace(call.body))
			if got.status != 200 || got.header.Get("Content-Type") != "application/json" || !json.Valid([]byte(got.body)) {
				t.Errorf("%s under %q: %d %s", call.path, f, got.status, got.body)
			}
		}
	}
	s.Heal(t)
	after, err := newSDK(s.Client(), s.URL(), s.SecretKey()).machines.Get(t.Context(), s.one)
	if must(t, after, err); !bytes.Equal(before.Response.RawJSON, after.Response.RawJSON) {
		t.Errorf("the faults have changed something: %s", after.Response.RawJSON)
	}
}

// TestRequestsNameTheMachine, so that a test can wait for one's.
func TestRequestsNameTheMachine(t *testing.T) {
	s := newScene(t)
	s.wantYes(t)
	page := ask(t, s.Client(), s.SecretKey(), "GET", s.URL()+"/m2m_tokens?"+url.Values{"subject": {s.one}}.Encode(), "")
	var about []string
	for _, r := range s.Requests() {
		about = append(about, r.DeviceID)
	}
	if want := []string{s.one, "", s.one}; page.status != 200 || !slices.Equal(about, want) {
		t.Errorf("the requests are about %q, want %q", about, want)
	}
}

// TestStrangersAreTempting: what a fault spoils is a whole ALLOW also for who is not there, or
// the fault would prove nothing. Under this one, only the status is wrong.
func TestStrangersAreTempting(t *testing.T) {
	s := newScene(t, clerkserver.WithPlainHTTP())
	if err := s.Server.Inject("ALLOW with 500"); err != nil {
		t.Fatal(err)
	}
	const stranger = "mch_000000000000000000000000000"
	var m struct {
		Object, ID string
		Scopes     []struct{ ID string } `json:"scoped_machines"`
	}
	got := ask(t, s.Client(), s.key, "GET", s.url+"/machines/"+stranger, "")
	if err := json.Unmarshal([]byte(got.body), &m); err != nil || m.Object != "machine" || m.ID != stranger || len(m.Scopes) != 2 {
		t.Errorf("%d %s", got.status, got.body)
	}
	var tok struct {
		Subject          string
		Scopes           []string
		Revoked, Expired bool
		Expiration       int64
	}
	got = ask(t, s.Client(), s.key, "POST", s.url+"/m2m_tokens/verify", `{"token":"mt_nobody"}`)
	err := json.Unmarshal([]byte(got.body), &tok)
	if err != nil || tok.Revoked || tok.Expired || !slices.Contains(tok.Scopes, s.own) || tok.Expiration <= time.Now().UnixMilli() ||
		!strings.HasPrefix(tok.Subject, "mch_") {
		t.Errorf("%d %s", got.status, got.body)
	}
}
