package strictjson

import (
	"bytes"
	"errors"
	"strings"
)

// walker walks over a document that encoding/json has called valid, and looks only for what
// encoding/json lets pass. That it is valid is why no step here checks for the end of the data.
type walker struct {
	data []byte
	pos  int
}

// object reads the object that begins at pos, which stands at the given level, and leaves pos
// behind it.
func (w *walker) object(level int) ([]member, error) {
	if level > maxDepth {
		return nil, errors.New("nested too deeply")
	}
	members := make([]member, 0, 8) // a decision has about five
	w.pos++
	for w.more('}') {
		name := unquote(w.text())
		w.space()
		w.pos++ // the colon
		w.space()
		start := w.pos
		if err := w.value(level + 1); err != nil {
			return nil, err
		}
		members = append(members, member{name: name, value: w.data[start:w.pos]})
	}
	return members, unique(members)
}

// value passes over the value that begins at pos.
func (w *walker) value(level int) error {
	switch w.data[w.pos] {
	case '{':
		_, err := w.object(level)
		return err
	case '[':
		return w.array(level)
	case '"':
		w.text()
	default:
		for w.pos < len(w.data) && strings.IndexByte(",]} \t\r\n", w.data[w.pos]) < 0 {
			w.pos++
		}
	}
	return nil
}

// array passes over the array that begins at pos.
func (w *walker) array(level int) error {
	if level > maxDepth {
		return errors.New("nested too deeply")
	}
	w.pos++
	for w.more(']') {
		if err := w.value(level + 1); err != nil {
			return err
		}
	}
	return nil
}

// more goes on to the next element, or behind the end, when it returns false.
func (w *walker) more(end byte) bool {
	w.space()
	if w.data[w.pos] == ',' {
		w.pos++
		w.space()
	}
	if w.data[w.pos] == end {
		w.pos++
		return false
	}
	return true
}

// text passes over the string that begins at pos and returns it with its quotes.
func (w *walker) text() []byte {
	start := w.pos
	for w.pos++; w.data[w.pos] != '"'; w.pos++ {
		if w.data[w.pos] == '\\' {
			w.pos++
		}
	}
	w.pos++
	return w.data[start:w.pos]
}

func (w *walker) space() {
	for strings.IndexByte(" \t\r\n", w.data[w.pos]) >= 0 {
		w.pos++
	}
}

// unique returns an error where two members bear one name. Small objects are compared pair by
// pair; in large ones that would let a megabyte of names cost minutes.
func unique(members []member) error {
	if len(members) > 16 {
		return uniqueOfMany(members)
	}
	for i, m := range members {
		for _, earlier := range members[:i] {
			if bytes.Equal(earlier.name, m.name) {
				return errors.New("a name twice")
			}
		}
	}
	return nil
}

func uniqueOfMany(members []member) error {
	seen := make(map[string]struct{}, len(members))
	for _, m := range members {
		if _, twice := seen[string(m.name)]; twice {
			return errors.New("a name twice")
		}
		seen[string(m.name)] = struct{}{}
	}
	return nil
}
