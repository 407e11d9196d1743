package clerk_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/clerk"
)

// A Secret shows itself to Reveal and to nothing else, also inside of what holds it.
func TestSecret(t *testing.T) {
	made, err := offline(t, canned(200, success("create"))).Create(t.Context(), clerk.CreateParams{Name: "x"})
	if err != nil || made.SecretKey.Reveal() != machine {
		t.Fatal(err)
	}
	token, err := offline(t, canned(200, success("create token"))).CreateToken(t.Context(), machine, clerk.TokenParams{})
	if err != nil || token.Secret.Reveal() != opaque {
		t.Fatal(err)
	}
	wantNoSecret(t, made, &made, token, []clerk.Secret{made.SecretKey}, map[string]any{"a": token}, struct{ hidden clerk.Secret }{made.SecretKey})
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("made", "machine", made, "key", made.SecretKey)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("made", "machine", made, "key", made.SecretKey)
	marshalled, err := xml.Marshal(holder{made.SecretKey})
	if err != nil {
		t.Error(err)
	}
	wantNoSecret(t, log.String(), string(marshalled))
	for _, text := range []string{fmt.Sprint(made.SecretKey), fmt.Sprintf("%#v", made.SecretKey), made.SecretKey.String(), made.SecretKey.GoString()} {
		if text != "[redacted]" {
			t.Errorf("printed as %s", text)
		}
	}
	if text, err := json.Marshal(made.SecretKey); string(text) != `"[redacted]"` || err != nil {
		t.Errorf("%s, %v", text, err)
	}
	if none := (clerk.Secret{}); none.Reveal() != "" || none.String() != "[redacted]" {
		t.Errorf("%q", none.Reveal())
	}
}

type holder struct{ S clerk.Secret }

func TestClientsPrintNoSecret(t *testing.T) {
	client := offline(t, canned(200, aToken(later)), clerk.WithTokenCache(time.Hour, 5))
	if _, err := client.VerifyMachine(t.Context(), opaque); err != nil {
		t.Fatal(err)
	}
	v := client.Validator(clerk.WithScope(ours))
	wantNoSecret(t, client, v)
	if text := fmt.Sprintf("%v %#v", client, client); text != strings.Repeat("clerk.Client(https://api.clerk.com/v1, timeout 10s) ", 2)[:len(text)] {
		t.Error(text)
	}
	if text := fmt.Sprintf("%+v", v); text != `clerk.Validator(clerk.Client(https://api.clerk.com/v1, timeout 10s), scopes ["`+ours+`"])` {
		t.Error(text)
	}
}

// echoing is what a service says that repeats what it was sent, plainly or behind escapes, wherever
// any call looks.
func echoing(secret string) map[string]string {
	said := `"` + secret + `"`
	escaped := fmt.Sprintf(`"\u%04x%s"`, secret[0], secret[1:])
	all := map[string]string{"HTML": "<p>unknown " + secret, "not JSON": `{"a":` + secret + `}`, "cut": `{"errors":[{"code":` + said}
	for form, word := range map[string]string{"": said, "escaped ": escaped, "bearer ": `"Authorization: Bearer ` + secret + ` was bad"`} {
		all[form+"errors"] = `{"errors":[{"message":` + word + `,"long_message":` + word + `,"code":` + word + `,"meta":{"a":[` + word + `],` + word + `:1}}],"clerk_trace_id":` + word + `}`
		all[form+"machine"] = strings.Replace(strings.Replace(aMachine, `"worker"`, word, 1), `"ins_1"`, word, 1)
		all[form+"token"] = strings.Replace(strings.Replace(aToken(later), `"reader"`, word, 1), `"scopes":[`, `"scopes":[`+word+`,`, 1)
		all[form+"id"] = strings.Replace(aMachine, `"`+theirs+`"`, word, 1)
		all[form+"list"] = `{"data":[` + all[form+"machine"] + `],"total_count":1}`
	}
	return all
}

