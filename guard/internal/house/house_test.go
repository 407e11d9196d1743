package house_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// repository gives the repository that this package stands in, and its module's path. It is
// found by walking up, so that the package can move.
func repository(t *testing.T) (tree fs.FS, module string) {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil {
			return os.DirFS(dir), modulePath(t, string(text))
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatalf("no go.mod above the working directory: %v", err)
		}
		dir = up
	}
}

func modulePath(t *testing.T, gomod string) string {
	t.Helper()
	match := regexp.MustCompile(`(?m)^module (\S+)$`).FindStringSubmatch(gomod)
	if match == nil {
		t.Fatal("go.mod names no module")
	}
	return match[1]
}

// report fails the test once for each sentence.
func report(t *testing.T, broken []string, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	for _, sentence := range broken {
		t.Error(sentence)
	}
}

func TestImportsFollowTheTable(t *testing.T) {
	tree, module := repository(t)
	broken, err := checkImports(tree, module, packages())
	report(t, broken, err)
}

func TestTopLevelHoldsNothingElse(t *testing.T) {
	tree, _ := repository(t)
	broken, err := checkTopLevel(tree, topLevel())
	report(t, broken, err)
}

func TestNoTestSleepsInRealTime(t *testing.T) {
	tree, _ := repository(t)
	broken, err := checkSleeps(tree)
	report(t, broken, err)
}

// files makes a tree in memory: name → text.
func files(texts map[string]string) fs.FS {
	tree := fstest.MapFS{}
	for name, text := range texts {
		tree[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return tree
}

// wantOnly fails the test unless there is one sentence and it holds all the words, or none
// where there are no words.
func wantOnly(t *testing.T, broken []string, err error, words ...string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if len(words) == 0 {
		report(t, broken, nil)
		return
	}
	if len(broken) != 1 {
		t.Fatalf("got %d sentences, want 1 with %q: %q", len(broken), words, broken)
	}
	for _, word := range words {
		if !strings.Contains(broken[0], word) {
			t.Errorf("got %q, want it to say %q", broken[0], word)
		}
	}
}
