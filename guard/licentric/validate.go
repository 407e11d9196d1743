package licentric

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/execguard/execguard/guard/internal/httpapi"
)

// ValidateParams is what Validate asks beside the licence itself. The zero value asks whether the
// licence is in order, for no certain machine.
type ValidateParams struct {
	Fingerprint  string   // of the machine, 8 to 256 characters; "": of none
	Entitlements []string // that the licence must have
}

// Validation is the answer to Validate. What the service does not tell is zero.
type Validation struct {
	Valid        bool
	Code         Code
	License      License
	Machine      Machine  // zero where the answer is about none
	Entitlements []string // their codes
	Answer
}

// Validate asks whether the licence is in order, for the machine and with the entitlements that
// params names. That it is not is an answer and no error; a yes is Valid together with CodeValid.
// An answer that contradicts itself, that is about another machine, or that says yes in any way
// that cannot be read to the last byte, is an *Error that matches guard.ErrUnavailable. The
// service takes 60 validations a minute from one address.
//
// The decision of a guard is made by Client.Validator, which also looks for the entitlements in
// the answer. It needs no API key.
func (c *Client) Validate(ctx context.Context, licenseKey string, params ValidateParams) (Validation, error) {
	q, fail := c.licensed(opValidate, licenseKey)
	if fail != nil {
		return Validation{}, fail
	}
	if params.Fingerprint != "" {
		if err := checkFingerprint(params.Fingerprint, q.secrets); err != nil {
			return Validation{}, unasked(opValidate, wordInvalid, err.Error())
		}
	}
	v, fail := c.validate(ctx, q.secrets, licenseKey, params)
	return v, fail.orNil()
}

// validate sends the question, which nothing signs: the key is in the body.
func (c *Client) validate(ctx context.Context, secrets httpapi.Secrets, licenseKey string, params ValidateParams) (Validation, *Error) {
	body, fail := c.validateBody(licenseKey, params)
	if fail != nil {
		return Validation{}, fail
	}
	r, fail := c.call(ctx, request{op: opValidate, body: body, secrets: secrets})
	if fail != nil {
		return Validation{}, fail
	}
	v, err := r.validation(params.Fingerprint)
	switch {
	case errors.Is(err, errNoValidation):
		return Validation{}, r.refused()
	case err != nil:
		return Validation{}, r.undecided(err.Error())
	}
	return v, nil
}

// validateBody makes the body; its members are sorted by name.
func (c *Client) validateBody(licenseKey string, params ValidateParams) ([]byte, *Error) {
	body := map[string]any{keyMember: licenseKey}
	if params.Fingerprint != "" {
		body[c.paths.FingerprintMember] = params.Fingerprint
	}
	if len(params.Entitlements) > 0 {
		body[c.paths.EntitlementsMember] = params.Entitlements
	}
	return encode(opValidate, body)
}

// checkFingerprint is the documented rule. The error does not repeat the fingerprint, which is
// known to the caller and may hold anything.
func checkFingerprint(fingerprint string, secrets httpapi.Secrets) error {
	n := utf8.RuneCountInString(fingerprint)
	switch {
	case strings.TrimSpace(fingerprint) == "":
		return errors.New("the fingerprint is blank")
	case !utf8.ValidString(fingerprint):
		return errors.New("the fingerprint is not valid UTF-8") // JSON would turn it into another one
	case n < 8 || n > 256:
		return fmt.Errorf("the fingerprint has %d characters; it must have 8 to 256", n)
	case secrets.In([]byte(fingerprint)):
		return errors.New("the fingerprint contains a key")
	}
	return nil
}
