package clerkserver

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// header is what every JWT of the service begins with, but for the key's name, which is the
// instance's id.
type header struct {
	Algorithm string `json:"alg"`
	Key       string `json:"kid"`
	Type      string `json:"typ"`
}

// payload is what the service itself says in a JWT. The claims stand beside it.
type payload struct {
	ID        string   `json:"jti"`
	Subject   string   `json:"sub"`
	Audience  []string `json:"aud"`
	IssuedAt  int64    `json:"iat"`           // seconds, as in every JWT
	NotBefore int64    `json:"nbf"`           // seconds
	Expires   int64    `json:"exp,omitempty"` // seconds; 0: never
}

func reserved() []string { return []string{"jti", "sub", "aud", "iat", "nbf", "exp", "iss"} }

// claimable says why claims cannot stand in a JWT.
func claimable(claims json.RawMessage) error {
	var members map[string]json.RawMessage
	if json.Unmarshal(claims, &members) != nil {
		return errors.New("must be an object in a JWT")
	}
	for _, name := range reserved() {
		if _, ok := members[name]; ok {
			return fmt.Errorf("must leave %s to the service", name)
		}
	}
	return nil
}

// PublicKey returns the key that verifies the service's JWTs.
func (s *Service) PublicKey() (*rsa.PublicKey, error) {
	key, err := s.signer()
	if err != nil {
		return nil, err
	}
	return &key.PublicKey, nil
}

// sign makes a token a JWT: what was random in it becomes all that there is to know. Its times
// are whole seconds; the fraction that it loses is lost from its life as well.
func (s *Service) sign(t *token) error {
	t.created = t.created.Truncate(time.Second)
	t.updated = t.created
	said := payload{ID: t.id, Subject: t.subject, Audience: t.scopes, IssuedAt: t.created.Unix(), NotBefore: t.created.Unix()}
	if !t.expires.IsZero() {
		t.expires = t.expires.Truncate(time.Second)
		said.Expires = t.expires.Unix()
	}
	body, err := beside(said, t.claims)
	if err != nil {
		return err
	}
	key, err := s.signer()
	if err != nil {
		return err
	}
	s.signs = true
	text := part(encode(header{"RS256", s.instance, "JWT"})) + "." + part(body)
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	t.secret = text + "." + part(signature)
	return err
}

// beside puts claims beside what the service says.
func beside(said payload, claims json.RawMessage) ([]byte, error) {
	if string(claims) == null {
		return encode(said), nil
	}
	if err := claimable(claims); err != nil {
		return nil, fmt.Errorf("claims %w", err)
	}
	members := make(map[string]json.RawMessage)
	if err := errors.Join(json.Unmarshal(claims, &members), json.Unmarshal(encode(said), &members)); err != nil {
		return nil, err
	}
	return encode(members), nil
}

// unsign reads a JWT of the service, or returns nil. That its machine is gone is nothing that it
// could know.
func (s *Service) unsign(secret string) *token {
	text, signature, ok := cutLast(secret)
	if !ok || !s.signs {
		return nil // where no key was made yet, nothing was signed
	}
	key, err := s.signer()
	if err != nil {
		return nil
	}
	sum := sha256.Sum256([]byte(text))
	if rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, sum[:], signature) != nil {
		return nil
	}
	_, middle, _ := strings.Cut(text, ".")
	body, err := base64.RawURLEncoding.DecodeString(middle)
	if err != nil {
		return nil
	}
	return recall(body)
}

// cutLast cuts a JWT into what is signed and the signature.
func cutLast(secret string) (text string, signature []byte, ok bool) {
	at := strings.LastIndexByte(secret, '.')
	if at < 0 {
		return "", nil, false
	}
	signature, err := base64.RawURLEncoding.Strict().DecodeString(secret[at+1:])
	return secret[:at], signature, err == nil
}

// recall makes a token of the payload of a JWT.
func recall(body []byte) *token {
	var said payload
	var members map[string]json.RawMessage
	if json.Unmarshal(body, &said) != nil || json.Unmarshal(body, &members) != nil {
		return nil
	}
	for name := range members {
		if slices.Contains(reserved(), name) {
			delete(members, name)
		}
	}
	t := &token{id: said.ID, subject: said.Subject, scopes: said.Audience, claims: json.RawMessage(null)}
	if len(members) > 0 {
		t.claims = encode(members)
	}
	t.created = time.Unix(said.IssuedAt, 0)
	t.updated = t.created
	if said.Expires != 0 {
		t.expires = time.Unix(said.Expires, 0)
	}
	return t
}

func part(text []byte) string { return base64.RawURLEncoding.EncodeToString(text) }
