package authority

import "time"

// Usage is a plan and how much of it is taken. It is part of most answers, under the names of
// the hosted service's older documentation.
type Usage struct {
	PlanTier        Plan       `json:"planTier"`
	PlanState       State      `json:"planState"`
	AccessUntil     *time.Time `json:"accessUntil"` // always null: no plan here ends by itself
	Limit           int        `json:"limit"`
	DevicesUsed     int        `json:"devicesUsed"` // active ones; revoked ones take no place
	Remaining       int        `json:"remaining"`   // never negative
	OverLimit       bool       `json:"overLimit"`   // more in use than the plan allows, after a downgrade
	SoftGraceWindow bool       `json:"softGraceWindow"`
}

// Result is the outcome of Register, Revoke, Unrevoke or Remove.
type Result struct {
	// Status is, for Register, "ok" (new), "exists", "blocked" (at the cap) or "revoked"; for
	// the others "ok", whether or not there was anything to do, "blocked" or "not_found".
	Status   string `json:"status"`
	Error    string `json:"error,omitzero"` // device_limit_reached, device_revoked or device_not_found
	Handler  string `json:"handler"`        // the call's path below /api/v1/
	DeviceID string `json:"deviceId"`       // without the white space around it
	Usage
}

// Listing is every device of an organisation, active and revoked, in the order of their ids.
type Listing struct {
	Status  string   `json:"status"`
	Handler string   `json:"handler"`
	Devices []Device `json:"devices"`
	Usage
}

// UsageResult is the answer of Usage.
type UsageResult struct {
	Status  string `json:"status"`
	Handler string `json:"handler"`
	Usage
}

// Item is what became of one id of a batch.
type Item struct {
	DeviceID string `json:"deviceId"` // of an invalid id at most 128 characters and a «…»
	// Status is "revoked" or "already_revoked", "unrevoked", "already_active" or "blocked",
	// and "not_found" or "invalid" in both batches.
	Status string `json:"status"`
	Error  string `json:"error,omitzero"` // device_limit_reached, device_not_found or invalid_device_id
}

// RevokeResult is the outcome of RevokeBatch, with an Item for each different id in the order
// they came, or of RevokeAllActive, without.
type RevokeResult struct {
	Status       string `json:"status"`
	Handler      string `json:"handler"`
	Scope        string `json:"scope,omitzero"` // "all_active"
	Results      []Item `json:"results,omitzero"`
	RevokedCount int    `json:"revokedCount"` // those that were active until now
	Usage
}

// UnrevokeResult is the outcome of UnrevokeBatch, with an Item for each different id in the
// order they came, or of UnrevokeAllRevoked, without.
type UnrevokeResult struct {
	Status          string   `json:"status"`
	Handler         string   `json:"handler"`
	Scope           string   `json:"scope,omitzero"` // "all_revoked"
	Results         []Item   `json:"results,omitzero"`
	UnrevokedCount  int      `json:"unrevokedCount"`
	UnrevokedSample []string `json:"unrevokedSample,omitzero"` // the first 25 restored, by scope only
	Reason          string   `json:"reason,omitzero"`          // at_cap or none_revoked: why by scope none was restored
	Usage
}

// Checkout is where an organisation would pay, had this authority anything to sell.
type Checkout struct {
	Status  string `json:"status"`
	Handler string `json:"handler"`
	Plan    Plan   `json:"plan"`
	URL     string `json:"url"`    // https, on a name that resolves nowhere
	Notice  string `json:"notice"` // says so to who reads the answer
}
