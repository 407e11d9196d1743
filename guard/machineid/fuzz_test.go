package machineid_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/machineid"
)

// FuzzValidate holds Validate to an oracle that was written without looking at it, on another
// part of encoding/json: it says yes to the one shape of an ALLOW, and to nothing else.
func FuzzValidate(f *testing.F) {
	for _, body := range []string{
		allow, "", "null", "[" + allow + "]", allow + allow, allow + " ", "{}", `{"allowed":true}`,
		`{"allowed":true,"code":"ALLOW","deviceId":"` + device + `"}`,
		`{"allowed":true,"code":"ALLOW","deviceId":"another"}`,
		`{"allowed":true,"code":"ALLOW","deviceId":null}`,
		`{"allowed":false,"allowed":true,"code":"ALLOW"}`,
		`{"Allowed":true,"allowed":true,"code":"ALLOW"}`,
		`{"\u0061llowed":true,"co\u0064e":"A\u004cLOW"}`,
		`{"allowed":"true","code":"ALLOW"}`, `{"allowed":1,"code":"ALLOW"}`,
		`{"allowed":true,"code":"ALLOW","x":{"y":[{"z":1,"z":2}]}}`,
		`{"allowed":true,"code":"ALLOW","x":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}`,
		`{"allowed":true,"code":"ALLOW","x":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}`,
		`{"allowed":true,"code":"ALLOW","x":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}`,
		`{"allowed":true,"code":"ALLOW","k":"` + key + `"}`, `{"allowed":true,"code":"ALLOW","k":"\ud800\n"}`,
		`{"allowed":true,"code":"ALLOW","\ud800":1,"\udfff":2}`, `{"allowed":true,"code":"ALLOW","rea\u017fon":1}`,
		"{\"allowed\":true,\"code\":\"ALLOW\",\"\xff\":1}", `{"allowed":false,"code":"DEVICE_REVOKED"}`,
		`{"error":"invalid_org_key"}`,
	} {
		for _, status := range []int{200, 201, 302, 401, 403, 429, 500} {
			f.Add(status, []byte(body))
		}
	}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		if status < 200 || status > 599 {
			return // net/http gives out no such status
		}
		d, err := offline(t, canned(status, body)).Validate(t.Context(), device)
		if want := status == http.StatusOK && oracle(body); d.Allowed != want {
			t.Fatalf("%d %q: allowed %v, want %v (%v)", status, body, d.Allowed, want, err)
		}
		if d.Allowed != (d.Code == guard.CodeAllow) || d.Code == "" || d.Allowed && err != nil {
			t.Errorf("%d %q: %+v, %v", status, body, d, err)
		}
		if d.Code != guard.CodeSystemUnavailable && err != nil {
			t.Errorf("%d %q: %+v beside %v", status, body, d, err)
		}
		if typed := new(machineid.Error); err != nil && (!errors.As(err, &typed) || !errors.Is(err, guard.ErrUnavailable)) {
			t.Errorf("%d %q: %v", status, body, err)
		}
		for _, text := range append(printed(d), printed(err)...) {
			if strings.Contains(text, key) { // whole: a part of it is anybody's text
				t.Errorf("%d %q: the key stands in %s", status, body, text)
			}
		}
	})
}

// oracle tells whether body is an ALLOW for device. It walks over tokens.
func oracle(body []byte) bool {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	document, ok := tree(decoder, 0)
	if _, err := decoder.Token(); !ok || !errors.Is(err, io.EOF) || !utf8.Valid(body) {
		return false
	}
	object, ok := document.(map[string]any)
	if !ok {
		return false
	}
	for name := range object {
		for _, known := range []string{"allowed", "code", "deviceId", "request_id", "reason", "error", "status", "results"} {
			if name != known && strings.EqualFold(name, known) {
				return false
			}
		}
	}
	id, named := object["deviceId"]
	return object["allowed"] == true && object["code"] == "ALLOW" && (!named || id == device)
}

// tree reads one value; false where it breaks a rule.
func tree(decoder *json.Decoder, depth int) (any, bool) {
	token, err := decoder.Token()
	if err != nil {
		return nil, false
	}
	delim, nested := token.(json.Delim)
	if !nested {
		return token, true
	}
	if depth == 32 {
		return nil, false
	}
	object := map[string]any{}
	for decoder.More() {
		name := ""
		if delim == '{' {
			token, err := decoder.Token()
			if err != nil {
				return nil, false
			}
			name, _ = token.(string)
			if _, twice := object[name]; twice {
				return nil, false
			}
		}
		value, ok := tree(decoder, depth+1)
		if !ok {
			return nil, false
		}
		object[name] = value
	}
	if _, err := decoder.Token(); err != nil {
		return nil, false
	}
	if delim == '[' {
		return []any{}, true
	}
	return object, true
}
