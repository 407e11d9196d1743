package httpapi

import (
	"bytes"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Redacted stands where a secret stood.
const Redacted = "[redacted]"

// shortest is how long a secret must be to be looked for: the services' own are longer by far,
// and looking for a shorter one would tear words apart.
const shortest = 5

// Secrets are the values that nobody may see: a key, a token. They live in closures alone: fmt
// follows fields by reflection, through values that have methods too, but cannot look into a
// function. The zero Secrets has none.
type Secrets struct {
	found func() [][]byte          // every value in every spelling
	hide  func(text string) string // puts Redacted in its place
}

// NewSecrets returns the values as Secrets. Those of less than five signs are not looked for.
func NewSecrets(values ...string) Secrets {
	var all []string
	for _, value := range values {
		all = append(all, spellings(value)...)
	}
	// The longest first: of two that begin alike, the shorter one would leave a part of the longer.
	slices.SortFunc(all, func(a, b string) int { return len(b) - len(a) })
	var found [][]byte
	var pairs []string
	for _, spelling := range all {
		found = append(found, []byte(spelling))
		pairs = append(pairs, spelling, Redacted)
	}
	return Secrets{found: func() [][]byte { return found }, hide: strings.NewReplacer(pairs...).Replace}
}

// spellings are the value as it is and, where that differs, as net/http and net/url would quote it.
func spellings(value string) []string {
	if len(value) < shortest {
		return nil
	}
	quoted := strconv.Quote(value)
	all := []string{value, quoted[1 : len(quoted)-1], url.QueryEscape(value), url.PathEscape(value)}
	slices.Sort(all)
	return slices.Compact(all)
}

// With returns s and more values.
func (s Secrets) With(values ...string) Secrets {
	if s.found != nil {
		for _, known := range s.found() {
			values = append(values, string(known))
		}
	}
	return NewSecrets(values...)
}

// Hide returns text with Redacted in place of every secret.
func (s Secrets) Hide(text string) string {
	if s.hide == nil {
		return text
	}
	return s.hide(text)
}

// In tells whether there is anything to hide in text.
func (s Secrets) In(text []byte) bool {
	return s.found != nil &&
		slices.ContainsFunc(s.found(), func(spelling []byte) bool { return bytes.Contains(text, spelling) })
}

// Clean makes one line, of bounded length and without a secret, of what others say. The secrets
// go first: cut text could end in a part of one, and dropped signs could join its halves.
func (s Secrets) Clean(text string) string { return Tidy(s.Hide(text)) }

// CheckKey says why no header can carry key, or nil. net/http would refuse such a key too, at
// every call and with the value in its message.
func CheckKey(key string) error {
	if strings.TrimSpace(key) == "" {
		return errors.New("is blank")
	}
	for _, sign := range []byte(key) {
		if sign <= ' ' || sign > '~' {
			return errors.New("contains white space or other signs that no header can carry")
		}
	}
	return nil
}
