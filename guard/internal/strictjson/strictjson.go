// Package strictjson reads the one JSON object of an answer that allows or denies something.
//
// It resembles encoding/json, which still judges the grammar, but gives every document a single
// meaning: encoding/json takes the last of two equal names, matches names in any case, mends
// broken UTF-8 and, through a Decoder, overlooks a second document. Any of these lets two
// readers of one answer see two decisions. Here each is an error.
//
// It does not map onto structs, does not bound the length of its input (the caller reads no
// more than it wants to hold), and its errors quote nothing of the document, so that no secret
// in it can reach a log through them.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"unicode/utf8"
)

// maxDepth is how deeply objects and arrays may nest; real answers use four levels. It also
// bounds the reader's own recursion.
const maxDepth = 32

// Object is one JSON object. Its values are parts of the document it was parsed from, which
// must not be changed while the Object is in use. The zero Object has no members. Reading from
// several goroutines is safe.
type Object struct{ members []member }

// member is a name, with its escapes undone, and its value as it stands in the document.
type member struct{ name, value []byte }

// Parse reads data, which must hold one JSON object and nothing else but white space: valid
// UTF-8, no name twice in any object, at most 32 levels deep. A member whose name is one of
// names but for its case is an error too, for it would be overlooked here and honoured elsewhere.
func Parse(data []byte, names ...string) (Object, error) {
	if !utf8.Valid(data) {
		return Object{}, errors.New("not valid UTF-8")
	}
	if !json.Valid(data) {
		return Object{}, errors.New("not one JSON value")
	}
	w := walker{data: data}
	if w.space(); w.data[w.pos] != '{' {
		return Object{}, errors.New("not a JSON object")
	}
	members, err := w.object(1)
	if err != nil {
		return Object{}, err
	}
	o := Object{members: members}
	return o, o.spelled(names)
}

// spelled returns an error where a member bears one of names in another case, as encoding/json
// understands it.
func (o Object) spelled(names []string) error {
	for _, name := range names {
		for _, m := range o.members {
			if string(m.name) != name && bytes.EqualFold(m.name, []byte(name)) {
				return errors.New("a name in another case")
			}
		}
	}
	return nil
}

// Raw returns the value as it stands in the document, or nil where there is none.
func (o Object) Raw(name string) []byte {
	for _, m := range o.members {
		if string(m.name) == name {
			return m.value
		}
	}
	return nil
}

// Text returns a string with its escapes undone; ok is false where there is none, or where the
// value is not a string. The caller must not change the bytes.
func (o Object) Text(name string) (text []byte, ok bool) {
	raw := o.Raw(name)
	if len(raw) == 0 || raw[0] != '"' {
		return nil, false
	}
	return unquote(raw), true
}

// Bool returns a boolean; ok is false where there is none. "true", 1 and null are not booleans.
func (o Object) Bool(name string) (value, ok bool) {
	switch string(o.Raw(name)) {
	case "true":
		return true, true
	case "false":
		return false, true
	}
	return false, false
}

// Int returns a whole number; ok is false where there is none that an int can hold.
func (o Object) Int(name string) (value int, ok bool) {
	raw := o.Raw(name)
	if len(raw) == 0 || raw[0] == 'n' { // Unmarshal takes null for «leave it as it is»
		return 0, false
	}
	if err := json.Unmarshal(raw, &value); err != nil {
		return 0, false
	}
	return value, true
}

// Texts returns an array of strings; ok is false where there is none, or where an element is
// anything else.
func (o Object) Texts(name string) (texts []string, ok bool) {
	return elements(o.Raw(name), '"', func(w *walker) (string, error) {
		return string(unquote(w.text())), nil
	})
}

// Objects returns an array of objects, in each of which names must be spelled as they are in
// Parse; ok is false where there is none, or where an element is anything else.
func (o Object) Objects(name string, names ...string) (objects []Object, ok bool) {
	return elements(o.Raw(name), '{', func(w *walker) (Object, error) {
		members, err := w.object(1)
		if err != nil {
			return Object{}, err
		}
		element := Object{members: members}
		return element, element.spelled(names)
	})
}

// elements reads an array, each element of which begins with the byte begin. An empty array is
// an empty slice and not nil.
func elements[T any](raw []byte, begin byte, read func(*walker) (T, error)) ([]T, bool) {
	if len(raw) == 0 || raw[0] != '[' {
		return nil, false
	}
	all := []T{}
	w := walker{data: raw, pos: 1}
	for w.more(']') {
		if w.data[w.pos] != begin {
			return nil, false
		}
		one, err := read(&w)
		if err != nil {
			return nil, false
		}
		all = append(all, one)
	}
	return all, true
}

// unquote undoes the escapes of a string of valid JSON.
func unquote(raw []byte) []byte {
	inner := raw[1 : len(raw)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return inner
	}
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return raw // cannot be: encoding/json has called it valid
	}
	return []byte(text)
}
