package clerk_test

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/clerk"
)

func callNames() []string { return slices.Sorted(maps.Keys(calls())) }

// The fuzzers know every call that there is.
func TestCallsAreComplete(t *testing.T) {
	typ, n := reflect.TypeFor[*clerk.Client](), 0
	for i := range typ.NumMethod() {
		if method := typ.Method(i).Type; method.NumIn() > 1 && method.In(1) == reflect.TypeFor[context.Context]() {
			n++
		}
	}
	if n != len(calls()) {
		t.Errorf("%d of the client's %d calls are tested", len(calls()), n)
	}
}

// FuzzCalls answers every call with anything: nothing panics, every error is typed, no secret comes
// out, and a success is one that a reader of its own can see in the answer.
func FuzzCalls(f *testing.F) {
	for i, name := range callNames() {
		for _, body := range []string{success(name), refusalOf("x"), "", "null", "[]", "<html>", `{"id":"` + key + `"}`, success(name) + "{}"} {
			for _, status := range []uint16{200, 201, 204, 302, 401, 404, 429, 500} {
				f.Add(byte(i), status, "7", []byte(body))
			}
		}
	}
	names, all := callNames(), calls()
	f.Fuzz(func(t *testing.T, call byte, status uint16, header string, body []byte) {
		name, code := names[int(call)%len(names)], 100+int(status)%900
		client := offline(t, canned(code, string(body), "Retry-After", header, "Clerk-Trace-Id", header, "Content-Type", header, "Location", header))
		result, err := all[name].do(t.Context(), client)
		if err != nil {
			wantOneOf(t, err)
			return
		}
		if _, ok := oracle(body); !ok || code < 200 || code > 299 || all[name].reads && code != 200 {
			t.Errorf("%s took %d %q: %+v", name, code, body, result)
		}
		if text := printed(result); strings.Contains(strings.Join(text, ""), key) {
			t.Errorf("%s: the key stands in %s", name, text)
		}
	})
}

// wantOneOf wants one of the package's errors, without the key in it.
func wantOneOf(t *testing.T, err error) {
	t.Helper()
	var failed *clerk.Error
	var strange *clerk.BodyError
	var no *clerk.TokenError
	if !errors.As(err, &failed) && !errors.As(err, &strange) && !errors.As(err, &no) {
		t.Errorf("%v (%T)", err, err)
	}
	if text := err.Error(); strings.Contains(text, "tail9x") || strings.Contains(text, "tail8y") || len(text) > 4000 || strings.ContainsAny(text, "\n\x00") {
		t.Errorf("%q", text)
	}
}

// FuzzDecisions is about the two questions of an authority: an ALLOW, and a machine that is let in,
// must stand in the answer for a reader of its own, and no code of a denial comes without its status.
func FuzzDecisions(f *testing.F) {
	for _, body := range []string{
		aMachine, aToken(later), aToken("null"), refusalOf("resource_not_found"), "", "null", "<html>", aMachine + aMachine, "[" + aMachine + "]",
		strings.Replace(aMachine, `"object"`, `"Object"`, 1), strings.Replace(aMachine, theirs, other, 1), strings.Replace(aMachine, ours, other, 1),
		strings.Replace(aMachine, `"id"`, `"id":"`+other+`","id"`, 1), strings.Replace(aMachine, `"id"`, `"\u0069d":"`+other+`","id"`, 1),
		strings.Replace(aMachine, `"id"`, `"ID":"`+other+`","id"`, 1), strings.Replace(aMachine, `worker`, "\xff", 1), "\ufeff" + aMachine,
		strings.Replace(aMachine, theirs, `mch\u005ftheirs987`, 1), strings.Replace(aMachine, `{"object"`, `{"errors":[],"object"`, 1),
		strings.Replace(aToken(later), `"revoked":false`, `"revoked":null`, 1), strings.Replace(aToken(later), `"expired":false`, `"expired":false,"expired":true`, 1),
		strings.Replace(aToken(later), later, "1e12", 1), strings.Replace(aToken(later), later, "-1", 1), strings.Replace(aToken(later), ours, other, 1),
		strings.Replace(aToken(later), `"expired":false`, `"expired":true,"EXPIRED":false`, 1), strings.Replace(aMachine, `"scoped_machines":[`, `"scoped_machines":[[`, 1),
	} {
		for _, status := range []uint16{200, 201, 401, 403, 404, 500} {
			f.Add(status, []byte(body))
		}
	}
	f.Fuzz(func(t *testing.T, status uint16, body []byte) {
		code := 100 + int(status)%900
		client := offline(t, canned(code, string(body)))
		d, err := client.Validator(clerk.WithScope(ours)).Validate(t.Context(), theirs)
		said, ok := oracle(body)
		if d.Allowed != (d.Code == guard.CodeAllow) || d.Allowed != (ok && code == 200 && runs(said)) || d.Allowed && err != nil {
			t.Errorf("%d %q: %+v, %v", code, body, d, err)
		}
		wantStatus(t, d, err, code)
		id, err := client.VerifyMachine(t.Context(), opaque)
		if (id == "") == (err == nil) || id != "" && (!ok || code != 200 || !letsIn(said, id)) {
			t.Errorf("%d %q: %q, %v", code, body, id, err)
		}
		if err != nil {
			wantOneOf(t, err)
		}
	})
}

// wantStatus wants a denial to have the status that it is made of.
func wantStatus(t *testing.T, d guard.Decision, err error, status int) {
	t.Helper()
	switch d.Code {
	case guard.CodeAllow, guard.CodeDeviceRevoked:
		if status != 200 || err != nil {
			t.Errorf("%d: %+v, %v", status, d, err)
		}
	case guard.CodeDeviceNotFound:
		if status != 404 || err != nil {
			t.Errorf("%d: %+v, %v", status, d, err)
		}
	case guard.CodeInvalidOrgKey:
		if status != 401 && status != 403 || err != nil {
			t.Errorf("%d: %+v, %v", status, d, err)
		}
	default:
		if d.Code != guard.CodeSystemUnavailable || !errors.Is(err, guard.ErrUnavailable) || d.Reason == "" {
			t.Errorf("%d: %+v, %v", status, d, err)
		}
	}
}

// FuzzIDs asks about any id: what goes out is the id itself below /machines/, and one of the service's
// form, or nothing goes out.
func FuzzIDs(f *testing.F) {
	for _, id := range []string{"", theirs, "../secrets?x=1", "mch_a/b", "mch_a\n", "mch_%2e", "mch_" + key, "mch_ä", "mch_", "MCH_a", strings.Repeat("mch_", 40)} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		path := ""
		client := offline(t, transport(func(r *http.Request) (*http.Response, error) {
			path = r.URL.RequestURI()
			return reply(r, 404, refusalOf("resource_not_found")), nil
		}))
		d, err := client.Validator().Validate(t.Context(), id)
		sent := isMachine(map[string]any{"object": "machine", "id": id}) && !strings.Contains(id, key)
		if sent && (path != "/v1/machines/"+id || d.Code != guard.CodeDeviceNotFound) || !sent && (path != "" || d.Code != guard.CodeInvalidDeviceID) || err != nil {
			t.Errorf("%q: asked %q, %+v, %v", id, path, d, err)
		}
	})
}
