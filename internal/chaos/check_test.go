package chaos_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/internal/chaos"
)

// invented is what the guard of the invented histories was made with.
var invented = chaos.Terms{Interval: 100 * ms, Timeout: 80 * ms}

// epoch is when the invented histories begin. Their guard has an interval of 100 ms and a timeout
// of 80 ms: a request that is sent at 0 makes a line at 180 ms.
var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func at(d time.Duration) time.Time { return epoch.Add(d) }

// calm is a history in which all is as it must be: the device is registered, a run is called at 0, asks at once, starts
// at 10 ms, is renewed at 100 ms, and returns by itself at 200 ms.
func calm() chaos.History {
	return chaos.History{
		Guards:   map[string]chaos.Terms{"g": invented},
		Changes:  []chaos.Change{{Device: "d", Allowed: true, From: at(-2 * time.Second), To: at(-time.Second)}},
		Calls:    []chaos.Call{allow("r1", 1*ms, 9*ms), allow("r2", 100*ms, 110*ms)},
		Verdicts: []chaos.Verdict{verdict("r1", 5*ms), verdict("r2", 105*ms)},
		Runs: []chaos.Run{{
			Lane: "run", Guard: "g", Device: "d", Called: at(0), Began: at(10 * ms), RequestID: "r1", Left: at(200 * ms), Back: at(201 * ms),
		}},
		Secrets: []string{"org_secret"}, Tolerance: 50 * ms, Obedient: true,
	}
}

// allow is a question about the device that is allowed.
func allow(id string, sent, returned time.Duration) chaos.Call {
	return chaos.Call{
		Guard: "g", Device: "d", Sent: at(sent), Deadline: at(sent + invented.Timeout), Returned: at(returned),
		Decision: guard.Decision{Allowed: true, Code: guard.CodeAllow, RequestID: id},
	}
}

// deny is one that is denied.
func deny(code guard.Code, sent, returned time.Duration) chaos.Call {
	c := allow("no", sent, returned)
	c.Decision = guard.Decision{Code: code, RequestID: "no"}
	return c
}

// silence is one that brings nothing until its deadline.
func silence(sent time.Duration) chaos.Call {
	return chaos.Call{
		Guard: "g", Device: "d", Sent: at(sent), Deadline: at(sent + invented.Timeout), Returned: at(sent + invented.Timeout + ms),
		GivenUp: true, TimedOut: true, Failed: true, Text: "no answer",
	}
}

func verdict(id string, when time.Duration) chaos.Verdict {
	return chaos.Verdict{Device: "d", RequestID: id, Allowed: true, Asked: at(when), Given: at(when + ms)}
}

// stopped has the run told to stop at an instant, as a guard does it.
func stopped(w *chaos.Run, told time.Duration, code guard.Code) {
	w.Told, w.Left, w.Back = at(told), at(told+ms), at(told+2*ms)
	w.Cause = chaos.End{Denied: true, InFlight: true, Canceled: true, Code: code, Text: "stopped"}
	w.Result = chaos.End{Denied: true, InFlight: true, Code: code, Text: "stopped"}
}

// revokedAt has the run told to stop at an instant, by a denial that was learnt right before.
func revokedAt(h *chaos.History, told time.Duration) {
	h.Calls[1] = deny(guard.CodeDeviceRevoked, told-5*ms, told-ms)
	stopped(&h.Runs[0], told, guard.CodeDeviceRevoked)
}

func revoked(from, to time.Duration) chaos.Change {
	return chaos.Change{Device: "d", From: at(from), To: at(to)}
}

// alone makes the run one that nobody asks beside.
func alone(h *chaos.History) *chaos.Run {
	h.Runs[0].Alone = true
	return &h.Runs[0]
}

