package guard_test

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"slices"
	"strings"
	"testing"
)

// The options, and whether what they change loosens a promise of safety. A new option needs a
// line here, and with it a thought.
var loosens = map[string]bool{
	"WithInterval":    false, // the stop bound is made of it
	"WithTimeout":     false, // likewise
	"WithMaxRequests": false,
	"WithObserver":    false,
	"WithLogger":      false,
	"WithRetry":       true,
	"WithReuse":       true,
}

// An option that loosens something says in its first sentence what it gives up, and every option
// ends with its default.
func TestS9_EachOptionThatLoosensSaysSoFirst(t *testing.T) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "option.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	p, err := doc.NewFromFiles(fset, []*ast.File{file}, "github.com/execguard/execguard/guard")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, typ := range p.Types {
		for _, f := range typ.Funcs {
			found = append(found, f.Name)
			gives, known := loosens[f.Name]
			if first := p.Synopsis(f.Doc); !known || gives != strings.Contains(first, "gives up") {
				t.Errorf("%s: loosens %t, listed %t, and begins: %s", f.Name, gives, known, first)
			}
			sentences := strings.Split(strings.TrimSpace(strings.ReplaceAll(f.Doc, "\n", " ")), ". ")
			if last := sentences[len(sentences)-1]; !strings.HasPrefix(last, "The default is") {
				t.Errorf("%s ends with: %s", f.Name, last)
			}
		}
	}
	slices.Sort(found)
	if len(found) != len(loosens) {
		t.Errorf("option.go has the options %v", found)
	}
}
