package httpmw_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/httpmw"
)

// credential is what FromBearer takes, said in another way.
var credential = regexp.MustCompile(`(?s)\A[Bb][Ee][Aa][Rr][Ee][Rr] +([^ \t,]+)\z`)

// FromBearer takes one well-formed credential and hands on its token, or has no identity; its error
// never says what the field did.
func FuzzBearer(f *testing.F) {
	for _, s := range []string{"Bearer t", "bearer  t", "BEARER", "Bearer ", "Basic dTpw", "Bearer t,u", "Bearer \tt", "", " Bearer t", "Bearer é\xff", "Bearer a\nb"} {
		f.Add(s, "", false)
	}
	f.Add("Bearer t", "Bearer t", true)
	f.Add("Bearer t", "", true)
	f.Fuzz(func(t *testing.T, one, another string, both bool) {
		fields := []string{one}
		want := credential.FindStringSubmatch(one)
		if both {
			fields, want = append(fields, another), nil
		}
		var tokens []string
		from := httpmw.FromBearer(func(_ context.Context, token string) (string, error) {
			tokens = append(tokens, token)
			return "id:" + token, nil
		})
		id, err := from(&http.Request{Header: http.Header{"Authorization": fields}})
		if want == nil {
			if id != "" || len(tokens) != 0 || !errors.Is(err, httpmw.ErrNoIdentity) || err.Error() != "httpmw: no identity: there must be exactly one bearer token" {
				t.Errorf("%q: %q, %v, verify got %q", fields, id, err, tokens)
			}
			return
		}
		if err != nil || len(tokens) != 1 || tokens[0] != want[1] || id != "id:"+want[1] {
			t.Errorf("%q: %q, %v, verify got %q; want %q once", fields, id, err, tokens, want[1])
		}
	})
}

// FromHeader takes the one value as it is, or has no identity, whatever else is in the header.
func FuzzHeader(f *testing.F) {
	f.Add("X-Device", "X-Device", "d1", "", uint8(1))
	f.Add("x-device", "X-Device", "d1", "d1", uint8(2))
	f.Add("X-Device", "x-device", "", "d1", uint8(2))
	f.Add("x y", "X Y", " ", "", uint8(1))
	f.Fuzz(func(t *testing.T, name, set, one, another string, n uint8) {
		if strings.TrimSpace(name) == "" {
			t.Skip("panics, as it says")
		}
		values := []string{one, another}[:n%3]
		header := http.Header{}
		for _, v := range values {
			header.Add(set, v)
		}
		id, err := httpmw.FromHeader(name)(&http.Request{Header: header})
		named := http.CanonicalHeaderKey(name) == http.CanonicalHeaderKey(set)
		if named && len(values) == 1 && one != "" {
			if id != one || err != nil {
				t.Errorf("%q in %v: %q, %v", name, header, id, err)
			}
		} else if id != "" || !errors.Is(err, httpmw.ErrNoIdentity) {
			t.Errorf("%q in %v: %q, %v; want nobody", name, header, id, err)
		}
	})
}

// Whatever code and request id an authority sends, the answer is one JSON object that says it, with
// nothing of it in the header.
func FuzzAnswer(f *testing.F) {
	for _, a := range answers {
		f.Add(string(a.code), "r-1", false)
		f.Add(string(a.code), "\"}\r\n\xff", true)
	}
	f.Fuzz(func(t *testing.T, code, request string, inFlight bool) {
		err := &guard.DeniedError{Decision: guard.Decision{Code: guard.Code(code), RequestID: request}, InFlight: inFlight}
		resp := record(httpmw.New(refusing(err), httpmw.Fixed(device))(uncalled(t)), incoming(t))
		text, _ := io.ReadAll(resp.Body)
		var p httpmw.Problem
		if err := json.Unmarshal(text, &p); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		valid := func(s string) string { return string([]rune(s)) }
		if string(p.Code) != valid(code) || p.RequestID != valid(request) || p.Status != resp.StatusCode || p.Status < 400 {
			t.Errorf("problem = %+v of %q, %q; status %d", p, code, request, resp.StatusCode)
		}
		if len(resp.Header) > 4 || resp.Header.Get("Content-Length") != strconv.Itoa(len(text)) {
			t.Errorf("header: %v", resp.Header)
		}
	})
}
