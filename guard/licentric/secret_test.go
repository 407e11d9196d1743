package licentric_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/licentric"
)

// echo is a body in which every member that any call looks at holds the secret.
func echo(secret string) string {
	return fmt.Sprintf(`{"valid":false,"code":%[1]q,"error":null,"details":{"x":[%[1]q]},"requestId":%[1]q,%[1]q:%[1]q,
		"license":{"id":%[1]q,"key":%[1]q,"name":%[1]q,"status":%[1]q,"entitlements":[%[1]q]},
		"machine":{"id":%[1]q,"name":%[1]q,"fingerprint":%[2]q},"entitlements":[%[1]q]}`, secret, device)
}

// echoData is the same for the calls whose answer stands in an envelope.
func echoData(secret string) string {
	return fmt.Sprintf(`{"data":{"id":%[2]q,"licenseId":%[1]q,"fingerprint":%[3]q,"name":%[1]q,"platform":%[1]q,"hostname":%[1]q,
		"heartbeatStatus":%[1]q,"metadata":{%[1]q:%[1]q},"certificate":%[1]q,"key":%[1]q},"requestId":%[1]q}`, secret, machineID, device)
}

func echoList(secret string) string {
	return strings.Replace(strings.Replace(echoData(secret), `"data":{`, `"data":[{`, 1), `},"requestId"`, `}],"requestId"`, 1)
}

// S8: a service may repeat a key wherever it likes, plainly or behind escapes; it comes out nowhere.
func TestKeysAreEchoed(t *testing.T) {
	for _, secret := range []string{apiKey, licenseKey} {
		for shape, body := range map[string]string{"flat": echo(secret), "data": echoData(secret), "list": echoList(secret)} {
			for name, body := range map[string]string{
				"plain":         body,
				"escaped":       strings.ReplaceAll(body, secret, fmt.Sprintf(`\u%04x`, secret[0])+secret[1:]),
				"as an error":   `{"error":"unknown key ` + secret + `","code":"` + secret + `","details":"` + secret + `","requestId":"` + secret + `"}`,
				"cut":           body[:len(body)-2],
				"HTML":          "<p>unknown key " + secret,
				"long":          `{"error":"` + strings.Repeat("x", 250) + secret + `"}`,
				"with controls": `{"error":"a\n` + secret + `\u0000"}`,
				"allowed":       `{"valid":true,"code":"VALID","requestId":"` + secret + `","license":{"key":"` + secret + `"}}`,
				"other machine": `{"valid":true,"code":"VALID","machine":{"id":"m","fingerprint":"` + secret + `"}}`,
			} {
				for _, status := range []int{200, 302, 401, 403, 429, 503} {
					client := offsocket(t, apiKey, transport(func(r *http.Request) (*http.Response, error) {
						resp := response(r, status, []byte(body))
						for _, header := range []string{"X-Request-Id", "Retry-After", "Location", "X-RateLimit-Limit"} {
							resp.Header.Set(header, secret)
						}
						return resp, nil
					}))
					t.Run(fmt.Sprint(shape, " ", name, " ", status), func(t *testing.T) { checkCalls(t, client, secret) })
				}
			}
		}
	}
}

// checkCalls makes every call, and looks at all that comes of it.
func checkCalls(t *testing.T, client *licentric.Client, secret string) {
	t.Helper()
	for name, do := range calls {
		if secret == licenseKey && strings.HasPrefix(signed[name], "Bearer") {
			continue // it was not sent, so that nobody can repeat it
		}
		result, err := do(t.Context(), client)
		checkSecret(t, result, err)
		switch got := result.(type) {
		case licentric.Validation:
			checkSecret(t, got.Raw)
		case licentric.LicenseFile:
			checkSecret(t, got.Raw, got.Certificate)
		case licentric.Machine:
			checkSecret(t, got.Metadata)
		}
		if failed := (*licentric.Error)(nil); errors.As(err, &failed) {
			checkSecret(t, failed.Details)
		}
		if text := strings.Join(printed(result), ""); strings.Contains(text, base64.StdEncoding.EncodeToString([]byte(secret))) {
			t.Errorf("the key stands in %s", text)
		}
	}
	for _, opts := range [][]licentric.ValidatorOption{nil, {licentric.WithEntitlements("pro"), licentric.WithHeartbeats(1e9)}} {
		v := client.Validator(licenseKey, opts...)
		d, err := v.Validate(t.Context(), device)
		checkSecret(t, d, err, v)
	}
}

