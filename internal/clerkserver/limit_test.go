package clerkserver_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clerk/clerk-sdk-go/v2/machine"

	"github.com/execguard/execguard/internal/clerkserver"
)

// TestLimitAnswers429 to everybody, also to who has no key, with the header or without.
func TestLimitAnswers429(t *testing.T) {
	s := newService(t)
	for wait, header := range map[time.Duration]string{
		time.Second: "1", 7 * time.Second: "7", 1500 * time.Millisecond: "2", time.Nanosecond: "1", 0: "", -time.Second: "",
	} {
		s.Limit(wait)
		for _, key := range []string{s.SecretKey(), ""} {
			got := ask(t, s.InProcess(), key, "GET", "https://clerk.test/machines", "")
			judge(t, wait.String(), got, 429, "", false)
			if got.header.Get("Retry-After") != header {
				t.Errorf("%v: Retry-After %q, want %q", wait, got.header.Get("Retry-After"), header)
			}
		}
		s.Unlimit()
		page, err := inside(s, s.SecretKey()).machines.List(t.Context(), &machine.ListParams{})
		must(t, page, err)
	}
}

// TestRateLimitIsAWindow: so many requests from the first on, then none, then so many again.
func TestRateLimitIsAWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t, clerkserver.WithRateLimit(3, 10*time.Second))
		time.Sleep(time.Hour) // the window begins with a request, and not with the service
		get := func() answer { return ask(t, s.InProcess(), s.SecretKey(), "GET", "https://clerk.test/machines", "") }
		for range 2 {
			for range 3 {
				if got := get(); got.status != 200 {
					t.Errorf("within the limit: %d", got.status)
				}
				time.Sleep(time.Second)
			}
			if got := get(); got.status != 429 || got.header.Get("Retry-After") != "7" {
				t.Errorf("3 s after the first: %d, Retry-After %q", got.status, got.header.Get("Retry-After"))
			}
			time.Sleep(7*time.Second - 1)
			if got := get(); got.status != 429 || got.header.Get("Retry-After") != "1" {
				t.Errorf("at the end of the window: %d, Retry-After %q", got.status, got.header.Get("Retry-After"))
			}
			time.Sleep(1)
		}
	})
}

// TestRefusalsComeInTurn, each once, in Clerk's form, and nothing is done.
func TestRefusalsComeInTurn(t *testing.T) {
	s := newService(t)
	c := inside(s, s.SecretKey())
	item := clerkserver.ErrorItem{Message: "no", LongMessage: "not today", Code: "conflict", Meta: map[string]any{"param_name": "name"}}
	for _, status := range []int{409, 500} {
		if err := s.RefuseNext(status, item, item); err != nil {
			t.Fatal(err)
		}
	}
	for _, status := range []int{409, 500} {
		_, err := c.machines.Create(t.Context(), &machine.CreateParams{Name: "x"})
		said := wantStatus(t, err, status)
		if len(said.Errors) != 2 || said.Errors[1].Code != "conflict" || string(said.Errors[1].Meta) != `{"param_name":"name"}` || said.TraceID == "" {
			t.Errorf("%v", err)
		}
	}
	page, err := c.machines.List(t.Context(), &machine.ListParams{})
	if must(t, page, err); page.TotalCount != 0 {
		t.Error("a refused call has made a machine")
	}
	for _, status := range []int{0, 200, 399, 600} {
		if s.RefuseNext(status, item) == nil {
			t.Errorf("RefuseNext took the status %d", status)
		}
	}
	if s.RefuseNext(409) == nil {
		t.Error("RefuseNext took an empty list")
	}
}

// TestTraceMayBeMissing: the answers are the same without.
func TestTraceMayBeMissing(t *testing.T) {
	s := newService(t, clerkserver.WithoutTrace())
	for _, path := range []string{"/machines", "/machines/mch_nobody"} {
		got := ask(t, s.InProcess(), s.SecretKey(), "GET", "https://clerk.test"+path, "")
		if got.header.Get("Clerk-Trace-Id") != "" || strings.Contains(got.body, "trace") {
			t.Errorf("%s: %v %s", path, got.header, got.body)
		}
	}
}

// TestTracesDiffer, so that they can be request ids.
func TestTracesDiffer(t *testing.T) {
	s := newService(t)
	seen := map[string]bool{}
	for range 100 {
		seen[ask(t, s.InProcess(), s.SecretKey(), "GET", "https://clerk.test/machines", "").header.Get("Clerk-Trace-Id")] = true
	}
	if len(seen) != 100 || seen[""] {
		t.Errorf("%d different traces of 100", len(seen))
	}
}

func TestBadOptionsAreRefusedByName(t *testing.T) {
	for name, o := range map[string]clerkserver.Option{
		"option 1 is nil":      nil,
		"WithRateLimit(0, 1s)": clerkserver.WithRateLimit(0, time.Second),
		"WithRateLimit(1, 0s)": clerkserver.WithRateLimit(1, 0),
	} {
		if _, err := clerkserver.Start(o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want it to say %q", err, name)
		}
	}
}
