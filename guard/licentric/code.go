package licentric

import "github.com/execguard/execguard/guard"

// Code is the service's answer to a validation in one word. It may send others than these.
type Code string

// The documented codes. CodeValid alone means that the licence is in order; CodeExpired may come
// with Valid == true all the same, where the policy lets an expired licence go on.
const (
	CodeValid                Code = "VALID"
	CodeExpired              Code = "EXPIRED"
	CodeSuspended            Code = "SUSPENDED"
	CodeRevoked              Code = "REVOKED"
	CodeBanned               Code = "BANNED"
	CodeNotFound             Code = "NOT_FOUND"
	CodeFingerprintNotFound  Code = "FINGERPRINT_NOT_FOUND"
	CodeMachineLimitExceeded Code = "MACHINE_LIMIT_EXCEEDED"
	CodeHeartbeatRequired    Code = "HEARTBEAT_REQUIRED"
	CodeUsesExceeded         Code = "USES_EXCEEDED"
	CodeEntitlementsMissing  Code = "ENTITLEMENTS_MISSING"
)

// Guard returns the guard's word for c: ALLOW for CodeValid, and for a code that is not
// documented the code itself, which denies like any other.
func (c Code) Guard() guard.Code {
	switch c {
	case CodeValid:
		return guard.CodeAllow
	case CodeExpired, CodeUsesExceeded, CodeEntitlementsMissing:
		return guard.CodeEntitlementExpired
	case CodeSuspended:
		return guard.CodePlanFrozen
	case CodeRevoked, CodeBanned:
		return guard.CodePlanNotActive
	case CodeFingerprintNotFound, CodeMachineLimitExceeded, CodeHeartbeatRequired:
		return guard.CodeDeviceNotFound
	case CodeNotFound:
		return guard.CodeInvalidOrgKey
	}
	return guard.Code(c)
}

// denies tells whether c is one of the documented codes that say no.
func (c Code) denies() bool { return c != CodeValid && c.Guard() != guard.Code(c) }
