package clerkserver

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/execguard/execguard/internal/faulty"
)

// dialect tells package faulty how Clerk speaks. What it says of a fault's code is about a
// client that asks whether a machine may run: nothing but an error of Clerk's own form is a word
// of Clerk's, so that a 403 or 404 with another body is no denial that stands.
//
// Two faults are none of some calls: 201 is what a new token answers, and a deletion is what
// DELETE wants to hear.
func (s *Service) dialect() faulty.Dialect {
	return faulty.Dialect{
		DeviceID: deviceOf,
		Yes:      func(q faulty.Question) string { return string(encode(s.sample(q))) },
		No:       func(faulty.Question) string { return string(s.explain(route{}, notFound("machine"), hex16())) },
		Another:  s.spoilt(strange),
		Failure:  s.failure,
		Own:      append(s.ownOfAll(), s.ownOfTokens()...),
	}
}

// deviceOf finds the machine in a path, or the subject of a list of tokens; "" where a question
// names none.
func deviceOf(q faulty.Question) string {
	for part := range strings.SplitSeq(q.Path, "/") {
		if strings.HasPrefix(part, "mch_") {
			return part
		}
	}
	asked, _ := url.ParseQuery(q.Query) // a broken one names what it names
	return asked.Get(subject)
}

// tokenOf finds the token in a question, or "".
func tokenOf(q faulty.Question) string {
	var body struct {
		Token string `json:"token"`
	}
	_ = json.Unmarshal(q.Body, &body) // none is none
	return body.Token
}

// failure is an error in Clerk's form.
func (s *Service) failure(status int) string {
	if status == http.StatusTooManyRequests {
		return string(s.explain(route{}, tooMany(), hex16()))
	}
	return string(s.explain(route{}, refuse(status, "internal_clerk_error", "Oops", http.StatusText(status)), hex16()))
}

// ownOfAll lists the faults that any call can show.
func (s *Service) ownOfAll() []faulty.Answer {
	clerks := `{"errors":[{"message":"not found","long_message":"There is no such machine.","code":"resource_not_found"}]}`
	page := `<!DOCTYPE html><html><head><title>Log in</title></head><body>Please log in first.</body></html>`
	html := http.Header{"Content-Type": {"text/html; charset=utf-8"}}
	return []faulty.Answer{
		{Name: "id of another machine", Body: s.spoilt(strange)},
		{Name: "id missing", Body: s.spoilt(func(o object) { delete(o, o.self()) })},
		{Name: "id as null", Body: s.spoilt(func(o object) { o.set(o.self(), nil) })},
		{Name: "id as a number", Body: s.spoilt(func(o object) { o.set(o.self(), 1) })},
		{Name: "id as an array", Body: s.spoilt(func(o object) { o[o.self()] = json.RawMessage(`[` + string(o[o.self()]) + `]`) })},
		{Name: "object of another kind", Body: s.spoilt(func(o object) { o.set("object", "user") })},
		{Name: "object missing", Body: s.spoilt(func(o object) { delete(o, "object") })},
		{Name: "object as null", Body: s.spoilt(func(o object) { o.set("object", nil) })},
		{Name: "deleted, as DELETE says it", Body: s.spoilt(bury)},
		{Name: "deleted, and all there", Body: s.spoilt(condemn)},
		{Name: "errors with 200", Body: faulty.Always(clerks)},
		{Name: "errors beside an ALLOW", Body: s.spoilt(func(o object) { o.set("errors", []ErrorItem{{Code: "internal_clerk_error"}}) })},
		{Name: "ALLOW in an envelope", Body: func(q faulty.Question) string { return `{"data":` + string(encode(s.sample(q))) + `}` }},
		{Name: "duplicate keys", Body: s.twice},
		{Name: "HTML with 403", Status: http.StatusForbidden, Header: html, Body: faulty.Always(page)},
		{Name: "HTML with 404", Status: http.StatusNotFound, Header: html, Body: faulty.Always(page)},
	}
}

// ownOfTokens lists the faults of what verify answers. To any other question they are an answer
// to a question that was not asked.
func (s *Service) ownOfTokens() []faulty.Answer {
	set := func(name string, value any) func(faulty.Question) string {
		return s.spoiltToken(func(o object) { o.set(name, value) })
	}
	without := func(name string) func(faulty.Question) string {
		return s.spoiltToken(func(o object) { delete(o, name) })
	}
	return []faulty.Answer{
		{Name: "token: revoked", Body: set("revoked", true)},
		{Name: "token: revoked as a string", Body: set("revoked", "false")},
		{Name: "token: revoked as null", Body: set("revoked", nil)},
		{Name: "token: revoked missing", Body: without("revoked")},
		{Name: "token: expired", Body: set("expired", true)},
		{Name: "token: expired as a string", Body: set("expired", "false")},
		{Name: "token: expired as null", Body: set("expired", nil)},
		{Name: "token: expired missing", Body: without("expired")},
		{Name: "token: expiration as a string", Body: s.spoiltToken(func(o object) { o.set("expiration", string(o["expiration"])) })},
		{Name: "token: expiration missing", Body: without("expiration")},
		{Name: nullExpiration, Body: set("expiration", nil)},
		{Name: "token: expiration in the past", Body: s.spoiltToken(func(o object) { o.set("expiration", milliseconds(time.Now())-1) })},
		{Name: "token: expiration in seconds", Body: s.spoiltToken(func(o object) { o.set("expiration", time.Now().Unix()+3600) })},
		{Name: "token: subject of a user", Body: set("subject", "user_"+word())},
		{Name: "token: scopes missing", Body: without("scopes")},
		{Name: "token: scopes as null", Body: set("scopes", nil)},
		{Name: "token: scopes empty", Body: set("scopes", []string{})},
		{Name: "token: scopes as a string", Body: s.spoiltToken(func(o object) { o.set("scopes", string(o["scopes"])) })},
		{Name: "token: scopes of another", Body: set("scopes", []string{"mch_" + word()})},
	}
}

// nullExpiration is the one fault that a client may be told to put up with: a token without an
// end.
const nullExpiration = "token: expiration as null"
