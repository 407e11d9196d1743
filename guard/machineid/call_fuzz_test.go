package machineid_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/machineid"
)

// callNames are the names in calls, in an order that stays.
func callNames() []string { return slices.Sorted(maps.Keys(calls)) }

// FuzzCalls answers every call of the client with anything that a server or a transport can come
// up with, and holds what it makes of that to an oracle with a reader of its own: nothing panics,
// nothing but the one shape is an ALLOW, no answer that could be read in two ways is trusted, no
// more is read than the bound, and the key comes out nowhere.
func FuzzCalls(f *testing.F) {
	seedCalls(f)
	f.Fuzz(func(t *testing.T, call byte, status uint16, header string, ending byte, body []byte) {
		(&madeUp{
			call: callNames()[int(call)%len(calls)], status: int(status % 1000), header: header, ending: ending % endings, body: body,
		}).check(t)
	})
}

// What is too long for the fuzzer, which would spend its time on making it shorter.
func TestCallsWithLongAnswers(t *testing.T) {
	for _, call := range []string{"validate", "list", "revoke batch"} {
		a := &madeUp{call: call, status: 200}
		const good = `{"status":"ok","allowed":true,"code":"ALLOW","results":[],"devices":[],"x":`
		padding := strings.Repeat(" ", a.bound()-len(good)-2)
		for _, body := range []string{
			good + "0" + padding + "}", good + "0" + padding + "} ", good + strings.Repeat("9", 100_000) + "}",
			good + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + "}", strings.Repeat(`{"allowed":`, 10_000),
		} {
			a.body, a.read = []byte(body), 0
			result, err := calls[call](t.Context(), offline(t, a)) // printing megabytes in all forms takes a minute
			a.wantBounded(t, err)
			a.wantMeaning(t, result, err)
		}
	}
}

// The oracle knows every call that there is.
func TestFuzzCallsIsComplete(t *testing.T) {
	typ, n := reflect.TypeFor[*machineid.Client](), 0
	for i := range typ.NumMethod() {
		if method := typ.Method(i).Type; method.NumIn() > 1 && method.In(1) == reflect.TypeFor[context.Context]() {
			n++
		}
	}
	if n != len(calls) {
		t.Errorf("%d of the client's %d calls are fuzzed", len(calls), n)
	}
}

// How an answer ends.
const (
	endsWell   = byte(iota)
	endsInTime // one byte a time, and of unknown length
	endsBroken // with an error in the place of the end
	endsNever
	bodyless
	unanswered // the transport fails
	nothing    // the transport breaks its contract: neither an answer nor an error
	endings
)

// madeUp is an answer that the fuzzer has made up, and the transport that gives it.
type madeUp struct {
	call   string
	status int
	header string
	ending byte
	body   []byte
	read   int // bytes that were read of it
}

// check makes the call.
func (a *madeUp) check(t *testing.T) {
	t.Helper()
	result, err := calls[a.call](t.Context(), offline(t, a))
	a.wantBounded(t, err)
	a.wantSecret(t, result, err)
	a.wantMeaning(t, result, err)
}

// RoundTrip is http.RoundTripper's.
func (a *madeUp) RoundTrip(r *http.Request) (*http.Response, error) {
	resp := &http.Response{StatusCode: a.status, Header: http.Header{}, ContentLength: int64(len(a.body)), Request: r}
	for _, name := range []string{"Retry-After", "Location", "Content-Type", "Content-Encoding", "X-Request-Id"} {
		resp.Header.Set(name, a.header)
	}
	var body io.Reader = bytes.NewReader(a.body)
	switch a.ending {
	case endsInTime:
		body, resp.ContentLength = iotest.OneByteReader(body), -1
	case endsBroken:
		body = io.MultiReader(body, iotest.ErrReader(errors.New(key+" was cut off after "+a.header)))
	case endsNever:
		body, resp.ContentLength = &endless{again: append(a.body, ' ')}, -1
	case bodyless:
		resp.ContentLength = 0
		return resp, nil
	case unanswered:
		return nil, fmt.Errorf("%s %w: %s: %s", key, io.ErrClosedPipe, a.header, a.body)
	case nothing:
		return nil, nil //nolint:nilnil // on purpose
	}
	resp.Body = io.NopCloser(&counted{body, &a.read})
	return resp, nil
}

// endless says the same again and again.
type endless struct {
	again []byte
	pos   int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.again[e.pos:])
	e.pos = (e.pos + n) % len(e.again)
	return n, nil
}

// counted counts what is read through it.
type counted struct {
	from io.Reader
	n    *int
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	*c.n += n
	return n, err
}

// bound is how many bytes of an answer may be read.
func (a *madeUp) bound() int {
	if a.call == "list" {
		return 8 << 20
	}
	return 1 << 20
}

