package licentricserver

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"
)

// fields is a request's body: a JSON object, by the exact names of its members.
type fields map[string]json.RawMessage

// decode reads one JSON object. Members that no call knows are overlooked, for clients newer
// than this.
func decode(text []byte) (fields, *apiError) {
	var in fields
	if err := json.Unmarshal(text, &in); err != nil || in == nil {
		return nil, refuse(http.StatusBadRequest, "the body is not one JSON object")
	}
	return in, nil
}

// reader takes members out of a body and notes what is wrong with them, so that one answer names
// every mistake. A member that is null is one that is not there.
type reader struct {
	fields  fields
	details []detail
}

// take decodes a member into out, and tells whether there is one.
func (r *reader) take(name, kind string, out any) bool {
	raw := bytes.TrimSpace(r.fields[name])
	if len(raw) == 0 || string(raw) == "null" {
		return false
	}
	if json.Unmarshal(raw, out) != nil {
		r.wrong(name, "must be "+kind)
		return false
	}
	return true
}

func (r *reader) wrong(name, message string) {
	r.details = append(r.details, detail{Field: name, Message: message})
}

// missing notes that a member is not there, unless it is there and wrong already.
func (r *reader) missing(name string) {
	if !slices.ContainsFunc(r.details, func(d detail) bool { return d.Field == name }) {
		r.wrong(name, "is required")
	}
}

// text takes a string of least to most characters; with least above 0, it has to be there.
func (r *reader) text(name string, least, most int) string {
	value, given := r.optional(name, least, most)
	if !given && least > 0 {
		r.missing(name)
	}
	return value
}

// optional takes a string of least to most characters, if there is one.
func (r *reader) optional(name string, least, most int) (value string, given bool) {
	if !r.take(name, "a string", &value) {
		return "", false
	}
	if n := utf8.RuneCountInString(value); n < least || n > most {
		r.wrong(name, fmt.Sprintf("must have %d to %d characters", least, most))
	}
	return value, true
}

// oneOf takes a word of a list, or "".
func (r *reader) oneOf(name string, words ...string) (value string) {
	if r.take(name, "a string", &value) && !slices.Contains(words, value) {
		r.wrong(name, "must be one of "+strings.Join(words, ", "))
	}
	return value
}

// whole takes a whole number from least to most; without one it is usual.
func (r *reader) whole(name string, least, most, usual int) int {
	value := usual
	if r.take(name, "a whole number", &value) && (value < least || value > most) {
		r.wrong(name, fmt.Sprintf("must be from %d to %d", least, most))
	}
	return value
}

// words takes a list of strings that are not empty.
func (r *reader) words(name string) (value []string) {
	if r.take(name, "a list of strings", &value) && slices.Contains(value, "") {
		r.wrong(name, "must not hold an empty string")
	}
	return value
}

// object takes any JSON object as it is.
func (r *reader) object(name string) json.RawMessage {
	var value map[string]json.RawMessage
	if !r.take(name, "an object", &value) {
		return nil
	}
	return bytes.Clone(r.fields[name])
}

// err is the answer to a body in which anything is wrong, or nil.
func (r *reader) err() *apiError {
	if len(r.details) == 0 {
		return nil
	}
	e := refuse(http.StatusBadRequest, "the request is not valid")
	e.details = r.details
	return e
}