// right are histories without fault.
var right = map[string]func(h *chaos.History){
	"calm": func(h *chaos.History) {},
	"stopped at a line": func(h *chaos.History) {
		h.Calls = h.Calls[:1]
		stopped(&h.Runs[0], 182*ms, guard.CodeSystemUnavailable)
	},
	"stopped at a line, within the tolerance": func(h *chaos.History) {
		h.Calls = h.Calls[:1]
		stopped(&h.Runs[0], 230*ms, guard.CodeSystemUnavailable)
	},
	"stopped by a denial": func(h *chaos.History) {
		h.Calls[1] = deny(guard.CodeDeviceRevoked, 100*ms, 110*ms)
		stopped(&h.Runs[0], 111*ms, guard.CodeDeviceRevoked)
	},
	"the denial comes after the timeout, of a run that goes on by its line": func(h *chaos.History) {
		c := deny(guard.CodeDeviceRevoked, 100*ms, 190*ms)
		c.GivenUp, c.TimedOut = true, true
		h.Calls[1] = c
		stopped(&h.Runs[0], 181*ms, guard.CodeSystemUnavailable)
	},
	"nobody waits for the denial": func(h *chaos.History) {
		c := deny(guard.CodeDeviceRevoked, 20*ms, 50*ms)
		c.GivenUp = true
		h.Calls = []chaos.Call{h.Calls[0], c, h.Calls[1]}
	},
	"revoked right after the authority looked": func(h *chaos.History) { h.Changes = append(h.Changes, revoked(6*ms, 7*ms)) },
	"revoked while the question was on its way, and restored before it was looked at": func(h *chaos.History) {
		h.Changes = append(h.Changes, revoked(-9*ms, -8*ms), chaos.Change{Device: "d", Allowed: true, From: at(3 * ms), To: at(4 * ms)})
	},
	"reuse": func(h *chaos.History) {
		h.Guards["g"] = chaos.Terms{Interval: 100 * ms, Timeout: 80 * ms, MaxAge: 50 * ms}
		h.Runs = append(h.Runs, h.Runs[0])
		h.Runs[1].Called = at(50 * ms)
		h.Runs[1].Began = at(50 * ms)
	},
	"the caller leaves": func(h *chaos.History) {
		w := &h.Runs[0]
		w.Told, w.Own, w.Cause, w.Result = at(50*ms), true, chaos.End{Canceled: true, Text: "left"}, chaos.End{Canceled: true, Text: "left"}
	},
	"closed": func(h *chaos.History) {
		w := &h.Runs[0]
		w.Told, w.Cause, w.Result = at(50*ms), chaos.End{Closed: true, Canceled: true, Text: "closed"}, chaos.End{Closed: true, Text: "closed"}
		w.Left = at(51 * ms)
	},
	"refused": func(h *chaos.History) {
		h.Runs[0] = chaos.Run{Lane: "run", Guard: "g", Device: "d", Called: at(0), Back: at(9 * ms), Result: chaos.End{Denied: true, Text: "refused"}}
	},
	"late with the machine": func(h *chaos.History) {
		h.Calls = h.Calls[:1]
		h.Machine.Gaps = []chaos.Stretch{{From: at(170 * ms), To: at(290 * ms)}}
		stopped(&h.Runs[0], 330*ms, guard.CodeSystemUnavailable)
	},
	"late with a thread": func(h *chaos.History) {
		h.Calls = h.Calls[:1]
		h.Machine.Waits = map[string][]chaos.Stretch{"1": {{From: at(181 * ms), To: at(290 * ms)}}, "2": {{From: at(0), To: at(200 * ms)}}}
		stopped(&h.Runs[0], 330*ms, guard.CodeSystemUnavailable)
	},
	"late with a bare timer": func(h *chaos.History) {
		h.Calls = h.Calls[:1]
		h.Calls[0].LineRang = at(290 * ms)
		stopped(&h.Runs[0], 330*ms, guard.CodeSystemUnavailable)
	},
	"the process stood over the line": func(h *chaos.History) {
		h.Calls = h.Calls[:1]
		h.Halts = []chaos.Halt{{Stopped: at(150 * ms), Continued: at(500 * ms)}}
		stopped(&h.Runs[0], 540*ms, guard.CodeSystemUnavailable)
	},
	"a silent watch": func(h *chaos.History) {
		h.Calls[1] = silence(60 * ms)
		stopped(alone(h), 141*ms, guard.CodeSystemUnavailable)
	},
	"a silent question that a hint has brought forward": func(h *chaos.History) {
		h.Hints = []chaos.Hint{{Device: "e", At: at(60 * ms)}, {Device: "d", At: at(59 * ms)}}
		h.Calls = []chaos.Call{h.Calls[0], silence(60 * ms), allow("r2", 145*ms, 150*ms)}
		h.Verdicts[1] = verdict("r2", 147*ms)
		alone(h)
	},
	"a silent question beside the watch": func(h *chaos.History) {
		h.Calls = []chaos.Call{h.Calls[0], silence(20 * ms), allow("r2", 101*ms, 110*ms)}
	},
	"given up, and asked anew": func(h *chaos.History) {
		c := silence(20 * ms)
		c.Returned = at(150 * ms)
		h.Calls = []chaos.Call{h.Calls[0], c, allow("r2", 101*ms, 110*ms)}
	},
	"a question that was seen only when it had been given up": func(h *chaos.History) {
		c := silence(20 * ms)
		c.Sent, c.Returned = at(105*ms), at(106*ms)
		h.Calls = append(h.Calls, c)
	},
	"started on an ALLOW right before a denial, and stopped by it at once": func(h *chaos.History) {
		c := deny(guard.CodeOrgDisabled, 8*ms, 10*ms)
		c.Device = "e"
		h.Calls = append(h.Calls, c)
		h.Runs[0].Began = at(12 * ms) // the guard had begun it at 9 ms
		stopped(&h.Runs[0], 13*ms, guard.CodeOrgDisabled)
	},
	"a question that nobody wanted any more, given up at its deadline, and seen only after the next was sent": func(h *chaos.History) {
		c := silence(20 * ms) // until 100 ms
		c.Sent, c.Returned, c.TimedOut = at(105*ms), at(106*ms), false
		h.Calls = append(h.Calls, c)
	},
	"given up, and answered by a denial later": func(h *chaos.History) {
		h.Calls[1] = deny(guard.CodeDeviceRevoked, 20*ms, 102*ms) // until 100 ms
		h.Calls[1].GivenUp, h.Calls[1].TimedOut = true, true
		stopped(&h.Runs[0], 101*ms, guard.CodeSystemUnavailable)
	},
	"given up when the answer was already on its way": func(h *chaos.History) {
		h.Calls[1] = allow("r2", 20*ms, 98*ms) // until 100 ms
		stopped(&h.Runs[0], 101*ms, guard.CodeSystemUnavailable)
	},
	"a stretch of a Keep": func(h *chaos.History) {
		h.Calls[1] = deny(guard.CodeDeviceRevoked, 100*ms, 110*ms)
		stopped(&h.Runs[0], 111*ms, guard.CodeDeviceRevoked)
		h.Runs[0].Kept, h.Runs[0].Result = true, chaos.End{}
	},
}

