package clerkserver

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// null is JSON's word for nothing.
const null = "null"

// form is what a request asks for, by its body or its query, and how what is wrong with it is
// refused: the calls of machines answer 422 and those of tokens 400.
type form struct {
	members map[string]json.RawMessage
	refuse  func(param, code, why string) *problem
}

// only refuses members that the call does not have.
func (f form) only(names ...string) *problem {
	for _, name := range slices.Sorted(maps.Keys(f.members)) {
		if !slices.Contains(names, name) {
			return f.refuse(name, "form_param_unknown", "is not a parameter of this call")
		}
	}
	return nil
}

// required refuses a body that lacks a member.
func (f form) required(name string) *problem {
	if _, ok := f.members[name]; !ok {
		return f.refuse(name, "form_param_missing", "must be included")
	}
	return nil
}

// text reads a string, "" where there is none.
func (f form) text(name string) (string, *problem) {
	raw, ok := f.members[name]
	if !ok {
		return "", nil
	}
	var value *string
	if json.Unmarshal(raw, &value) != nil || value == nil {
		return "", f.refuse(name, "form_param_format_invalid", "must be a string")
	}
	return *value, nil
}

// name reads the name of a machine, fallback where there is none.
func (f form) name(fallback string) (string, *problem) {
	if _, ok := f.members["name"]; !ok {
		return fallback, nil
	}
	name, p := f.text("name")
	switch {
	case p != nil:
		return "", p
	case name == "":
		return "", f.refuse("name", "form_param_nil", "must not be empty")
	case utf8.RuneCountInString(name) > maxName:
		return "", f.refuse("name", "form_param_max_length_exceeded", "must have at most 255 characters")
	}
	return name, nil
}

// integer reads a whole number between two bounds, fallback where there is none.
func (f form) integer(name string, low, high, fallback int64) (int64, *problem) {
	raw, ok := f.members[name]
	if !ok {
		return fallback, nil
	}
	value, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil {
		return 0, f.refuse(name, "form_param_format_invalid", "must be an integer")
	}
	if value < low || value > high {
		why := "must be from " + strconv.FormatInt(low, 10) + " to " + strconv.FormatInt(high, 10)
		return 0, f.refuse(name, "form_param_value_invalid", why)
	}
	return value, nil
}

// ids reads an array of strings, nil where there is none.
func (f form) ids(name string) ([]string, *problem) {
	raw, ok := f.members[name]
	if !ok {
		return nil, nil
	}
	var values []*string
	err := json.Unmarshal(raw, &values)
	if err != nil || values == nil || slices.Contains(values, nil) {
		return nil, f.refuse(name, "form_param_format_invalid", "must be an array of strings")
	}
	var ids []string
	for _, v := range values {
		ids = append(ids, *v)
	}
	return ids, nil
}

// flag reads true or false, which a query holds as they stand in JSON; false where there is none.
func (f form) flag(name string) (bool, *problem) {
	switch raw, ok := f.members[name]; {
	case !ok || string(raw) == "false":
		return false, nil
	case string(raw) == "true":
		return true, nil
	default:
		return false, f.refuse(name, "form_param_format_invalid", "must be true or false")
	}
}

// lifetime reads a positive number of seconds, with parts of one, or null, which is for ever.
// Where there is none it is fallback. What no Duration can hold is for ever too: it is some 292
// years.
func (f form) lifetime(name string, fallback time.Duration) (d time.Duration, endless bool, p *problem) {
	raw, ok := f.members[name]
	if !ok {
		return fallback, false, nil
	}
	if string(raw) == null {
		return 0, true, nil
	}
	var seconds float64
	if json.Unmarshal(raw, &seconds) != nil || seconds <= 0 {
		return 0, false, f.refuse(name, "form_param_value_invalid", "must be a number above 0, or null")
	}
	if seconds >= math.MaxInt64/float64(time.Second) {
		return 0, true, nil
	}
	return time.Duration(seconds * float64(time.Second)), false, nil
}
