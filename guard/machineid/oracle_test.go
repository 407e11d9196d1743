package machineid_test

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/execguard/execguard/guard"
)

// What follows judges answers a second time, for FuzzCalls, and shares nothing with the client:
// not its reader and not encoding/json.

// meaning is what an answer comes to, where it is no decision.
type meaning string

const (
	done      = meaning("done")
	refused   = meaning("refused by the service")
	undecided = meaning("no answer")
)

// document is the one object that an answer holds, false where it holds none, or one that two
// readers could read in two ways.
func (a *madeUp) document() (jsonValue, bool) {
	if a.ending > endsInTime || len(a.body) > a.bound() {
		return jsonValue{}, false
	}
	v, ok := readJSON(a.body)
	return v, ok && v.kind == '{' && v.spelled("allowed", "code", "deviceId", "request_id", "reason", "error", "status", "results")
}

// trusted tells whether the status lets the body speak.
func (a *madeUp) trusted() bool {
	return a.status/100 == 2 || a.status/100 == 4 && a.status != 429
}

// verdict is the code of Validate's decision, CodeAllow for the one shape of an ALLOW, and whether
// it is the service that has decided so.
func (a *madeUp) verdict() (code guard.Code, decided bool) {
	v, ok := a.document()
	if !ok || !a.trusted() {
		return guard.CodeSystemUnavailable, false
	}
	allowed, word, id := v.member("allowed"), v.member("code"), v.member("deviceId")
	shown := strings.ReplaceAll(word.text, key, "[redacted]")
	nobody := id.kind == 0
	switch {
	case a.status == 401 && v.member("error").is("invalid_org_key") && allowed.kind == 0 && word.kind == 0:
		return guard.CodeInvalidOrgKey, true
	case a.status == 200 && allowed.kind == 't' && word.is("ALLOW") && (nobody || id.is(device)):
		return guard.CodeAllow, true
	case (a.status == 200 || a.status >= 400) && allowed.kind == 'f' && (nobody || id.kind == 'n' || id.is(device)) &&
		shown != "" && shown != "ALLOW" && len(shown) <= 256 && oneLine(shown):
		return guard.Code(shown), true
	}
	return guard.CodeSystemUnavailable, false
}

// outcome is what the answer to any other call means.
func (a *madeUp) outcome() meaning {
	v, ok := a.document()
	failed, status := v.member("error"), strings.ToLower(v.member("status").text)
	nothingDone := slices.Contains([]string{"blocked", "not_found", "invalid", "error", "failed"}, status)
	id := v.member("deviceId")
	switch {
	case !ok || !a.trusted():
		return undecided
	case a.status >= 400, failed.kind == '"' && failed.text != "", nothingDone:
		return refused
	case slices.Contains([]string{"register", "revoke", "unrevoke", "remove"}, a.call) && id.kind != 0 && id.kind != 'n' && !id.is(device):
		return undecided
	case a.call == "register" && !v.member("status").is("ok") && !v.member("status").is("exists"):
		return refused
	case a.call == "list" && !v.member("devices").objects("deviceId", "status"):
		return undecided
	case strings.HasSuffix(a.call, " batch") && !v.member("results").objects("deviceId", "status", "error"):
		return undecided
	}
	return done
}

// jsonValue is a value: its kind is its first sign, '0' for any number, 0 for none.
type jsonValue struct {
	kind   byte
	text   string      // of a string, with its escapes undone
	names  []string    // of an object
	inside []jsonValue // of an object or an array
}

func (v jsonValue) is(text string) bool { return v.kind == '"' && v.text == text }

func (v jsonValue) member(name string) jsonValue {
	if i := slices.Index(v.names, name); i >= 0 {
		return v.inside[i]
	}
	return jsonValue{}
}

// spelled tells whether no name differs from one of those known by its case alone.
func (v jsonValue) spelled(known ...string) bool {
	return !slices.ContainsFunc(v.names, func(name string) bool {
		return slices.ContainsFunc(known, func(k string) bool { return k != name && strings.EqualFold(k, name) })
	})
}

// objects tells whether v is an array of objects whose names are spelled as known.
func (v jsonValue) objects(known ...string) bool {
	return v.kind == '[' && !slices.ContainsFunc(v.inside, func(one jsonValue) bool { return one.kind != '{' || !one.spelled(known...) })
}

// texts are all names and strings in v.
func (v jsonValue) texts() []string {
	all := append([]string{v.text}, v.names...)
	for _, one := range v.inside {
		all = append(all, one.texts()...)
	}
	return all
}

// jsonReader reads JSON as RFC 8259 has it, and besides: valid UTF-8, no name twice, at most 32
// levels, half a surrogate pair as U+FFFD.
type jsonReader struct {
	rest string
	bad  bool
}

// readJSON reads the one value that data must be.
func readJSON(data []byte) (jsonValue, bool) {
	r := &jsonReader{rest: string(data), bad: !utf8.Valid(data)}
	v := r.value(1)
	r.space()
	return v, !r.bad && r.rest == ""
}

func (r *jsonReader) space() { r.rest = strings.TrimLeft(r.rest, " \t\r\n") }

