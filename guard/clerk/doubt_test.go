package clerk_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/execguard/execguard/guard/clerk"
)

// S2, S8: taking a secret out must not mend an answer that means two things.
func TestRedactingMendsNothing(t *testing.T) {
	for _, body := range []string{
		strings.Replace(aMachine, `"name":"worker"`, `"name":"`+key+`","name":"x"`, 1),
		strings.Replace(aMachine, `"id":"`+theirs+`"`, `"id":"`+other+`","id":"`+theirs+`","x":"`+key+`"`, 1),
		strings.Replace(aMachine, `"name":"worker"`, `"name":"`+key+`","Deleted":true`, 1),
		strings.Replace(aMachine, `"name":"worker"`, `"name":"`+key+`"`, 1) + `{}`,
	} {
		d, err := offline(t, canned(200, body)).Validator().Validate(t.Context(), theirs)
		wantUndecided(t, d, err)
	}
	body := strings.Replace(aToken(later), `"revoked":false`, `"revoked":true,"revoked":false,"x":"`+opaque+`"`, 1)
	if id, err := offline(t, canned(200, body)).VerifyMachine(t.Context(), opaque); err == nil {
		t.Errorf("%s is let in", id)
	}
}

// S2: each name that is read makes an answer invalid in another case, and nothing is then taken from
// such an answer.
func TestNamesInAnotherCase(t *testing.T) {
	for _, name := range []string{
		"object", "id", "name", "instance_id", "created_at", "updated_at", "default_token_ttl", "scoped_machines",
		"data", "total_count", "secret_key", "secret", "deleted", "from_machine_id", "to_machine_id",
		"subject", "scopes", "claims", "revoked", "expired", "expiration", "token",
		"errors", "clerk_trace_id", "message", "long_message", "code", "meta",
	} {
		body := strings.Replace(aMachine, `{`, `{"clerk_trace_id":"`+trace+`","`+strings.ToUpper(name)+`":null,`, 1)
		_, err := offline(t, canned(200, body)).Get(t.Context(), theirs)
		if strange := wantError[*clerk.BodyError](t, err); strange.TraceID != "" {
			t.Errorf("%s: %#v", name, strange)
		}
		_, err = offline(t, canned(503, strings.Replace(refusalOf("down"), `{`, `{"`+strings.ToUpper(name)+`":null,`, 1))).Get(t.Context(), theirs)
		if strange := wantError[*clerk.BodyError](t, err); strange.TraceID != "" {
			t.Errorf("%s: %#v", name, strange)
		}
	}
}

// A deletion that is answered by null is believed where the machine is known to be gone, and not where
// the question for it was refused or failed: then that is the error.
func TestDoubtfulDeletions(t *testing.T) {
	for status, gone := range map[int]bool{404: true, 401: false, 403: false, 410: false, 429: false, 503: false} {
		client := offline(t, transport(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodDelete {
				return reply(r, 200, "null"), nil
			}
			return reply(r, status, refusalOf("no")), nil
		}))
		err := client.Delete(t.Context(), theirs)
		if (err == nil) != gone || err != nil && wantError[*clerk.Error](t, err).Status != status {
			t.Errorf("%d: %v", status, err)
		}
		err = client.RemoveScope(t.Context(), theirs, ours) // of a machine that is not there nobody asked
		if err == nil || wantError[*clerk.Error](t, err).Status != status {
			t.Errorf("scope, %d: %v", status, err)
		}
	}
}

// A problem of one word is one; what says nothing more has no Meta, and a short trace id is one too.
func TestProblemsOfOneWord(t *testing.T) {
	for body, want := range map[string]clerk.Problem{
		`{"errors":[{"code":"c"}],"clerk_trace_id":"t"}`:                  {Code: "c"},
		`{"errors":[{"message":"m","meta":null}],"clerk_trace_id":"t"}`:   {Message: "m"},
		`{"errors":[{"code":"c","message":"m"}],"clerk_trace_id":"t"}`:    {Code: "c", Message: "m"},
		`{"errors":[{"code":"c","long_message":7}],"clerk_trace_id":"t"}`: {Code: "c"},
	} {
		_, err := offline(t, canned(422, body)).Get(t.Context(), theirs)
		failed := wantError[*clerk.Error](t, err)
		if len(failed.Errors) != 1 || failed.TraceID != "t" {
			t.Errorf("%s: %#v", body, failed)
			continue
		}
		if got := failed.Errors[0]; got.Code != want.Code || got.Message != want.Message || got.Meta != nil {
			t.Errorf("%s: %#v", body, got)
		}
	}
}

