package licentric

import (
	"errors"
	"net/http"
	"strings"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/internal/httpapi"
	"github.com/execguard/execguard/guard/internal/strictjson"
)

// errNoValidation is the doubt about an answer that does not even try: an error of the API's.
var errNoValidation = errors.New("no validation")

// validation makes a Validation of an answer with a status of 2xx or 4xx, or says why it is none.
// The doubts come first: what is left at the end is the one shape of a yes and those of a no.
func (r *reply) validation(fingerprint string) (Validation, error) {
	body, err := r.verdict()
	if err != nil {
		return Validation{}, err
	}
	valid, decided := body.Bool("valid")
	v := Validation{Valid: valid, Code: codeOf(body), Answer: r.answer()}
	switch {
	case !decided:
		return v, errors.New("valid is missing or not a boolean")
	case v.Code == "":
		return v, errors.New("the code is missing or not a word")
	case valid != (v.Code == CodeValid) && !(valid && v.Code == CodeExpired), v.Code == Code(guard.CodeAllow):
		return v, errors.New("valid and code contradict each other")
	case !r.decides(valid):
		return v, errors.New("such an answer does not come with this status")
	case valid && !absent(r.object.Raw("error")):
		return v, errors.New("a yes beside an error")
	}
	if err := v.parts(body); err != nil && valid {
		return v, err // of a no, what else it says may be anything: it stands
	}
	if about(v.Machine, fingerprint, valid) {
		return v, nil
	}
	return v, errors.New("the answer is about another machine")
}

// verdict returns the object that holds the verdict. The vendor's documentation can be read both
// ways, and an answer that is both might say both yes and no.
func (r *reply) verdict() (strictjson.Object, error) {
	bare := false
	for _, name := range validationMembers() {
		bare = bare || r.object.Raw(name) != nil
	}
	data := r.object.Raw("data")
	if absent(data) {
		data = nil
	}
	switch {
	case r.status >= http.StatusBadRequest && data == nil && r.object.Raw("valid") == nil:
		return strictjson.Object{}, errNoValidation
	case data == nil:
		return r.object, nil
	case bare:
		return strictjson.Object{}, errors.New("the answer stands both in an envelope and beside it")
	}
	body, err := strictjson.Parse(data, validationMembers()...)
	if err != nil {
		return strictjson.Object{}, errors.New("data is " + err.Error())
	}
	return body, nil
}

// decides tells whether the status can carry the answer. Whether a no comes with 200 or with 4xx
// the vendor does not say; a yes comes with 200.
func (r *reply) decides(valid bool) bool {
	return r.status == http.StatusOK || r.status >= http.StatusBadRequest && !valid
}

// codeOf returns the code unchanged, or "" where it is missing or nothing that could be shown.
func codeOf(body strictjson.Object) Code {
	code := text(body, "code")
	if httpapi.Tidy(code) != code {
		return ""
	}
	return Code(code)
}

// parts reads what stands beside the verdict. The error is about the first part that cannot be
// read; the others are read all the same.
func (v *Validation) parts(body strictjson.Object) error {
	var errs []error
	if raw := body.Raw("license"); !absent(raw) {
		license, err := parseLicense(raw)
		v.License, errs = license, append(errs, err)
	}
	if raw := body.Raw("machine"); !absent(raw) {
		machine, err := parseMachine(raw)
		v.Machine, errs = machine, append(errs, err)
	}
	codes, ok := entitlements(body)
	if !ok {
		errs = append(errs, errors.New("entitlements are no list of codes"))
	}
	v.Entitlements = codes
	return errors.Join(errs...)
}

// about tells whether the answer can be one for the machine with that fingerprint. A yes that
// shows a machine must show that one; a no need not show what it is about.
func about(m Machine, fingerprint string, valid bool) bool {
	if fingerprint == "" || m.Fingerprint == fingerprint || m.ID == "" {
		return true
	}
	return !valid && m.Fingerprint == ""
}

// entitlements returns the codes of a list of strings, or of objects with a code. No list, or
// null, is an empty one.
func entitlements(o strictjson.Object) (codes []string, ok bool) {
	if absent(o.Raw("entitlements")) {
		return nil, true
	}
	codes, ok = o.Texts("entitlements")
	if objects, are := o.Objects("entitlements", "code"); !ok && are {
		ok = true
		for _, one := range objects {
			codes = append(codes, text(one, "code"))
		}
	}
	for _, code := range codes {
		ok = ok && strings.TrimSpace(code) != ""
	}
	if !ok {
		return nil, false
	}
	return codes, true
}

// parseLicense reads a licence. Its key is not kept.
func parseLicense(raw []byte) (License, error) {
	m := readMembers("license", raw, "id", "status", "expiresAt", "entitlements", "machineCount")
	codes, ok := entitlements(m.object)
	if !ok {
		m.spoil("entitlements", "are no list of codes")
	}
	license := License{
		ID:           text(m.object, "id"),
		Name:         text(m.object, "name"),
		Status:       text(m.object, "status"),
		ProductID:    text(m.object, "productId"),
		PolicyID:     text(m.object, "policyId"),
		ExpiresAt:    m.time("expiresAt"),
		Entitlements: codes,
	}
	license.MachineCount, _ = m.object.Int("machineCount")
	if m.wrong != "" {
		return license, errors.New("the answer cannot be read: " + m.wrong)
	}
	return license, nil
}
