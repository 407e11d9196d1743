package authority

import "github.com/execguard/execguard/guard"

// Plan is what an organisation has bought: how many devices may be active at once.
type Plan string

// The plans and caps that MachineID publishes.
const (
	PlanFree  Plan = "free"  // 3 devices
	PlanPro   Plan = "pro"   // 25 devices
	PlanScale Plan = "scale" // 250 devices
	PlanMax   Plan = "max"   // 1000 devices
)

// Limit returns how many devices may be active under p; 0 for an unknown plan.
func (p Plan) Limit() int {
	switch p {
	case PlanFree:
		return 3
	case PlanPro:
		return 25
	case PlanScale:
		return 250
	case PlanMax:
		return 1000
	}
	return 0
}

// State is what an operator has made of a whole organisation. It changes what Validate
// answers and nothing else: devices can be managed in every state, and a state taken back
// leaves them as they were.
type State string

// The states, each with the code that Validate answers for every device of the organisation.
const (
	StateActive      State = "active"      // the devices decide
	StateDisabled    State = "disabled"    // ORG_DISABLED
	StateFrozen      State = "frozen"      // PLAN_FROZEN
	StateInactive    State = "inactive"    // PLAN_NOT_ACTIVE
	StateExpired     State = "expired"     // ENTITLEMENT_EXPIRED
	StateUnavailable State = "unavailable" // SYSTEM_UNAVAILABLE
)

// code is the answer for every device of an organisation in state s; CodeAllow means that the
// device decides. What is no state is none of ours to interpret (a store wrote it): no decision.
func (s State) code() guard.Code {
	switch s {
	case StateActive:
		return guard.CodeAllow
	case StateDisabled:
		return guard.CodeOrgDisabled
	case StateFrozen:
		return guard.CodePlanFrozen
	case StateInactive:
		return guard.CodePlanNotActive
	case StateExpired:
		return guard.CodeEntitlementExpired
	case StateUnavailable:
	}
	return guard.CodeSystemUnavailable
}

// known tells whether s is one of the constants above.
func (s State) known() bool {
	return s == StateUnavailable || s.code() != guard.CodeSystemUnavailable
}
