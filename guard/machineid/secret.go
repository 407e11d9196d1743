package machineid

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// redacted stands where the key stood.
const redacted = "[redacted]"

// keySource ends the messages of those who have no key yet.
const keySource = "; the key begins with org_ and stands on the organisation's page at the service"

// maxText is the most that is kept of what a server or a transport says, in bytes.
const maxText = 256

// secret is the organisation key. It lives in closures alone: fmt follows fields by reflection,
// through values that have methods too, but cannot look into a function.
type secret struct {
	header func(h http.Header)      // puts the key where it belongs
	hide   func(text string) string // puts [redacted] in its place
	in     func(text []byte) bool   // tells whether there is anything to hide
}

// newSecret refuses a key that no header can carry. net/http would refuse it too, at every call
// and with the value in its message.
func newSecret(key string) (secret, error) {
	if strings.TrimSpace(key) == "" {
		return secret{}, errors.New("machineid: the organisation key is blank" + keySource)
	}
	for _, sign := range []byte(key) {
		if sign <= ' ' || sign > '~' {
			return secret{}, errors.New("machineid: the organisation key contains white space or other signs that no header can carry")
		}
	}
	value := []string{key}
	found := spellings(key)
	var pairs []string
	for _, spelling := range found {
		pairs = append(pairs, string(spelling), redacted)
	}
	return secret{
		header: func(h http.Header) { h["X-Org-Key"] = value },
		hide:   strings.NewReplacer(pairs...).Replace,
		in: func(text []byte) bool {
			return slices.ContainsFunc(found, func(spelling []byte) bool { return bytes.Contains(text, spelling) })
		},
	}, nil
}

// spellings are the key as it is and, where that differs, as net/http and net/url would quote it.
// A key of less than five signs, «org_» and one more, is none of the service's, and looking for
// it would tear words apart.
func spellings(key string) [][]byte {
	if len(key) < 5 {
		return nil
	}
	quoted := strconv.Quote(key)
	all := []string{key, quoted[1 : len(quoted)-1], url.QueryEscape(key), url.PathEscape(key)}
	slices.Sort(all)
	var found [][]byte
	for _, spelling := range slices.Compact(all) {
		found = append(found, []byte(spelling))
	}
	return found
}

// clean makes one line, of bounded length and without the key, of what others say. The key goes
// first: cut text could end in a part of it, and dropped signs could join its halves.
func (s secret) clean(text string) string { return tidy(s.hide(text)) }

// tidy makes one printable line of at most maxText bytes. Text that is so already costs nothing.
func tidy(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(text, "\uFFFD"))
	if len(text) <= maxText {
		return text
	}
	end := maxText
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "…"
}

// tame returns err as it is, unless it or anything in it says what must not be said. Then only
// its cleaned text is left, and whether a context has ended.
func (s secret) tame(err error) error {
	if s.harmless(err) {
		return err
	}
	tamed := &tamedError{text: s.clean(err.Error())}
	for _, ended := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, ended) {
			tamed.ended = ended
		}
	}
	return tamed
}

func (s secret) harmless(err error) bool {
	if err == nil {
		return true
	}
	if s.in([]byte(err.Error())) {
		return false
	}
	switch wraps := err.(type) { //nolint:errorlint // walks the tree as errors.As does, but to its end
	case interface{ Unwrap() error }:
		return s.harmless(wraps.Unwrap())
	case interface{ Unwrap() []error }:
		return !slices.ContainsFunc(wraps.Unwrap(), func(one error) bool { return !s.harmless(one) })
	}
	return true
}

// tamedError is what tame leaves of an error.
type tamedError struct {
	text  string
	ended error // context.Canceled, context.DeadlineExceeded or nil
}

func (e *tamedError) Error() string { return e.text }

func (e *tamedError) Unwrap() error { return e.ended }

// json returns a JSON document without the key, and whether that is another document than doc.
// A key can hide behind escapes, so a document with escapes is taken apart.
func (s secret) json(doc []byte) (clean []byte, changed bool) {
	if bytes.IndexByte(doc, '\\') < 0 && !s.in(doc) {
		return doc, false
	}
	decoder := json.NewDecoder(bytes.NewReader(doc))
	decoder.UseNumber()
	var tree any
	if err := decoder.Decode(&tree); err != nil {
		return nil, true
	}
	tree, changed = s.prune(tree)
	if !changed {
		return doc, false
	}
	clean, err := json.Marshal(tree)
	if err != nil {
		return nil, true
	}
	return clean, true
}

// prune returns the tree without the key in names, strings and numbers.
func (s secret) prune(tree any) (pruned any, changed bool) {
	switch node := tree.(type) {
	case string:
		return s.hide(node), s.in([]byte(node))
	case json.Number:
		if s.in([]byte(node)) {
			return redacted, true
		}
	case []any:
		for i := range node {
			clean, did := s.prune(node[i])
			node[i], changed = clean, changed || did
		}
		return node, changed
	case map[string]any:
		clean := make(map[string]any, len(node))
		for name, value := range node {
			below, did := s.prune(value)
			clean[s.hide(name)], changed = below, changed || did || s.in([]byte(name))
		}
		return clean, changed
	}
	return tree, false
}
