package house_test

import (
	"bytes"
	"io/fs"
	"testing"
)

// Which name of a certificate counts is decided in one way, wherever it is read. No spoke imports
// another, so that the code stands in each, and must not drift apart.
func TestTwinsAreAlike(t *testing.T) {
	tree, _ := repository(t)
	want, err := fs.ReadFile(tree, "httpmw/certificate.go")
	if err != nil {
		t.Fatal(err)
	}
	got, err := fs.ReadFile(tree, "grpcmw/certificate.go")
	if err != nil {
		t.Fatal(err)
	}
	if got = bytes.Replace(got, []byte("package grpcmw\n"), []byte("package httpmw\n"), 1); !bytes.Equal(got, want) {
		t.Error("httpmw/certificate.go and grpcmw/certificate.go differ in more than the package")
	}
}
