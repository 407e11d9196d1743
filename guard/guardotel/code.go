package guardotel

import "github.com/execguard/execguard/guard"

// labelCodes are those that a label may have. Whatever else an authority sends is guard.CodeOther.
func labelCodes() []guard.Code {
	return []guard.Code{
		guard.CodeAllow, guard.CodeOrgDisabled, guard.CodeSystemUnavailable, guard.CodePlanFrozen,
		guard.CodePlanNotActive, guard.CodeEntitlementExpired, guard.CodeDeviceRevoked, guard.CodeDeviceNotFound,
		guard.CodeOrgNotFound, guard.CodeInvalidOrgKey, guard.CodeInvalidDeviceID, guard.CodeOther,
	}
}

// The values of error.type that are neither codes nor types.
const (
	errorOther    = "_OTHER" // OpenTelemetry's own word for what has no value of its own
	errorClosed   = "closed"
	errorCanceled = "context.Canceled"
)

// failed is the error.type of what a code denied; a closed guard has no code.
func failed(c guard.Code) string {
	switch c {
	case "":
		return errorClosed
	case guard.CodeOther:
		return errorOther
	default:
		return string(c)
	}
}
