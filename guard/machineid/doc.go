// Package machineid is a client of MachineID (https://machineid.io), the service that decides
// whether a device may execute, and of anything that speaks its API, such as
// guard/authority: Validate, which makes a Client a guard.Validator, and the management of
// devices, plan and checkout.
//
//	client, err := machineid.FromEnv()          // MACHINEID_ORG_KEY
//	g, err := guard.New(client)                 // asks client.Validate before and during each run
//	reg, err := client.Register(ctx, "agent-01") // idempotent: safe at every start
//
// It resembles the clients that vendors generate from their APIs, in that each call is one
// method and each answer a struct, with the raw JSON beside it. Unlike most of them it
// believes nothing that it cannot read to the last byte:
//
//	what Validate was answered                            what it returns
//	200, one JSON object, allowed is true, code "ALLOW",  an allowed Decision
//	  deviceId the one asked about, where there is one
//	200 or 4xx, allowed is false, any other code          a denial with that code
//	401, error "invalid_org_key", nothing decided         a denial, INVALID_ORG_KEY
//	everything else: 3xx, 429, 5xx, no answer, a body     a denial, SYSTEM_UNAVAILABLE, and an
//	  over 1 MiB, names twice or in another case, two       *Error that matches
//	  documents, allowed and code that contradict           guard.ErrUnavailable
//
// # What it does not promise
//
// It keeps nothing: no decision is remembered and none is asked for again; that is the guard's
// part. No call is retried once a byte of an answer has come, or on a fresh connection; only
// reading calls that meet a kept connection which the server has closed meanwhile are sent
// again by net/http, on another one. No redirect is followed, because net/http would take the
// key along to the other host. The service does not publish every body: what this package
// cannot find it leaves zero, and Raw has it.
//
// The organisation key travels in the header x-org-key and nowhere else: over plain http only to
// this machine itself, and never into an error, a decision, a result or any %v of them. Where an
// answer echoes it, «[redacted]» stands in its place, in Raw too.
package machineid
