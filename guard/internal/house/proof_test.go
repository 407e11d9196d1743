package house_test

import (
	"strings"
	"testing"
)

// The rules are only worth something if they can be broken. Here each is, on a small tree.

// smallTable is the table of the small trees: a hub on a floor, a spoke, a kit.
func smallTable() map[string]row {
	return map[string]row{
		"floor": {},
		"hub":   {ours: []string{"floor"}, modules: []string{"example.org/other/v2"}, tests: []string{"spoke"}},
		"spoke": {ours: []string{"hub"}},
		"kit":   {ours: []string{"hub", "spoke"}, testing: true},
	}
}

// smallTree is a tree that follows smallTable, with some files put in or replaced; a file
// without text is left out.
func smallTree(change map[string]string) map[string]string {
	leakTest := importing("go.uber.org/goleak")
	tree := map[string]string{
		"floor/floor.go":      importing("context"),
		"floor/floor_test.go": leakTest,
		"hub/hub.go":          importing("m.test/m/floor", "example.org/other/v2/part"),
		"hub/hub_test.go":     importing("m.test/m/hub", "m.test/m/spoke", "testing", "go.uber.org/goleak"),
		"spoke/spoke.go":      importing("m.test/m/hub"),
		"spoke/spoke_test.go": leakTest,
		"kit/kit.go":          importing("m.test/m/spoke", "testing"),
		"kit/kit_test.go":     leakTest,
	}
	for name, text := range change {
		tree[name] = text
		if text == "" {
			delete(tree, name)
		}
	}
	return tree
}

func importing(paths ...string) string {
	return "package p\n\nimport (\n\t\"" + strings.Join(paths, "\"\n\t\"") + "\"\n)\n"
}

// add is the change that adds one file with its imports.
func add(file string, paths ...string) map[string]string {
	return map[string]string{file: importing(paths...)}
}

func TestImportRulesCanBeBroken(t *testing.T) {
	for name, test := range map[string]struct {
		change map[string]string
		want   []string
	}{
		"nothing broken":      {nil, nil},
		"spoke imports spoke": {add("spoke/more.go", "m.test/m/kit"), []string{"spoke/more.go", "m.test/m/kit"}},
		"floor imports hub":   {add("floor/more.go", "m.test/m/hub"), []string{"floor/more.go", "m.test/m/hub"}},
		"hub imports spoke":   {add("hub/more.go", "m.test/m/spoke"), []string{"hub/more.go", "m.test/m/spoke"}},
		"a test imports more": {
			add("hub/more_test.go", "m.test/m/kit"),
			[]string{"hub/more_test.go", "m.test/m/kit"},
		},
		"the root": {add("spoke/more.go", "m.test/m"), []string{"m.test/m"}},
		"a renamed import": {
			map[string]string{"floor/more.go": "package floor\n\nimport context \"m.test/m/hub\"\n"},
			[]string{"m.test/m/hub"},
		},
		"under another operating system": {
			map[string]string{"floor/more_windows.go": "//go:build windows\n\n" + importing("m.test/m/hub")},
			[]string{"more_windows.go"},
		},
		"a strange module":        {add("floor/more.go", "example.org/other/v2"), []string{"example.org/other/v2"}},
		"another major":           {add("hub/more.go", "example.org/other/v3"), []string{"example.org/other/v3"}},
		"a longer name":           {add("hub/more.go", "example.org/other/v22"), []string{"example.org/other/v22"}},
		"cgo":                     {add("floor/more.go", "C"), []string{"imports C"}},
		"a library with testing":  {add("hub/more.go", "testing"), []string{"hub/more.go", "for tests"}},
		"a library with synctest": {add("hub/more.go", "testing/synctest"), []string{"for tests"}},
		"a library with httptest": {add("hub/more.go", "net/http/httptest"), []string{"for tests"}},
		"no row":                  {map[string]string{"new/new.go": "package fresh\n"}, []string{"new: a package without a row"}},
		"no row, tests only":      {add("new/new_test.go", "testing"), []string{"new: a package without a row"}},
		"no row, at the root":     {map[string]string{"main.go": "package main\n"}, []string{".: a package without a row"}},
		"no package": {
			map[string]string{"spoke/spoke.go": "", "spoke/spoke_test.go": ""},
			[]string{"spoke: a row without a package"},
		},
		"nothing looks for leaks":       {map[string]string{"spoke/spoke_test.go": ""}, []string{"spoke: no test imports", "goleak"}},
		"outside of all packages":       {map[string]string{"hub/testdata/x.go": "no Go", "_x/x.go": "no Go", ".x/x.go": "no Go"}, nil},
		"what is no Go file is ignored": {add("hub/hub.txt", "m.test/m/spoke"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			broken, err := checkImports(files(smallTree(test.change)), "m.test/m", smallTable())
			wantOnly(t, broken, err, test.want...)
		})
	}
}

