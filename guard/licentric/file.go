package licentric

import (
	"crypto/ed25519"
	"encoding/base64"
	"time"

	"github.com/execguard/execguard/guard"
)

const (
	maxFile     = 64 << 10            // bytes of an offline file
	maxLifetime = 90 * 24 * time.Hour // of an offline file, as at the service
	maxSkew     = 5 * time.Minute     // that the clock of who issues a file may be ahead of ours
)

// FileReason says in one word what is wrong with an offline file.
type FileReason string

// What can be wrong with an offline file, or with how it was to be verified.
const (
	FileMalformed FileReason = "malformed"       // it is not written as its format says
	FileTooLarge  FileReason = "too large"       // more than 64 KiB
	FileSignature FileReason = "signature"       // none of the keys has signed it
	FileForeign   FileReason = "foreign"         // it was made for another machine, or for none
	FileExpired   FileReason = "expired"         // it has ended
	FileNotYet    FileReason = "not yet valid"   // it was issued more than five minutes from now
	FileTooLong   FileReason = "too long"        // it would live more than 90 days
	FileFormat    FileReason = "unknown format"  // the Format is none, or the file is of another one
	FileBadKey    FileReason = "unfit key given" // no key, or one that is no Ed25519 public key
)

// FileError is why an offline file was not accepted. It holds nothing of the file. errors.Is finds
// guard.ErrUnavailable in it, since a file that is no good decides nothing, unless Reason is
// FileForeign: that the file is for another machine is an answer.
type FileError struct {
	Reason FileReason
	detail string // in words; never what stands in the file
}

// Error names the reason and says it in words.
func (e *FileError) Error() string {
	return "licentric: offline file: " + string(e.Reason) + ": " + e.detail
}

// Is matches guard.ErrUnavailable where the file decides nothing.
func (e *FileError) Is(target error) bool {
	return target == guard.ErrUnavailable && e.Reason != FileForeign
}

func fileError(reason FileReason, detail string) error {
	return &FileError{Reason: reason, detail: detail}
}

// VerifyFile verifies an offline file: that it is written as format says, that one of keys has
// signed it, that it was made for fingerprint, and that it has begun and not ended at now. Keys are
// pinned: put them into the program, not beside the file. While one key replaces another, give
// both. A file that names no machine is only for the empty fingerprint.
//
// It returns what the file says, or a *FileError. Whether the licence allows anything is for the
// caller to judge, by its Status, ExpiresAt and Entitlements; [Offline] does. A clock that is set
// back is not noticed here, as it is by Offline, for there is nothing to compare it with.
func VerifyFile(file []byte, format Format, fingerprint string, now time.Time, keys ...ed25519.PublicKey) (License, error) {
	license, err := readFile(file, format, keys)
	if err != nil {
		return License{}, err
	}
	if err := license.aliveAt(now); err != nil {
		return License{}, err
	}
	if license.Fingerprint != fingerprint {
		return License{}, fileError(FileForeign, "it was made for another machine")
	}
	return license, nil
}

// readFile verifies all that stays as it is whatever the time.
func readFile(file []byte, format Format, keys []ed25519.PublicKey) (License, error) {
	switch {
	case format != FormatCertificate:
		return License{}, fileError(FileFormat, format.String()+" is no format of this package")
	case len(file) > maxFile:
		return License{}, fileError(FileTooLarge, "it has more than 64 KiB")
	}
	if err := checkKeys(keys); err != nil {
		return License{}, err
	}
	parsed, err := parseCertificate(file)
	if err != nil {
		return License{}, err
	}
	if !parsed.signedByAny(keys) {
		return License{}, fileError(FileSignature, "it was not signed by any of the keys, or was changed since")
	}
	text, err := base64.StdEncoding.Strict().DecodeString(parsed.enc)
	if err != nil {
		return License{}, fileError(FileMalformed, "its payload is not base64")
	}
	return payload(text)
}

// checkKeys refuses what ed25519.Verify would panic at, and the key that was never filled in, for
// which anybody can make signatures.
func checkKeys(keys []ed25519.PublicKey) error {
	if len(keys) == 0 {
		return fileError(FileBadKey, "there is no public key")
	}
	for _, key := range keys {
		if len(key) != ed25519.PublicKeySize {
			return fileError(FileBadKey, "a public key has not 32 bytes")
		}
		if [ed25519.PublicKeySize]byte(key) == [ed25519.PublicKeySize]byte{} {
			return fileError(FileBadKey, "a public key is all zero")
		}
	}
	return nil
}

func (c certificate) signedByAny(keys []ed25519.PublicKey) bool {
	signed := []byte(signedPrefix + c.enc)
	for _, key := range keys {
		if ed25519.Verify(key, signed, c.sig) {
			return true
		}
	}
	return false
}

// aliveAt tells whether the file has begun and not ended.
func (l *License) aliveAt(now time.Time) error {
	switch {
	case l.Issued.After(now.Add(maxSkew)):
		return fileError(FileNotYet, "it was issued later than now")
	case !now.Before(l.Ends):
		return fileError(FileExpired, "it has ended")
	}
	return nil
}
