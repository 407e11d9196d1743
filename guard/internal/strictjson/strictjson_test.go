package strictjson_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/execguard/execguard/guard/internal/strictjson"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func parse(t *testing.T, text string, names ...string) strictjson.Object {
	t.Helper()
	o, err := strictjson.Parse([]byte(text), names...)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return o
}

func TestParseAccepts(t *testing.T) {
	for _, text := range []string{
		`{}`, " \t\r\n{ \t\r\n} \t\r\n", `{"a":1}`, `{"":0}`, `{"a":{},"b":{}}`, `{"a":[],"A":[ ]}`,
		`{"a":{"x":1},"b":{"x":1},"c":[{"x":1},{"x":1}]}`,
		`{"a":-0.5e+3,"b":true,"c":false,"d":null,"e":"\"\\\/\b\f\n\r\t\u00e9","f":"}{][,:"}`,
		`{"a" : [ 1 , "2" , [ ] , { } , null ] , "b" : 1 }`,
		`{"` + strings.Repeat("long", 1000) + `":1}`,
		`{"é":1,"è":2,"\u00ea":3}`,
		nested(31),
	} {
		parse(t, text)
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		``:                                "not one JSON value",
		` `:                               "not one JSON value",
		`{`:                               "not one JSON value",
		`{"a"}`:                           "not one JSON value",
		`{"a":1,}`:                        "not one JSON value",
		`{a:1}`:                           "not one JSON value",
		`{'a':1}`:                         "not one JSON value",
		`{"a":01}`:                        "not one JSON value",
		`{"a":+1}`:                        "not one JSON value",
		`{"a":NaN}`:                       "not one JSON value",
		`{"a":True}`:                      "not one JSON value",
		"{\"a\":\"\n\"}":                  "not one JSON value",
		`{"a":"\x"}`:                      "not one JSON value",
		`{"a":1}//`:                       "not one JSON value",
		`{"a":1}{"a":1}`:                  "not one JSON value",
		`{"a":1} 1`:                       "not one JSON value",
		"\uFEFF{}":                        "not one JSON value",
		"{}\x00":                          "not one JSON value",
		`[]`:                              "not a JSON object",
		`[{"a":1}]`:                       "not a JSON object",
		` 1`:                              "not a JSON object",
		`"{}"`:                            "not a JSON object",
		`null`:                            "not a JSON object",
		`true`:                            "not a JSON object",
		"{\"a\":\"\xff\"}":                "not valid UTF-8",
		"{\"\xc3\":1}":                    "not valid UTF-8",
		"{}\xff":                          "not valid UTF-8",
		`{"a":1,"a":1}`:                   "a name twice",
		`{"a":1,"b":2,"a":3}`:             "a name twice",
		`{"a":1,"\u0061":2}`:              "a name twice",
		`{"":1,"":2}`:                     "a name twice",
		`{"a":{"b":1,"b":1}}`:             "a name twice",
		`{"a":[[{"b":1,"b":1}]]}`:         "a name twice",
		`{"a":[0,{"b":[{"c":0,"c":0}]}]}`: "a name twice",
		`{"\ud800":1,"\udfff":2}`:         "a name twice",
		members(17) + `,"n3":0}`:          "a name twice",
		members(2000) + `,"n0":0}`:        "a name twice",
		`{"Known":1}`:                     "a name in another case",
		`{"known":1,"KNOWN":2}`:           "a name in another case",
		`{"\u212Anown":1}`:                "a name in another case",
		`{"rea` + "\u017f" + `on":1}`:     "a name in another case",
		nested(32):                        "nested too deeply",
		`{"a":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `}`: "nested too deeply",
		nested(20_000): "not one JSON value",
	} {
		_, err := strictjson.Parse([]byte(text), "known", "reason", "a")
		if err == nil || err.Error() != want {
			t.Errorf("%.60q: %v, want %s", text, err, want)
		}
	}
}

// nested is an object with n objects in one another inside.
func nested(n int) string {
	return strings.Repeat(`{"a":`, n) + "{}" + strings.Repeat("}", n)
}

// members is an object of n members without its last brace.
func members(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(`,"n` + strconv.Itoa(i) + `":0`)
	}
	return "{" + b.String()[1:]
}

// What an error says must not hold what the document says.
func TestErrorsQuoteNothing(t *testing.T) {
	for _, text := range []string{`{"token":1,"token":2}`, `token`, `{"Token":1}`, `{"token":"\q"}`, "{\"token\":\"\xff\"}", `["token"]`} {
		if _, err := strictjson.Parse([]byte(text), "token"); err == nil || strings.Contains(strings.ToLower(err.Error()), "token") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestValues(t *testing.T) {
	o := parse(t, ` { "text" : "a\u00e9\n" , "empty":"", "yes":true, "no" : false , "null":null, "int":42, "minus":-7,
		"real":1.5, "huge":123456789012345678901234567890, "array":[1], "object":{"text":"below"}, "n\u0061me":"x" } `)
	for name, want := range map[string]struct {
		text           string
		isText         bool
		truth, isTruth bool
		number         int
		isNumber       bool
		raw            string
	}{
		"text":   {text: "aé\n", isText: true, raw: `"a\u00e9\n"`},
		"empty":  {isText: true, raw: `""`},
		"yes":    {truth: true, isTruth: true, raw: "true"},
		"no":     {isTruth: true, raw: "false"},
		"null":   {raw: "null"},
		"int":    {number: 42, isNumber: true, raw: "42"},
		"minus":  {number: -7, isNumber: true, raw: "-7"},
		"real":   {raw: "1.5"},
		"huge":   {raw: "123456789012345678901234567890"},
		"array":  {raw: "[1]"},
		"object": {raw: `{"text":"below"}`},
		"name":   {text: "x", isText: true, raw: `"x"`},
		"none":   {},
		"Text":   {},
		"":       {},
	} {
		text, isText := o.Text(name)
		truth, isTruth := o.Bool(name)
		number, isNumber := o.Int(name)
		if string(text) != want.text || isText != want.isText {
			t.Errorf("%s: text %q %v", name, text, isText)
		}
		if truth != want.truth || isTruth != want.isTruth {
			t.Errorf("%s: bool %v %v", name, truth, isTruth)
		}
		if number != want.number || isNumber != want.isNumber {
			t.Errorf("%s: int %v %v", name, number, isNumber)
		}
		if raw := o.Raw(name); string(raw) != want.raw {
			t.Errorf("%s: raw %s", name, raw)
		}
	}
	var zero strictjson.Object
	if text, ok := zero.Text("text"); ok || text != nil || zero.Raw("text") != nil {
		t.Error("the zero object has members")
	}
}

func TestTexts(t *testing.T) {
	o := parse(t, `{"some":["a" , "\u0062"],"none":[ ],"mixed":["a",1],"nested":[["a"]],"text":"a","null":null}`)
	for name, want := range map[string][]string{"some": {"a", "b"}, "none": {}} {
		if got, ok := o.Texts(name); !ok || !cmp.Equal(want, got) {
			t.Errorf("%s: %q %v", name, got, ok)
		}
	}
	for _, name := range []string{"mixed", "nested", "text", "null", "missing"} {
		if got, ok := o.Texts(name); ok || got != nil {
			t.Errorf("%s: %q %v", name, got, ok)
		}
	}
}

func TestObjects(t *testing.T) {
	o := parse(t, `{"some":[ {"id":"a","x":{"id":"z"}} , {"id":"b"},{}],"none":[],"mixed":[{},1],"cased":[{"ID":"a"}],"object":{}}`)
	some, ok := o.Objects("some", "id")
	var got []string
	for _, one := range some {
		id, _ := one.Text("id")
		got = append(got, string(id))
	}
	if want := []string{"a", "b", ""}; !ok || !cmp.Equal(want, got) {
		t.Errorf("%q %v", got, ok)
	}
	if none, ok := o.Objects("none"); !ok || len(none) != 0 {
		t.Errorf("none: %v %v", none, ok)
	}
	for _, name := range []string{"mixed", "cased", "object", "missing"} {
		if got, ok := o.Objects(name, "id"); ok || got != nil {
			t.Errorf("%s: %v %v", name, got, ok)
		}
	}
}

// A megabyte of names does not take the time of a trillion comparisons.
func TestManyNames(t *testing.T) {
	text := members(100_000) + "}"
	start := time.Now()
	parse(t, `{"below":`+text+`}`)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}

// FuzzParse holds Parse to encoding/json: no document that encoding/json refuses is taken, none
// is refused without one of the reasons for being stricter, and values are the same.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		`{}`, `{"a":1}`, `{"a":1,"a":2}`, `{"a":1,"A":2}`, `[{"a":"b"}]`, `{"a":[{"b":[{}]}]}`, `{"\u0061":"\ud83d\ude00","b":"\ud800"}`,
		`{"a":"\\","b":"\"","c":"}"}`, " {\"a\" :\t[ 1,-2.5e3 , true,null ] }\n", nested(30), `{"a":1}{}`, "{\"a\":\"\xff\"}",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := strictjson.Parse(data)
		var want map[string]json.RawMessage
		wrong := json.Unmarshal(data, &want)
		if twice, deep := walk(data); err != nil {
			if wrong == nil && want != nil && utf8.Valid(data) && !twice && !deep {
				t.Fatalf("%q: refused: %v", data, err)
			}
			return
		} else if wrong != nil || want == nil || twice || deep || !utf8.Valid(data) {
			t.Fatalf("%q: taken; json: %v, twice %v, deep %v", data, wrong, twice, deep)
		}
		for name, value := range want {
			if raw := o.Raw(name); !bytes.Equal(raw, bytes.TrimSpace(value)) {
				t.Errorf("%q: %q is %q, want %q", data, name, raw, value)
			}
			var text string
			isText := len(value) > 0 && value[0] == '"' && json.Unmarshal(value, &text) == nil
			if got, ok := o.Text(name); ok != isText || string(got) != text {
				t.Errorf("%q: %q reads %q, want %q", data, name, got, text)
			}
		}
	})
}

// walk finds a name given twice and nesting beyond 32 levels, by tokens.
func walk(data []byte) (twice, deep bool) {
	type level struct {
		names  map[string]bool // nil in an array
		isName bool            // a name comes next
	}
	var open []level
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) || err != nil {
			return twice, deep
		}
		if delim, ok := token.(json.Delim); ok && (delim == '}' || delim == ']') {
			open = open[:len(open)-1]
			continue
		}
		if len(open) > 0 {
			top := &open[len(open)-1]
			if name, ok := token.(string); ok && top.isName {
				twice = twice || top.names[name]
				top.names[name], top.isName = true, false
				continue
			}
			top.isName = top.names != nil
		}
		switch token {
		case json.Delim('{'):
			open = append(open, level{names: map[string]bool{}, isName: true})
		case json.Delim('['):
			open = append(open, level{})
		}
		deep = deep || len(open) > 32
	}
}

func BenchmarkParse(b *testing.B) {
	data := []byte(`{"allowed":true,"code":"ALLOW","request_id":"fbf77ff5-06ed-42eb-8e07-024c32ef1e68","deviceId":"agent-01"}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := strictjson.Parse(data, "allowed", "code", "request_id", "deviceId"); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzElements holds arrays to encoding/json in the same way.
func FuzzElements(f *testing.F) {
	for _, text := range []string{
		`[]`, `["a","\u0062"]`, `[{"id":"a"},{"id":"b","x":[{}]}]`, `["a",1]`, `[{},"a"]`, `null`, `"a"`, `{"id":1}`, ` [ "," , "]" ] `,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, array []byte) {
		o, err := strictjson.Parse([]byte(`{"x":` + string(array) + `}`))
		if err != nil || !json.Valid(array) { // the latter: array has closed the object itself
			return
		}
		var texts []*string // a nil element is null, which is no text
		isTexts := json.Unmarshal(array, &texts) == nil && texts != nil
		for _, one := range texts {
			isTexts = isTexts && one != nil
		}
		got, ok := o.Texts("x")
		if ok != isTexts || ok && len(got) != len(texts) {
			t.Fatalf("%q: texts %q %v, want %v", array, got, ok, isTexts)
		}
		for i := range got {
			if got[i] != *texts[i] {
				t.Errorf("%q: text %d is %q, want %q", array, i, got[i], *texts[i])
			}
		}
		var objects []map[string]json.RawMessage
		isObjects := json.Unmarshal(array, &objects) == nil && objects != nil
		for _, one := range objects {
			isObjects = isObjects && one != nil
		}
		elements, ok := o.Objects("x")
		if ok != isObjects || ok && len(elements) != len(objects) {
			t.Fatalf("%q: objects %v, want %v", array, ok, isObjects)
		}
		for i, element := range elements {
			for name, value := range objects[i] {
				if raw := element.Raw(name); !bytes.Equal(raw, bytes.TrimSpace(value)) {
					t.Errorf("%q: object %d: %q is %q, want %q", array, i, name, raw, value)
				}
			}
		}
	})
}

// What is read is the reader's own: a later Parse of the same bytes, or many at once, see the same.
func TestReadingChangesNothing(t *testing.T) {
	data := []byte(`{"a":"\u0061","b":[{"c":"\n"}],"d":["\t"]}`)
	before := bytes.Clone(data)
	o := parse(t, string(data))
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if text, ok := o.Text("a"); !ok || string(text) != "a" {
				t.Errorf("%q %v", text, ok)
			}
			if texts, ok := o.Texts("d"); !ok || texts[0] != "\t" {
				t.Errorf("%q %v", texts, ok)
			}
			if objects, ok := o.Objects("b"); !ok || len(objects) != 1 {
				t.Errorf("%v %v", objects, ok)
			}
			if _, err := strictjson.Parse(data); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if !bytes.Equal(before, data) {
		t.Errorf("%q became %q", before, data)
	}
}
