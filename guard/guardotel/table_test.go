package guardotel_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/execguard/execguard/guard"
)

// A code that is added to the guard's has to be a label here: everyCode, by which the other tests go, has them all.
func TestEveryCodeIsALabel(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../code.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	ast.Inspect(file, func(n ast.Node) bool {
		if of, ok := n.(*ast.ValueSpec); ok {
			text, err := strconv.Unquote(of.Values[0].(*ast.BasicLit).Value)
			if found++; err != nil || text != "ALLOW" && !slices.Contains(everyCode, guard.Code(text)) {
				t.Errorf("%s is not in everyCode (%v)", of.Names[0], err)
			}
		}
		return true
	})
	if found != len(everyCode) {
		t.Errorf("%d codes in guard/code.go, %d here", found, len(everyCode))
	}
}

// The code needs OpenTelemetry's API, which does nothing by itself, and not the SDK, which is the program's own choice.
func TestTheCodeImportsTheAPIOnly(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	looked := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		looked++
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range file.Imports {
			path, err := strconv.Unquote(spec.Path.Value)
			inside, of := strings.CutPrefix(path, "go.opentelemetry.io/otel")
			if err != nil || of && !slices.Contains([]string{"", "/attribute", "/codes", "/metric", "/trace", "/trace/noop"}, inside) {
				t.Errorf("%s imports %s", name, path)
			}
		}
	}
	if looked < 6 {
		t.Errorf("looked at %d files", looked)
	}
}
