package licentricserver

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/execguard/execguard/internal/faulty"
)

// dialect tells how faults look in the service's own words. A fault of the body is one in the
// answer to validate, whatever the call: that is where a permission is.
func (s *Service) dialect() faulty.Dialect {
	return faulty.Dialect{
		DeviceID: s.deviceID,
		Yes:      func(q faulty.Question) string { return s.yes(q, q.DeviceID) },
		No:       func(faulty.Question) string { return s.enveloped(noText) },
		Another:  func(q faulty.Question) string { return s.yes(q, "another-"+q.DeviceID) },
		Failure:  func(status int) string { return text(refuse(status, "as a test asked for").reply(s.oldErrors).body) },
		Own:      s.faults(),
	}
}

// What a careless client would not look for. The ids are made up.
const (
	noText     = `{"valid":false,"code":"SUSPENDED","license":null,"machine":null,"entitlements":[]}`
	bothText   = `{"valid":false,"code":"SUSPENDED","data":`
	strangerID = "9d0e4c1b-5b1b-4f0a-8a57-64f1f3b8a2de"
)

// faults are those that only this service can show. Whatever they spoil is an ALLOW otherwise.
func (s *Service) faults() []faulty.Answer {
	return []faulty.Answer{
		{Name: "duplicate keys", Body: s.spoilt(`"valid":true,"code":"VALID"`, `"valid":false,"code":"SUSPENDED","valid":true,"code":"VALID"`)},
		{Name: "keys in another case", Body: s.spoilt(`"valid":true,"code"`, `"Valid":true,"CODE"`)},
		{Name: "valid as a string", Body: s.spoilt(`"valid":true`, `"valid":"true"`)},
		{Name: "valid as 1", Body: s.spoilt(`"valid":true`, `"valid":1`)},
		{Name: "valid as null", Body: s.spoilt(`"valid":true`, `"valid":null`)},
		{Name: "valid missing", Body: s.spoilt(`"valid":true,`, ``)},
		{Name: "code missing", Body: s.spoilt(`"code":"VALID",`, ``)},
		{Name: "valid with a deny code", Body: s.spoilt(`"code":"VALID"`, `"code":"SUSPENDED"`)},
		{Name: "valid with the code ALLOW", Body: s.spoilt(`"code":"VALID"`, `"code":"ALLOW"`)},
		{Name: "denied with the code ALLOW", Body: s.spoilt(`"valid":true,"code":"VALID"`, `"valid":false,"code":"ALLOW"`)},
		{Name: "denied with the code VALID", Body: s.spoilt(`"valid":true`, `"valid":false`)},
		{Name: "unknown code, valid", Body: s.spoilt(`"code":"VALID"`, `"code":"QUOTA_EXHAUSTED"`)},
		{
			Name: "unknown code, denied", Code: "QUOTA_EXHAUSTED",
			Body: s.spoilt(`"valid":true,"code":"VALID"`, `"valid":false,"code":"QUOTA_EXHAUSTED"`),
		},
		{ // the trap: the policy ALLOW_ACCESS, which only an option may trust
			Name: "EXPIRED with valid true", Code: "ENTITLEMENT_EXPIRED",
			Body: s.spoilt(`"code":"VALID"`, `"code":"EXPIRED"`),
		},
		{Name: "two answers in one", Body: func(q faulty.Question) string { return bothText + s.permission(q) + "}" }},
	}
}

// spoilt is an ALLOW with one change, in the envelope of the service.
func (s *Service) spoilt(old, with string) func(faulty.Question) string {
	return func(q faulty.Question) string { return s.enveloped(strings.Replace(s.permission(q), old, with, 1)) }
}

// enveloped puts an answer to validate into the form that the service has been told.
func (s *Service) enveloped(text string) string {
	if s.variant == Enveloped {
		return `{"data":` + text + `}`
	}
	return text
}

// permission is the ALLOW to a question, without an envelope.
func (s *Service) permission(q faulty.Question) string { return text(s.allow(q, q.DeviceID)) }

// yes is what the call that a question is for answers when all is well, about a device.
func (s *Service) yes(q faulty.Question, deviceID string) string {
	call, id := s.callOf(q)
	if deviceID != q.DeviceID || id == "" {
		id = strangerID
	}
	m := machine{Machine: Machine{ID: id, LicenseID: strangerID, Fingerprint: deviceID, Created: time.Now()}}
	shape := m.shape(&license{})
	switch call {
	case CallActivate, CallDeactivate, CallHeartbeat, CallMachine:
		return text(data{shape})
	case CallMachines:
		return text(page{Data: []*machineBody{shape}})
	case CallCheckout:
		return s.yesFile(id, deviceID)
	case CallValidate:
	}
	return s.enveloped(text(s.allow(q, deviceID)))
}

// allow is a verdict that leaves nothing to be wished for: it has the machine and the
// entitlements that were asked about.
func (s *Service) allow(q faulty.Question, deviceID string) verdict {
	l := &license{License: License{ID: strangerID, Name: "a licence", Status: StatusActive}}
	l.Entitlements = s.read(q).words(s.paths.EntitlementsMember)
	out := verdict{Valid: true, Code: codeValid, Entitlements: s.entitlements(l)}
	out.License = &licenseBody{ID: l.ID, Name: l.Name, Status: l.Status, Entitlements: out.Entitlements}
	if deviceID != "" {
		out.Machine = (&machine{Machine: Machine{ID: strangerID, LicenseID: l.ID, Fingerprint: deviceID}}).shape(l)
	}
	return out
}

// yesFile is the answer to checkout, with a file that is good.
func (s *Service) yesFile(licenseID, deviceID string) string {
	issued := time.Now()
	file, err := s.SignFile(FileData{ID: licenseID, Type: "licenses", Fingerprint: deviceID}, issued, usualTTL*time.Second)
	if err != nil {
		return "" // cannot be: it is all text
	}
	return text(s.fileShape(file, licenseID, deviceID, issued, usualTTL))
}

// deviceID finds the fingerprint that a request is about: in its body, or through the machine in
// its path.
func (s *Service) deviceID(q faulty.Question) string {
	in := s.read(q)
	for _, name := range []string{"fingerprint", s.paths.FingerprintMember} {
		if fingerprint := in.text(name, 0, longestFingerprint); fingerprint != "" {
			return fingerprint
		}
	}
	_, id := s.callOf(q)
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.machineByID(id); m != nil {
		return m.Fingerprint
	}
	return ""
}

// read reads a request's body; one that cannot be read has no members.
func (s *Service) read(q faulty.Question) *reader {
	in, _ := decode(q.Body)
	return &reader{fields: in}
}

// callOf is the call that a question is for, and the id in its path.
func (s *Service) callOf(q faulty.Question) (call Call, id string) {
	path, _ := strings.CutPrefix(q.Path, apiPrefix)
	for _, r := range s.routes {
		if id, ok := r.match(path); ok && r.method == q.Method {
			return r.call, id
		}
	}
	return "", ""
}

// secrets are what no stranger may be given: licence keys and API keys.
func (s *Service) secrets() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for key := range s.keys {
		all = append(all, key)
	}
	for _, l := range s.licenses {
		all = append(all, l.Key)
	}
	return all
}

// text is a value of ours as JSON.
func text(value any) string {
	out, err := json.Marshal(value)
	if err != nil {
		return http.StatusText(http.StatusInternalServerError) // cannot be: no value of ours has a form that JSON lacks
	}
	return string(out)
}
