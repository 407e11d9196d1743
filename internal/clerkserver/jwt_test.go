package clerkserver_test

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/m2m_token"

	"github.com/execguard/execguard/internal/clerkserver"
)

// TestJWTIsOne: three parts, the middle one is the token's, and the last one holds for them.
func TestJWTIsOne(t *testing.T) {
	s := start(t)
	two, twos := s.AddMachine("two")
	one, ones := s.AddMachine("one", two)
	made := tokenOf(t, s.Service, ones, &m2m_token.CreateParams{
		TokenFormat: clerk.String("jwt"), SecondsUntilExpiration: clerk.Int64(90), Claims: raw(`{"role":"reader"}`),
	})
	parts := strings.Split(made.Token, ".")
	if len(parts) != 3 {
		t.Fatalf("%d parts", len(parts))
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	must(t, signature, err)
	key, err := s.PublicKey()
	must(t, key, err)
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if err := rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signature); err != nil {
		t.Error(err)
	}
	said := decodePart(t, parts[1])
	if said["jti"] != made.ID || said["sub"] != one || fmt.Sprint(said["aud"]) != fmt.Sprint([]any{two}) || said["role"] != "reader" ||
		said["exp"] != float64(*made.Expiration/1000) || said["iat"] != float64(made.CreatedAt/1000) || said["exp"].(float64)-said["iat"].(float64) != 90 {
		t.Errorf("payload %v of %s", said, made.Response.RawJSON)
	}
	if h := decodePart(t, parts[0]); h["alg"] != "RS256" || h["typ"] != "JWT" || h["kid"] == "" {
		t.Errorf("header %v", h)
	}
	for who, c := range map[string]sdk{
		"the instance": newSDK(s.Client(), s.BaseURL(), s.SecretKey()), "two": newSDK(s.Client(), s.BaseURL(), twos),
	} {
		got := verify(t, c, made.Token)
		if got.ID != made.ID || got.Subject != one || fmt.Sprint(got.Scopes) != fmt.Sprint([]string{two}) || *got.Expiration != *made.Expiration ||
			string(got.Claims) != `{"role":"reader"}` || got.Revoked || got.Expired || got.LastUsedAt != nil {
			t.Errorf("verified by %s: %s", who, got.Response.RawJSON)
		}
	}
}

func decodePart(t *testing.T, part string) (members map[string]any) {
	t.Helper()
	text, err := base64.RawURLEncoding.DecodeString(part)
	must(t, text, err)
	if err := json.Unmarshal(text, &members); err != nil {
		t.Fatal(err)
	}
	return members
}

// TestJWTCannotBeRevokedAndExpires: it has no state, not even that of its machine.
func TestJWTCannotBeRevokedAndExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		id, _ := s.AddMachine("one")
		org := inside(s, s.SecretKey())
		tokenID, token, err := s.IssueToken(id, clerkserver.TokenSpec{JWT: true, TTL: 10 * time.Second})
		must(t, token, err)
		_, err = org.tokens.Revoke(t.Context(), tokenID, &m2m_token.RevokeParams{})
		wantStatus(t, err, 404)
		s.RemoveMachine(id)
		time.Sleep(10*time.Second - 1)
		if got := verify(t, org, token); got.Revoked || got.Expired || got.Subject != id || string(got.Claims) != "null" {
			t.Errorf("just before its end: %s", got.Response.RawJSON)
		}
		time.Sleep(1)
		if got := verify(t, org, token); !got.Expired {
			t.Errorf("at its end: %s", got.Response.RawJSON)
		}
	})
}

// TestJWTOfAnotherIsNone: each character of it counts, and so does whose it is.
func TestJWTOfAnotherIsNone(t *testing.T) {
	s, foreign := newService(t), newService(t)
	id, _ := s.AddMachine("one")
	_, token, err := s.IssueToken(id, clerkserver.TokenSpec{JWT: true})
	must(t, token, err)
	others, _ := foreign.AddMachine("one")
	_, theirs, err := foreign.IssueToken(others, clerkserver.TokenSpec{JWT: true})
	must(t, theirs, err)
	parts := strings.Split(token, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + parts[1] + "."
	forged := []string{theirs, none, parts[0] + "." + parts[1] + ".", "..", "a.b.c", parts[0] + ".." + parts[2], token + "=", token[:len(token)-1]}
	for i := range token {
		flipped := []byte(token)
		if flipped[i] ^= 1; flipped[i] != '.' && token[i] != '.' {
			forged = append(forged, string(flipped))
		}
	}
	// The last letter has bits to spare, which a lax decoder throws away.
	for _, last := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" {
		if other := token[:len(token)-1] + string(last); other != token {
			forged = append(forged, other)
		}
	}
	org := inside(s, s.SecretKey())
	for _, f := range forged {
		_, err := org.tokens.Verify(t.Context(), &m2m_token.VerifyParams{Token: f})
		wantStatus(t, err, 404)
	}
	verify(t, org, token)
}

// TestClaimsOfAJWT stand beside its own, and so cannot be those.
func TestClaimsOfAJWT(t *testing.T) {
	s := newService(t)
	id, secret := s.AddMachine("one")
	for _, claims := range []string{`"text"`, `[1]`, `1`, `{"sub":"mch_other"}`, `{"exp":99999999999}`, `{"iss":"me"}`} {
		_, err := inside(s, secret).tokens.Create(t.Context(), &m2m_token.CreateParams{TokenFormat: clerk.String("jwt"), Claims: raw(claims)})
		wantStatus(t, err, 400)
		if _, _, err := s.IssueToken(id, clerkserver.TokenSpec{JWT: true, Claims: json.RawMessage(claims)}); err == nil {
			t.Errorf("IssueToken took the claims %s", claims)
		}
		opaque := tokenOf(t, s, secret, &m2m_token.CreateParams{Claims: raw(claims)}) // may say what it will
		if string(opaque.Claims) != claims {
			t.Errorf("claims %s became %s", claims, opaque.Claims)
		}
	}
	if _, _, err := s.IssueToken(id, clerkserver.TokenSpec{Claims: json.RawMessage(`{`)}); err == nil {
		t.Error("IssueToken took claims that are no JSON")
	}
	if _, _, err := s.IssueToken("mch_nobody", clerkserver.TokenSpec{}); err == nil {
		t.Error("IssueToken found a machine that is not there")
	}
}
