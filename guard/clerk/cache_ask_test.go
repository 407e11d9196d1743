package clerk_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/execguard/execguard/guard/clerk"
)

// S5: a token that the service does not know any more is no longer taken, and «could not ask» is no
// such answer: VerifyToken asks on behalf of VerifyMachine too.
func TestVerifyTokenOfWhatIsRemembered(t *testing.T) {
	for status, forgotten := range map[int]bool{404: true, 410: true, 401: false, 429: false, 503: false} {
		s := newRegistry()
		client := offline(t, s, clerk.WithTokenCache(time.Hour, 5))
		wantAsked(t, client, s, opaque, 1)
		s.answer = func(r *http.Request, _ string) (*http.Response, error) { return reply(r, status, refusalOf("no")), nil }
		if _, err := client.VerifyToken(t.Context(), opaque); err == nil {
			t.Errorf("%d: good", status)
		}
		if id, err := client.VerifyMachine(t.Context(), opaque); (err != nil) != forgotten {
			t.Errorf("%d: %q, %v", status, id, err)
		}
	}
}

// A verification that failed says nothing about one at the same time that did not.
func TestAFailureSpoilsNoOtherVerification(t *testing.T) {
	s := newRegistry()
	var client *clerk.Client
	s.answer = func(r *http.Request, _ string) (*http.Response, error) {
		s.answer = func(r *http.Request, _ string) (*http.Response, error) { return reply(r, 503, refusalOf("down")), nil }
		if _, err := client.VerifyMachine(r.Context(), opaque); err == nil { // while the first is being answered
			t.Error("let in")
		}
		return reply(r, 200, aToken(later)), nil
	}
	client = offline(t, s, clerk.WithTokenCache(time.Hour, 5))
	wantAsked(t, client, s, opaque, 2)
	wantAsked(t, client, s, opaque, 2)
}

// The first reason is the one that is told: that it was revoked says more than that it is another's.
func TestFirstReasonIsTold(t *testing.T) {
	body := strings.NewReplacer(`"revoked":false`, `"revoked":true`, ours, other).Replace(aToken(later))
	_, err := offline(t, canned(200, body)).VerifyMachine(t.Context(), opaque)
	if no := wantError[*clerk.TokenError](t, err); no.Reason != "it was revoked" {
		t.Errorf("%v", err)
	}
}

// Pages without end are not stale because there are many: only those on end that hold nothing new count.
func TestListOfManyPages(t *testing.T) {
	b := &book{ids: numbered(25)}
	got, err := collect(offline(t, b).List(t.Context(), clerk.ListParams{PageSize: 1}))
	if err != nil || len(got) != 25 {
		t.Errorf("%d machines, %v", len(got), err)
	}
}

// A service that overlooks the offset is asked for ten pages more than the one that was new, and one.
func TestStalePagesAreCounted(t *testing.T) {
	asked := 0
	client := offline(t, transport(func(r *http.Request) (*http.Response, error) {
		asked++
		return reply(r, 200, `{"data":[`+aMachine+`],"total_count":250}`), nil
	}))
	got, err := collect(client.List(t.Context(), clerk.ListParams{PageSize: 1}))
	if asked != 12 || len(got) != 1 || !strings.Contains(fmt.Sprint(err), "have all come before") {
		t.Errorf("%d machines, %v after %d requests", len(got), err, asked)
	}
}

// An empty page before the end is found out at once.
func TestEmptyPageIsAskedForOnce(t *testing.T) {
	asked := 0
	client := offline(t, transport(func(r *http.Request) (*http.Response, error) {
		asked++
		return reply(r, 200, `{"data":[],"total_count":250}`), nil
	}))
	if _, err := collect(client.List(t.Context(), clerk.ListParams{})); asked != 1 || !strings.Contains(fmt.Sprint(err), "an empty page") {
		t.Errorf("%v after %d requests", err, asked)
	}
}
