package licentric_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/licentric"
)

// Each documented error is one *Error, from every call, with all that the service says.
func TestErrors(t *testing.T) {
	for status, code := range map[int]string{
		400: "VALIDATION_ERROR", 401: "BAD_KEY", 403: "FORBIDDEN", 404: "X_NOT_FOUND", 409: "CONFLICT", 422: "LIMIT", 418: "TEAPOT",
	} {
		body := fmt.Sprintf(`{"error":"what\nwent wrong","code":%q,"details":[{"field":"key"}],"requestId":"r-7"}`, code)
		client := offsocket(t, apiKey, canned(status, []byte(body)))
		for name, call := range calls {
			_, err := call(t.Context(), client)
			e := typedError(t, err)
			if e.Op != name || e.Status != status || e.Code != code || e.Message != "what went wrong" ||
				string(e.Details) != `[{"field":"key"}]` || e.RequestID != "r-7" || errors.Is(err, guard.ErrUnavailable) || e.Unwrap() != nil {
				t.Errorf("%s: %#v", name, e)
			}
			if want := fmt.Sprintf("licentric: %s: HTTP %d: %s: what went wrong (request r-7)", name, status, code); err.Error() != want {
				t.Errorf("%s, want %s", err, want)
			}
		}
	}
}

// Older copies of the service send the status in the place of a request id, and text that is none
// is overlooked.
func TestOlderErrors(t *testing.T) {
	for body, want := range map[string]string{
		`{"error":"gone","code":"NOPE","status":404}`:          "licentric: machine: HTTP 404: NOPE: gone",
		`{"error":{"message":"gone"},"code":7,"details":null}`: "licentric: machine: HTTP 404",
		`{}`: "licentric: machine: HTTP 404",
		`{"error":"` + strings.Repeat("x", 300) + `"}`:                  "licentric: machine: HTTP 404: " + strings.Repeat("x", 256) + "…",
		`{"code":"NOPE","details":"text","requestId":"r","error":null}`: "licentric: machine: HTTP 404: NOPE (request r)",
	} {
		_, err := offsocket(t, apiKey, canned(404, []byte(body))).Machine(t.Context(), machineID)
		e := typedError(t, err)
		if err.Error() != want || e.Status != 404 || errors.Is(err, guard.ErrUnavailable) {
			t.Errorf("%s: %v, want %s", body, err, want)
		}
		if has := strings.Contains(body, `"details":"`); (e.Details != nil) != has {
			t.Errorf("%s: details %s", body, e.Details)
		}
	}
}

// Every call is held to the faults that concern it: one without an answer fails with a typed error
// that matches ErrUnavailable, and so does one whose answer is none.
func TestEveryCallFails(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"HTML":            answer(200, "<html>"),
		"empty":           answer(200, ""),
		"array":           answer(200, "[]"),
		"name twice":      answer(200, `{"data":{},"data":{}}`),
		"other case":      answer(200, `{"Data":{}}`),
		"second document": answer(200, `{"data":{}}{}`),
		"redirect":        answer(307, `{"data":{}}`, "Location", "/"),
		"429":             answer(429, `{"error":"slow down","code":"RATE_LIMITED","requestId":"r-4"}`, "Retry-After", "3"),
		"429 as HTML":     answer(429, "<html>", "Retry-After", "3"),
		"500":             answer(500, `{"data":`+machineJSON+`}`),
		"503":             answer(503, ""),
		"cut": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, `{"data":{}}`)
		},
	} {
		client := newClient(t, serve(t, h))
		for call, do := range calls {
			_, err := do(t.Context(), client)
			e := typedError(t, err)
			if !errors.Is(err, guard.ErrUnavailable) || e.Op != call {
				t.Errorf("%s, %s: %v does not match ErrUnavailable", name, call, err)
			}
			if wait := strings.HasPrefix(name, "429"); wait && (e.Status != 429 || e.RetryAfter != 3*time.Second) || !wait && e.RetryAfter != 0 {
				t.Errorf("%s, %s: %#v", name, call, e)
			}
			if name == "429" && (e.Code != "RATE_LIMITED" || e.RequestID != "r-4" || e.Message != "slow down") {
				t.Errorf("%s: %#v", call, e)
			}
			checkSecret(t, err)
		}
	}
}

// Answers that are JSON, and not what was asked for.
func TestAnswersThatAreNone(t *testing.T) {
	for name, bodies := range map[string][]string{
		"activate": {
			`{}`, `{"data":null}`, `{"data":[]}`, `{"data":{}}`, machineJSON, `{"data":{"id":"m"}}`,
			`{"data":` + strings.Replace(machineJSON, device, "fp:another", 1) + `}`, `{"data":{"ID":"m","fingerprint":"` + device + `"}}`,
		},
		"heartbeat": {`{}`, `{"data":null}`, `{"data":{"fingerprint":"` + device + `"}}`, `{"data":{"id":"another"}}`},
		"machine":   {`{}`, `{"data":{"id":"another"}}`, `{"data":{"id":7}}`, machineJSON},
		"checkout":  {`{}`, `{"data":{}}`, `{"data":{"certificate":""}}`, `{"data":{"certificate":7}}`, `{"certificate":"x"}`, `{"data":{"certificate":" \n"}}`},
		"machines": {
			`{}`, `{"data":{}}`, `{"data":[7]}`, `{"data":[{}]}`, `{"data":[{"Id":"m"}]}`, `{"data":null}`, `{"data":[{"id":""}]}`,
			`{"data":[],"pagination":{"hasMore":true}}`, `{"data":[],"pagination":{"hasMore":true,"nextCursor":null}}`,
		},
	} {
		for _, body := range bodies {
			_, err := calls[name](t.Context(), offsocket(t, apiKey, canned(200, []byte(body))))
			if e := typedError(t, err); !errors.Is(err, guard.ErrUnavailable) || e.Op != name || e.Status != 200 || e.Message == "" {
				t.Errorf("%s %s: %#v", name, body, e)
			}
		}
	}
}

