package clerkserver

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"time"
)

// token is one machine-to-machine token; under the service's lock. JWTs are not kept: all that
// is known of them stands in them.
type token struct {
	id, secret, subject string
	claims              json.RawMessage // null where there are none
	scopes              []string        // what the machine had access to when the token was made
	revoked             bool
	reason              *string
	expires             time.Time // zero: never
	used                time.Time // zero: not yet
	created, updated    time.Time
}

// tokenJSON is a token as it is sent. The token itself is there when it has just been made.
type tokenJSON struct {
	Object           string          `json:"object"`
	ID               string          `json:"id"`
	Subject          string          `json:"subject"`
	Claims           json.RawMessage `json:"claims"`
	Scopes           []string        `json:"scopes"`
	Token            string          `json:"token,omitempty"`
	Revoked          bool            `json:"revoked"`
	RevocationReason *string         `json:"revocation_reason"`
	Expired          bool            `json:"expired"`
	Expiration       *int64          `json:"expiration"`
	LastUsedAt       *int64          `json:"last_used_at"`
	CreatedAt        int64           `json:"created_at"`
	UpdatedAt        int64           `json:"updated_at"`
}

// newToken makes a token of a machine.
func (s *Service) newToken(m *machine, spec TokenSpec) *token {
	now := time.Now().Truncate(time.Millisecond) // so that what is said is what holds
	t := &token{
		id: "mt_" + hex16(), secret: "mt_" + rand.Text(), subject: m.id,
		claims: spec.Claims, scopes: s.reach(m), created: now, updated: now,
	}
	if t.claims == nil {
		t.claims = json.RawMessage(null)
	}
	if spec.TTL <= 0 {
		spec.TTL = time.Duration(m.ttl) * time.Second
	}
	if !spec.Endless {
		t.expires = now.Add(spec.TTL)
	}
	return t
}

func (t *token) expired() bool { return !t.expires.IsZero() && !time.Now().Before(t.expires) }

// lasts tells whether the token is good for so long from now.
func (t *token) lasts(d time.Duration) bool {
	return !t.revoked && (t.expires.IsZero() || !time.Now().Add(d).After(t.expires))
}

// revoke ends a token. The first reason stays.
func (t *token) revoke(reason *string) {
	if !t.revoked {
		t.revoked, t.reason, t.updated = true, reason, time.Now()
	}
}

// show shows a token without the token itself.
func (t *token) show() tokenJSON {
	return tokenJSON{
		Object: "machine_to_machine_token", ID: t.id, Subject: t.subject, Claims: t.claims, Scopes: t.scopes,
		Revoked: t.revoked, RevocationReason: t.reason, Expired: t.expired(), Expiration: instant(t.expires),
		LastUsedAt: instant(t.used), CreatedAt: milliseconds(t.created), UpdatedAt: milliseconds(t.updated),
	}
}

// instant is milliseconds for what may not be.
func instant(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	ms := milliseconds(t)
	return &ms
}

// tokenWhere finds a kept token of a machine that is still there, or nil.
func (s *Service) tokenWhere(is func(*token) bool) *token {
	for _, t := range s.tokens {
		if _, ok := s.machines[t.subject]; ok && is(t) {
			return t
		}
	}
	return nil
}

func (s *Service) tokenByID(id string) *token {
	return s.tokenWhere(func(t *token) bool { return t.id == id })
}

// hex16 is 16 random bytes, as trace ids and the ids of tokens are written.
func hex16() string {
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // never fails: see crypto/rand
	return hex.EncodeToString(raw[:])
}
