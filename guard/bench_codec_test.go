package guard_test

import (
	"bytes"
	"encoding/json"
	"strconv"
	"testing"
)

// writeQuestion writes what json.Marshal makes of a question about an id that needs no escapes.
func writeQuestion(out *bytes.Buffer, deviceID string) {
	out.WriteString(`{"deviceId":"`)
	out.WriteString(deviceID)
	out.WriteString(`","action":"execute","runId":"run-000001"}`)
}

// readAnswer reads an answer, and leaves one that is less plain than the authority's own to
// encoding/json.
func readAnswer(text []byte) (answer, error) {
	if a, ok := readPlainAnswer(text); ok {
		return a, nil
	}
	var a answer
	err := json.Unmarshal(text, &a)
	return a, err
}

func readPlainAnswer(text []byte) (a answer, ok bool) {
	rest, more := bytes.CutPrefix(text, []byte("{"))
	for more {
		key, value, after, ok := cutMember(rest)
		if !ok || !a.set(key, value) {
			return answer{}, false
		}
		more, rest = after[0] == ',', after[1:]
	}
	return a, a.Decision != "" && len(rest) == 0
}

// set takes one member of the object.
func (a *answer) set(key, value []byte) bool {
	var err error
	switch string(key) {
	case "decision":
		a.Decision = familiar(value)
	case "reason":
		a.Reason = familiar(value)
	case "requestId":
		a.RequestID = string(value)
	case "leaseMs":
		a.LeaseMS, err = strconv.Atoi(string(value))
	case "epoch":
		a.Epoch, err = strconv.Atoi(string(value))
	default:
		return false
	}
	return err == nil
}

// familiar is text as a string, without an allocation where it is what mostly comes.
func familiar(text []byte) string {
	switch string(text) {
	case "ALLOW":
		return "ALLOW"
	case "active":
		return "active"
	default:
		return string(text)
	}
}

// cutMember cuts the first member off the rest of an object, which begins with what ends it, a
// comma or a brace. It knows no spaces and no escapes.
func cutMember(text []byte) (key, value, rest []byte, ok bool) {
	text, opened := bytes.CutPrefix(text, []byte(`"`))
	key, text, named := bytes.Cut(text, []byte(`":`))
	if !opened || !named {
		return nil, nil, nil, false
	}
	if inside, quoted := bytes.CutPrefix(text, []byte(`"`)); quoted {
		value, rest, ok = bytes.Cut(inside, []byte(`"`))
		ok = ok && bytes.IndexByte(value, '\\') < 0
	} else if end := bytes.IndexAny(text, ",}"); end >= 0 {
		value, rest, ok = text[:end], text[end:], true
	}
	return key, value, rest, ok && len(rest) > 0 && (rest[0] == ',' || rest[0] == '}')
}

// The codec by hand that the benchmarks measure with does what encoding/json does.
func TestBenchCodec(t *testing.T) {
	var out bytes.Buffer
	writeQuestion(&out, "dev:01")
	q := question{}
	if err := json.Unmarshal(out.Bytes(), &q); err != nil || q != (question{"dev:01", "execute", "run-000001"}) {
		t.Errorf("%s is read as %+v, %v", out.Bytes(), q, err)
	}
	allow, err := json.Marshal(allowAnswer)
	if err != nil {
		t.Fatal(err)
	}
	if a, ok := readPlainAnswer(allow); a != allowAnswer || !ok {
		t.Errorf("%s is read by hand as %+v, %v", allow, a, ok)
	}
	for _, text := range []string{
		``, `{}`, `{`, `[]`, `{"decision":"ALLOW"`, `{"decision":"ALLOW"} `, `{"decision":"ALLOW"}{}`, `{"decision":"AL\u004cOW"}`,
		`{ "decision" : "ALLOW" }`, `{"decision":"ALLOW",}`, `{"decision":"ALLOW"]`, `{"leaseMs":1,"decision":"DENY"}`,
		`{"leaseMs":x,"decision":"ALLOW"}`, `{"decision":"ALLOW","epoch":`, `{"decision":"ALLOW","other":1}`,
	} {
		var want answer
		wantErr := json.Unmarshal([]byte(text), &want)
		if a, err := readAnswer([]byte(text)); (err == nil) != (wantErr == nil) || err == nil && a != want {
			t.Errorf("%s is read as %+v, %v, want %+v, %v", text, a, err, want, wantErr)
		}
	}
}
