package chaos

import (
	"time"

	"github.com/execguard/execguard/guard"
)

// History is all that was recorded of guards, their authority and the machine, in whatever order.
// It can be sent as JSON from one process to another on the same machine: its instants are compared
// by the wall clock then.
type History struct {
	Guards    map[string]Terms // by the name that Call and Run give
	Calls     []Call
	Runs      []Run
	Verdicts  []Verdict
	Changes   []Change
	Halts     []Halt
	Hints     []Hint
	Machine   Machine
	Secrets   []string // that must stand in no Text
	Tolerance time.Duration
	Obedient  bool // every function returns when its context ends, so that one that does not has another context
}

// Terms are what a guard was made with.
type Terms struct {
	Interval, Timeout, Budget time.Duration
	MaxAge                    time.Duration // 0: no reuse
}

// Bound is how long after the request of the last ALLOW work may go on.
func (t Terms) Bound() time.Duration { return t.Interval + t.Timeout + t.Budget }

// Line is when the permission of an ALLOW ends: at the stop line, or where the authority says so if that is earlier (S10).
func (t Terms) Line(c Call) time.Time {
	line := c.Sent.Add(t.Bound())
	if end := c.Decision.ExpiresAt; !end.IsZero() {
		line = earliest(line, end)
	}
	return line
}

// Call is one question of a guard, as it was seen between the guard and its client.
type Call struct {
	Guard, Device string
	Sent          time.Time // right before the client was called
	Deadline      time.Time // its context's; zero: it has none
	Returned      time.Time // zero: it has not
	GivenUp       bool      // its context had ended when it returned
	TimedOut      bool      // and that by the guard's timeout
	Decision      guard.Decision
	Failed        bool      // with an error, or a panic
	Text          string    // the error
	LineRang      time.Time // when a bare timer for the line that this ALLOW makes went off; zero: it was none, or never did
}

// allows tells whether the guard may have taken the answer for an ALLOW. One that comes after the
// deadline counts as well while nobody has given the call up, which a busy machine may be late with:
// its permission has the same end.
func (c Call) allows() bool {
	return !c.Returned.IsZero() && !c.GivenUp && !c.Failed && c.Decision.Allowed && c.Decision.Code == guard.CodeAllow && c.answers()
}

// denies tells whether the guard must have taken it for a denial that the authority decided on. One
// that comes after the timeout is still one; one that nobody waits for any more is none.
func (c Call) denies() bool {
	return !c.Returned.IsZero() && (!c.GivenUp || c.TimedOut) && !c.Decision.Allowed && c.answers() &&
		c.Decision.Code != "" && c.Decision.Code != guard.CodeAllow && c.Decision.Code != guard.CodeSystemUnavailable
}

// answers tells whether it is about the device that was asked about.
func (c Call) answers() bool { return c.Decision.DeviceID == "" || c.Decision.DeviceID == c.Device }

// Verdict is one answer of the authority, before anything could happen to it.
type Verdict struct {
	Device    string
	RequestID string
	Allowed   bool
	Asked     time.Time // its handler was called
	Given     time.Time // and had written the answer
}

// Change is one change of what the authority allows.
type Change struct {
	Device  string // "": the whole organisation
	Allowed bool
	// The change took effect between these two.
	From, To time.Time
}

// Run is one call of a guard's Run, as it was seen from around it and from within its function.
type Run struct {
	Lane, Guard, Device string

	Called    time.Time
	Began     time.Time // zero: the function was not called
	RequestID string    // of the ALLOW that it stands on
	Told      time.Time // its context ended; zero: not before the function returned
	Own       bool      // the caller's context had ended by then
	Cause     End       // why it ended
	Left      time.Time // the function returned
	Back      time.Time // Run returned; zero: it has not
	Result    End       // what Run returned
	Kept      bool      // it is one stretch of a Keep, which does not say what became of it: there is no Result
	Again     bool      // and not the first: Called is when the one before was seen to be told to stop
	Calls     int       // how often the function was called
	Changed   bool      // Run did not return just what the function returned
	Lost      bool      // what the function returned, and that is more than Canceled, is not found in what Run returned
	Loose     bool      // the function's context was live when Run had returned
	Seen      End       // the cause of the context that the handler has, behind an adapter, when it obeyed it
	Alone     bool      // nobody else asks about the device: what cannot be asked, the watch could not
}

// End is an error, taken apart.
type End struct {
	Denied   bool // it is a *guard.DeniedError
	InFlight bool
	Closed   bool
	Canceled bool // it matches context.Canceled
	Code     guard.Code
	Text     string
}

// Hint is one that the guards were given by somebody, and not by the authority. The question that it
// brings forward is not the watch's own.
type Hint struct {
	Device string
	At     time.Time
}

// Halt is a time in which the process of the guards was stopped.
type Halt struct{ Stopped, Continued time.Time }
