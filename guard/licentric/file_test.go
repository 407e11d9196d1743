package licentric

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The test vector of the wire document, to the byte.
func TestVerifyFileReadsTheTestVector(t *testing.T) {
	if got := hex.EncodeToString(public); got != vectorPublicKeyHex {
		t.Fatalf("the public key is %s", got)
	}
	if !strings.Contains(envelope(vectorPayload, private), vectorSignature) {
		t.Error("these tests sign in another way than the vector does")
	}
	enc := base64.StdEncoding.EncodeToString([]byte(vectorPayload))
	file := wrap(`{"enc":"`+enc+`","sig":"`+vectorSignature+`","alg":"base64+ed25519"}`, 0, "\n")
	got, err := VerifyFile(file, FormatCertificate, "", vectorIssued.Add(time.Hour), public)
	want := License{ID: "lic-1", Issued: vectorIssued, Ends: vectorEnds}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v, difference %s", err, diff)
	}
}

func TestVerifyFileReadsEveryMember(t *testing.T) {
	file := fileFrom(vectorIssued, twoWeeks).with("data", object{
		"expiresAt": "2026-12-31T12:30:00.500Z", "status": "active", "unknown": []any{1, object{"x": nil}}, "key": "KEY-OF-THE-LICENCE",
	})
	got, err := VerifyFile(file.signed(t), FormatCertificate, ownMachine, vectorIssued, public)
	want := License{
		ID: "lic-1", Name: "Acme", Status: "active", ProductID: "prod-1", PolicyID: "pol-1",
		ExpiresAt: time.Date(2026, 12, 31, 12, 30, 0, 5e8, time.UTC), Entitlements: entitled,
		Fingerprint: ownMachine, Issued: vectorIssued, Ends: vectorEnds,
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v, difference %s", err, diff)
	}
	if strings.Contains(fmt.Sprintf("%+v %#v", got, got), "KEY-OF") { // S8
		t.Error("the licence key is kept")
	}
}

// wellFormed is one payload in every way in which a file of it may be written.
func wellFormed(t testing.TB) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for _, newline := range newlines {
		for _, width := range []int{0, 64, 76, 3} {
			file := wrap(envelope(fileFrom(vectorIssued, twoWeeks).payload(t), private), width, newline)
			files[fmt.Sprintf("%q, lines of %d", newline, width)] = file
			files[fmt.Sprintf("%q, lines of %d, the last one open", newline, width)] = bytes.TrimSuffix(file, []byte(newline))
		}
	}
	blanks := strings.NewReplacer(`":`, `": `, `",`, `", `).Replace(envelope(fileFrom(vectorIssued, twoWeeks).payload(t), private))
	files["with blanks"] = wrap(blanks, 76, "\n")
	return files
}

