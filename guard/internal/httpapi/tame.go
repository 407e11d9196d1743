package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
)

// Tame returns err as it is, unless it or anything in it says what must not be said. Then only
// its cleaned text is left, and whether a context has ended.
func (s Secrets) Tame(err error) error {
	if s.harmless(err) {
		return err
	}
	tamed := &tamedError{text: s.Clean(err.Error())}
	for _, ended := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, ended) {
			tamed.ended = ended
		}
	}
	return tamed
}

func (s Secrets) harmless(err error) bool {
	if err == nil {
		return true
	}
	if s.In([]byte(err.Error())) {
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

// tamedError is what Tame leaves of an error.
type tamedError struct {
	text  string
	ended error // context.Canceled, context.DeadlineExceeded or nil
}

func (e *tamedError) Error() string { return e.text }

func (e *tamedError) Unwrap() error { return e.ended }

// JSON returns a JSON document without the secrets, and whether that is another document than
// doc. A secret can hide behind escapes, so a document with escapes is taken apart.
func (s Secrets) JSON(doc []byte) (clean []byte, changed bool) {
	if bytes.IndexByte(doc, '\\') < 0 && !s.In(doc) {
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

// prune returns the tree without the secrets in names, strings and numbers.
func (s Secrets) prune(tree any) (pruned any, changed bool) {
	switch node := tree.(type) {
	case string:
		return s.Hide(node), s.In([]byte(node))
	case json.Number:
		if s.In([]byte(node)) {
			return Redacted, true
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
			clean[s.Hide(name)], changed = below, changed || did || s.In([]byte(name))
		}
		return clean, changed
	}
	return tree, false
}