// wantBounded holds what is kept of an answer to its bounds: bytes read, length of what is said
// of it, the wait.
func (a *madeUp) wantBounded(t *testing.T, err error) {
	t.Helper()
	if a.read > a.bound()+1 {
		t.Errorf("%s: %d bytes were read", a.call, a.read)
	}
	if err == nil {
		return
	}
	typed, ok := err.(*machineid.Error)
	if !ok || typed == nil {
		t.Fatalf("%s: %v (%T) is no *Error", a.call, err, err)
	}
	for _, text := range []string{typed.Code, typed.Reason, typed.RequestID} {
		if len(text) > 300 || !oneLine(text) {
			t.Errorf("%s: says %q", a.call, text)
		}
	}
	if said := regexp.MustCompile(`^[0-9]{1,9}$`).MatchString(a.header); said && a.ending < unanswered {
		seconds, _ := strconv.Atoi(a.header)
		if want := time.Duration(min(seconds, 86400)) * time.Second; typed.RetryAfter != want {
			t.Errorf("%s: Retry-After %q is %v", a.call, a.header, typed.RetryAfter)
		}
	}
	if typed.RetryAfter < 0 || typed.RetryAfter > 24*time.Hour {
		t.Errorf("%s: Retry-After %q is %v", a.call, a.header, typed.RetryAfter)
	}
}

func oneLine(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
}

// wantSecret looks for the whole key, because a part of it is anybody's text: as it is in what
// can be printed, and behind escapes in the answer that is handed on.
func (a *madeUp) wantSecret(t *testing.T, result any, err error) {
	t.Helper()
	for _, text := range append(printed(result), printed(err)...) {
		if strings.Contains(text, key) {
			t.Errorf("%s: the key stands in %s", a.call, text)
		}
	}
	for _, answer := range answers(result) {
		if answer.Raw == nil {
			continue
		}
		document, ok := readJSON(answer.Raw)
		if !ok || slices.ContainsFunc(document.texts(), func(text string) bool { return strings.Contains(text, key) }) {
			t.Errorf("%s: Raw is %q", a.call, answer.Raw)
		}
	}
}

// answers are those inside a result.
func answers(result any) []machineid.Answer {
	switch r := result.(type) {
	case machineid.Registration:
		return []machineid.Answer{r.Answer}
	case machineid.Change:
		return []machineid.Answer{r.Answer}
	case machineid.Devices:
		return []machineid.Answer{r.Answer}
	case machineid.Usage:
		return []machineid.Answer{r.Answer}
	case machineid.Checkout:
		return []machineid.Answer{r.Answer}
	case machineid.Batch:
		return r.Answers
	}
	return nil
}

// wantMeaning holds a result to the oracle.
func (a *madeUp) wantMeaning(t *testing.T, result any, err error) {
	t.Helper()
	if d, ok := result.(guard.Decision); ok {
		a.wantDecision(t, d, err)
		return
	}
	means := a.outcome()
	if page, ok := result.(machineid.Checkout); ok && means == done && !strings.HasPrefix(page.URL, "https://") {
		means = undecided // which addresses are good is not for this oracle to say
	}
	got := done
	if errors.Is(err, guard.ErrUnavailable) {
		got = undecided
	} else if err != nil {
		got = refused
	}
	if got != means {
		t.Fatalf("%s: %d %.500q is %s, want %s (%v)", a.call, a.status, a.body, got, means, err)
	}
	if got == done {
		a.wantResult(t, result)
	}
}

// wantResult holds the result of a call that was done to the answer.
func (a *madeUp) wantResult(t *testing.T, result any) {
	t.Helper()
	document, _ := a.document()
	id, good := "", true
	switch r := result.(type) {
	case machineid.Registration:
		id, good = r.DeviceID, r.Status == "ok" || r.Status == "exists"
	case machineid.Change:
		id = r.DeviceID
	case machineid.Devices:
		good = len(r.Devices) == len(document.member("devices").inside)
	case machineid.Batch:
		good = len(r.Answers) == 1 && (!strings.HasSuffix(a.call, "batch") || len(r.Items) == 2)
	}
	if !good || id != "" && id != device {
		t.Errorf("%s: %.500q is %+.500v", a.call, a.body, result)
	}
}

// wantDecision holds Validate to the oracle.
func (a *madeUp) wantDecision(t *testing.T, d guard.Decision, err error) {
	t.Helper()
	code, decided := a.verdict()
	if d.Code != code || d.Allowed != (code == guard.CodeAllow) || decided != (err == nil) {
		t.Fatalf("%d %.500q: %+v, %v; want %s, decided: %t", a.status, a.body, d, err, code, decided)
	}
	if !decided && !errors.Is(err, guard.ErrUnavailable) {
		t.Errorf("%d %.500q: %v does not match ErrUnavailable", a.status, a.body, err)
	}
	if d.DeviceID != "" && d.DeviceID != device || !oneLine(d.Reason+d.RequestID) || len(d.Reason) > 1000 || !d.ExpiresAt.IsZero() {
		t.Errorf("%d %.500q: %+v", a.status, a.body, d)
	}
}

