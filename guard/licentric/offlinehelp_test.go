package licentric

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
)

// pair makes a key pair of a seed that is one byte 32 times.
func pair(seed byte) (ed25519.PrivateKey, ed25519.PublicKey) {
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	return private, private.Public().(ed25519.PublicKey)
}

var (
	private, public    = pair(0x42) // of the wire document's test vector
	private2, public2  = pair(0x43)
	newlines           = []string{"\n", "\r\n"}
	ownMachine         = "machine-0123456789"
	otherMachine       = "machine-9876543210"
	twoWeeks           = 14 * 24 * time.Hour
	entitled           = []string{"offline", "export"}
	vectorIssued       = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	vectorEnds         = time.Date(2026, 1, 15, 0, 0, 0, 0, time.UTC)
	vectorPayload      = `{"data":{"id":"lic-1","type":"licenses"},"meta":{"issued":"2026-01-01T00:00:00.000Z","expiry":"2026-01-15T00:00:00.000Z","ttl":1209600}}`
	vectorSignature    = `QC7voQ6Nb4oMjJ/Wn042TRbQPS9wK5/99SRapkZj/SAIjrYBA+Yb1BHW9JJLoliqu2s5dHYZx7l/UkChj9odAw==`
	vectorPublicKeyHex = `2152f8d19b791d24453242e15f2eab6cb7cffa7b6a5ed30097960e069881db12`
)

// wireTime writes a time as the service does.
func wireTime(at time.Time) string { return at.UTC().Format("2006-01-02T15:04:05.000Z") }

// object is a JSON object to be.
type object = map[string]any

// with is o with some members replaced; nil takes one out.
func (f fileOf) with(part string, change object) fileOf {
	changed := fileOf{"data": maps.Clone(f["data"].(object)), "meta": maps.Clone(f["meta"].(object))}
	for name, value := range change {
		changed[part].(object)[name] = value
		if value == nil {
			delete(changed[part].(object), name)
		}
	}
	return changed
}

// fileOf is a payload to be.
type fileOf object

// newFile is the payload of a good file that was issued now for two weeks.
func newFile() fileOf { return fileFrom(time.Now(), twoWeeks) }

func fileFrom(issued time.Time, ttl time.Duration) fileOf {
	return fileOf{
		"data": object{
			"id": "lic-1", "type": "licenses", fieldFingerprint: ownMachine, "name": "Acme", "status": "ACTIVE",
			"productId": "prod-1", "policyId": "pol-1", fieldEntitlements: entitled,
		},
		"meta": object{"issued": wireTime(issued), "expiry": wireTime(issued.Add(ttl)), "ttl": int(ttl / time.Second)},
	}
}

