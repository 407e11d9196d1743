// Package licentric is a client of Licentric (https://licentric.com), the service that sells
// licences for programs and decides whether a machine may use one, and what lets a machine go on
// without a network for a while: signed licence files. Both are a guard.Validator.
//
//	client, err := licentric.New("")                    // no API key: programs that users install have none
//	fingerprint, err := licentric.Fingerprint("my-app") // of this machine
//	machine, err := client.Activate(ctx, licenseKey, licentric.Activation{Fingerprint: fingerprint}) // Status 409: it was before
//	online := client.Validator(licenseKey)
//	offline, err := licentric.OfflineWith(file, licentric.FormatCertificate, keys, licentric.WithMemory("/var/lib/my-app/licence"))
//	g, err := guard.New(guard.Fallback(online, offline), guard.WithInterval(time.Minute))
//	err = g.Run(ctx, fingerprint, work)
//
// It resembles the clients that vendors generate from their APIs, in that each call is one
// method and each answer a struct. Unlike most of them it believes nothing that it cannot read to
// the last byte:
//
//	what validate was answered                             what the validator returns
//	200, one JSON object, valid is true, code "VALID",     an allowed Decision, which ends
//	  the machine in it, if any, has the fingerprint,        with the licence itself
//	  every entitlement asked for stands in it
//	the same without such an entitlement                   a denial, ENTITLEMENT_EXPIRED
//	200 or 4xx, valid is false, any other code; or an      a denial: see Code.Guard
//	  error of the API with a code that is a denial
//	401, 403 or 404, an error of the API, another code     a denial, INVALID_ORG_KEY
//	422, the same: the machine limit                       a denial, DEVICE_NOT_FOUND
//	EXPIRED with valid true: the policy ALLOW_ACCESS       a denial, ENTITLEMENT_EXPIRED, but
//	                                                         for WithExpiredAccess
//	everything else: 3xx, other 4xx, 429, 5xx, no          a denial, SYSTEM_UNAVAILABLE, and an
//	  answer, a body over 1 MiB, names twice or in           *Error that matches
//	  another case, two documents, contradictions            guard.ErrUnavailable
//
// The service's own code is the Decision's Reason. It takes 60 validations a minute from one
// address: give a guard a long interval, and each licence one validator.
//
// # Heartbeats
//
// A policy may demand that machines send heartbeats. The validator learns that when it is denied
// HEARTBEAT_REQUIRED, or from a machine that shows heartbeats; WithHeartbeats tells it at once.
//
//	VALID                 the last heartbeat is younger than the period, or one is in flight:  ALLOW
//	                      else a heartbeat, in at most half of the time left:  ALLOW, and where
//	                        the heartbeat failed the Reason says so; it is due again
//	HEARTBEAT_REQUIRED    a heartbeat, and one more question, whose answer decides; where either
//	                        fails the denial stands
//
// A heartbeat goes with a question, once a device however many ask, on the caller's goroutine. It
// never allows anything. The machine's id is taken from an answer; where none names it, from the
// list of machines, for which the client needs an API key.
//
// # What is not known
//
// The service was never called to write this: it follows the vendor's documentation. What that
// leaves open (three paths, the names of some members) is our reading, and WithPaths can change
// it. Both readings of validate's answer, bare or in an envelope, are understood, and entitlements
// as strings or as objects with a code. The format of the vendor's licence file is not published:
// FormatCertificate is one of our own, in a shape that is well known, and not the vendor's.
//
// # What it does not promise
//
// The client keeps no answer: nothing is remembered and nothing asked again; that is the guard's
// part. No call is retried once a byte of an answer has come, or on a fresh connection; only
// reading calls, validations and heartbeats that meet a kept connection which the server has
// closed meanwhile are sent again by net/http, on another one. No redirect is followed, because
// net/http would take keys along to the other host. A yes that shows no machine at all is believed,
// as the documentation has it: a service that overlooked the fingerprint would allow any.
//
// A licence file is worth as much as the machine's clock, and as the key that signed it; until it
// ends, nobody can take it back from a machine that has no network. guard.Fallback and WithMemory
// say what is done about that.
//
// The API key and licence keys travel where the documentation puts them and nowhere else: over
// plain http only to this machine itself, and never into an error, a decision, a result or any %v
// of them. Where an answer repeats one, «[redacted]» stands in its place, in Raw too.
package licentric