func TestEveryWayToWriteAFile(t *testing.T) {
	for name, file := range wellFormed(t) {
		if _, err := VerifyFile(file, FormatCertificate, ownMachine, vectorIssued, public); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// verify tells whether the file would be accepted, at the best of times.
func verify(file []byte, keys ...ed25519.PublicKey) error {
	_, err := VerifyFile(file, FormatCertificate, ownMachine, vectorIssued, keys...)
	return err
}

// Every one-bit change of a file is refused, wherever the bit is and however the file is written.
func TestEveryBitCounts(t *testing.T) {
	all := wellFormed(t)
	for _, name := range []string{
		`"\n", lines of 0`, `"\r\n", lines of 0, the last one open`, `"\n", lines of 64, the last one open`, `"\r\n", lines of 76`, "with blanks",
	} {
		file := all[name]
		t.Run(name, func(t *testing.T) {
			if len(file) < 500 {
				t.Fatal("there is no such file")
			}
			for i := range file {
				for bit := range 8 {
					file[i] ^= 1 << bit
					var bad *FileError
					if err := verify(file, public); !errors.As(err, &bad) {
						t.Errorf("byte %d, bit %d: %v for %q", i, bit, err, file[max(0, i-5):min(len(file), i+5)])
					}
					file[i] ^= 1 << bit
				}
			}
			if err := verify(file, public); err != nil {
				t.Error("the test has changed the file: ", err)
			}
		})
	}
}

// So is every file that was cut, and one with anything put in, but for the end of the last line.
func TestEveryByteCounts(t *testing.T) {
	file := wellFormed(t)[`"\n", lines of 64`]
	for i := range file {
		if err := verify(file[:i], public); err == nil && i != len(file)-1 {
			t.Errorf("cut at %d of %d", i, len(file))
		}
		if without := append(bytes.Clone(file[:i]), file[i+1:]...); verify(without, public) == nil && i != len(file)-1 && file[i] != '\n' {
			t.Errorf("without byte %d", i)
		}
		for _, more := range []string{" ", "\t", "\r", "=", "A", "\x00", "\n\n", "\ufeff"} {
			if with := append(append(bytes.Clone(file[:i]), more...), file[i:]...); verify(with, public) == nil {
				t.Errorf("with %q at %d", more, i)
			}
		}
	}
	for _, more := range []string{" ", "\n", "\r\n", "x", "\x00"} {
		if verify(append(bytes.Clone(file), more...), public) == nil {
			t.Errorf("with %q at the end", more)
		}
	}
}

// Keys rotate with an overlap: while both are given, files of both are good.
func TestKeysRotate(t *testing.T) {
	payload := fileFrom(vectorIssued, twoWeeks).payload(t)
	old, young := sign(payload, private), sign(payload, private2)
	for name, c := range map[string]struct {
		file []byte
		keys []ed25519.PublicKey
		good bool
	}{
		"before":                   {old, []ed25519.PublicKey{public}, true},
		"the young one too early":  {young, []ed25519.PublicKey{public}, false},
		"overlap, old":             {old, []ed25519.PublicKey{public, public2}, true},
		"overlap, young":           {young, []ed25519.PublicKey{public, public2}, true},
		"overlap, the other order": {young, []ed25519.PublicKey{public2, public}, true},
		"after":                    {young, []ed25519.PublicKey{public2}, true},
		"the old one too late":     {old, []ed25519.PublicKey{public2}, false},
	} {
		err := verify(c.file, c.keys...)
		if c.good && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !c.good {
			wantFileError(t, err, FileSignature)
		}
	}
}

func TestUnfitKeys(t *testing.T) {
	file := fileFrom(vectorIssued, twoWeeks).signed(t)
	for name, keys := range map[string][]ed25519.PublicKey{
		"none":                {},
		"nil":                 {nil},
		"one of two is short": {public, public2[:31]},
		"one of two is long":  {public, append(bytes.Clone(public2), 0)},
		"a private key":       {ed25519.PublicKey(private)},
		"never filled in":     {make(ed25519.PublicKey, 32)},
	} {
		t.Run(name, func(t *testing.T) {
			wantFileError(t, verify(file, keys...), FileBadKey)
			_, err := Offline(file, FormatCertificate, keys...)
			wantFileError(t, err, FileBadKey)
		})
	}
}

// What is no format of ours is refused, whatever the file says of itself.
func TestFormatIsPinned(t *testing.T) {
	payload := fileFrom(vectorIssued, twoWeeks).payload(t)
	for _, format := range []Format{0, 2, -1} {
		_, err := VerifyFile(sign(payload, private), format, ownMachine, vectorIssued, public)
		wantFileError(t, err, FileFormat)
	}
	good := envelope(payload, private)
	for _, alg := range []string{"", "none", "ed25519", "base64+ed25519ph", "aes-256-gcm+ed25519", "BASE64+ED25519", "base64+rsa-sha256"} {
		wantFileError(t, verify(wrap(strings.Replace(good, "base64+ed25519", alg, 1), 0, "\n"), public), FileFormat)
	}
	if FormatCertificate.String() != "certificate" || Format(7).String() != "Format(7)" {
		t.Error("the formats' names")
	}
}

// The file is bounded: 64 KiB are read, and not a byte more.
func TestFileIsBounded(t *testing.T) {
	sized := func(fill int) []byte {
		return fileFrom(vectorIssued, twoWeeks).with("data", object{"name": strings.Repeat("n", fill)}).signed(t)
	}
	fill := 0
	for step := 1 << 15; step > 0; step /= 2 {
		if len(sized(fill+step)) <= 64<<10 {
			fill += step
		}
	}
	if err := verify(sized(fill), public); err != nil {
		t.Errorf("%d bytes: %v", len(sized(fill)), err)
	}
	wantFileError(t, verify(sized(fill+3), public), FileTooLarge)
	wantFileError(t, verify(make([]byte, 1<<24), public), FileTooLarge)
}