func (f fileOf) payload(t testing.TB) string {
	t.Helper()
	text, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// signed is the file, signed.
func (f fileOf) signed(t testing.TB) []byte {
	t.Helper()
	return sign(f.payload(t), private)
}

// sign makes a file of a payload.
func sign(payload string, key ed25519.PrivateKey) []byte {
	return wrap(envelope(payload, key), 0, "\n")
}

// envelope is what a file wraps.
func envelope(payload string, key ed25519.PrivateKey) string {
	enc := base64.StdEncoding.EncodeToString([]byte(payload))
	sig := ed25519.Sign(key, []byte("license/"+enc))
	return `{"enc":"` + enc + `","sig":"` + base64.StdEncoding.EncodeToString(sig) + `","alg":"base64+ed25519"}`
}

// wrap puts an envelope between header and footer, in lines of at most width; 0: one line.
func wrap(envelope string, width int, newline string) []byte {
	text := base64.StdEncoding.EncodeToString([]byte(envelope))
	lines := []string{"-----BEGIN LICENSE FILE-----"}
	for width > 0 && len(text) > width {
		lines, text = append(lines, text[:width]), text[width:]
	}
	lines = append(lines, text, "-----END LICENSE FILE-----", "")
	return []byte(strings.Join(lines, newline))
}

// wantFileError holds err to be a *FileError with a reason.
func wantFileError(t testing.TB, err error, want FileReason) {
	t.Helper()
	var bad *FileError
	if !errors.As(err, &bad) || bad.Reason != want {
		t.Errorf("got %v, want a *FileError: %s", err, want)
		return
	}
	if errors.Is(err, guard.ErrUnavailable) != (want != FileForeign) {
		t.Errorf("%v: matches ErrUnavailable: %t", err, want == FileForeign)
	}
}

// newOffline makes an offline validator of a file that is good.
func newOffline(t testing.TB, file []byte, opts ...OfflineOption) *offline {
	t.Helper()
	v, err := OfflineWith(file, FormatCertificate, []ed25519.PublicKey{public}, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return v.(*offline)
}

// wantAllow asks about the file's own machine and wants ALLOW until end.
func wantAllow(t testing.TB, v guard.Validator, end time.Time) {
	t.Helper()
	d, err := v.Validate(context.Background(), ownMachine)
	want := guard.Decision{Allowed: true, Code: guard.CodeAllow, ExpiresAt: end.UTC()}
	if err != nil || d != want {
		t.Errorf("%+v, %v; want ALLOW until %v", d, err, end)
	}
}

// wantDenial wants a denial that stands, without an error.
func wantDenial(t testing.TB, v guard.Validator, deviceID string, code guard.Code, reason string) {
	t.Helper()
	d, err := v.Validate(context.Background(), deviceID)
	if err != nil || d != (guard.Decision{Code: code, Reason: d.Reason}) || !strings.Contains(d.Reason, reason) {
		t.Errorf("device %q: %+v, %v; want %s: %s", deviceID, d, err, code, reason)
	}
}

// wantUnasked wants «could not ask», and an error of type E.
func wantUnasked[E error](t testing.TB, v guard.Validator, reason string) {
	t.Helper()
	_ = unaskedWith[E](t, v, reason)
}

// unaskedWith is wantUnasked for who wants to see the error.
func unaskedWith[E error](t testing.TB, v guard.Validator, reason string) E {
	t.Helper()
	d, err := v.Validate(context.Background(), ownMachine)
	var typed E
	if !errors.As(err, &typed) || !errors.Is(err, guard.ErrUnavailable) {
		t.Errorf("error %v (%T), want a %T that matches ErrUnavailable", err, err, typed)
	}
	if d != (guard.Decision{Code: guard.CodeSystemUnavailable, Reason: d.Reason}) || !strings.Contains(d.Reason, reason) {
		t.Errorf("%+v; want SYSTEM_UNAVAILABLE: %s", d, reason)
	}
	return typed
}

// tell has v witness an answer of the online authority.
func tell(t testing.TB, v guard.Validator, deviceID string, code guard.Code) {
	t.Helper()
	if err := v.(guard.Witness).Witness(context.Background(), deviceID, said(code), time.Now()); err != nil {
		t.Errorf("%s about %s: %v", code, deviceID, err)
	}
}

func said(code guard.Code) guard.Decision {
	return guard.Decision{Allowed: code == guard.CodeAllow, Code: code}
}

// allCodes is every code that the guard knows.
func allCodes() []guard.Code {
	return []guard.Code{
		guard.CodeAllow, guard.CodeOrgDisabled, guard.CodeSystemUnavailable, guard.CodePlanFrozen, guard.CodePlanNotActive,
		guard.CodeEntitlementExpired, guard.CodeDeviceRevoked, guard.CodeDeviceNotFound, guard.CodeOrgNotFound,
		guard.CodeInvalidOrgKey, guard.CodeInvalidDeviceID,
	}
}

// signature is one over text, as it stands in a file.
func signature(text []byte) string {
	return base64.StdEncoding.EncodeToString(ed25519.Sign(private, text))
}

// signedEnc is an envelope around anything, with a signature that is right.
func signedEnc(enc string) string {
	return `{"enc":"` + enc + `","sig":"` + signature([]byte("license/"+enc)) + `","alg":"base64+ed25519"}`
}

func keysOf(keys ...ed25519.PublicKey) []ed25519.PublicKey { return keys }

// memoryPath is where a test's memory goes.
func memoryPath(t testing.TB) string { return filepath.Join(t.TempDir(), "memory.json") }
