package house_test

import (
	"io/fs"
	"path"
	"regexp"
	"strings"
)

// block is one fenced block of a Markdown file.
type block struct {
	language string
	mark     string // the comment right above it, «examples/x/main.go» of <!-- examples/x/main.go -->
	line     int    // of its first line of text, counted from 1
	text     []string
}

// split takes a Markdown file apart: its fenced blocks, and its lines with an empty line in
// place of each line of a block, so that numbers stay and code is not taken for prose.
func split(markdown string) (blocks []block, prose []string) {
	comment := regexp.MustCompile(`^<!--\s*(\S+)\s*-->$`)
	inside, mark := false, ""
	for i, line := range strings.Split(markdown, "\n") {
		language, fence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case fence && !inside:
			inside = true
			blocks = append(blocks, block{language: language, mark: mark, line: i + 2})
		case fence:
			inside = false
		case inside:
			last := &blocks[len(blocks)-1]
			last.text = append(last.text, line)
		}
		if fence || inside {
			line = ""
		}
		prose = append(prose, line)
		mark = ""
		if match := comment.FindStringSubmatch(line); match != nil {
			mark = match[1]
		}
	}
	return blocks, prose
}

// checkLinks names the links of a Markdown file that lead to no file of the tree or to no
// heading. Links that leave the repository are not followed: a test needs no network.
func checkLinks(tree fs.FS, name string) ([]string, error) {
	text, err := fs.ReadFile(tree, name)
	if err != nil {
		return nil, err
	}
	link := regexp.MustCompile(`\]\(([^)\s]+)\)|(?:src|href)="([^"]+)"`)
	_, prose := split(string(text))
	var broken []string
	for _, match := range link.FindAllStringSubmatch(strings.Join(prose, "\n"), -1) {
		target := match[1] + match[2]
		if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
			continue
		}
		if why := follow(tree, name, target); why != "" {
			broken = append(broken, name+": link "+target+": "+why)
		}
	}
	return broken, nil
}

// follow says why a relative link leads nowhere, or "".
func follow(tree fs.FS, from, target string) string {
	file, heading, _ := strings.Cut(target, "#")
	file = path.Join(path.Dir(from), file)
	if strings.HasPrefix(target, "#") {
		file = from
	}
	if _, err := fs.Stat(tree, file); err != nil {
		return "no such file"
	}
	if heading == "" {
		return ""
	}
	text, err := fs.ReadFile(tree, file)
	if err != nil {
		return err.Error()
	}
	_, prose := split(string(text))
	for _, line := range prose {
		if strings.HasPrefix(line, "#") && anchor(line) == heading {
			return ""
		}
	}
	return "no such heading"
}

// anchor is the name under which a heading is linked to.
func anchor(heading string) string {
	words := strings.ToLower(strings.TrimSpace(strings.TrimLeft(heading, "#")))
	kept := regexp.MustCompile(`[^\p{L}\p{N}\- ]`).ReplaceAllString(words, "")
	return strings.ReplaceAll(kept, " ", "-")
}
