// Package guard runs functions only while an authority allows it, and stops them when the
// authority says no or can no longer be asked.
//
// It resembles the leader election of client-go, with two differences: whether to go on is
// decided elsewhere, by a [Validator], and the line at which work stops is drawn by a local
// timer that no call can hold up.
//
// It does not promise to end a function that ignores its context: Go has no means for that.
// Nor does it undo what a function has done, or know whether a device is who it says it is.
//
// # One run
//
//	Run ──► ask ──ALLOW──► fn runs, watched ──fn returns──► its own error
//	         │                │
//	         │ denied,        │ denied, could not ask, or
//	         │ could not ask  │ no newer ALLOW by the stop line
//	         ▼                ▼
//	    *DeniedError     context cancelled with the denial as cause
//	    (fn not called)       │ fn returns
//	                          ▼
//	                     *DeniedError, InFlight, with fn's own error inside
//
// Only a decision with Allowed and CodeAllow, and no error beside it, is an ALLOW. Whatever else
// comes back is a denial: an authority's deny code stands as it is, and everything that makes no
// sense is CodeSystemUnavailable with a Reason. A denial stops every run of the device, one with
// an organisation-wide code every run of the guard. From then on only an ALLOW counts that was
// asked for after the denial was learnt.
//
// # More than one authority
//
// [All] allows what several validators allow, for as long as each of them does. [Fallback] has a
// second validator, such as a signed file, stand in for an authority that could not be asked; once
// that has refused a device, only that can allow it again. Both are validators themselves.
//
// # When work stops
//
//	interval  time between two questions about a device with work in flight  WithInterval  10 s
//	timeout   the most that one question may take                            WithTimeout    3 s
//	budget    the most that opted-in retries may add                         WithRetry      0 s
//
//	    request of an ALLOW sent        next request      no answer by then   stop line
//	────┬───────────────────────────────┬─────────────────┬───────────────────┬────►
//	    │◄──────────── interval ───────►│◄─── timeout ───►│◄──── budget ─────►│
//
// The authority answers: work is stopped at most interval + timeout after a revocation took
// effect. It does not: at most interval + timeout + budget after the request of the last ALLOW
// was sent ([Guard.StopBound]). A permission counts from the sending of its request, because
// the authority may have changed its mind by the time that the answer comes. Time is what the
// faster of the monotonic and the wall clock says, so that neither a suspended machine nor a
// clock set back lengthens a permission.
//
// # What it costs
//
// All runs of a device share one watch: a request an interval, no goroutine and no timer of
// their own. A guard has one timer, and a goroutine only for each request in flight, of which
// [WithMaxRequests] bounds the number. However many callers there are, at most one request about
// a device is in flight and one more waits to be sent; who comes while one is in flight shares
// the next, because an answer to a request that was sent before he asked is none to him. That is
// why golang.org/x/sync/singleflight will not do here.
package guard
