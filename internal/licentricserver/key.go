package licentricserver

import (
	"crypto/rand"
	"net/http"
	"slices"
	"strings"
)

// Scope is what an API key may do. The vendor documents that there are scopes, and not their
// names.
type Scope string

// The scopes that calls ask for.
const (
	ScopeMachines Scope = "machines:read"
	ScopeCheckout Scope = "licenses:checkout"
)

// APIKey returns a key that may do everything. It is made for this service and good for nothing
// else.
func (s *Service) APIKey() string { return s.ownKey }

// AddAPIKey makes another key, with these scopes only.
func (s *Service) AddAPIKey(scopes ...Scope) string {
	key := "lk_test_" + rand.Text()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[key] = scopes
	return key
}

// RemoveAPIKey makes a key one that nobody knows: 401 from the next request on.
func (s *Service) RemoveAPIKey(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.keys, key)
}

// authorize finds out who asks. It must be called with the lock held.
func (s *Service) authorize(q *question) *apiError {
	switch q.route.auth {
	case authLicense:
		return s.authorizeLicense(q)
	case authBearer:
		return s.authorizeKey(q)
	case authNone:
	}
	return nil
}

func (s *Service) authorizeLicense(q *question) *apiError {
	key, ok := q.credentials("License")
	if q.license = s.byKey(key); !ok || q.license == nil {
		return refuse(http.StatusUnauthorized, "a licence key is needed: Authorization: License <key>")
	}
	return nil
}

func (s *Service) authorizeKey(q *question) *apiError {
	key, ok := q.credentials("Bearer")
	scopes, known := s.keys[key]
	switch {
	case !ok || !known:
		return refuse(http.StatusUnauthorized, "an API key is needed: Authorization: Bearer <key>")
	case !slices.Contains(scopes, q.route.scope):
		return refuse(http.StatusForbidden, "the API key lacks the scope "+string(q.route.scope))
	}
	return nil
}

// credentials returns what came with the scheme. Of two headers, which one speaks would be for a
// proxy to choose, so both are refused.
func (q *question) credentials(scheme string) (value string, ok bool) {
	if len(q.authorization) != 1 {
		return "", false
	}
	told, value, _ := strings.Cut(q.authorization[0], " ")
	value = strings.TrimSpace(value)
	return value, strings.EqualFold(told, scheme) && value != ""
}
