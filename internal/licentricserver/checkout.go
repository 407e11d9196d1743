package licentricserver

import (
	"net/http"
	"time"
)

// The bounds of a licence file's life.
const (
	shortestTTL = 3600    // seconds: an hour
	longestTTL  = 7776000 // 90 days
	usualTTL    = 1209600 // 14 days
)

// fileShape is the answer to checkout. Only that there is a certificate in it is documented.
func (s *Service) fileShape(certificate []byte, licenseID, fingerprint string, issued time.Time, ttl int) data {
	return data{map[string]any{
		"id":                      newID(),
		"licenseId":               licenseID,
		"fingerprint":             fingerprint,
		s.paths.CertificateMember: string(certificate),
		"ttl":                     ttl,
		"issuedAt":                stamp(issued),
		"expiresAt":               stamp(issued.Add(time.Duration(ttl) * time.Second)),
	}}
}

// checkout makes a licence file for a machine that the licence is active on.
func (s *Service) checkout(q *question) (reply, *apiError) {
	in := reader{fields: q.fields}
	fingerprint := in.text("fingerprint", shortestFingerprint, longestFingerprint)
	ttl := in.whole("ttl", shortestTTL, longestTTL, usualTTL)
	if err := in.err(); err != nil {
		return reply{}, err
	}
	l := s.byID(q.id)
	switch {
	case l == nil:
		return reply{}, refuse(http.StatusNotFound, "no such licence")
	case s.machine(l.ID, fingerprint) == nil:
		return reply{}, refuse(http.StatusNotFound, "the licence is not active on that machine")
	}
	if err := l.inForce(); err != nil {
		return reply{}, err
	}
	issued := time.Now()
	file, err := s.signFile(l.fileData(fingerprint), issued, time.Duration(ttl)*time.Second)
	if err != nil { // cannot be: a FileData always has a form in JSON
		return reply{}, refuse(http.StatusInternalServerError, "the licence file cannot be written")
	}
	return reply{status: http.StatusOK, body: s.fileShape(file, l.ID, fingerprint, issued, ttl)}, nil
}