// seedCalls gives every call an answer of each kind, and Validate whatever is nearly an ALLOW.
func seedCalls(f *testing.F) {
	f.Helper()
	names := callNames()
	validate := byte(slices.Index(names, "validate"))
	for _, body := range nearlyAllowed() {
		f.Add(validate, uint16(200), "", endsWell, []byte(body))
	}
	for status := range uint16(1000) {
		if status%100 < 9 || status == 429 {
			f.Add(validate, status, "30", endsWell, []byte(allow))
		}
	}
	long := strings.Repeat("é\n", 200)
	wordy := fmt.Sprintf(`{"allowed":false,"code":%[1]q,"error":%[1]q,"reason":%[1]q,"message":%[1]q,"request_id":%[1]q,"status":%[1]q}`, long)
	for call := range byte(len(names)) {
		for _, body := range []string{"", "{}", wordy, echo(key), registered, `{"results":[],"devices":[],"url":"https://pay.example/"}`, `{"error":"invalid_org_key"}`} {
			for i, status := range []uint16{200, 302, 401, 429, 503} {
				f.Add(call, status, []string{"", "%zz" + key, "7", "99999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"}[i], endsWell, []byte(body))
			}
		}
		for ending := range endings {
			f.Add(call, uint16(200), key, ending, []byte(`{"status":"ok"}`))
		}
	}
}

// nearlyAllowed are bodies next to the one shape of an ALLOW, and that one in several spellings.
func nearlyAllowed() []string {
	with := func(more string) string { return `{"allowed":true,"code":"ALLOW"` + more + `}` }
	bodies := []string{
		allow, with(""), " \t\r\n" + allow + "\n", `{"\u0061llowed":true,"co\u0064e":"\u0041LLOW"}`, with(`,"deviceId":"` + device + `"`),
		// two documents, or none
		"", "null", "true", "[]", `"ALLOW"`, "[" + allow + "]", allow + allow, allow + "\n{}", allow + "null", allow + ",", allow[1:], allow[:len(allow)-1],
		// signs that are not JSON's
		"\ufeff" + allow, "\x00" + allow, allow + "\x00", "\x0b" + allow, "\u00a0" + allow, with("/**/"), with(`,"x":'y'`), with(",\"x\":\"\x00\""),
		// a name twice
		`{"allowed":false,"allowed":true,"code":"ALLOW"}`, `{"allowed":true,"allowed":true,"code":"ALLOW"}`, with(`,"code":"DEVICE_REVOKED"`),
		`{"allowed":true,"\u0061llowed":false,"code":"ALLOW"}`, with(`,"x":{"y":[{"z":1,"z":2}]}`), with(`,"\ud800":1,"\udfff":2`),
		// a name in another case
		`{"Allowed":true,"code":"ALLOW"}`, `{"ALLOWED":true,"allowed":true,"code":"ALLOW"}`, with(`,"CODE":"ALLOW"`), with(`,"DeviceID":"` + device + `"`),
		with(`,"rea\u017fon":1`), with(`,"rea` + "\u017f" + `on":1`), with(`,"x":{"Allowed":false}`), `{"allowed":true,"code":"allow"}`,
		// what is no boolean, and no code
		`{"allowed":"true","code":"ALLOW"}`, `{"allowed":1,"code":"ALLOW"}`, `{"allowed":null,"code":"ALLOW"}`, `{"allowed":[true],"code":"ALLOW"}`,
		`{"allowed":True,"code":"ALLOW"}`, `{"allowed":true,"code":["ALLOW"]}`, `{"allowed":true,"code":null}`, `{"allowed":true}`, `{"code":"ALLOW"}`,
		`{"allowed":true,"code":"ALLOW "}`, `{"allowed":true,"code":"ALLOW\u0000"}`, `{"allowed":true,"code":"\u0410LLOW"}`,
		// a contradiction
		`{"allowed":false,"code":"ALLOW"}`, `{"allowed":true,"code":"DEVICE_REVOKED"}`, `{"allowed":false,"code":"DEVICE_REVOKED"}`, with(`,"error":"invalid_org_key"`),
		// another device
		with(`,"deviceId":"other"`), with(`,"deviceId":null`), with(`,"deviceId":["` + device + `"]`), with(`,"deviceId":"` + device + ` "`),
		// bad UTF-8 and half surrogates
		with(",\"x\":\"\xff\""), with(",\"\xc3\":1"), allow + "\xfe", with(",\"x\":\"\xed\xa0\x80\""), with(`,"x":"\ud83d"`), with(`,"x":"\ud83d\ude00"`),
		with(",\"x\":\"\xc0\xaf\""), with(`,"x":"\u12"`), with(`,"x":"\q"`),
		// numbers
		with(`,"x":1e999999999`), with(`,"x":` + strings.Repeat("9", 500)), with(`,"x":-0.0E-0`), with(`,"x":01`), with(`,"x":1.`), with(`,"x":NaN`), with(`,"x":0x1`),
		// the key
		with(`,"` + key + `":"` + key + `"`), with(`,"x":"\u006f` + key[1:] + `"`), `{"allowed":false,"code":"` + key + `"}`,
	}
	for _, n := range []int{30, 31, 32, 33, 500} {
		bodies = append(bodies, with(`,"x":`+strings.Repeat("[", n)+strings.Repeat("]", n)))
	}
	return bodies
}
