package house_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// testFile is what the rule about sleeping needs to know of one.
type testFile struct {
	sleeps  string // where, or ""
	bubbles bool   // imports testing/synctest
	tests   bool   // has tests of its own, and not only what other files' tests use
}

// checkSleeps names the tests that sleep. Under testing/synctest a sleep is a step of the fake
// clock; everywhere else it makes a test slow, or flaky, or both. So a file of tests has to
// import synctest to sleep, and of a file of helpers some file of its package has to.
func checkSleeps(tree fs.FS) ([]string, error) {
	packages := map[string][]testFile{}
	err := fs.WalkDir(tree, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return skipOutside(name)
		}
		if !strings.HasSuffix(name, "_test.go") {
			return nil
		}
		file, err := readTestFile(tree, name)
		packages[path.Dir(name)] = append(packages[path.Dir(name)], file)
		return err
	})
	var broken []string
	for _, all := range packages {
		somewhere := slices.ContainsFunc(all, func(f testFile) bool { return f.bubbles })
		for _, f := range all {
			if f.sleeps != "" && !f.bubbles && (f.tests || !somewhere) {
				broken = append(broken, f.sleeps+": sleeps in real time")
			}
		}
	}
	return broken, err
}

func readTestFile(tree fs.FS, name string) (testFile, error) {
	text, err := fs.ReadFile(tree, name)
	if err != nil {
		return testFile{}, err
	}
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, name, text, parser.SkipObjectResolution)
	if err != nil {
		return testFile{}, err
	}
	read := testFile{bubbles: slices.ContainsFunc(file.Imports, func(spec *ast.ImportSpec) bool {
		return spec.Path.Value == `"testing/synctest"`
	})}
	for node := range ast.Preorder(file) {
		switch node := node.(type) {
		case *ast.FuncDecl:
			read.tests = read.tests || node.Recv == nil && isTest(node.Name.Name)
		case *ast.SelectorExpr:
			if of, ok := node.X.(*ast.Ident); ok && of.Name == "time" && node.Sel.Name == "Sleep" && read.sleeps == "" {
				read.sleeps = set.Position(node.Pos()).String()
			}
		}
	}
	return read, nil
}

func isTest(function string) bool {
	return slices.ContainsFunc([]string{"Test", "Fuzz", "Example", "Benchmark"}, func(prefix string) bool {
		return strings.HasPrefix(function, prefix)
	})
}
