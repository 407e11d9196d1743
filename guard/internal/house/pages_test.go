package house_test

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"
	"testing"
)

// pages are the Markdown files besides the README that show code of ours.
func pages() []string {
	return []string{"guard/FROM_LEADER_ELECTION.md", "guard/machineid/FROM_PYTHON.md"}
}

// troubles is the page whose tables say what an error text means.
const troubles = "guard/TROUBLESHOOTING.md"

func TestPagesShowCodeThatCompiles(t *testing.T) {
	tree, _ := repository(t)
	for _, name := range pages() {
		broken, err := checkPage(tree, name)
		report(t, broken, err)
	}
}

func TestTroubleshootingQuotesTheCode(t *testing.T) {
	tree, _ := repository(t)
	broken, err := checkQuotes(tree, troubles)
	report(t, broken, err)
}

// checkPage says what is wrong with the code that a page shows.
func checkPage(tree fs.FS, name string) ([]string, error) {
	text, err := fs.ReadFile(tree, name)
	if err != nil {
		return nil, err
	}
	var broken []string
	shown := false
	blocks, _ := split(string(text))
	for _, b := range blocks {
		shown = shown || b.language == "go"
		if why := checkBlock(tree, b); why != "" {
			broken = append(broken, fmt.Sprintf("%s:%d: %s", name, b.line, why))
		}
	}
	if !shown {
		broken = append(broken, name+": no Go code")
	}
	return broken, nil
}

// checkQuotes says which texts in the first column of a page's tables stand nowhere in the repository's Go files: what
// a program says no more nobody can look up. «…» stands for what differs.
func checkQuotes(tree fs.FS, name string) ([]string, error) {
	text, err := fs.ReadFile(tree, name)
	if err != nil {
		return nil, err
	}
	code, err := allCode(tree)
	if err != nil {
		return nil, err
	}
	quote := regexp.MustCompile("`([^`]+)`")
	var broken []string
	rows := 0
	for i, line := range strings.Split(string(text), "\n") {
		first, _, row := strings.Cut(strings.TrimPrefix(line, "| "), " |")
		if !row || !strings.HasPrefix(line, "| ") || first == "what you see" {
			continue
		}
		rows++
		for _, match := range quote.FindAllStringSubmatch(first, -1) {
			for part := range strings.SplitSeq(match[1], "…") {
				if !strings.Contains(code, strings.TrimSpace(part)) {
					broken = append(broken, fmt.Sprintf("%s:%d: no Go file says %q", name, i+1, strings.TrimSpace(part)))
				}
			}
		}
	}
	if rows == 0 {
		broken = append(broken, name+": no table of what you see")
	}
	return broken, nil
}

// allCode is the text of all Go files but this package's, whose tests quote what they look for.
func allCode(tree fs.FS) (string, error) {
	var all strings.Builder
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path.Ext(name) != ".go" || strings.HasPrefix(name, "guard/internal/house/") {
			return err
		}
		text, err := fs.ReadFile(tree, name)
		all.Write(text)
		return err
	})
	return all.String(), err
}

func TestPageRulesCanBeBroken(t *testing.T) {
	for name, test := range map[string]struct {
		page string
		want []string
	}{
		"nothing broken": {"# X\n\n" + goodBlock, nil},
		"no code":        {"# X\n", []string{"no Go code"}},
		"other code":     {swap(goodBlock, "c()", "d()"), []string{"doc/P.md:3", "stand in x/main.go"}},
		"no mark":        {goodBlock + "\n```go\nb() // why\n```\n", []string{"doc/P.md:10", "without <!--"}},
	} {
		t.Run(name, func(t *testing.T) {
			tree := files(map[string]string{"doc/P.md": test.page, "x/main.go": smallCode})
			broken, err := checkPage(tree, "doc/P.md")
			wantOnly(t, broken, err, test.want...)
		})
	}
}

func TestQuoteRuleCanBeBroken(t *testing.T) {
	const head = "| what you see | what it means |\n|---|---|\n"
	for name, test := range map[string]struct {
		page string
		want []string
	}{
		"nothing broken":        {head + "| `x: closed`, and `no answer within …` | a |\n", nil},
		"what differs":          {head + "| `x: … closed` | a |\n", nil},
		"not said any more":     {head + "| `x: shut` | a |\n", []string{"P.md:3", "x: shut"}},
		"half of it":            {head + "| `x: closed … shut` | a |\n", []string{`"shut"`}},
		"another column's":      {head + "| `x: closed` | `shut` |\n", nil},
		"only the house has it": {head + "| `quoted here` | a |\n", []string{"quoted here"}},
		"no rows":               {head, []string{"no table"}},
	} {
		t.Run(name, func(t *testing.T) {
			tree := files(map[string]string{
				"P.md": test.page, "x/a.go": "var e = \"x: closed\"\nvar f = \"no answer within %v\"",
				"guard/internal/house/a_test.go": "quoted here",
			})
			broken, err := checkQuotes(tree, "P.md")
			wantOnly(t, broken, err, test.want...)
		})
	}
}
