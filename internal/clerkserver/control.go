package clerkserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// AddMachine makes a machine with access to the machines whose ids follow its name, and returns
// its id and its secret key. Ids that no machine has are kept all the same and give access to
// nothing; AddScope of the API refuses them.
func (s *Service) AddMachine(name string, to ...string) (id, secret string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.newMachine(name, defaultTTL, distinct(to))
	s.machines[m.id] = m
	return m.id, m.secret
}

// RemoveMachine deletes a machine, as its DELETE does: it is not found any more, its secret
// keys are not known, its opaque tokens are not found and others have no access to it. It
// returns whether there was such a machine.
func (s *Service) RemoveMachine(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.remove(id)
}

// RestoreMachine undoes the last RemoveMachine or DELETE of a machine, of which Clerk has no
// equal: the id, the secret keys, the scopes either way and the tokens are what they were.
// It returns whether there was such a machine to restore.
func (s *Service) RestoreMachine(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ok := s.removed[id]
	if ok {
		delete(s.removed, id)
		s.machines[id] = m
	}
	return ok
}

// SetScopes replaces what a machine has access to. It returns whether there is such a machine.
func (s *Service) SetScopes(id string, to ...string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ok := s.machines[id]
	if ok {
		m.scopes, m.updated = distinct(to), time.Now()
	}
	return ok
}

// RevokeKey has the instance's secret key be one that nobody knows: 401 to every call with it.
// The machines' keys stay good.
func (s *Service) RevokeKey() { s.setStanding(standingUnknown) }

// RestrictKey has the instance's secret key be one without rights: 403 to every call with it.
func (s *Service) RestrictKey() { s.setStanding(standingRestricted) }

// RestoreKey takes RevokeKey and RestrictKey back.
func (s *Service) RestoreKey() { s.setStanding(standingGood) }

func (s *Service) setStanding(to standing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.standing = to
}

// Limit answers every request 429 from now on, with a Retry-After in whole seconds, at least
// one, or without the header where retryAfter is 0 or less. Unlimit ends it.
func (s *Service) Limit(retryAfter time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limited = retryAfter
	if retryAfter <= 0 {
		s.limited = -1 // limited, and no word on how long
	}
}

// Unlimit takes Limit back.
func (s *Service) Unlimit() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limited = 0
}

// ErrorItem is one entry of the list in an error of Clerk's.
type ErrorItem struct {
	Message     string         `json:"message"`
	LongMessage string         `json:"long_message"`
	Code        string         `json:"code"`
	Meta        map[string]any `json:"meta,omitempty"`
}

// RefuseNext answers the next request with a status and an error of this list, in Clerk's form,
// and does nothing of what it asks. Refusals that wait already come first. It is for errors that
// Clerk documents and no state of this service leads to, such as a 409 to a new token. A status
// that is none of an error, or an empty list, is an error of the caller's.
func (s *Service) RefuseNext(status int, list ...ErrorItem) error {
	if status < 400 || status > 599 || len(list) == 0 {
		return fmt.Errorf("clerkserver: RefuseNext(%d) with %d errors: want a status of 400 to 599 and at least one", status, len(list))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refusals = append(s.refusals, problem{status: status, list: list})
	return nil
}

// TokenSpec says what token IssueToken makes. The zero value is an opaque token that lives as
// long as the machine's tokens do, without claims.
type TokenSpec struct {
	TTL     time.Duration   // 0: the machine's default
	Endless bool            // it never expires, and TTL counts for nothing
	JWT     bool            // a JWT in place of an opaque token
	Claims  json.RawMessage // nil: none
}

// IssueToken makes a token of a machine, as the API does for the machine's secret key, and
// returns its id and the token itself.
func (s *Service) IssueToken(machineID string, spec TokenSpec) (id, secret string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ok := s.machines[machineID]
	if !ok {
		return "", "", fmt.Errorf("clerkserver: IssueToken: no machine %q", machineID)
	}
	if spec.Claims != nil && !json.Valid(spec.Claims) {
		return "", "", errors.New("clerkserver: IssueToken: claims are no JSON")
	}
	t := s.newToken(m, spec)
	if spec.JWT {
		if err := s.sign(t); err != nil {
			return "", "", fmt.Errorf("clerkserver: IssueToken: %w", err)
		}
		return t.id, t.secret, nil
	}
	s.tokens = append(s.tokens, t)
	return t.id, t.secret, nil
}

// RevokeToken revokes an opaque token by its id. It returns whether there is such a token.
func (s *Service) RevokeToken(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tokenByID(id)
	if t != nil {
		t.revoke(nil)
	}
	return t != nil
}

// remove is RemoveMachine under the lock.
func (s *Service) remove(id string) bool {
	m, ok := s.machines[id]
	if ok {
		delete(s.machines, id)
		s.removed[id] = m
	}
	return ok
}

// distinct returns a copy of ids in which each stands once.
func distinct(ids []string) []string {
	var once []string
	for _, id := range ids {
		if !slices.Contains(once, id) {
			once = append(once, id)
		}
	}
	return once
}