// take takes the prefix, if it is there.
func (r *jsonReader) take(prefix string) bool {
	rest, ok := strings.CutPrefix(r.rest, prefix)
	r.rest = rest
	return ok
}

func (r *jsonReader) must(prefix string) { r.bad = !r.take(prefix) || r.bad }

var jsonNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?`)

func (r *jsonReader) value(level int) jsonValue {
	r.space()
	for _, word := range []string{"true", "false", "null"} {
		if r.take(word) {
			return jsonValue{kind: word[0]}
		}
	}
	switch {
	case r.bad || r.rest == "" || level > 33:
		r.bad = true
		return jsonValue{}
	case r.rest[0] == '"':
		return jsonValue{kind: '"', text: r.text()}
	case r.take("{"):
		return r.list(level, '{', "}")
	case r.take("["):
		return r.list(level, '[', "]")
	}
	number := jsonNumber.FindString(r.rest)
	r.bad = number == ""
	r.must(number)
	return jsonValue{kind: '0'}
}

// list reads an object or an array behind its first sign.
func (r *jsonReader) list(level int, kind byte, end string) jsonValue {
	v, seen := jsonValue{kind: kind}, map[string]bool{}
	r.bad = r.bad || level > 32
	r.space()
	if r.take(end) {
		return v
	}
	for more := true; more && !r.bad; more = r.take(",") {
		if kind == '{' {
			r.space()
			name := r.text()
			r.bad = r.bad || seen[name]
			seen[name] = true
			v.names = append(v.names, name)
			r.space()
			r.must(":")
		}
		v.inside = append(v.inside, r.value(level+1))
		r.space()
	}
	r.must(end)
	return v
}

// text reads a string.
func (r *jsonReader) text() string {
	var b strings.Builder
	for r.must(`"`); !r.bad && !r.take(`"`); {
		if r.take(`\`) {
			b.WriteRune(r.escaped())
			continue
		}
		sign, size := utf8.DecodeRuneInString(r.rest)
		r.bad = size == 0 || sign < ' '
		b.WriteRune(sign)
		r.rest = r.rest[size:]
	}
	return b.String()
}

// escaped reads what follows a backslash.
func (r *jsonReader) escaped() rune {
	const short, means = `"\/bfnrt`, "\"\\/\b\f\n\r\t"
	if r.take("u") {
		first := r.hex()
		if ahead := (&jsonReader{rest: r.rest}); utf16.IsSurrogate(first) && ahead.take(`\u`) {
			if pair := utf16.DecodeRune(first, ahead.hex()); pair != utf8.RuneError {
				r.rest = ahead.rest
				return pair
			}
		}
		if utf16.IsSurrogate(first) {
			return utf8.RuneError
		}
		return first
	}
	if r.rest == "" || strings.IndexByte(short, r.rest[0]) < 0 {
		r.bad = true
		return 0
	}
	sign := means[strings.IndexByte(short, r.rest[0])]
	r.rest = r.rest[1:]
	return rune(sign)
}

// hex reads four hexadecimal digits.
func (r *jsonReader) hex() rune {
	n, err := strconv.ParseUint(r.rest[:min(4, len(r.rest))], 16, 32)
	if err != nil || len(r.rest) < 4 || strings.ContainsAny(r.rest[:4], "+-_") {
		r.bad = true
		return 0
	}
	r.rest = r.rest[4:]
	return rune(n)
}

// The oracle itself is worth something only if it knows good from bad.
func TestOracleReads(t *testing.T) {
	for text, want := range map[string]bool{
		`{}`: true, " [1,-0.5e+3,\"\\ud83d\\ude00\",{\"a\":null}]\r\n": true, `""`: true, `{"a":{"b":1},"b":1}`: true,
		"[" + strings.Repeat("[", 31) + strings.Repeat("]", 31) + "]":     true,
		"[" + strings.Repeat("[", 32) + strings.Repeat("]", 32) + "]":     false,
		`{"a":` + strings.Repeat("[", 31) + strings.Repeat("]", 31) + `}`: true,
		`{"a":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `}`: false,
		``: false, `{`: false, `{"a"}`: false, `{"a":1,}`: false, `[1,]`: false, `{a:1}`: false, `01`: false, `1.`: false, `-`: false, `+1`: false,
		`truex`: false, `nul`: false, `{} {}`: false, "\ufeff{}": false, "{}\x00": false, "\"\x1f\"": false, "\"\xff\"": false,
		`"\x"`: false, `"\u12"`: false, `"\u+123"`: false, `"`: false, `{"a":1,"\u0061":2}`: false, `{"\ud800":1,"\udfff":2}`: false, `[1 2]`: false,
	} {
		if _, ok := readJSON([]byte(text)); ok != want {
			t.Errorf("%.80q: %t, want %t", text, ok, want)
		}
	}
	v, _ := readJSON([]byte(`{"\u0061\n":"\ud83d\ude00\ud83dx\/","b":[true]}`))
	if !v.member("a\n").is("😀\ufffdx/") || v.member("b").inside[0].kind != 't' || v.member("c").kind != 0 {
		t.Errorf("%+v", v)
	}
}