// The redacted answers are answers still: what they say besides the keys is kept. A licence's key
// that nobody sent is one too.
func TestKeysAreRedacted(t *testing.T) {
	body := `{"valid":true,"code":"VALID","requestId":"r ` + licenseKey + `","license":{"id":"l-1","key":"LIC-of-somebody"},"x":"LIC-of-somebody"}`
	got, err := offsocket(t, apiKey, canned(200, []byte(body))).Validate(t.Context(), licenseKey, licentric.ValidateParams{})
	if err != nil || !got.Valid || got.RequestID != "r [redacted]" || got.License.ID != "l-1" || strings.Contains(string(got.Raw), "somebody") {
		t.Errorf("%+v %s, %v", got, got.Raw, err)
	}
	var raw map[string]any
	if err := json.Unmarshal(got.Raw, &raw); err != nil || raw["valid"] != true || raw["x"] != "[redacted]" {
		t.Errorf("%s: %v", got.Raw, err)
	}
	for _, body := range []string{
		`{"data":{"valid":true,"code":"VALID","license":{"key":"LIC-of-somebody"}}}`,
		`{"data":{"id":"` + machineID + `","key":"LIC-of-somebody","name":"LIC-of-somebody"}}`,
	} {
		for name, call := range calls {
			result, err := call(t.Context(), offsocket(t, apiKey, canned(200, []byte(body))))
			if text := strings.Join(append(printed(result), printed(err)...), ""); strings.Contains(text, "somebody") {
				t.Errorf("%s: %s", name, text)
			}
		}
	}
}

// Taking a key out must not mend an answer that means two things.
func TestRedactingMendsNothing(t *testing.T) {
	for _, body := range []string{
		`{"valid":false,"valid":true,"code":"VALID","x":"` + licenseKey + `"}`,
		`{"valid":true,"code":"VALID","x":{"a":"` + licenseKey + `","a":1}}`,
		`{"Valid":false,"valid":true,"code":"VALID","x":"` + licenseKey + `"}`,
		valid + `{"x":"` + licenseKey + `"}`,
		`{"valid":true,"code":"VALID","license":{"key":"VALID"}}`,
	} {
		d, err := ask(t, 200, body)
		checkUndecided(t, d, err)
	}
}

// failure is an error of a transport that tells more than it should.
type failure struct {
	shown string
	below error
}

func (f failure) Error() string { return f.shown }

func (f failure) Unwrap() error { return f.below }

// A transport of the user's may put the request, keys and all, into its errors, or into those beneath.
func TestKeysInTransportsError(t *testing.T) {
	for _, secret := range []string{apiKey, licenseKey} {
		told := failure{shown: "sent Authorization: License " + secret, below: context.Canceled}
		for name, c := range map[string]struct{ err, want error }{
			"told":        {told, context.Canceled},
			"told below":  {failure{shown: "failed", below: told}, context.Canceled},
			"told beside": {errors.Join(context.DeadlineExceeded, errors.New(secret)), context.DeadlineExceeded},
			"very long":   {errors.New(strings.Repeat("x", 10_000) + secret), guard.ErrUnavailable},
			"harmless":    {failure{shown: "two\nlines", below: net.ErrClosed}, net.ErrClosed},
		} {
			client := offsocket(t, apiKey, transport(func(*http.Request) (*http.Response, error) { return nil, c.err }))
			for call, do := range calls {
				_, err := do(t.Context(), client)
				if !errors.Is(err, c.want) || len(err.Error()) > 500 || strings.Contains(err.Error(), "\n") {
					t.Errorf("%s, %s: %v does not match %v", name, call, err, c.want)
				}
				if secret == apiKey || !strings.HasPrefix(signed[call], "Bearer") {
					checkSecret(t, err)
				}
			}
			d, err := client.Validator(licenseKey).Validate(t.Context(), device)
			checkUndecided(t, d, err)
		}
	}
}

// The cause of a context that ends while another's heartbeat is waited for is the caller's own
// text, and is looked at like any other.
func TestKeyInCause(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("gave up on " + licenseKey))
	d, err := offsocket(t, apiKey, canned(200, []byte(valid))).Validator(licenseKey).Validate(ctx, device)
	checkUndecided(t, d, err)
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// The client and the validator, before and after their use, wherever they stand.
func TestKeysInClient(t *testing.T) {
	client := newClient(t, serve(t, answer(200, valid)))
	v := client.Validator(licenseKey, licentric.WithEntitlements("pro"), licentric.WithHeartbeats(1e9))
	for range 2 {
		checkSecret(t, client, struct{ Inside any }{client}, map[string]any{"x": client})
		checkSecret(t, v, struct{ inside any }{v}, []any{v}, map[string]guard.Validator{"x": v})
		if d, err := v.Validate(t.Context(), device); err != nil || !d.Allowed {
			t.Fatal(d, err)
		}
	}
	checkSecret(t, licentric.WithBaseURL("https://x.example"), client.Validator("LIC\ntail7y"))
}

// The check of this file would see a key.
func TestCheckSecretSees(t *testing.T) {
	type holder struct{ inside string }
	for _, value := range []any{
		holder{apiKey}, &holder{licenseKey}, fmt.Errorf("outer: %w", failure{shown: apiKey}), json.RawMessage(`"` + licenseKey + `"`), []byte(apiKey),
	} {
		found := false
		for _, text := range printed(value) {
			found = found || strings.Contains(text, "tail7y") || strings.Contains(text, "tail9x")
		}
		if !found {
			t.Errorf("%T: not seen", value)
		}
	}
}
