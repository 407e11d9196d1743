// Package guardtest is the test kit for users of the guard: NewServer runs an authority on a
// loopback socket that can show every fault a server or a network has, NewValidator answers
// from a script in process, and TestValidator holds an implementation of guard.Validator to
// what the guard relies on.
//
// It is to the guard what net/http/httptest is to HTTP: everything a test starts ends with the
// test, and what does not work ends the test instead of coming back as an error.
//
//	srv := guardtest.NewServer(t)
//	srv.Register("agent-01")
//	client, err := machineid.New(srv.Key(), machineid.WithBaseURL(srv.URL()), machineid.WithHTTPClient(srv.Client()))
//	...
//	srv.Inject("connection reset mid-body")
//
// A Validator fits into a testing/synctest bubble; a Server has real sockets and does not,
// for time stands still in a bubble that waits for one.
//
// The kit does not promise that a client which passes is right: it shows the faults that
// the guard's contract (guard/CONTRACT.md) lists, one at a time, and it cannot see what a client
// does with an answer afterwards. It imports package testing and so belongs into test files only.
package guardtest
