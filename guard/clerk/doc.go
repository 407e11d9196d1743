// Package clerk is a client of Clerk's Machines (https://clerk.com): it asks whether a machine may
// run (Client.Validator, a guard.Validator), who the caller behind a machine-to-machine token is
// (Client.VerifyMachine, for FromBearer of httpmw and grpcmw), and manages machines, scopes and
// tokens.
//
//	client, err := clerk.New(os.Getenv("CLERK_SECRET_KEY"), clerk.WithMachineID("mch_ours"))
//	g, err := guard.New(client.Validator())      // the device id is the machine id, mch_…
//	h := httpmw.New(g, httpmw.FromBearer(client.VerifyMachine))
//
// It resembles Clerk's own library, github.com/clerk/clerk-sdk-go, which speaks for it on the wire.
// Between that library and the network stands a transport of ours that adds the key, keeps the
// status, bounds the body and reads it to the last byte before the library may:
//
//	what GET /machines/{id} was answered             what the Validator says
//	200, one JSON object, object "machine", the id   ALLOW, and where WithScope asks for a scope that
//	  asked about                                      is not there, DEVICE_REVOKED
//	404, errors in Clerk's form                      DEVICE_NOT_FOUND
//	401 or 403, errors in Clerk's form               INVALID_ORG_KEY: the secret key is not taken
//	everything else: 3xx, 429, 5xx, other 4xx, no    SYSTEM_UNAVAILABLE, and an error that matches
//	  answer, a body over 1 MiB, names twice or in     guard.ErrUnavailable
//	  another case, two documents, another machine
//
// A decision's RequestID is Clerk's trace id. Errors are *Error, where Clerk answered in its own
// form or nothing came at all, *BodyError, where an answer is not what Clerk answers, and *TokenError
// for tokens that are not taken. «Could not ask» matches guard.ErrUnavailable in the first two.
//
// # Retry
//
// Nothing is asked twice unless WithRetry says so, and then only what reads: Get, List, SecretKey,
// VerifyToken and VerifyMachine. What makes, changes or ends something is sent once, also by
// net/http: a lost answer may have made a machine or ended a key. A Validator asks once a call;
// asking again is the guard's part (guard.WithRetry), which knows its stop line.
//
// # What it does not promise
//
// A Validator keeps nothing: no decision is remembered. VerifyMachine remembers tokens only with
// WithTokenCache. A scope that was removed ends with the tokens made before it, for Clerk writes
// scopes into tokens when it makes them. A token in JWT form cannot be revoked, only run out.
//
// The secret key, the secrets of machines and tokens travel to Clerk and nowhere else: over plain
// http only to this machine itself, and never into an error, a decision or any %v of a result.
// Results that are secrets are of the type Secret, which shows itself only to Reveal.
package clerk
