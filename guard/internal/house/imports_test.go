package house_test

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
)

// imports is what one package directory imports: path of the import → one file that does it.
type imports struct {
	code  map[string]string
	tests map[string]string
}

// readImports parses the imports of every Go file of a tree, by package directory. Build
// constraints are not looked at: an import under another operating system counts too.
//
// The go command is not asked. Its answer would come out of a child process, of which the test
// cache knows nothing, so that a test which passed once would stay green over a forbidden
// import. What is opened through package os, and os.DirFS does, the cache checks for changes.
func readImports(tree fs.FS) (map[string]imports, error) {
	found := map[string]imports{}
	err := fs.WalkDir(tree, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return skipOutside(name)
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		return readFile(tree, name, found)
	})
	return found, err
}

// skipOutside skips the directories that the go command takes for no packages.
func skipOutside(dir string) error {
	base := path.Base(dir)
	if dir != "." && (base == "testdata" || base == "vendor" || base[0] == '.' || base[0] == '_') {
		return fs.SkipDir
	}
	return nil
}

func readFile(tree fs.FS, name string, found map[string]imports) error {
	text, err := fs.ReadFile(tree, name)
	if err != nil {
		return err
	}
	file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ImportsOnly)
	if err != nil {
		return err
	}
	dir := path.Dir(name)
	if _, ok := found[dir]; !ok {
		found[dir] = imports{code: map[string]string{}, tests: map[string]string{}}
	}
	into := found[dir].code
	if strings.HasSuffix(name, "_test.go") {
		into = found[dir].tests
	}
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return fmt.Errorf("%s: import %s: %w", name, spec.Path.Value, err)
		}
		into[imported] = name
	}
	return nil
}

// checkImports says in sentences where a tree breaks the table.
func checkImports(tree fs.FS, module string, table map[string]row) ([]string, error) {
	found, err := readImports(tree)
	if err != nil {
		return nil, err
	}
	var broken []string
	for _, dir := range slices.Sorted(maps.Keys(found)) {
		r, ok := table[dir]
		if !ok {
			broken = append(broken, dir+": a package without a row in the table")
			continue
		}
		broken = append(broken, checkCode(dir, found[dir].code, module, r)...)
		broken = append(broken, checkTests(dir, found[dir].tests, module, r)...)
	}
	for _, dir := range slices.Sorted(maps.Keys(table)) {
		if _, ok := found[dir]; !ok {
			broken = append(broken, dir+": a row without a package")
		}
	}
	return broken, nil
}

func checkCode(dir string, code map[string]string, module string, r row) []string {
	var broken []string
	for _, imported := range slices.Sorted(maps.Keys(code)) {
		switch {
		case isForTests(imported) && !r.testing:
			broken = append(broken, code[imported]+" imports "+imported+", which is for tests")
		case !allowed(imported, module, dir, r.ours, r.modules):
			broken = append(broken, code[imported]+" imports "+imported+", which its row does not name")
		}
	}
	return broken
}

func checkTests(dir string, tests map[string]string, module string, r row) []string {
	var broken []string
	ours := slices.Concat(r.ours, r.tests)
	modules := slices.Concat(r.modules, r.peers, testModules())
	for _, imported := range slices.Sorted(maps.Keys(tests)) {
		if !allowed(imported, module, dir, ours, modules) {
			broken = append(broken, tests[imported]+" imports "+imported+", which its row does not name, not even for tests")
		}
	}
	if _, ok := tests[goleakModule]; !ok {
		broken = append(broken, dir+": no test imports "+goleakModule+", so nothing looks for goroutines left behind")
	}
	return broken
}

// allowed tells whether the package in dir may import a path, given the packages of ours and
// the modules of others that are open to it. Its external tests import the package itself.
func allowed(imported, module, dir string, ours, modules []string) bool {
	if inside, ok := within(imported, module); ok {
		return inside == dir || slices.Contains(ours, inside)
	}
	if first, _, _ := strings.Cut(imported, "/"); !strings.Contains(first, ".") && imported != "C" {
		return true // the standard library
	}
	return slices.ContainsFunc(modules, func(m string) bool {
		_, ok := within(imported, m)
		return ok
	})
}

// within gives the path of an imported package inside a module, "." for its root.
func within(imported, module string) (string, bool) {
	if imported == module {
		return ".", true
	}
	return strings.CutPrefix(imported, module+"/")
}

// isForTests tells whether a package of the standard library belongs into tests: it brings
// flags or the testing package into every program that imports it.
func isForTests(imported string) bool {
	return imported == "testing" || strings.HasPrefix(imported, "testing/") || imported == "net/http/httptest"
}
