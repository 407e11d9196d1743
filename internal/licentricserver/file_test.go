package licentricserver_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/internal/licentricserver"
)

// opened is what stands in a licence file whose signature is good.
type opened struct {
	Data struct {
		ID, Type, Fingerprint, Name, Status, ProductID, PolicyID string
		ExpiresAt                                                *string
		Entitlements                                             []string
	}
	Meta struct {
		Issued, Expiry string
		TTL            int
	}
}

// payloadOf takes a file apart as the wire document says, line by line; good tells whether one of
// the keys has signed it.
func payloadOf(t *testing.T, file []byte, keys ...ed25519.PublicKey) (payload []byte, sig string, good bool) {
	t.Helper()
	lines := strings.Split(string(file), "\n")
	if len(lines) != 4 || lines[0] != "-----BEGIN LICENSE FILE-----" || lines[2] != "-----END LICENSE FILE-----" || lines[3] != "" {
		t.Fatalf("the lines are %q", lines)
	}
	envelope, err := base64.StdEncoding.Strict().DecodeString(lines[1])
	ok(t, err)
	var parts map[string]string
	ok(t, json.Unmarshal(envelope, &parts))
	if len(parts) != 3 || parts["alg"] != "base64+ed25519" {
		t.Fatalf("the envelope is %v", parts)
	}
	payload, err = base64.StdEncoding.Strict().DecodeString(parts["enc"])
	ok(t, err)
	signature, err := base64.StdEncoding.Strict().DecodeString(parts["sig"])
	ok(t, err)
	good = slices.ContainsFunc(keys, func(key ed25519.PublicKey) bool {
		return ed25519.Verify(key, []byte("license/"+parts["enc"]), signature)
	})
	return payload, parts["sig"], good
}

func open(t *testing.T, file []byte, keys ...ed25519.PublicKey) (out opened) {
	t.Helper()
	payload, _, good := payloadOf(t, file, keys...)
	if !good {
		t.Fatal("the signature is not good")
	}
	ok(t, json.Unmarshal(payload, &out))
	return out
}

// The test vector of the wire document.
func TestVector(t *testing.T) {
	s := newService(t, licentricserver.WithSeed(bytes.Repeat([]byte{0x42}, 32)))
	if got := hex.EncodeToString(s.PublicKey()); got != "2152f8d19b791d24453242e15f2eab6cb7cffa7b6a5ed30097960e069881db12" {
		t.Errorf("public key %s", got)
	}
	const payload = `{"data":{"id":"lic-1","type":"licenses"},"meta":{"issued":"2026-01-01T00:00:00.000Z","expiry":"2026-01-15T00:00:00.000Z","ttl":1209600}}`
	const want = "QC7voQ6Nb4oMjJ/Wn042TRbQPS9wK5/99SRapkZj/SAIjrYBA+Yb1BHW9JJLoliqu2s5dHYZx7l/UkChj9odAw=="
	if got, sig, good := payloadOf(t, s.SignPayload([]byte(payload)), s.PublicKey()); string(got) != payload || sig != want || !good {
		t.Errorf("payload %s with the signature %s", got, sig)
	}
	file, err := s.SignFile(licentricserver.FileData{ID: "lic-1", Type: "licenses"}, time.Date(2026, 1, 1, 1, 0, 0, 0, time.FixedZone("", 3600)), 14*24*time.Hour)
	ok(t, err)
	if got, sig, _ := payloadOf(t, file, s.PublicKey()); string(got) != payload || sig != want {
		t.Errorf("SignFile made the payload %s", got)
	}
}

// Checkout gives a file that says what is true of the licence now, for the time asked for.
func TestCheckout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := licentricserver.New()
		ok(t, err)
		addLicense(t, s, licentricserver.License{Name: "Ada", ExpiresAt: time.Now().Add(30 * 24 * time.Hour)})
		addMachine(t, s, fingerprint)
		for ttl, expiry := range map[string]string{
			``: "2000-01-15T00:00:00.000Z", `,"ttl":3600`: "2000-01-01T01:00:00.000Z", `,"ttl":7776000`: "2000-03-31T00:00:00.000Z",
		} {
			a := checkout(s, `{"fingerprint":"`+fingerprint+`"`+ttl+`}`).ask(s)
			body := decode[enveloped[struct {
				ID, LicenseID, Fingerprint, Certificate, IssuedAt, ExpiresAt string
				TTL                                                          int
			}]](t, a).Data
			if a.status != http.StatusOK || body.LicenseID != licenseID || body.Fingerprint != fingerprint || body.ExpiresAt != expiry {
				t.Fatalf("%s: %d %s", ttl, a.status, a.body)
			}
			in := open(t, []byte(body.Certificate), s.PublicKey())
			if in.Meta.Issued != body.IssuedAt || in.Meta.Expiry != expiry || in.Meta.TTL != body.TTL {
				t.Errorf("%s: %+v", ttl, in.Meta)
			}
			if d := in.Data; d.ID != licenseID || d.Type != "licenses" || d.Fingerprint != fingerprint || d.Name != "Ada" || d.Status != "ACTIVE" ||
				d.ProductID == "" || d.PolicyID == "" || *d.ExpiresAt != "2000-01-31T00:00:00.000Z" || !slices.Equal(d.Entitlements, []string{"EXPORT", "SYNC"}) {
				t.Errorf("%s: %+v", ttl, in.Data)
			}
		}
	})
}

// A file is for a machine that the licence is active on, of a licence that is there.
func TestCheckoutOfWhatIsNot(t *testing.T) {
	s := newService(t)
	refused(t, s, checkout(s, `{"fingerprint":"`+fingerprint+`"}`), http.StatusNotFound, "NOT_FOUND")
	c := checkout(s, `{"fingerprint":"`+fingerprint+`"}`)
	c.path = "/api/v1/licenses/none/checkout"
	refused(t, s, c, http.StatusNotFound, "NOT_FOUND")
}

// A key that was rotated away signs nothing any more, and what it has signed is good under it alone.
func TestRotateKey(t *testing.T) {
	s := newService(t)
	data, err := s.FileData(licenseID, fingerprint)
	ok(t, err)
	sign := func() []byte {
		file, err := s.SignFile(data, time.Now(), time.Hour)
		ok(t, err)
		return file
	}
	first, before := s.PublicKey(), sign()
	second := s.RotateKey()
	after := sign()
	if all := s.PublicKeys(); len(all) != 2 || !all[0].Equal(first) || !all[1].Equal(second) || !s.PublicKey().Equal(second) || first.Equal(second) {
		t.Errorf("the keys are %x", all)
	}
	for name, test := range map[string]struct {
		file []byte
		key  ed25519.PublicKey
		want bool
	}{"before, first": {before, first, true}, "before, second": {before, second, false}, "after, first": {after, first, false}, "after, second": {after, second, true}} {
		if _, _, good := payloadOf(t, test.file, test.key); good != test.want {
			t.Errorf("%s: good is %t", name, good)
		}
	}
	kept := hex.EncodeToString(second)
	s.PublicKey()[0] ^= 1
	if hex.EncodeToString(s.PublicKey()) != kept {
		t.Error("a caller's change of a key changed the service's")
	}
}
