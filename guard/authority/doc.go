// Package authority decides which devices may execute: MachineID's API in full, to run oneself.
// An Authority is an http.Handler that any MachineID client, in any language, can be pointed
// at, and its organisations are guard.Validators in process. Both ways lead to the same code.
//
// It is to the hosted service what a local registry is to a public one: the same words on the
// same paths, held by the one who runs it. Organisations have a key and a plan, the plan caps
// the active devices, an operator switches devices or the whole organisation off, and the next
// validate says so.
//
// What Validate answers, the first line that applies:
//
//	the key is missing, malformed or unknown          INVALID_ORG_KEY
//	the organisation was removed                      ORG_NOT_FOUND
//	the store failed, or StateUnavailable             SYSTEM_UNAVAILABLE
//	StateDisabled, -Frozen, -Inactive, -Expired       the code beside the constant
//	the plan is none of the four                      PLAN_NOT_ACTIVE
//	the id breaks the rule for ids                    INVALID_DEVICE_ID
//	not registered, or removed                        DEVICE_NOT_FOUND
//	revoked                                           DEVICE_REVOKED
//	otherwise                                         ALLOW
//
// An id is trimmed of white space and then has 1 to 128 characters of A-Z a-z 0-9 . _ : and -,
// the first a letter or digit. An organisation knows at most 10 000 devices, revoked ones
// included; Remove makes room.
//
// # The HTTP API
//
// Every request has the organisation's key in the header x-org-key, once. The body of a POST is
// one JSON object; every answer is JSON.
//
//	POST /api/v1/devices/validate        {"deviceId":"agent-01"}
//	POST /api/v1/devices/register        {"deviceId":"agent-01"}
//	POST /api/v1/devices/revoke          {"deviceId":"agent-01"}
//	POST /api/v1/devices/unrevoke        {"deviceId":"agent-01"}
//	POST /api/v1/devices/remove          {"deviceId":"agent-01"}
//	POST /api/v1/devices/revoke_batch    {"deviceIds":["agent-01","agent-02"]} or {"scope":"all_active"}
//	POST /api/v1/devices/unrevoke_batch  {"deviceIds":["agent-01","agent-02"]} or {"scope":"all_revoked"}
//	GET  /api/v1/devices/list
//	GET  /api/v1/usage
//	POST /api/v1/billing/checkout        {"plan":"pro"}
//
// The type of a body, where it is named, must be application/json. curl -d names another one by
// itself and gets 415, unsupported_media_type, unless it has -H 'content-type: application/json'
// beside it. The words under "error" come without an explanation; Error.Error has one for each.
//
// # What it does not promise
//
// It does not promise what needs more than one process: the Store that comes with it forgets
// everything when the process ends, and hints (Organisation.Subscribe) reach listeners in
// process only. It speaks plain HTTP, without TLS, rate limits or accounts; those belong in
// front of it. It sells nothing: Checkout returns a link that leads nowhere. Where the hosted
// service's answers are not published, the shape of ours is our own.
package authority
