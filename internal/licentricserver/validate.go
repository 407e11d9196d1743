package licentricserver

import (
	"net/http"
	"slices"
)

// The codes of validate.
const (
	codeValid               = "VALID"
	codeExpired             = "EXPIRED"
	codeSuspended           = "SUSPENDED"
	codeRevoked             = "REVOKED"
	codeBanned              = "BANNED"
	codeNotFound            = "NOT_FOUND"
	codeFingerprintNotFound = "FINGERPRINT_NOT_FOUND"
	codeHeartbeatRequired   = "HEARTBEAT_REQUIRED"
	codeUsesExceeded        = "USES_EXCEEDED"
	codeEntitlementsMissing = "ENTITLEMENTS_MISSING"
)

// The bounds of a request's members. Those of fingerprint and name are documented.
const (
	shortestFingerprint, longestFingerprint = 8, 256
	longestName                             = 255
	longestKey                              = 1024
)

// validate answers every question that can be read with 200: «no» is an answer.
func (s *Service) validate(q *question) (reply, *apiError) {
	in := reader{fields: q.fields}
	key := in.text("key", 1, longestKey)
	fingerprint, bound := in.optional(s.paths.FingerprintMember, shortestFingerprint, longestFingerprint)
	wanted := in.words(s.paths.EntitlementsMember)
	if err := in.err(); err != nil {
		return reply{}, err
	}
	out := verdict{Code: codeNotFound, Entitlements: []any{}}
	if l := s.byKey(key); l != nil {
		out.License, out.Entitlements = s.shapeOf(l), s.entitlements(l)
		m := s.machine(l.ID, fingerprint)
		if m != nil {
			out.Machine = m.shape(l)
		}
		out.Code = s.judge(l, m, bound, wanted)
		out.Valid = out.Code == codeValid
		if out.Valid && l.expired() { // the trap: the policy ALLOW_ACCESS
			out.Code = codeExpired
		}
	}
	if s.variant == Enveloped {
		return reply{status: http.StatusOK, body: data{out}}, nil
	}
	return reply{status: http.StatusOK, body: out}, nil
}

// judge looks at the licence first, then at the machine, then at what is asked for, and says
// the first thing that is wrong. m is the machine with the fingerprint that was asked about, if
// there is one; bound tells whether one was.
func (s *Service) judge(l *license, m *machine, bound bool, wanted []string) string {
	if code := l.standing(); code != codeValid {
		return code
	}
	if bound {
		if code := s.seat(l, m); code != codeValid {
			return code
		}
	}
	return l.cover(wanted)
}

// standing judges the licence by itself.
func (l *license) standing() string {
	switch l.Status {
	case StatusBanned:
		return codeBanned
	case StatusRevoked:
		return codeRevoked
	case StatusSuspended:
		return codeSuspended
	case StatusActive, StatusExpired:
	}
	if l.expired() && !l.AllowExpired {
		return codeExpired
	}
	return codeValid
}

// seat judges the machine that was asked about.
func (s *Service) seat(l *license, m *machine) string {
	switch {
	case m == nil:
		return codeFingerprintNotFound
	case l.MaxMachines > 0 && s.count(l.ID) > l.MaxMachines:
		return codeMachineLimit
	case !m.alive(l):
		return codeHeartbeatRequired
	}
	return codeValid
}

// cover judges what the licence is good for.
func (l *license) cover(wanted []string) string {
	if l.MaxUses > 0 && l.Uses >= l.MaxUses {
		return codeUsesExceeded
	}
	for _, code := range wanted {
		if !slices.Contains(l.Entitlements, code) {
			return codeEntitlementsMissing
		}
	}
	return codeValid
}
