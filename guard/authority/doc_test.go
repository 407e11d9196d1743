package authority_test

import (
	"maps"
	"os"
	"regexp"
	"strings"
	"testing"
)

// The package comment lists the calls that there are, with bodies that are what they need.
func TestDocumentedCalls(t *testing.T) {
	text, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	a, org := newOrganisation(t, "pro")
	world{calls: org}.register(t, "agent-01", "agent-02")
	got := map[string]string{}
	for _, row := range regexp.MustCompile(`(?m)^//\t(POST|GET) +/api/v1/(\S+) *(.*)$`).FindAllStringSubmatch(string(text), -1) {
		method, path := row[1], row[2]
		got[path] = method
		for body := range strings.SplitSeq(row[3], " or ") {
			if rec := serveOnce(t, a, method, "/api/v1/"+path, body, testKey); rec.Code != 200 && rec.Code != 404 {
				t.Errorf("%s %s: %d %s", path, body, rec.Code, rec.Body)
			} else if object(t, rec)["handler"] != path && path != "devices/validate" {
				t.Errorf("%s %s: %s", path, body, rec.Body)
			}
		}
	}
	if !maps.Equal(got, paths) {
		t.Errorf("documented are %v, and there are %v", got, paths)
	}
}
