package licentric_test

import (
	"bytes"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/licentric"
)

// FuzzValidate holds the validator to an oracle that was written without looking at it: it says
// yes to the few shapes of a yes, and to nothing else.
func FuzzValidate(f *testing.F) {
	for _, body := range []string{
		valid, "", "null", "[" + valid + "]", valid + valid, valid + " ", "{}", `{"data":` + valid + `}`, `{"data":[` + valid + `]}`,
		`{"valid":true,"code":"VALID","entitlements":["pro"]}`, `{"valid":true,"code":"VALID","entitlements":[{"code":"pro"},{"code":" "}]}`,
		`{"valid":true,"code":"VALID","entitlements":["pro",{"code":"sso"}]}`, `{"valid":true,"code":"EXPIRED","entitlements":["pro"]}`,
		`{"valid":false,"code":"HEARTBEAT_REQUIRED","machine":` + machineJSON + `}`, `{"valid":false,"code":"SUSPENDED"}`,
		`{"valid":true,"code":"VALID","machine":{"id":"m","fingerprint":"another"},"entitlements":["pro"]}`,
		`{"valid":true,"code":"VALID","machine":{"fingerprint":"` + device + `"},"entitlements":["pro"]}`,
		`{"valid":true,"code":"VALID","license":{"expiresAt":"2099-01-01T00:00:00.000Z","key":"` + licenseKey + `"},"entitlements":["pro"]}`,
		`{"valid":true,"code":"VALID","license":{"expiresAt":"2020-01-01T00:00:00Z","entitlements":[]},"entitlements":["pro"]}`,
		`{"valid":true,"code":"VALID","license":{"expiresAt":7},"entitlements":["pro"]}`,
		`{"valid":false,"valid":true,"code":"VALID","entitlements":["pro"]}`, `{"Valid":true,"code":"VALID","entitlements":["pro"]}`,
		`{"\u0076alid":true,"co\u0064e":"V\u0041LID","entitlements":["\u0070ro"]}`, `{"valid":true,"code":"VALID","data":` + valid + `}`,
		`{"valid":true,"code":"VALID","error":null,"entitlements":["pro"]}`, `{"valid":true,"code":"VALID","error":"x","entitlements":["pro"]}`,
		`{"valid":true,"code":"VALID","entitlements":["pro"],"x":{"y":[{"z":1,"z":2}]}}`,
		`{"valid":true,"code":"VALID","entitlements":["pro"],"x":` + strings.Repeat("[", 31) + strings.Repeat("]", 31) + `}`,
		`{"valid":true,"code":"VALID","entitlements":["pro"],"x":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `}`,
		`{"valid":true,"code":"VALID","entitlements":["pro"],"k":"` + apiKey + `"}`, `{"error":"no","code":"NOT_FOUND","details":[{"a":1}]}`,
		"{\"valid\":true,\"code\":\"VALID\",\"\xff\":1}", `{"valid":true,"code":"VALID","entit\u017flements":["pro"]}`,
	} {
		for _, status := range []int{200, 201, 204, 302, 401, 404, 429, 500} {
			f.Add(status, []byte(body))
		}
	}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		if status < 200 || status > 599 {
			return // net/http gives out no such status
		}
		d, err := ask(t, status, string(body), licentric.WithEntitlements("pro"))
		yes, keys := oracle(body)
		if want := status == http.StatusOK && yes; d.Allowed != want && (d.Allowed || !keys) {
			t.Fatalf("%d %q: allowed %v, want %v (%+v, %v)", status, body, d.Allowed, want, d, err)
		}
		if d.Allowed != (d.Code == guard.CodeAllow) || d.Code == "" || d.DeviceID != "" && d.DeviceID != device {
			t.Errorf("%d %q: %+v, %v", status, body, d, err)
		}
		if (d.Code == guard.CodeSystemUnavailable) != (err != nil) && !bytes.Contains(body, []byte("SYSTEM_UNAVAILABLE")) {
			t.Errorf("%d %q: %+v beside %v", status, body, d, err)
		}
		if typed := new(licentric.Error); err != nil && (!errors.As(err, &typed) || !errors.Is(err, guard.ErrUnavailable)) {
			t.Errorf("%d %q: %v", status, body, err)
		}
		noKeys(t, body, d, err)
	})
}

// noKeys looks for the keys as they are: a part of one is anybody's text.
func noKeys(t *testing.T, body []byte, values ...any) {
	t.Helper()
	for _, value := range values {
		for _, text := range printed(value) {
			if strings.Contains(text, apiKey) || strings.Contains(text, licenseKey) {
				t.Errorf("%q: a key stands in %s", body, text)
			}
		}
	}
}

// ops are the calls in an order.
var ops = []string{"validate", "activate", "deactivate", "heartbeat", "checkout", "machines", "machine"}

// FuzzAnswers gives every call any answer: it is read or refused with one type of error, is about
// what was asked, and holds no key.
func FuzzAnswers(f *testing.F) {
	for i := range ops {
		for _, body := range []string{
			`{"data":` + machineJSON + `}`, `{"data":[` + machineJSON + `],"pagination":{"nextCursor":"c","hasMore":true}}`, valid, "", "{}",
			`{"data":[` + machineJSON + `,{"id":"m-2","cores":-1,"createdAt":"2026-01-01T00:00:00.000Z"}],"pagination":{"nextCursor":null,"hasMore":false}}`,
			`{"data":{"certificate":"-----BEGIN LICENSE FILE-----\nx\n-----END LICENSE FILE-----\n","key":"` + licenseKey + `"}}`,
			`{"error":"no","code":"VALIDATION_ERROR","details":[{"field":"` + apiKey + `"}],"requestId":"r"}`, `{"error":"no","status":409}`,
			`{"data":{"id":"` + machineID + `","metadata":{"a":[1,{"b":null}]},"heartbeatStatus":"ALIVE"}}`, `{"data":{"id":7,"ID":8}}`, "[]",
		} {
			for _, status := range []int{200, 201, 204, 307, 400, 409, 429, 502} {
				f.Add(uint(i), status, []byte(body))
			}
		}
	}
	f.Fuzz(func(t *testing.T, op uint, status int, body []byte) {
		if status < 200 || status > 599 {
			return
		}
		name := ops[op%uint(len(ops))]
		result, err := calls[name](t.Context(), offsocket(t, apiKey, canned(status, body)))
		if err == nil {
			if status >= 300 && (name != "validate" || status < 400) {
				t.Errorf("%s, %d %q: %+v", name, status, body, result)
			}
			checkResult(t, name, status, body, result)
		} else if e := typedError(t, err); e.Op != name || e.Status != status || e.RetryAfter != 0 {
			t.Errorf("%s, %d %q: %#v", name, status, body, e)
		}
		_, readable := object(document(body), "valid", "code", "license", "machine", "entitlements", "data", "pagination", "error", "details", "requestId")
		refusal := status >= 400 && status < 500 && status != 429 && readable
		if unavailable := errors.Is(err, guard.ErrUnavailable); err != nil && unavailable == refusal && (name != "validate" || !refusal) {
			t.Errorf("%s, %d %q: %v", name, status, body, err)
		}
		if !strings.HasPrefix(signed[name], "Bearer") {
			noKeys(t, body, result, err)
		}
	})
}

// checkResult holds a result to what was asked.
func checkResult(t *testing.T, name string, status int, body []byte, result any) {
	t.Helper()
	good := true
	switch got := result.(type) {
	case licentric.Validation:
		good = got.Code != "" && (!got.Valid || status == 200 && (got.Code == "VALID" || got.Code == "EXPIRED")) &&
			(got.Machine.Fingerprint == "" || got.Machine.Fingerprint == device)
	case licentric.Machine:
		good = strings.EqualFold(got.ID, machineID) || name == "activate" && got.ID != "" && got.Fingerprint == device
	case licentric.LicenseFile:
		good = strings.TrimSpace(string(got.Certificate)) != ""
	case []licentric.Machine:
		for _, m := range got {
			good = good && m.ID != ""
		}
	case nil:
		good = name == "deactivate"
	}
	if !good {
		t.Errorf("%s, %d %q: %+v", name, status, body, result)
	}
}