func TestFileThatDoesNotParseIsAnError(t *testing.T) {
	if _, err := checkImports(files(smallTree(map[string]string{"hub/more.go": "no Go"})), "m.test/m", smallTable()); err == nil {
		t.Error("imports: got no error")
	}
	if _, err := checkSleeps(files(map[string]string{"x_test.go": "no Go"})); err == nil {
		t.Error("sleeps: got no error")
	}
}

func TestTopLevelRuleCanBeBroken(t *testing.T) {
	may := []string{"go.mod", "hub"}
	for name, test := range map[string]struct {
		tree map[string]string
		want []string
	}{
		"nothing broken": {map[string]string{"go.mod": "", "hub/x/y.go": ""}, nil},
		"not all there":  {map[string]string{"go.mod": ""}, nil},
		"a file":         {map[string]string{"go.mod": "", "Makefile": ""}, []string{"Makefile"}},
		"a directory":    {map[string]string{"go.mod": "", "pkg/hub/x.go": ""}, []string{"pkg"}},
	} {
		t.Run(name, func(t *testing.T) {
			broken, err := checkTopLevel(files(test.tree), may)
			wantOnly(t, broken, err, test.want...)
		})
	}
}

func TestSleepRuleCanBeBroken(t *testing.T) {
	const helper = "func wait() { time.Sleep(1) }\n"
	const test = "func TestX(t *testing.T) { time.Sleep(1) }\n"
	clock := importing("time")
	both := importing("testing", "time")
	bubble := importing("testing", "testing/synctest", "time")
	for name, test := range map[string]struct {
		tree map[string]string
		want []string
	}{
		"a test":                           {map[string]string{"a/a_test.go": both + test}, []string{"a/a_test.go:7:28"}},
		"beside a bubble":                  {map[string]string{"a/a_test.go": both + test, "a/b_test.go": bubble}, []string{"a/a_test.go:7"}},
		"handed on":                        {map[string]string{"a/a_test.go": clock + "var wait = time.Sleep\n"}, []string{"a/a_test.go:6"}},
		"a helper":                         {map[string]string{"a/a_test.go": clock + helper}, []string{"a/a_test.go:6"}},
		"a helper of bubbles elsewhere":    {map[string]string{"a/a_test.go": clock + helper, "b/b_test.go": bubble}, []string{"a/a_test.go:6"}},
		"a helper of bubbles":              {map[string]string{"a/a_test.go": clock + helper, "a/b_test.go": bubble}, nil},
		"in a bubble":                      {map[string]string{"a/a_test.go": bubble + test}, nil},
		"another clock's Sleep":            {map[string]string{"a/a_test.go": clock + "var wait = clock.Sleep\n"}, nil},
		"not in a test, where a linter is": {map[string]string{"a/a.go": clock + helper}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			broken, err := checkSleeps(files(test.tree))
			wantOnly(t, broken, err, test.want...)
		})
	}
}
