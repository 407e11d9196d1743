package house_test

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
)

// Go code begins by this line of the README: a reader decides within a screen.
const firstCodeBy = 15

// commands are what the README tells a newcomer to type.
func commands() []string { return []string{"go run ./examples/quickstart", "go test ./..."} }

func TestReadmeShowsCodeThatCompiles(t *testing.T) {
	tree, _ := repository(t)
	broken, err := checkReadme(tree, "README.md")
	report(t, broken, err)
}

func TestLinksLeadSomewhere(t *testing.T) {
	tree, _ := repository(t)
	for _, name := range append(pages(), troubles, "README.md", "CHANGELOG.md", ".github/CONTRIBUTING.md", ".github/SECURITY.md") {
		broken, err := checkLinks(tree, name)
		report(t, broken, err)
	}
}

// checkReadme says what is wrong with the code that a README shows.
func checkReadme(tree fs.FS, name string) ([]string, error) {
	text, err := fs.ReadFile(tree, name)
	if err != nil {
		return nil, err
	}
	var broken []string
	blocks, _ := split(string(text))
	first := slices.IndexFunc(blocks, func(b block) bool { return b.language == "go" })
	if first < 0 || blocks[first].line > firstCodeBy {
		broken = append(broken, fmt.Sprintf("%s: no Go code by line %d", name, firstCodeBy))
	}
	for _, command := range commands() {
		if !slices.ContainsFunc(blocks, func(b block) bool { return b.language == "sh" && slices.Contains(b.text, command) }) {
			broken = append(broken, name+": no shell block has the line "+command)
		}
	}
	for _, b := range blocks {
		if why := checkBlock(tree, b); why != "" {
			broken = append(broken, fmt.Sprintf("%s:%d: %s", name, b.line, why))
		}
	}
	return broken, nil
}

// checkBlock says why a Go block is not cut from a file of the tree, or "".
func checkBlock(tree fs.FS, b block) string {
	if b.language != "go" {
		return ""
	}
	if b.mark == "" {
		return "Go code without <!-- path/of/file.go --> on the line above"
	}
	source, err := fs.ReadFile(tree, b.mark)
	if err != nil {
		return err.Error()
	}
	if !holds(plain(strings.Split(string(source), "\n")), plain(b.text)) {
		return "this code does not stand in " + b.mark
	}
	return ""
}

// plain takes the indentation off each line and makes one space of several, since code that is
// cut from a function stands further left, and gofmt lines up comments by their surroundings.
func plain(lines []string) []string {
	var out []string
	for _, line := range lines {
		out = append(out, strings.Join(strings.Fields(line), " "))
	}
	return out
}

// holds tells whether part stands in whole, line after line. An empty part stands nowhere.
func holds(whole, part []string) bool {
	for i := range whole {
		if len(part) > 0 && i+len(part) <= len(whole) && slices.Equal(whole[i:i+len(part)], part) {
			return true
		}
	}
	return false
}

const (
	smallCode = "package main\n\nfunc main() {\n\tif a {\n\t\tb() // why\n\t\tc()\n\t}\n}\n"
	goodBlock = "<!-- x/main.go -->\n```go\nif a {\n\tb()   // why\n\tc()\n}\n```\n"
	goodTail  = "\n```sh\ngo run ./examples/quickstart\ngo test ./...\n```\n"
)

func swap(text, old, with string) string { return strings.Replace(text, old, with, 1) }

func TestReadmeRulesCanBeBroken(t *testing.T) {
	for name, test := range map[string]struct {
		readme string
		want   []string
	}{
		"nothing broken":           {"# X\n\n" + goodBlock + goodTail, nil},
		"late code":                {strings.Repeat("\n", 13) + goodBlock + goodTail, []string{"no Go code by line 15"}},
		"code in time":             {strings.Repeat("\n", 12) + goodBlock + goodTail, nil},
		"no code":                  {goodTail, []string{"no Go code by line 15"}},
		"no mark":                  {goodBlock + "\n```go\nb() // why\n```\n" + goodTail, []string{"README.md:10", "without <!--"}},
		"mark not right above":     {"<!-- x/main.go -->\n\n```go\nc()\n```\n" + goodTail, []string{"README.md:4", "without <!--"}},
		"no such file":             {goodBlock + "<!-- y/main.go -->\n```go\nc()\n```\n" + goodTail, []string{"y/main.go"}},
		"other code":               {swap(goodBlock, "c()", "d()") + goodTail, []string{"README.md:3", "stand in x/main.go"}},
		"a line left out":          {swap(goodBlock, "\tb()   // why\n", "") + goodTail, []string{"does not stand in x/main.go"}},
		"half a line":              {swap(goodBlock, "   // why", "") + goodTail, []string{"does not stand in x/main.go"}},
		"an empty block":           {goodBlock + "<!-- x/main.go -->\n```go\n```\n" + goodTail, []string{"stand in x/main.go"}},
		"no command to run":        {goodBlock + swap(goodTail, "go run", "go build"), []string{"go run ./examples/quickstart"}},
		"no command to test":       {goodBlock + swap(goodTail, "go test ./...", "go test ."), []string{"go test ./..."}},
		"other languages are free": {goodBlock + "\n```text\ninterval + timeout\n```\n" + goodTail, nil},
	} {
		t.Run(name, func(t *testing.T) {
			tree := files(map[string]string{"README.md": test.readme, "x/main.go": smallCode})
			broken, err := checkReadme(tree, "README.md")
			wantOnly(t, broken, err, test.want...)
		})
	}
}

func TestLinkRuleCanBeBroken(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		want []string
	}{
		"nothing broken":        {"[a](doc/B.md) [b](doc) [c](doc/B.md#what-it-isnt) [d](#top) <img src=\"doc/p.svg\">\n# Top\n", nil},
		"out of the repository": {"[a](https://example.org/none) [b](mailto:a@example.org)", nil},
		"no file":               {"[a](doc/C.md)", []string{"doc/C.md", "no such file"}},
		"no picture":            {"<img src=\"doc/q.svg\">", []string{"doc/q.svg", "no such file"}},
		"no heading":            {"[a](doc/B.md#what-it-is)", []string{"no such heading"}},
		"no heading here":       {"[a](#top)\n", []string{"no such heading"}},
		"a heading in code":     {"[a](#top)\n\n```sh\n# Top\n```\n", []string{"no such heading"}},
		"not a link but code":   {"```go\nx := y[0](none)\n```\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			tree := files(map[string]string{"A.md": test.text, "doc/B.md": "## What it *isn't*\n", "doc/p.svg": ""})
			broken, err := checkLinks(tree, "A.md")
			wantOnly(t, broken, err, test.want...)
		})
	}
}