// S8: whatever the service echoes of the secrets that a call knows, and wherever, none comes out.
func TestSecretsAreEchoed(t *testing.T) {
	for call, c := range calls() {
		secret := key
		switch call {
		case "create token":
			secret = machine
		case "verify token", "machine":
			secret = opaque
		}
		for name, body := range echoing(secret) {
			for _, status := range []int{200, 302, 401, 404, 429, 503} {
				client := offline(t, canned(status, body, "Clerk-Trace-Id", secret, "Retry-After", secret, "Content-Type", secret, "Location", "https://192.0.2.1/"+secret))
				result, err := c.do(t.Context(), client)
				if result != nil && err == nil {
					t.Run(name+" "+call, func(t *testing.T) { wantNoSecret(t, result) })
				}
				wantNoSecret(t, err)
			}
		}
	}
	for name, body := range echoing(key) {
		for _, status := range []int{200, 302, 401, 404, 429, 503} {
			d, err := offline(t, canned(status, body, "Clerk-Trace-Id", key)).Validator(clerk.WithScope(ours)).Validate(t.Context(), theirs)
			if wantNoSecret(t, d, err); t.Failed() {
				t.Fatal(name)
			}
		}
	}
}

// Somebody else's secrets are not known, but look like some: no error repeats them.
func TestStrangersSecretsInErrors(t *testing.T) {
	for _, secret := range []string{
		"sk_live_othertail9x", "ak_othertail9x", "mt_othertail9x", "Bearer abc.tail9x", "bearer\ttail9x", "eyJhbGciOiJ.eyJpc3Mi.tail9x",
		"key=sk_live_0123456tail9x", "my_ak_0123456789abctail9x", "Bearer x, y and tail9x",
	} {
		quoted := strconv.Quote("Your " + secret)
		body := `{"errors":[{"message":` + quoted + `,"long_message":` + quoted + `,"code":` + quoted + `,"meta":{"a":[` + quoted + `],` + quoted + `:1}}]}`
		_, err := offline(t, canned(422, body, "Clerk-Trace-Id", "Your "+secret)).Get(t.Context(), theirs)
		failed := wantError[*clerk.Error](t, err)
		if wantNoSecret(t, err); len(failed.Errors) != 1 || !strings.HasPrefix(failed.Errors[0].Message, "Your ") || len(failed.Errors[0].Meta) == 0 {
			t.Errorf("%s: %#v", secret, failed)
		}
		wantNoSecret(t, string(failed.Errors[0].Meta))
		for _, inner := range []error{
			errors.New("dial: " + secret), fmt.Errorf("a: %w", errors.New(secret)), errors.Join(http.ErrHandlerTimeout, errors.New(secret)),
			&talkative{Header: secret},
		} {
			_, err := offline(t, transport(func(*http.Request) (*http.Response, error) { return nil, inner })).Get(t.Context(), theirs)
			if wantNoSecret(t, err); !errors.Is(err, guard.ErrUnavailable) {
				t.Errorf("%v", err)
			}
		}
	}
}

// talkative is the error of a transport that shows all it has.
type talkative struct{ Header string }

func (e *talkative) Error() string { return "sending " + e.Header }

// The key never stands in the address that is asked, and a redirect takes it nowhere.
func TestKeyGoesNowhereElse(t *testing.T) {
	asked := 0
	elsewhere := serve(t, func(http.ResponseWriter, *http.Request) { asked++ })
	for _, status := range []int{301, 302, 303, 307, 308} {
		base := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere, status) })
		for name, c := range calls() {
			if _, err := c.do(t.Context(), newClient(t, clerk.WithBaseURL(base))); wantError[*clerk.Error](t, err).Status != status {
				t.Errorf("%s %d: %v", name, status, err)
			}
		}
	}
	if asked > 0 {
		t.Errorf("%d requests went elsewhere", asked)
	}
}
