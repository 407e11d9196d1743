package guard

// Code is the authority's answer in one word. The set is MachineID's; clients of other
// authorities map their own words to it. An authority may send a code that is not in this
// list: beside Allowed == false it denies like any other.
type Code string

// The codes that the guard knows. CodeAllow alone lets work start or go on; every other one,
// known or not, is a denial.
const (
	CodeAllow              Code = "ALLOW"
	CodeOrgDisabled        Code = "ORG_DISABLED"
	CodeSystemUnavailable  Code = "SYSTEM_UNAVAILABLE"
	CodePlanFrozen         Code = "PLAN_FROZEN"
	CodePlanNotActive      Code = "PLAN_NOT_ACTIVE"
	CodeEntitlementExpired Code = "ENTITLEMENT_EXPIRED"
	CodeDeviceRevoked      Code = "DEVICE_REVOKED"
	CodeDeviceNotFound     Code = "DEVICE_NOT_FOUND"
	CodeOrgNotFound        Code = "ORG_NOT_FOUND"
	CodeInvalidOrgKey      Code = "INVALID_ORG_KEY"
	CodeInvalidDeviceID    Code = "INVALID_DEVICE_ID"
)

// OrganisationWide tells whether the code, sent by the authority, speaks of the whole
// organisation and not of one device, so that it stops every device of a guard (S3): ORG_DISABLED,
// PLAN_FROZEN, PLAN_NOT_ACTIVE, ENTITLEMENT_EXPIRED, ORG_NOT_FOUND and INVALID_ORG_KEY.
func (c Code) OrganisationWide() bool {
	switch c {
	case CodeOrgDisabled, CodePlanFrozen, CodePlanNotActive, CodeEntitlementExpired,
		CodeOrgNotFound, CodeInvalidOrgKey:
		return true
	case CodeAllow, CodeSystemUnavailable, CodeDeviceRevoked, CodeDeviceNotFound, CodeInvalidDeviceID:
	}
	return false
}
