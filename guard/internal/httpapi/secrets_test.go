package httpapi_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"
	"testing"

	"github.com/execguard/execguard/guard/internal/httpapi"
)

const (
	key   = `lk_live_"a b"/ü&`
	token = "mt_2gX9"
)

// Every spelling that net/http, net/url or a quoting verb makes of a value is hidden (S8).
func TestHide(t *testing.T) {
	s := httpapi.NewSecrets(key).With(token)
	for _, spelling := range []string{
		key, token, url.QueryEscape(key), url.PathEscape(key), fmt.Sprintf("%q", key), "a" + key + "b" + token + "c",
	} {
		if got := s.Hide(spelling); !strings.Contains(got, httpapi.Redacted) || strings.Contains(got, "live") || strings.Contains(got, token) {
			t.Errorf("%q became %q", spelling, got)
		}
		if !s.In([]byte(spelling)) {
			t.Errorf("%q is not found", spelling)
		}
	}
	if text := "nothing of it"; s.Hide(text) != text || s.In([]byte(text)) {
		t.Error("found what is not there")
	}
	// In the middle of what is quoted, from its first sign to its last.
	if got := s.Hide(fmt.Sprintf("%q", "a "+key+" b")); got != `"a `+httpapi.Redacted+` b"` {
		t.Errorf("%s", got)
	}
}

// Of two secrets that begin alike the longer one goes first, or its end would be left.
func TestHideTheLongerFirst(t *testing.T) {
	for _, s := range []httpapi.Secrets{
		httpapi.NewSecrets("secret", "secret-and-more"), httpapi.NewSecrets("secret-and-more", "secret"),
		httpapi.NewSecrets("secret").With("secret-and-more"),
	} {
		if got := s.Hide("a secret-and-more"); got != "a "+httpapi.Redacted {
			t.Errorf("%q", got)
		}
	}
}

// The zero Secrets has nothing to hide, and neither have values so short that they are in every word.
func TestNothingToHide(t *testing.T) {
	for _, s := range []httpapi.Secrets{{}, httpapi.NewSecrets(), httpapi.NewSecrets("", "abcd")} {
		if text := "abcd, and no more"; s.Hide(text) != text || s.In([]byte(text)) || s.Clean(text) != text {
			t.Errorf("%q", s.Hide(text))
		}
		if doc, changed := s.JSON([]byte(`{"a":"\u0061bcd"}`)); changed || string(doc) != `{"a":"\u0061bcd"}` {
			t.Errorf("%s", doc)
		}
		if err := fs.ErrExist; !errors.Is(s.Tame(err), err) || s.Tame(nil) != nil {
			t.Error("an error was changed")
		}
		if got := s.With("hidden"); got.Hide("hidden") != httpapi.Redacted {
			t.Error("With added nothing")
		}
	}
}

// fmt cannot look into it, whatever the verb.
func TestSecretsPrint(t *testing.T) {
	s := httpapi.NewSecrets("a-long-secret")
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		text := fmt.Sprintf(verb, s)
		if strings.Contains(text, "long") || strings.Contains(text, fmt.Sprintf("%x", "long")) {
			t.Errorf("%s shows %s", verb, text)
		}
	}
}

// What is hidden behind escapes, in names and in numbers goes too, and nothing else does.
func TestJSON(t *testing.T) {
	s := httpapi.NewSecrets("secret", "123456")
	for doc, want := range map[string]string{
		`{"a":"secret"}`:           `{"a":"[redacted]"}`,
		`{"a":"\u0073ecret"}`:      `{"a":"[redacted]"}`,
		`{"secret":1}`:             `{"[redacted]":1}`,
		`{"a":[123456,[1.0,"b"]]}`: `{"a":["[redacted]",[1.0,"b"]]}`,
		`{"a":"\u0062"}`:           `{"a":"\u0062"}`,
		`{"a": ["\u0062", 1]}`:     `{"a": ["\u0062", 1]}`,
		`{"a": 1}`:                 `{"a": 1}`,
		`{"secret`:                 ``,
	} {
		if got, changed := s.JSON([]byte(doc)); string(got) != want || changed != (want != doc) {
			t.Errorf("%s became %s, %v", doc, got, changed)
		}
	}
}

// An error that tells nothing stays what it is; of one that does, its cleaned text is left, and that a
// context has ended. It is found however deep it is.
func TestTame(t *testing.T) {
	s := httpapi.NewSecrets("secret")
	deep := fmt.Errorf("outer: %w", hides{errors.Join(context.DeadlineExceeded, errors.New("the secret is out"))})
	err := s.Tame(deep)
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), "secret is") {
		t.Errorf("%#v", err)
	}
	plain := fmt.Errorf("outer: %w", fs.ErrNotExist)
	if got := s.Tame(plain); got != plain { //nolint:errorlint // the very same is meant
		t.Errorf("%v", got)
	}
	if err := s.Tame(errors.New("a secret")); err.Error() != "a [redacted]" || errors.Unwrap(err) != nil {
		t.Errorf("%v", err)
	}
}

// hides says nothing of what it wraps.
type hides struct{ inner error }

func (h hides) Error() string { return "something" }
func (h hides) Unwrap() error { return h.inner }

func TestCheckKey(t *testing.T) {
	for key, good := range map[string]bool{
		"lk_live_1": true, "a": true, "!~": true, "": false, " ": false, "a b": false, "a\n": false, "ü": false, "a\x7f": false, "a\x00": false,
	} {
		if err := httpapi.CheckKey(key); (err == nil) != good {
			t.Errorf("%q: %v", key, err)
		}
	}
}

func TestTidy(t *testing.T) {
	long := strings.Repeat("ü", 200)
	for text, want := range map[string]string{
		"plain":         "plain",
		"a\r\n\tb\x00":  "a   b ",
		"a\xffb":        "a\uFFFDb",
		"\u202eright":   " right",
		long:            strings.Repeat("ü", 128) + "…",
		"x" + long:      "x" + strings.Repeat("ü", 127) + "…",
		long[:256]:      long[:256],
		"no\u00a0break": "no break",
	} {
		if got := httpapi.Tidy(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}
