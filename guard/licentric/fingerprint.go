package licentric

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// fingerprintVariable overrides what the machine says.
const fingerprintVariable = "LICENTRIC_FINGERPRINT"

// FingerprintError is why there is no fingerprint: the machine has nothing that stays the same and
// is its own, or what the environment says is none.
type FingerprintError struct{ Reason string }

// Error says what was looked for, and which variable helps.
func (e *FingerprintError) Error() string {
	return "licentric: no fingerprint: " + e.Reason + "; set " + fingerprintVariable +
		" to 8 to 256 printable ASCII characters that stay the same and are this machine's alone"
}

// Fingerprint returns an id of this machine that stays the same over restarts and new versions of
// the program. It is the first of these that there is:
//
//   - the variable LICENTRIC_FINGERPRINT, as it is but for white space around it: 8 to 256 printable
//     ASCII characters,
//   - "machine-" and a hash of the operating system's machine id (on Linux /etc/machine-id),
//   - "host-" and a hash of the host's name, unless that is one that every machine has, such as
//     localhost. It is only as unique as the names are.
//
// The hash is HMAC-SHA256, salted with application, so that two applications cannot tell by their
// fingerprints that they run on one machine, and neither gives away the machine's id.
//
// In a container the machine id is the image's, which all copies share, and the host's name is new
// each time. There only a machine id counts that was mounted from outside, as by
// --volume /etc/machine-id:/etc/machine-id:ro; else the error is a *FingerprintError, and never is
// there a random id in its place. On systems but Linux, containers are not told from machines.
//
// It reads a few small files, and runs the system's own program for it on macOS and some BSDs. It is
// not meant to be called often: keep what it returns.
func Fingerprint(application string) (string, error) {
	return source{
		root:     os.DirFS("/"),
		variable: os.LookupEnv,
		hostname: os.Hostname,
		id:       systemID,
	}.fingerprint(application)
}

// source is where a fingerprint comes from.
type source struct {
	root     fs.FS
	variable func(name string) (value string, ok bool)
	hostname func() (string, error)
	// id returns the system's machine id, freed of anything around it, or why there is none that is
	// stable. bare is false where the host's name is not to be used in its place either.
	id func(s source) (id string, bare bool, err error)
}

func (s source) fingerprint(application string) (string, error) {
	if strings.TrimSpace(application) == "" {
		return "", errors.New("licentric: Fingerprint: the application's name is blank")
	}
	if given, ok := s.variable(fingerprintVariable); ok && given != "" {
		return override(given)
	}
	id, bare, err := s.id(s)
	if err == nil {
		return salted("machine", application, id), nil
	}
	if !bare {
		return "", &FingerprintError{Reason: err.Error()}
	}
	name, err := s.hostname()
	name = strings.TrimSuffix(strings.ToLower(strings.TrimSpace(name)), ".")
	if err != nil || anybody(name) {
		return "", &FingerprintError{Reason: "the machine has neither an id nor a host name of its own"}
	}
	return salted("host", application, name), nil
}

func override(given string) (string, error) {
	given = strings.TrimSpace(given)
	odd := strings.ContainsFunc(given, func(r rune) bool { return r < ' ' || r > '~' })
	if odd || len(given) < 8 || len(given) > 256 {
		return "", &FingerprintError{Reason: "the variable's value does not fit"}
	}
	return given, nil
}

// salted hashes an id. Its kind goes into the hash, so that a host that is named as another's
// machine id is still another machine.
func salted(kind, application, id string) string {
	mac := hmac.New(sha256.New, []byte(id))
	_, _ = mac.Write([]byte("execguard licentric fingerprint\x00" + kind + "\x00" + application)) // never fails
	return kind + "-" + hex.EncodeToString(mac.Sum(nil))
}

// anybody tells whether a host name is one that many machines have.
func anybody(name string) bool {
	first, _, _ := strings.Cut(name, ".")
	return slices.Contains([]string{"", "localhost", "localhost4", "localhost6", "ip6-localhost", "(none)", "unknown"}, first) ||
		strings.HasSuffix(name, ".localhost") || strings.Trim(name, "0123456789.:") == ""
}

// plausible returns a machine id in lower case; not ok: it is not one of 32 hex digits, with or
// without hyphens, or says nothing.
func plausible(text string) (id string, ok bool) {
	id = strings.ToLower(strings.TrimSpace(text))
	digits := strings.ReplaceAll(id, "-", "")
	if raw, err := hex.DecodeString(digits); err != nil || len(raw) != 16 {
		return "", false
	}
	return digits, strings.Trim(digits, digits[:1]) != "" // one digit 32 times is what vendors forget to fill in
}
