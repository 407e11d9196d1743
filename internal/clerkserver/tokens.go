package clerkserver

import (
	"bytes"
	"cmp"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"time"
)

// tokensJSON is a page of tokens.
type tokensJSON struct {
	Tokens     []tokenJSON `json:"m2m_tokens"`
	TotalCount int         `json:"total_count"` // of all pages
}

// createToken makes a token of the machine whose key it comes with, or finds one.
func (s *Service) createToken(c *call) (any, *problem) {
	if p := c.form.only("token_format", "seconds_until_expiration", "claims", "min_remaining_ttl_seconds"); p != nil {
		return nil, p
	}
	spec, p := wanted(c)
	if p != nil {
		return nil, p
	}
	fresh := s.newToken(c.caller, spec)
	kept, p := s.reuse(c, spec, fresh)
	switch {
	case p != nil:
		return nil, p
	case kept != nil:
		fresh = kept
	case spec.JWT:
		if err := s.sign(fresh); err != nil {
			return nil, badRequest(err.Error())
		}
	default:
		s.tokens = append(s.tokens, fresh)
	}
	shown := fresh.show()
	shown.Token = fresh.secret
	return shown, nil
}

// wanted reads what token is asked for.
func wanted(c *call) (spec TokenSpec, p *problem) {
	format, p := c.form.text("token_format")
	if p != nil {
		return spec, p
	}
	if _, given := c.form.members["token_format"]; given && format != "opaque" && format != "jwt" {
		return spec, c.form.refuse("token_format", "", "must be opaque or jwt")
	}
	spec.JWT = format == "jwt"
	fallback := time.Duration(c.caller.ttl) * time.Second
	if spec.TTL, spec.Endless, p = c.form.lifetime("seconds_until_expiration", fallback); p != nil {
		return spec, p
	}
	spec.Claims, p = c.form.claims(spec.JWT)
	return spec, p
}

// claims reads the claims of a token, nil where there are none. A JWT holds them beside its own,
// and so they have to be an object there, and leave its own alone.
func (f form) claims(jwt bool) (json.RawMessage, *problem) {
	raw, ok := f.members["claims"]
	if !ok || string(raw) == null {
		return nil, nil
	}
	var small bytes.Buffer
	if err := json.Compact(&small, raw); err != nil {
		return nil, f.refuse("claims", "", "must be JSON")
	}
	if !jwt {
		return small.Bytes(), nil
	}
	if err := claimable(small.Bytes()); err != nil {
		return nil, f.refuse("claims", "", err.Error())
	}
	return small.Bytes(), nil
}

// reuse looks for a token that min_remaining_ttl_seconds would rather have than a fresh one.
func (s *Service) reuse(c *call, spec TokenSpec, fresh *token) (*token, *problem) {
	if _, ok := c.form.members["min_remaining_ttl_seconds"]; !ok {
		return nil, nil
	}
	seconds, p := c.form.integer("min_remaining_ttl_seconds", 0, maxTTL, 0)
	if p != nil {
		return nil, p
	}
	rest := time.Duration(seconds) * time.Second
	if !spec.Endless && rest >= spec.TTL {
		return nil, c.form.refuse("min_remaining_ttl_seconds", "", "must be less than the token's lifetime")
	}
	if spec.JWT {
		return nil, nil // JWTs are not kept, and so not found again
	}
	return s.tokenWhere(func(t *token) bool {
		return t.subject == fresh.subject && t.lasts(rest) && !t.expired() &&
			bytes.Equal(t.claims, fresh.claims) && slices.Equal(t.scopes, fresh.scopes)
	}), nil
}

// listTokens answers a page of a machine's opaque tokens.
func (s *Service) listTokens(c *call) (any, *problem) {
	of := string(c.form.members[subject])
	if !regexp.MustCompile(`^mch_\w{27}$`).MatchString(of) {
		return nil, c.form.refuse(subject, "", "must be the id of a machine")
	}
	revoked, p := c.form.flag("revoked")
	if p != nil {
		return nil, p
	}
	expired, p := c.form.flag("expired")
	if p != nil {
		return nil, p
	}
	limit, p := c.form.integer("limit", 1, 100, 10)
	if p != nil {
		return nil, p
	}
	offset, p := c.form.integer("offset", 0, 1<<31, 0)
	if p != nil {
		return nil, p
	}
	if c.caller != nil && c.caller.id != of {
		return nil, forbidden("A machine sees its own tokens alone.")
	}
	if _, ok := s.machines[of]; !ok {
		return nil, notFound("machine")
	}
	return page(s.tokens, offset, limit, func(t *token) bool {
		return t.subject == of && (revoked || !t.revoked) && (expired || !t.expired())
	}), nil
}

// page shows a page of the tokens that count, the newest first.
func page(all []*token, offset, limit int64, counts func(*token) bool) tokensJSON {
	var found []*token
	for _, t := range slices.Backward(all) {
		if counts(t) {
			found = append(found, t)
		}
	}
	shown := tokensJSON{Tokens: []tokenJSON{}, TotalCount: len(found)}
	for _, t := range cut(found, offset, limit) {
		shown.Tokens = append(shown.Tokens, t.show())
	}
	return shown
}

// verifyToken says what is known of a token. It does not say whether that is good: revoked and
// expired tokens answer 200 as well.
func (s *Service) verifyToken(c *call) (any, *problem) {
	if p := cmp.Or(c.form.only("token"), c.form.required("token")); p != nil {
		return nil, p
	}
	secret, p := c.form.text("token")
	if p != nil {
		return nil, p
	}
	t := s.tokenBySecret(secret)
	// To a machine that a token gives no access to, there is no such token.
	if t == nil || c.caller != nil && !slices.Contains(t.scopes, c.caller.id) {
		return nil, notFound("token")
	}
	shown := t.show()
	t.used = time.Now() // shows the next time; on what was read from a JWT it is lost
	return shown, nil
}

// tokenBySecret finds an opaque token, or reads a JWT; nil where it is neither.
func (s *Service) tokenBySecret(secret string) *token {
	if strings.Count(secret, ".") == 2 {
		return s.unsign(secret)
	}
	return s.tokenWhere(func(t *token) bool { return t.secret == secret })
}

// revokeToken takes the instance's key and that of the token's own machine.
func (s *Service) revokeToken(c *call) (any, *problem) {
	if !regexp.MustCompile(`^mt_[0-9A-Fa-f]{32}$`).MatchString(c.ids[0]) {
		return nil, badRequest("The path does not hold the id of a token.")
	}
	if p := c.form.only("revocation_reason"); p != nil {
		return nil, p
	}
	var reason *string
	if raw, ok := c.form.members["revocation_reason"]; ok && string(raw) != null {
		text, p := c.form.text("revocation_reason")
		if p != nil {
			return nil, p
		}
		reason = &text
	}
	t := s.tokenByID(c.ids[0])
	if t == nil || c.caller != nil && c.caller.id != t.subject {
		return nil, notFound("token")
	}
	t.revoke(reason)
	return t.show(), nil
}
