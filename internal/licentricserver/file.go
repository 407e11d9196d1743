package licentricserver

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// FileData is what a licence file says about a licence. Empty fields are left out.
type FileData struct {
	ID           string    `json:"id"`
	Type         string    `json:"type"` // "licenses"
	Fingerprint  string    `json:"fingerprint,omitempty"`
	Name         string    `json:"name,omitempty"`
	Status       Status    `json:"status,omitempty"`
	ProductID    string    `json:"productId,omitempty"`
	PolicyID     string    `json:"policyId,omitempty"`
	ExpiresAt    time.Time `json:"-"` // see MarshalJSON
	Entitlements []string  `json:"entitlements,omitempty"`
}

// MarshalJSON writes the time as the service does, and leaves a zero one out.
func (d FileData) MarshalJSON() ([]byte, error) {
	type plain FileData
	return json.Marshal(struct {
		plain

		ExpiresAt *string `json:"expiresAt,omitempty"`
	}{plain(d), stamp(d.ExpiresAt)})
}

// fileMeta is until when a file may be believed.
type fileMeta struct {
	Issued string `json:"issued"`
	Expiry string `json:"expiry"`
	TTL    int64  `json:"ttl"` // seconds
}

// The first and the last line of a licence file.
const (
	fileHeader = "-----BEGIN LICENSE FILE-----\n"
	fileFooter = "\n-----END LICENSE FILE-----\n"
	fileAlg    = "base64+ed25519"
)

// PublicKey returns the key that new licence files can be verified with.
func (s *Service) PublicKey() ed25519.PublicKey {
	all := s.PublicKeys()
	return all[len(all)-1]
}

// PublicKeys returns every key that licence files have been signed with, the one in use last.
func (s *Service) PublicKeys() []ed25519.PublicKey {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []ed25519.PublicKey
	for _, signer := range s.signers {
		all = append(all, publicKey(signer))
	}
	return all
}

// publicKey is a copy: the private key holds the original.
func publicKey(signer ed25519.PrivateKey) ed25519.PublicKey {
	return ed25519.PublicKey(bytes.Clone(signer[ed25519.SeedSize:]))
}

// RotateKey has new licence files signed with a new key, and returns what verifies them.
func (s *Service) RotateKey() ed25519.PublicKey {
	seed := make([]byte, ed25519.SeedSize)
	_, _ = rand.Read(seed) // never fails: it ends the program instead
	s.mu.Lock()
	defer s.mu.Unlock()
	signer := ed25519.NewKeyFromSeed(seed)
	s.signers = append(s.signers, signer)
	return publicKey(signer)
}

// FileData returns what a file for this licence and machine says now.
func (s *Service) FileData(licenseID, fingerprint string) (FileData, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.byID(licenseID)
	if l == nil {
		return FileData{}, fmt.Errorf("licentricserver: no licence %q", licenseID)
	}
	return l.fileData(fingerprint), nil
}

func (l *license) fileData(fingerprint string) FileData {
	return FileData{
		ID: l.ID, Type: "licenses", Fingerprint: fingerprint, Name: l.Name, Status: l.status(),
		ProductID: l.ProductID, PolicyID: l.PolicyID, ExpiresAt: l.end(), Entitlements: slices.Clone(l.Entitlements),
	}
}

// SignFile makes a licence file of data, a FileData or anything else that is a JSON object, which
// may be believed from issued on for as long as ttl says. Neither is looked at: files that no
// service should sign are for tests.
func (s *Service) SignFile(data any, issued time.Time, ttl time.Duration) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.signFile(data, issued, ttl)
}

func (s *Service) signFile(data any, issued time.Time, ttl time.Duration) ([]byte, error) {
	payload, err := json.Marshal(struct {
		Data any      `json:"data"`
		Meta fileMeta `json:"meta"`
	}{data, fileMeta{
		Issued: issued.UTC().Format(stampLayout),
		Expiry: issued.Add(ttl).UTC().Format(stampLayout),
		TTL:    int64(ttl / time.Second),
	}})
	if err != nil {
		return nil, fmt.Errorf("licentricserver: SignFile: %w", err)
	}
	return s.signPayload(payload), nil
}

// SignPayload makes a licence file of any payload at all, with a signature that is good.
func (s *Service) SignPayload(payload []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.signPayload(payload)
}

// signPayload must be called with the lock held, as must signFile.
func (s *Service) signPayload(payload []byte) []byte {
	enc := base64.StdEncoding.EncodeToString(payload)
	sig := ed25519.Sign(s.signers[len(s.signers)-1], []byte("license/"+enc))
	// Written by hand: base64 needs no escapes, and json.Marshal has no errors to offer here.
	text := `{"enc":"` + enc + `","sig":"` + base64.StdEncoding.EncodeToString(sig) + `","alg":"` + fileAlg + `"}`
	return []byte(fileHeader + base64.StdEncoding.EncodeToString([]byte(text)) + fileFooter)
}
