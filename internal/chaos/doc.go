// Package chaos is what the chaos tests are made of: a proxy between clients and an authority
// that makes the network fail (Wire), a machine that draws and plays what goes wrong (Draw,
// Play), a recorder of what a guard and the authority did meanwhile (Recorder), and the judge of
// it all (Check), which is a function of the recorded history and of nothing else.
//
//	guards ──Recorder.Validator──► client ──Wire──► server with faults ──Recorder.Handler──► authority
//	  │                                                                                         ▲
//	  └─Recorder.Runner──► functions, in whatever framework              Recorder.Change ───────┘
//
// It resembles what Jepsen does to databases: random faults first, and then an argument about a
// history. Check quotes the sentences of the guard's contract (guard/CONTRACT.md) that a history
// breaks:
//
//	S1  each start stands on an ALLOW of the authority for that device, whose request was sent
//	    after Run was called (or maxAge before), and the authority's state allowed the device at
//	    some instant since then
//	S3  a denial that was learnt ends every run of the device, and no run ends over what was not learnt
//	S4  no context is live past the stop line, nor past the continuing of a process that had stood
//	S5  an ALLOW that was asked for before a denial was learnt starts nothing after it
//	S8  no secret in what was returned
//	S10 nor past the end that the authority has named
//	L1  one request about a device is in flight
//
// and what a stopped run returns. How late a context may end is a tolerance, and on top of it what
// the machine itself was late by in that very stretch of time, as a Pulse has measured it: no more than
// some times the longest single wait. Findings.Strict counts the stops for which that is no more than the tolerance.
//
// It does not prove a guard right: it looks at what has happened, and a fault that was never in
// the way shows nothing. Its tests therefore count what was seen too.
package chaos
