// Package clerkserver is a local Clerk: the Machines and M2M-token calls of Clerk's Backend API,
// with the state behind them and every way in which they, or the network before them, go wrong.
// It resembles net/http/httptest: Start gives a server with a URL and a client that trusts it,
// and New the http.Handler alone.
//
// It is written from Clerk's description of its API and never saw the service. Where that leaves
// something open, this is what was chosen:
//
//   - an unknown key is 401; one that is known and not for this call (a machine's key on
//     /machines, the instance's on POST /m2m_tokens) is 403
//   - what is wrong with a parameter is 422 for machines, with its name in meta, and 400 for
//     tokens; a body that is no JSON object is 400, one that is not application/json 415
//   - verify answers 200 for revoked and expired tokens, and says so in the body; 404 for what is
//     no token, and for one that gives the asking machine no access
//   - a new token answers 201; one without seconds_until_expiration lives as long as the
//     machine's default says, one with null for ever
//   - the list of tokens leaves out revoked and expired ones unless their flag is true
//   - a JWT has no state: it is good until it expires, whatever has become of its machine
//   - to revoke a token twice is no error, and changes nothing
//
// It is for tests and examples: it keeps secrets in memory and in clear.
package clerkserver