// What cannot be right is not sent.
func TestUnasked(t *testing.T) {
	never := transport(func(*http.Request) (*http.Response, error) {
		t.Error("asked")
		return nil, errors.New("asked")
	})
	client, keyless := offsocket(t, apiKey, never), offsocket(t, "", never)
	ctx := t.Context()
	long := strings.Repeat("x", 129)
	for name, err := range map[string]error{
		"validate, blank key":         second(client.Validate(ctx, "", licentric.ValidateParams{})),
		"validate, key of two words":  second(client.Validate(ctx, "LIC- tail7y", licentric.ValidateParams{})),
		"validate, short fingerprint": second(client.Validate(ctx, licenseKey, licentric.ValidateParams{Fingerprint: "short77"})),
		"validate, key for an id":     second(client.Validate(ctx, licenseKey, licentric.ValidateParams{Fingerprint: licenseKey})),
		"activate, blank key":         second(client.Activate(ctx, " ", licentric.Activation{Fingerprint: device})),
		"activate, no fingerprint":    second(client.Activate(ctx, licenseKey, licentric.Activation{})),
		"activate, broken name":       second(client.Activate(ctx, licenseKey, licentric.Activation{Fingerprint: device, Name: "\xff"})),
		"activate, channel": second(client.Activate(ctx, licenseKey, licentric.Activation{
			Fingerprint: device, Metadata: map[string]any{"x": make(chan int)},
		})),
		"deactivate, no id":        client.Deactivate(ctx, licenseKey, ""),
		"deactivate, climbing id":  client.Deactivate(ctx, licenseKey, "../licenses"),
		"deactivate, bad key":      client.Deactivate(ctx, "\x7f", machineID),
		"heartbeat, id with slash": second(client.Heartbeat(ctx, licenseKey, "a/b")),
		"heartbeat, bad key":       second(client.Heartbeat(ctx, "\n", machineID)),
		"machine, long id":         second(client.Machine(ctx, long)),
		"machine, id with query":   second(client.Machine(ctx, "a?b")),
		"machine, no API key":      second(keyless.Machine(ctx, machineID)),
		"checkout, no API key":     second(keyless.Checkout(ctx, licenseID, licentric.CheckoutParams{Fingerprint: device})),
		"checkout, no fingerprint": second(client.Checkout(ctx, licenseID, licentric.CheckoutParams{})),
		"checkout, id":             second(client.Checkout(ctx, "ü", licentric.CheckoutParams{Fingerprint: device})),
		"checkout, short":          second(client.Checkout(ctx, licenseID, licentric.CheckoutParams{Fingerprint: device, TTL: time.Hour - time.Second})),
		"checkout, long":           second(client.Checkout(ctx, licenseID, licentric.CheckoutParams{Fingerprint: device, TTL: 90*24*time.Hour + time.Second})),
		"checkout, half a second":  second(client.Checkout(ctx, licenseID, licentric.CheckoutParams{Fingerprint: device, TTL: time.Hour + time.Second/2})),
		"checkout, negative":       second(client.Checkout(ctx, licenseID, licentric.CheckoutParams{Fingerprint: device, TTL: -time.Hour})),
		"machines, no API key":     second(collect(keyless, ctx, licentric.MachinesParams{})),
		"machines, page":           second(collect(client, ctx, licentric.MachinesParams{PageSize: 101})),
		"machines, negative page":  second(collect(client, ctx, licentric.MachinesParams{PageSize: -1})),
		"machines, id":             second(collect(client, ctx, licentric.MachinesParams{LicenseID: "&"})),
	} {
		e := typedError(t, err)
		want := "invalid_request"
		if strings.HasSuffix(name, "no API key") {
			want = "no_api_key"
		}
		if op, _, _ := strings.Cut(name, ","); e.Op != op || e.Code != want || e.Status != 0 || e.Message == "" || errors.Is(err, guard.ErrUnavailable) {
			t.Errorf("%s: %#v", name, e)
		}
		checkSecret(t, err)
	}
}

func second[T any](_ T, err error) error { return err }

// A context that is over is asked for nothing, even where a transport would not look, and both its
// error and its cause are found.
func TestContextIsOver(t *testing.T) {
	client := offsocket(t, apiKey, canned(200, []byte(valid)))
	why := errors.New("the caller's own reason")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	for name, call := range calls {
		_, err := call(ctx, client)
		if !errors.Is(err, context.Canceled) || !errors.Is(err, why) || !errors.Is(err, guard.ErrUnavailable) || typedError(t, err).Op != name {
			t.Errorf("%s: %v", name, err)
		}
	}
	d, err := client.Validator(licenseKey).Validate(ctx, device)
	checkUndecided(t, d, err)
	if !errors.Is(err, why) {
		t.Error(err)
	}
}