// What the service says of times and lives that no calendar has is nothing; of too long ones, the longest.
func TestLivesOfTokens(t *testing.T) {
	for sent, want := range map[string]time.Duration{
		"0": 0, "-5": 0, "1": time.Second, "315360000": 315360000 * time.Second, "315360001": 315360000 * time.Second,
		"9223372036854775807": 315360000 * time.Second, "-9223372036854775808": 0,
	} {
		body := strings.Replace(aMachine, `"default_token_ttl":3600`, `"default_token_ttl":`+sent, 1)
		m, err := offline(t, canned(200, body)).Get(t.Context(), theirs)
		if err != nil || m.DefaultTokenTTL != want {
			t.Errorf("%s: %v, %v, want %v", sent, m.DefaultTokenTTL, err, want)
		}
	}
	for sent, good := range map[string]bool{"253402300799999": true, "253402300800000": false} {
		token, err := offline(t, canned(200, aToken(sent))).VerifyToken(t.Context(), opaque)
		if (err == nil) != good || good != (token.ExpiresAt.Year() == 9999) {
			t.Errorf("%s: %v, %v", sent, token.ExpiresAt, err)
		}
	}
}

// What just fits is taken.
func TestBoundsAreTaken(t *testing.T) {
	long := strings.Repeat("x", 16<<10)
	if _, err := offline(t, canned(200, aToken(later))).VerifyToken(t.Context(), long); err != nil {
		t.Error(err)
	}
	scopes := make([]string, 150)
	for i := range scopes {
		scopes[i] = fmt.Sprint("mch_", i)
	}
	client := offline(t, canned(200, success("create")), clerk.WithTimeout(time.Minute))
	if _, err := client.Create(t.Context(), clerk.CreateParams{Name: "n", ScopedMachines: scopes}); err != nil {
		t.Error(err)
	}
	if _, err := clerk.New(key, clerk.WithTimeout(1), clerk.WithTokenCache(1, 1)); err != nil {
		t.Error(err)
	}
}

// A token of 16 signs may be a secret and is not seen; a word of 15 is none.
func TestShortTokensInAnswers(t *testing.T) {
	for token, seen := range map[string]bool{"abcdefghijklmno": true, "abcdefghijklmnop": false} {
		body := `{"errors":[{"code":"c","message":"not ` + token + `"}]}`
		_, err := offline(t, canned(404, body)).VerifyToken(t.Context(), token)
		if strings.Contains(err.Error(), token) != seen {
			t.Errorf("%s: %v", token, err)
		}
	}
}

// slog is told that there is something, and not what.
func TestSecretLogsAsRedacted(t *testing.T) {
	made, err := offline(t, canned(200, success("create"))).Create(t.Context(), clerk.CreateParams{Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if value := made.SecretKey.LogValue(); value.Kind() != slog.KindString || value.String() != "[redacted]" {
		t.Errorf("%v", value)
	}
	if text, err := made.SecretKey.MarshalText(); string(text) != "[redacted]" || err != nil {
		t.Errorf("%s, %v", text, err)
	}
}

// What may be logged prints the same by every verb, and is not empty.
func TestPrintsAlike(t *testing.T) {
	client := offline(t, canned(200, aMachine))
	for _, value := range []any{client, client.Validator()} {
		plain := fmt.Sprintf("%v", value)
		if again := fmt.Sprintf("%#v", value); again != plain || !strings.Contains(plain, "clerk.Client(https://api.clerk.com/v1, timeout 10s)") {
			t.Errorf("%q, %q", plain, again)
		}
	}
}

// body counts how often it was closed.
type body struct {
	io.Reader

	closed int
}

func (b *body) Close() error {
	b.closed++
	return nil
}

// An answer's body is closed: where it is not read to its end nothing else ends the connection.
func TestBodiesAreClosed(t *testing.T) {
	for _, text := range []string{aMachine, strings.Repeat(" ", 1<<20+1)} {
		b := &body{Reader: strings.NewReader(text)}
		var call context.Context
		client := offline(t, transport(func(r *http.Request) (*http.Response, error) {
			call = r.Context()
			answer := reply(r, 200, "")
			answer.Body = b
			return answer, nil
		}))
		_, err := client.Get(t.Context(), theirs)
		if (err == nil) != (text == aMachine) || b.closed == 0 {
			t.Errorf("closed %d times, %v", b.closed, err)
		}
		if call.Err() == nil {
			t.Error("the call's own context, with its timer, goes on")
		}
	}
}
