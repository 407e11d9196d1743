package authority

import (
	"errors"

	"github.com/execguard/execguard/guard"
)

var (
	// ErrNotFound is what a Store returns for an organisation that it does not hold.
	ErrNotFound = errors.New("authority: no such organisation")
	// ErrExists is what a Store returns, and AddOrganisation hands on, for a key in use. The key
	// of a removed organisation stays in use: it must go on answering ORG_NOT_FOUND.
	ErrExists = errors.New("authority: the key belongs to an organisation already")
)

// Error says that a call could not be carried out. A «no» that the rules give (at the cap,
// revoked, not registered) is no Error but the Status of a result.
type Error struct {
	// Code is the word that the HTTP API sends as "error": invalid_org_key, org_not_found,
	// missing_params, invalid_device_id, too_many_devices, invalid_scope, invalid_plan,
	// invalid_params, system_unavailable, and for what only HTTP can get wrong: invalid_json,
	// not_found, method_not_allowed, body_too_large, unsupported_media_type.
	Code string

	err error // why the store failed, or nil; told in process only, never over HTTP
}

// Error names the code, the rule behind it and what the store said. The rule is for people and
// in process only; over HTTP goes the code.
func (e *Error) Error() string {
	text := "authority: " + e.Code
	if r := rule(e.Code); r != "" {
		text += ": " + r
	}
	if e.err != nil {
		text += ": " + e.err.Error()
	}
	return text
}

// Unwrap gives what the store said.
func (e *Error) Unwrap() error { return e.err }

// The words of the API. Those of the hosted service are device_limit_reached (published),
// missing_params and invalid_org_key (seen in its templates); the others are ours.
const (
	codeInvalidOrgKey    = "invalid_org_key"
	codeOrgNotFound      = "org_not_found"
	codeUnavailable      = "system_unavailable"
	codeMissingParams    = "missing_params"
	codeInvalidParams    = "invalid_params"
	codeInvalidDeviceID  = "invalid_device_id"
	codeInvalidScope     = "invalid_scope"
	codeInvalidPlan      = "invalid_plan"
	codeTooManyDevices   = "too_many_devices"
	codeInvalidJSON      = "invalid_json"
	codeNotFound         = "not_found"
	codeMethodNotAllowed = "method_not_allowed"
	codeBodyTooLarge     = "body_too_large"
	codeUnsupportedMedia = "unsupported_media_type"

	codeDeviceLimit    = "device_limit_reached" // in results only
	codeDeviceRevoked  = "device_revoked"       // in results only
	codeDeviceNotFound = "device_not_found"     // in results only
)

// rule says what would have been right. It is empty for a code that is none of ours.
func rule(code string) string {
	switch code {
	case codeInvalidOrgKey:
		return "the key is malformed or unknown; one is org_ and 1 to 252 visible ASCII characters"
	case codeOrgNotFound:
		return "the organisation was removed"
	case codeUnavailable:
		return "the store failed"
	case codeMissingParams:
		return "deviceId, deviceIds, scope or plan is missing, whichever the call needs"
	case codeInvalidParams:
		return "a parameter has the wrong type, or deviceIds and scope came together"
	case codeInvalidDeviceID:
		return "an id is 1 to 128 of A-Z a-z 0-9 . _ : and -, the first a letter or digit"
	case codeInvalidScope:
		return "the scope is all_active to revoke and all_revoked to unrevoke"
	case codeInvalidPlan:
		return "the plans to be had by checkout are pro, scale and max"
	case codeTooManyDevices:
		return "a batch has at most 500 valid device ids"
	}
	return httpRule(code)
}

// httpRule is the rule for what only HTTP can get wrong.
func httpRule(code string) string {
	switch code {
	case codeInvalidJSON:
		return "the body is one JSON object, with each name once"
	case codeNotFound:
		return "no call has this path"
	case codeMethodNotAllowed:
		return "the call has another method, named in the header Allow"
	case codeBodyTooLarge:
		return "a body has at most 1 MiB"
	case codeUnsupportedMedia:
		return "the body's type is application/json, or not named"
	}
	return ""
}

func refuse(code string) error { return &Error{Code: code} }

// storeError is what a caller learns when the store did not do as it was asked. An
// organisation that the store does not hold is one whose key nobody knows.
func storeError(err error) error {
	if own := (*Error)(nil); errors.As(err, &own) {
		return own // refused by the change itself, carried through the store
	}
	if errors.Is(err, ErrNotFound) {
		return &Error{Code: codeInvalidOrgKey, err: err}
	}
	return &Error{Code: codeUnavailable, err: err}
}

// errorCode is the API's word for err.
func errorCode(err error) string {
	if own := (*Error)(nil); errors.As(err, &own) {
		return own.Code
	}
	return codeUnavailable
}

// decisionCode is what Validate answers where err kept it from deciding. A request that cannot
// be read names no device.
func decisionCode(err error) guard.Code {
	switch errorCode(err) {
	case codeInvalidOrgKey:
		return guard.CodeInvalidOrgKey
	case codeOrgNotFound:
		return guard.CodeOrgNotFound
	case codeUnavailable:
		return guard.CodeSystemUnavailable
	}
	return guard.CodeInvalidDeviceID
}
