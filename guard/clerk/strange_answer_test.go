package clerk_test

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
	"github.com/execguard/execguard/guard/clerk"
)

// R3: a Retry-After of a day does not hold a read for a day, where the back-off ends after a minute.
func TestRetryAfterDoesNotHoldAReadForADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := offline(t, canned(429, refusalOf("too_many_requests"), "Retry-After", "86400"), clerk.WithRetry(nil))
		begun := time.Now()
		ctx, cancel := context.WithCancel(t.Context()) // a server's request context: no deadline
		defer cancel()
		stop := time.AfterFunc(48*time.Hour, cancel)
		defer stop.Stop()
		_, err := client.VerifyMachine(ctx, opaque)
		if took := time.Since(begun); took > time.Minute || !errors.Is(err, guard.ErrUnavailable) {
			t.Errorf("%v after %v", err, took)
		}
	})
}

// A stranger's token that is a word of the answer does not make a no into «could not ask».
func TestATokenThatIsAWordOfTheAnswer(t *testing.T) {
	for _, token := range []string{"errors", "error", "rrors", "message", "long_message", "resource_not_found", "trace", "clerk_trace_id"} {
		client := offline(t, canned(404, refusalOf("resource_not_found")))
		_, err := client.VerifyMachine(t.Context(), token)
		if errors.Is(err, guard.ErrUnavailable) {
			t.Errorf("%s: %v: a stranger's token makes the service unavailable", token, err)
		}
	}
}

// Pages that shift by a page while they are walked do not end the walk.
func TestListOutlivesAShiftOfAPage(t *testing.T) {
	b := &book{ids: numbered(4)}
	b.turn = func(page int) {
		if page == 1 {
			b.ids = append([]string{"mch_new1"}, b.ids...)
		}
	}
	got, err := collect(offline(t, b).List(t.Context(), clerk.ListParams{PageSize: 1}))
	if err != nil || len(got) != 4 {
		t.Errorf("%v, %v", idsOf(got), err)
	}
}

// An empty page before the end is an error: a list that is cut short must not look whole.
func TestListDoesNotPassAnEmptyPageForTheEnd(t *testing.T) {
	client := offline(t, canned(200, `{"data":[],"total_count":250}`))
	if got, err := collect(client.List(t.Context(), clerk.ListParams{})); err == nil {
		t.Errorf("%d of 250 machines, and no error", len(got))
	}
}

// A token whose id the service did not tell is not remembered, since RevokeToken could not find it.
func TestCacheForgetsATokenWithoutID(t *testing.T) {
	for _, id := range []string{`"id":"",`, ``, `"id":7,`, `"id":"nonsense",`} {
		revoked := false
		client := offline(t, transport(func(r *http.Request) (*http.Response, error) {
			if strings.HasSuffix(r.URL.Path, "/revoke") {
				revoked = true
				return reply(r, 200, success("revoke token")), nil
			}
			body := strings.Replace(aToken(later), `"id":"`+tokenID+`",`, id, 1)
			if revoked {
				body = strings.Replace(body, `"revoked":false`, `"revoked":true`, 1)
			}
			return reply(r, 200, body), nil
		}), clerk.WithTokenCache(time.Hour, 10))
		if _, err := client.VerifyMachine(t.Context(), opaque); err != nil {
			continue
		}
		if _, err := client.RevokeToken(t.Context(), tokenID, ""); err != nil {
			t.Fatal(err)
		}
		if who, err := client.VerifyMachine(t.Context(), opaque); err == nil {
			t.Errorf("%s: %s is let in by a token that this client has revoked", id, who)
		}
	}
}

// A machine without a word about its scopes does not say that the scope is gone.
func TestRemoveScopeWantsToKnow(t *testing.T) {
	for _, scopes := range []string{``, `,"scoped_machines":null`} {
		client := offline(t, transport(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodDelete {
				return reply(r, 200, "null"), nil
			}
			return reply(r, 200, `{"object":"machine","id":"`+theirs+`"`+scopes+`}`), nil
		}))
		if err := client.RemoveScope(t.Context(), theirs, ours); err == nil {
			t.Errorf("%q: nobody said that the scope is gone", scopes)
		}
	}
}

// Numbers in Meta come as they were sent.
func TestMetaKeepsNumbers(t *testing.T) {
	client := offline(t, canned(422, `{"errors":[{"message":"m","code":"c","meta":{"n":12345678901234567890,"s":"a<b"}}]}`))
	_, err := client.Get(t.Context(), theirs)
	if e := wantError[*clerk.Error](t, err); !strings.Contains(string(e.Errors[0].Meta), "12345678901234567890") {
		t.Errorf("%s", e.Errors[0].Meta)
	}
}

// S8: nothing is seen of what follows «Bearer», whatever sign is between.
func TestNothingIsSeenBehindBearer(t *testing.T) {
	for _, text := range []string{
		"bearer: tail9x", "Bearer=tail9x", "Bearer%20tail9x", `Bearer\ttail9x`, "Bearer\u00a0tail9x", "Bearer,tail9x", "Bearer+tail9x", "Bearer\"tail9x\"", "a\nBearer a\nb tail9x", "xBearer tail9x",
	} {
		body := fmt.Sprintf(`{"errors":[{"message":%q,"long_message":%q,"code":"c","meta":{"m":%q}}],"clerk_trace_id":%q}`, text, text, text, text)
		_, err := offline(t, canned(422, body)).Get(t.Context(), theirs)
		wantNoSecret(t, err)
		_, err = offline(t, transport(func(r *http.Request) (*http.Response, error) { return nil, errors.New(text) })).Get(t.Context(), theirs)
		wantNoSecret(t, err)
	}
}

// mute says nothing of what it wraps.
type mute struct{ error }

func (mute) Error() string   { return "lost" }
func (m mute) Unwrap() error { return m.error }

// mutes is the same of many.
type mutes []error

func (mutes) Error() string     { return "lost" }
func (m mutes) Unwrap() []error { return m }

// S8: a stranger's secret in what an error wraps and does not say is found too.
func TestASecretIsFoundInWhatIsWrapped(t *testing.T) {
	inside := errors.New("sent sk_live_othertail9x")
	for _, fail := range []error{mute{inside}, mutes{inside}, mute{mutes{errors.New("a"), mute{inside}}}} {
		_, err := offline(t, transport(func(r *http.Request) (*http.Response, error) { return nil, fail })).Get(t.Context(), theirs)
		wantNoSecret(t, err)
	}
}

// Names are counted in characters and not in bytes, and scoped ids are those of machines.
func TestCreateCountsCharacters(t *testing.T) {
	client := offline(t, canned(200, success("create")))
	if _, err := client.Create(t.Context(), clerk.CreateParams{Name: strings.Repeat("é", 255)}); err != nil {
		t.Error(err)
	}
	for _, id := range []string{tokenID, "m_x", "mch-x", "mch_"} {
		if _, err := client.Create(t.Context(), clerk.CreateParams{Name: "n", ScopedMachines: []string{id}}); err == nil {
			t.Errorf("%s was taken for a machine", id)
		}
	}
}
