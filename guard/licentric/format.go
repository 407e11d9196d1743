package licentric

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"github.com/execguard/execguard/guard/internal/strictjson"
)

// Format is how an offline licence file is written and signed. The caller picks it together with
// the public key; a file cannot choose its own.
type Format int

// FormatCertificate is a format of this package's own, in a shape that is widely used for licence
// files. It is not the vendor's: how Licentric's own files are wrapped and signed is not
// published, and until one has been read, none of the formats here claims to be that one.
//
//	-----BEGIN LICENSE FILE-----
//	base64 of {"enc":"<base64 of the payload>","sig":"<base64 of 64 bytes>","alg":"base64+ed25519"}
//	-----END LICENSE FILE-----
//
// What is signed, with Ed25519, is the text license/ followed by the value of enc. The payload is
// a JSON object, in which members that are not known are passed over:
//
//	{"data":{"id":"…","type":"licenses","fingerprint":"…","name":"…","status":"ACTIVE","productId":"…",
//	         "policyId":"…","expiresAt":"2026-12-31T00:00:00.000Z","entitlements":["…"]},
//	 "meta":{"issued":"2026-01-01T00:00:00.000Z","expiry":"2026-01-15T00:00:00.000Z","ttl":1209600}}
//
// Of data only id and type are needed; without a fingerprint the file allows no device. Times are
// RFC 3339 and end in Z, ttl is in whole seconds. The file ends at its expiry or ttl after it was issued, whichever
// comes first, and lives 90 days at most.
//
// What is written otherwise is another file, so that a changed one is refused wherever the change is: the
// object has these three members and no others, in any order, without escapes and without white space
// but blanks between its parts; base64 is the standard one with padding. The base64 may be broken
// into lines, which end in LF or all in CRLF, as does the last line or not. Nothing stands before or
// behind.
const FormatCertificate Format = 1

// String returns the format's name.
func (f Format) String() string {
	if f == FormatCertificate {
		return "certificate"
	}
	return "Format(" + strconv.Itoa(int(f)) + ")"
}

const (
	fileHeader   = "-----BEGIN LICENSE FILE-----"
	fileFooter   = "-----END LICENSE FILE-----"
	fileAlg      = "base64+ed25519"
	signedPrefix = "license/" // so that no other text that the key signs can be taken for a file
)

// certificate is a file of FormatCertificate that has been taken apart, not yet believed.
type certificate struct {
	enc string
	sig []byte
}

// parseCertificate takes a file apart.
func parseCertificate(file []byte) (certificate, error) {
	envelope, ok := unwrap(string(file))
	if !ok {
		return certificate{}, fileError(FileMalformed, "it is not a header, base64 and a footer (its content is wanted, not its path)")
	}
	object, err := strictjson.Parse(envelope, "enc", "sig", "alg")
	if err != nil {
		return certificate{}, fileError(FileMalformed, "what it wraps is "+err.Error())
	}
	enc, hasEnc := object.Text("enc")
	sig, hasSig := object.Text("sig")
	alg, hasAlg := object.Text("alg")
	switch {
	case !hasEnc || !hasSig || !hasAlg:
		return certificate{}, fileError(FileMalformed, "enc, sig or alg is missing or no text")
	case string(alg) != fileAlg:
		return certificate{}, fileError(FileFormat, "it is signed by another algorithm than "+fileAlg)
	case !unadorned(envelope, enc, sig):
		return certificate{}, fileError(FileMalformed, "it has other members than enc, sig and alg, or escapes or white space in them")
	}
	signature, err := base64.StdEncoding.Strict().DecodeString(string(sig))
	if err != nil {
		return certificate{}, fileError(FileMalformed, "sig is not base64")
	}
	return certificate{enc: string(enc), sig: signature}, nil
}

// unadorned tells whether an envelope, which is known to be an object with three such members, is made of
// them alone: no other member, no escape, no white space but blanks. JSON has many ways to write the
// same, and a changed bit can lead from one to another (a tab is a bit away from a carriage return,
// a name with an escape in it from another name); from these it cannot.
func unadorned(envelope, enc, sig []byte) bool {
	left := bytes.ReplaceAll(envelope, []byte(" "), nil) // a blank inside of a value is found by its decoder
	length := len("{,,}")
	for _, member := range [][]byte{
		fmt.Appendf(nil, `"enc":"%s"`, enc), fmt.Appendf(nil, `"sig":"%s"`, sig), fmt.Appendf(nil, `"alg":"%s"`, fileAlg),
	} {
		if !bytes.Contains(left, member) {
			return false
		}
		length += len(member)
	}
	return len(left) == length
}

// unwrap returns what stands between header and footer, decoded.
func unwrap(text string) (envelope []byte, ok bool) {
	newline := "\n"
	if strings.Contains(text, "\r\n") {
		newline = "\r\n"
	}
	lines := strings.Split(strings.TrimSuffix(text, newline), newline)
	last := len(lines) - 1
	if last < 2 || lines[0] != fileHeader || lines[last] != fileFooter {
		return nil, false
	}
	for _, line := range lines[1:last] {
		if line == "" || strings.ContainsAny(line, "\r\n") { // which the decoder would pass over
			return nil, false
		}
	}
	envelope, err := base64.StdEncoding.Strict().DecodeString(strings.Join(lines[1:last], ""))
	return envelope, err == nil
}