func TestRightHistories(t *testing.T) {
	for name, change := range right {
		h := calm()
		change(&h)
		if found := chaos.Check(h); len(found.Problems) > 0 {
			t.Errorf("%s: %q", name, found.Problems)
		}
	}
}

// Wrong histories: each with the words that the objection must have, and no other objection beside it.
func TestWrongHistories(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(wrong)) {
		c, h := wrong[name], calm()
		c.change(&h)
		found := chaos.Check(h)
		if len(found.Problems) == 0 || !strings.Contains(found.Problems[0], c.words) || len(found.Problems) > max(1, c.times) {
			t.Errorf("%s: %q, want %q", name, found.Problems, c.words)
		}
	}
}

// A judge that is given nothing has seen nothing.
func TestFiguresOfAHistory(t *testing.T) {
	h := calm()
	h.Calls = append(h.Calls, silence(210*ms))
	h.Runs = append(h.Runs, h.Runs[0])
	stopped(&h.Runs[1], 150*ms, guard.CodeDeviceRevoked)
	h.Machine.Gaps = []chaos.Stretch{{From: at(0), To: at(7 * ms)}, {From: at(20 * ms), To: at(32 * ms)}}
	found := chaos.Check(h)
	if found.Started != 2 || found.Refused != 0 || found.Stopped != 1 || found.Answered != 2 || found.Unasked != 1 || found.Machine != 12*ms {
		t.Errorf("%v", found)
	}
	found.Add(found)
	if text := found.String(); !strings.HasPrefix(text, "4 runs started, 0 refused, 2 stopped (0 at a stop line); 4 questions decided, 2 not;") {
		t.Error(text)
	}
}
