package licentric

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
)

const (
	machineID = "4c4c4544003757108052b4c04f384833"
	app       = "com.example.app"
)

// files is a root directory of files.
func files(pairs ...string) fstest.MapFS {
	root := fstest.MapFS{}
	for i := 0; i < len(pairs); i += 2 {
		root[pairs[i]] = &fstest.MapFile{Data: []byte(pairs[i+1])}
	}
	return root
}

// on is a machine with these files and variables, named host.
func on(root fstest.MapFS, host string, variables ...string) source {
	return source{
		root: root,
		variable: func(name string) (string, bool) {
			for i := 0; i < len(variables); i += 2 {
				if variables[i] == name {
					return variables[i+1], true
				}
			}
			return "", false
		},
		hostname: func() (string, error) {
			if host == "error" {
				return "", errors.New("no name")
			}
			return host, nil
		},
		id: systemID,
	}
}

// nameless is a source whose system has no machine id.
func nameless(host string, variables ...string) source {
	s := on(nil, host, variables...)
	s.id = func(source) (string, bool, error) { return "", true, errors.New("none") }
	return s
}

// salt is how an id is hashed, written a second time.
func salt(kind, id, application string) string {
	mac := hmac.New(sha256.New, []byte(id))
	fmt.Fprintf(mac, "execguard licentric fingerprint\x00%s\x00%s", kind, application)
	return kind + "-" + hex.EncodeToString(mac.Sum(nil))
}

func wantFingerprint(t *testing.T, s source, want string) {
	t.Helper()
	for range 2 { // it stays the same
		if got, err := s.fingerprint(app); err != nil || got != want {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
}

func wantNoFingerprint(t *testing.T, s source, why string) {
	t.Helper()
	got, err := s.fingerprint(app)
	var typed *FingerprintError
	if got != "" || !errors.As(err, &typed) || !strings.Contains(err.Error(), why) || !strings.Contains(err.Error(), "LICENTRIC_FINGERPRINT") {
		t.Errorf("%q, %v; want an error: %s", got, err, why)
	}
}

// The hash does not give away the id, is not another application's, and never changes: licences are
// bound to it.
func TestFingerprintIsSalted(t *testing.T) {
	s := nameless("build-07.example.org")
	got, err := s.fingerprint(app)
	if want := "host-2f87b153b7e0f2532a5fcdd287e74508c993103706037c189a85a8bb96deca84"; err != nil || got != want {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	if strings.Contains(got, "build") || !regexp.MustCompile(`^host-[0-9a-f]{64}$`).MatchString(got) {
		t.Errorf("%q", got)
	}
	if other, err := s.fingerprint(app + "2"); err != nil || other == got {
		t.Errorf("two applications have one: %q, %v", other, err)
	}
	for _, blank := range []string{"", " \t"} {
		if got, err := s.fingerprint(blank); got != "" || err == nil || !strings.Contains(err.Error(), "application") {
			t.Errorf("%q, %v", got, err)
		}
	}
	if salted("host", app, machineID) == salted("machine", app, machineID) {
		t.Error("a host that is named like a machine's id is that machine")
	}
}

func TestFingerprintFromTheEnvironment(t *testing.T) {
	root := files("etc/machine-id", machineID+"\n")
	for value, want := range map[string]string{
		"worker-07":                     "worker-07",
		"  worker 07 of rack B \n":      "worker 07 of rack B",
		"12345678":                      "12345678",
		" " + strings.Repeat("x", 256):  strings.Repeat("x", 256),
		"!\"#$%&'()*+,-./:;<=>?@[]^_`~": "!\"#$%&'()*+,-./:;<=>?@[]^_`~",
	} {
		wantFingerprint(t, on(root, "host-7", "LICENTRIC_FINGERPRINT", value), want)
		wantFingerprint(t, on(files(".dockerenv", ""), "host-7", "LICENTRIC_FINGERPRINT", value), want)
	}
	for _, value := range []string{" ", "1234567", "1234567 ", strings.Repeat("x", 257), "worker\t07", "wörker-07", "worker-07\x00", "worker-\xff7"} {
		wantNoFingerprint(t, on(root, "host-7", "LICENTRIC_FINGERPRINT", value), "the variable's value does not fit")
	}
	wantFingerprint(t, nameless("host-7", "LICENTRIC_FINGERPRINT", ""), salt("host", "host-7", app)) // empty is as good as unset
}

func TestFingerprintFromTheHostName(t *testing.T) {
	for _, name := range []string{"host-7", "HOST-7", "host-7.", " host-7\n"} {
		wantFingerprint(t, nameless(name), salt("host", "host-7", app))
	}
	for _, name := range []string{
		"", " ", ".", "error", "localhost", "LocalHost", "localhost.localdomain", "localhost4.localdomain4", "localhost6",
		"ip6-localhost", "my.localhost", "(none)", "unknown", "127.0.0.1", "10.1.2.3", "::1",
	} {
		wantNoFingerprint(t, nameless(name), "neither an id nor a host name of its own")
	}
}

func TestPlausible(t *testing.T) {
	for text, want := range map[string]string{
		machineID:                              machineID,
		strings.ToUpper(machineID) + "\r\n":    machineID,
		"4C4C4544-0037-5710-8052-B4C04F384833": machineID,
		"":                                     "",
		"uninitialized":                        "",
		machineID[1:]:                          "",
		machineID + "0":                        "",
		"x" + machineID[1:]:                    "",
		strings.Repeat("0", 32):                "",
		"ffffffff-ffff-ffff-ffff-ffffffffffff": "",
		"FFFFFFFFFFFFFFFFffffffffffffffff":     "",
	} {
		if got, ok := plausible(text); ok != (want != "") || ok && got != want {
			t.Errorf("%q: %q, %t", text, got, ok)
		}
	}
}

// This machine, whatever it is: the same again and again, or an error that names the variable.
func TestFingerprintOfThisMachine(t *testing.T) {
	first, err := Fingerprint(app)
	again, errAgain := Fingerprint(app)
	if first != again || (err == nil) != (errAgain == nil) {
		t.Errorf("%q, %v, then %q, %v", first, err, again, errAgain)
	}
	var typed *FingerprintError
	if err != nil && !errors.As(err, &typed) || err == nil && (len(first) < 8 || len(first) > 256) {
		t.Errorf("%q, %v", first, err)
	}
	t.Setenv("LICENTRIC_FINGERPRINT", "given-by-the-test")
	if got, err := Fingerprint(app); err != nil || got != "given-by-the-test" {
		t.Errorf("%q, %v", got, err)
	}
}
