package faulty

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestKeysGoIntoCapitals(t *testing.T) {
	for text, want := range map[string]string{
		``:                             ``,
		`{"a":"a"}`:                    `{"A":"a"}`,
		`{"a" : {"b":["c:",{"d":1}]}}`: `{"A" : {"B":["c:",{"D":1}]}}`,
		"{\"a\"\n\t\r :1}":             "{\"A\"\n\t\r :1}",
		`{"a\n":"b","c":"\"d\":"}`:     `{"a\n":"b","C":"\"d\":"}`,
		`{"a":"b\\","c":1}`:            `{"A":"b\\","C":1}`,
		`{"a":"\"x","b":1}`:            `{"A":"\"x","B":1}`,
		`{"ä_b1":1}`:                   `{"ä_B1":1}`,
		`{"a":"open`:                   `{"A":"open`,
		`{"a":"open\`:                  `{"A":"open\`,
		`null`:                         `null`,
	} {
		if got := shoutKeys(text); got != want {
			t.Errorf("%s became %s, want %s", text, got, want)
		}
	}
}

// FuzzKeysGoIntoCapitals looks for a text that is changed in more than its keys.
func FuzzKeysGoIntoCapitals(f *testing.F) {
	for _, seed := range []string{`{"a":{"b":"c"}}`, `[{"a":1},"b:",":"]`, `{"a\"":"\\","b":null}`, `"`, `"\`, `{"\u0061":1}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := shoutKeys(text)
		if len(got) != len(text) {
			t.Fatalf("%q became %q", text, got)
		}
		for i := range len(text) {
			if got[i] != text[i] && got[i] != text[i]-'a'+'A' {
				t.Fatalf("%q became %q", text, got)
			}
		}
		var before any
		if json.Unmarshal([]byte(text), &before) != nil {
			return
		}
		var after any
		if err := json.Unmarshal([]byte(got), &after); err != nil {
			t.Fatalf("%q became %q: %v", text, got, err)
		}
		if !sameShape(before, after) {
			t.Errorf("%q became %q", text, got)
		}
	})
}

// sameShape tells whether two texts hold the same values under the same keys, but for capitals.
// Keys that fall together (A and a) say nothing about their values.
func sameShape(before, after any) bool {
	switch b := before.(type) {
	case map[string]any:
		a, ok := after.(map[string]any)
		for key, value := range b {
			got, shouted := a[capitals(key)]
			if !shouted {
				got, shouted = a[key] // one with an escape
			}
			ok = ok && shouted && (len(a) != len(b) || key != capitals(key) && b[capitals(key)] != nil || sameShape(value, got))
		}
		return ok
	case []any:
		a, ok := after.([]any)
		ok = ok && len(a) == len(b)
		for i := 0; ok && i < len(b); i++ {
			ok = sameShape(b[i], a[i])
		}
		return ok
	default:
		return before == after
	}
}

func TestDoubledHasEveryKeyTwice(t *testing.T) {
	d := Dialect{Yes: Always(" {\"a\":{\"b\":1},\"c\":\"}\"}\n"), No: Always("{}")}
	got := d.doubled(Question{})
	const want = `{"a":{"b":1},"c":"}","a":{"b":1},"c":"}"}`
	if strings.TrimSpace(got) != want || !json.Valid([]byte(got)) {
		t.Errorf("got %s, want %s", got, want)
	}
}
