package licentric

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// bare is a file without its lines, which may be broken anywhere.
func bare(file []byte) string {
	return strings.NewReplacer("\r", "", "\n", "").Replace(string(file))
}

// leaks tells whether an error repeats 16 bytes of a file that it could not know otherwise.
func leaks(text string, file []byte, known string) bool {
	for i := range max(0, len(text)-15) {
		if part := text[i : i+16]; bytes.Contains(file, []byte(part)) && !strings.Contains(known, part) {
			return true
		}
	}
	return false
}

// Whatever a file is made of: no panic, nothing accepted that was not signed, and an error that
// holds nothing of it.
func FuzzVerifyFile(f *testing.F) {
	payload := fileFrom(vectorIssued, twoWeeks).payload(f)
	signed := map[string]bool{}
	for _, newline := range newlines {
		for _, width := range []int{0, 64} {
			file := wrap(envelope(payload, private), width, newline)
			signed[bare(file)] = true
			f.Add(file)
			f.Add(file[:len(file)/2])
			f.Add(wrap(envelope(payload, private2), width, newline))
		}
	}
	f.Add(wrap(signedEnc(""), 0, "\n"))
	f.Add(wrap(`{"enc":"","sig":"","alg":"none"}`, 0, "\n"))
	f.Add([]byte(fileHeader + "\n" + fileFooter))
	f.Add(bytes.Repeat([]byte("\n"), 100))
	f.Fuzz(func(t *testing.T, file []byte) {
		license, err := VerifyFile(file, FormatCertificate, ownMachine, vectorIssued, public)
		if err == nil {
			if !signed[bare(file)] || license.ID != "lic-1" {
				t.Fatalf("accepted, never signed: %q", file)
			}
			return
		}
		var bad *FileError
		if !errors.As(err, &bad) || license.ID != "" || leaks(err.Error(), file, "licentric: offline file: ") {
			t.Fatalf("%T %v, %+v", err, err, license)
		}
	})
}

// Behind a signature that is right: no panic, and what is accepted makes sense.
func FuzzSignedPayload(f *testing.F) {
	good := fileFrom(vectorIssued, twoWeeks)
	f.Add(good.payload(f))
	f.Add(vectorPayload)
	f.Add(good.with("data", object{"expiresAt": "2026-12-31T00:00:00.000Z", fieldEntitlements: nil}).payload(f))
	f.Add(good.with("meta", object{"ttl": 90 * 86400, "expiry": "2026-02-01T00:00:00Z"}).payload(f))
	f.Add(`{"data":{"id":"a","type":"licenses","status":null},"meta":{"issued":"0000-01-01T00:00:00Z","expiry":"9999-12-31T00:00:00Z","ttl":1}}`)
	f.Add(`{"data":{},"meta":{}}`)
	f.Fuzz(func(t *testing.T, payload string) {
		license, err := readFile(sign(payload, private), FormatCertificate, keysOf(public))
		if err != nil {
			var bad *FileError
			if !errors.As(err, &bad) || len(err.Error()) > 200 || !utf8.ValidString(err.Error()) {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		life := license.Ends.Sub(license.Issued)
		if license.ID == "" || life <= 0 || life > 90*24*time.Hour || license.aliveAt(license.Ends) == nil || license.aliveAt(license.Issued) != nil {
			t.Fatalf("%+v", license)
		}
	})
}
