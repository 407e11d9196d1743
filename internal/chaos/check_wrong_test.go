package chaos_test

import (
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/internal/chaos"
)

// wrong are histories that break the contract, and what has to be said of them.
var wrong = map[string]struct {
	change func(h *chaos.History)
	words  string
	times  int // how many objections there may be; 0: one
}{
	"started on nothing":       {func(h *chaos.History) { h.Runs[0].RequestID = "" }, "brought no ALLOW", 0},
	"started on a denial":      {func(h *chaos.History) { h.Calls[0].Decision.Code = guard.CodeDeviceRevoked }, "brought no ALLOW", 0},
	"allowed beside an error":  {func(h *chaos.History) { h.Calls[0].Failed = true }, "brought no ALLOW", 0},
	"allowed without a code":   {func(h *chaos.History) { h.Calls[0].Decision.Code = "" }, "brought no ALLOW", 0},
	"about another device":     {func(h *chaos.History) { h.Calls[0].Decision.DeviceID = "e" }, "brought no ALLOW", 0},
	"asked by another guard":   {func(h *chaos.History) { h.Calls[0].Guard = "other" }, "brought no ALLOW", 0},
	"asked for another device": {func(h *chaos.History) { h.Calls[0].Device = "e" }, "brought no ALLOW", 0},
	"given up":                 {func(h *chaos.History) { h.Calls[0].GivenUp = true }, "brought no ALLOW", 0},
	"started before the answer": {func(h *chaos.History) {
		h.Runs[0].Began = at(8 * ms)
	}, "brought no ALLOW", 0},
	"forged":                       {func(h *chaos.History) { h.Verdicts = h.Verdicts[1:] }, "the authority has not allowed", 0},
	"the authority said no":        {func(h *chaos.History) { h.Verdicts[0].Allowed = false }, "the authority has not allowed", 0},
	"the authority said something": {func(h *chaos.History) { h.Verdicts[0].Device = "e" }, "the authority has not allowed", 0},
	"an old answer, played again":  {func(h *chaos.History) { h.Verdicts[0].Asked = at(-ms) }, "not the answer to the request", 0},
	"an answer from the future":    {func(h *chaos.History) { h.Verdicts[0].Asked = at(10 * ms) }, "not the answer to the request", 0},
	"an older permission":          {func(h *chaos.History) { h.Runs[0].Called = at(2 * ms) }, "was 1ms old, at most 0s", 0},
	"older than maxAge": {func(h *chaos.History) {
		h.Guards["g"] = chaos.Terms{Interval: 100 * ms, Timeout: 80 * ms, MaxAge: 50 * ms}
		h.Runs[0].Called, h.Runs[0].Began = at(52*ms), at(53*ms)
	}, "was 51ms old, at most 50ms", 0},
	"started after the line": {func(h *chaos.History) {
		h.Calls[0].Returned, h.Runs[0].Began, h.Runs[0].Left = at(179*ms), at(240*ms), at(241*ms)
		h.Calls = h.Calls[:1]
	}, "after its permission had ended", 2},
	"denied all the time": {func(h *chaos.History) { h.Changes = append(h.Changes, revoked(-9*ms, 0)) }, "denied all the time", 0},
	"never registered":    {func(h *chaos.History) { h.Changes = nil }, "denied all the time", 0},
	"the organisation denied all the time": {func(h *chaos.History) {
		h.Changes = append(h.Changes, chaos.Change{From: at(-9 * ms), To: at(0)})
	}, "denied all the time", 0},
	"either the device or the organisation was denied": {func(h *chaos.History) {
		h.Changes = append(h.Changes, chaos.Change{From: at(-9 * ms), To: at(0)},
			chaos.Change{Allowed: true, From: at(6 * ms), To: at(7 * ms)}, revoked(4*ms, 5*ms))
	}, "denied all the time", 0},
	"restored after the start": {func(h *chaos.History) {
		h.Changes = append(h.Changes, revoked(-9*ms, 0), chaos.Change{Device: "d", Allowed: true, From: at(11 * ms), To: at(12 * ms)})
	}, "denied all the time", 0},
	"reused over a denial": {func(h *chaos.History) {
		h.Guards["g"] = chaos.Terms{Interval: 100 * ms, Timeout: 80 * ms, MaxAge: 100 * ms}
		h.Calls = []chaos.Call{h.Calls[0], deny(guard.CodeDeviceRevoked, 20*ms, 25*ms), h.Calls[1]}
		h.Runs[0].Called, h.Runs[0].Began = at(90*ms), at(90*ms)
	}, "S5", 2},
	"reused over the organisation's denial of another device": {func(h *chaos.History) {
		h.Guards["g"] = chaos.Terms{Interval: 100 * ms, Timeout: 80 * ms, MaxAge: 100 * ms}
		c := deny(guard.CodePlanFrozen, 20*ms, 25*ms)
		c.Device = "e"
		h.Calls = append(h.Calls, c)
		h.Runs[0].Called, h.Runs[0].Began = at(90*ms), at(90*ms)
	}, "S5", 2},
	"an ALLOW that was overtaken by the organisation's denial of another device": {func(h *chaos.History) {
		c := deny(guard.CodePlanFrozen, 2*ms, 6*ms)
		c.Device = "e"
		h.Calls = append(h.Calls, c)
		h.Calls[0].Returned, h.Runs[0].Began = at(60*ms), at(61*ms)
	}, "S5", 2},
	"live past the line": {func(h *chaos.History) {
		h.Calls = h.Calls[:1]
		stopped(&h.Runs[0], 240*ms, guard.CodeSystemUnavailable)
	}, "after the stop line", 0},
	"never told": {func(h *chaos.History) {
		h.Calls = h.Calls[:1]
		h.Runs[0].Left, h.Runs[0].Back = at(240*ms), at(241*ms)
	}, "after the stop line", 0},
	"renewed by what the authority has not said": {func(h *chaos.History) {
		h.Verdicts = h.Verdicts[:1]
		h.Runs[0].Left, h.Runs[0].Back = at(270*ms), at(271*ms)
	}, "after the stop line", 0},
	"renewed after the line": {func(h *chaos.History) {
		h.Calls[1] = allow("r2", 120*ms, 185*ms)
		h.Verdicts[1] = verdict("r2", 125*ms)
		h.Runs[0].Left, h.Runs[0].Back = at(270*ms), at(271*ms)
	}, "after the stop line", 0},
	"live past a denial": {func(h *chaos.History) {
		h.Calls[1] = deny(guard.CodeDeviceRevoked, 100*ms, 110*ms)
		stopped(&h.Runs[0], 170*ms, guard.CodeDeviceRevoked)
	}, "after DEVICE_REVOKED was learnt", 0},
	"live past an unknown denial": {func(h *chaos.History) {
		h.Calls[1] = deny("QUOTA_EXHAUSTED", 100*ms, 110*ms)
	}, "after QUOTA_EXHAUSTED was learnt", 0},
	"live past a denial that came late": {func(h *chaos.History) {
		c := deny(guard.CodeDeviceRevoked, 20*ms, 110*ms)
		c.GivenUp, c.TimedOut = true, true
		h.Calls = append(h.Calls, c)
	}, "after DEVICE_REVOKED was learnt", 2}, // and it was in flight beside another
	"live past the organisation's denial of another device": {func(h *chaos.History) {
		c := deny(guard.CodeOrgDisabled, 100*ms, 110*ms)
		c.Device = "e"
		h.Calls = append(h.Calls, c)
	}, "after ORG_DISABLED was learnt", 0},
	"a silent watch is ignored": {func(h *chaos.History) {
		h.Calls[1] = silence(30 * ms)
		stopped(alone(h), 170*ms, guard.CodeSystemUnavailable)
	}, "after a question of its watch brought nothing", 0},
	"a silent watch is ignored, beside hints": {func(h *chaos.History) {
		h.Calls[1] = silence(30 * ms)
		h.Hints = []chaos.Hint{{Device: "e", At: at(29 * ms)}, {Device: "d", At: at(31 * ms)}}
		stopped(alone(h), 170*ms, guard.CodeSystemUnavailable)
	}, "after a question of its watch brought nothing", 0},
	"a broken watch is ignored": {func(h *chaos.History) {
		c := silence(30 * ms)
		c.GivenUp, c.Returned = false, at(31*ms)
		h.Calls[1] = c
		stopped(alone(h), 100*ms, guard.CodeSystemUnavailable)
	}, "after a question of its watch brought nothing", 0},
	"later than the machine": {func(h *chaos.History) {
		h.Calls = h.Calls[:1]
		h.Machine.Gaps = []chaos.Stretch{{From: at(100 * ms), To: at(200 * ms)}}
		h.Machine.Waits = map[string][]chaos.Stretch{"1": {{From: at(190 * ms), To: at(210 * ms)}}, "2": {{From: at(190 * ms), To: at(210 * ms)}}}
		stopped(&h.Runs[0], 275*ms, guard.CodeSystemUnavailable)
	}, "after the stop line", 0},
	"late after a halt": {func(h *chaos.History) {
		h.Calls = h.Calls[:1]
		h.Halts = []chaos.Halt{{Stopped: at(150 * ms), Continued: at(500 * ms)}}
		stopped(&h.Runs[0], 555*ms, guard.CodeSystemUnavailable)
	}, "after the stop line", 0},
	"late before a halt": {func(h *chaos.History) {
		h.Calls = h.Calls[:1]
		h.Halts = []chaos.Halt{{Stopped: at(250 * ms), Continued: at(500 * ms)}}
		stopped(&h.Runs[0], 240*ms, guard.CodeSystemUnavailable)
	}, "after the stop line", 0},
	"a function that knows nothing of the stop": {func(h *chaos.History) {
		revokedAt(h, 50*ms)
		h.Runs[0].Left, h.Runs[0].Back = at(101*ms), at(102*ms)
	}, "was given another one", 0},
	"without a cause": {func(h *chaos.History) {
		h.Runs[0].Told, h.Runs[0].Cause = at(199*ms), chaos.End{Canceled: true, Text: "context canceled"}
	}, "none of the guard's", 0},
	"a cause that is not in flight": {func(h *chaos.History) {
		revokedAt(h, 50*ms)
		h.Runs[0].Cause.InFlight = false
	}, "none in flight", 0},
	"a cause that is not Canceled": {func(h *chaos.History) {
		revokedAt(h, 50*ms)
		h.Runs[0].Cause.Canceled = false
	}, "does not match context.Canceled", 0},
	"Run returns nil for a stop": {func(h *chaos.History) {
		revokedAt(h, 50*ms)
		h.Runs[0].Result = chaos.End{}
	}, "Run returned no denial in flight", 0},
	"Run returns Canceled for a stop": {func(h *chaos.History) {
		revokedAt(h, 50*ms)
		h.Runs[0].Result.Canceled = true
	}, "matches context.Canceled", 0},
	"Run returns nil for a closed guard": {func(h *chaos.History) {
		stopped(&h.Runs[0], 50*ms, "")
		h.Runs[0].Cause, h.Runs[0].Result = chaos.End{Closed: true, Canceled: true, Text: "closed"}, chaos.End{}
	}, "Run did not say so", 0},
	"refused with nothing": {func(h *chaos.History) {
		h.Runs[0] = chaos.Run{Lane: "run", Guard: "g", Device: "d", Called: at(0), Back: at(9 * ms)}
	}, "Run returned nil", 0},
	"refused in flight": {func(h *chaos.History) {
		h.Runs[0] = chaos.Run{Guard: "g", Called: at(0), Back: at(9 * ms), Result: chaos.End{Denied: true, InFlight: true, Text: "x"}}
	}, "a denial in flight", 0},
	"refused with Canceled": {func(h *chaos.History) {
		h.Runs[0] = chaos.Run{Guard: "g", Called: at(0), Back: at(9 * ms), Result: chaos.End{Denied: true, Canceled: true, Text: "x"}}
	}, "matches context.Canceled", 0},
	"it never comes back":   {func(h *chaos.History) { h.Runs[0].Back = time.Time{} }, "never came back", 0},
	"it never returns":      {func(h *chaos.History) { h.Runs[0].Left = time.Time{} }, "never returned", 0},
	"two questions at once": {func(h *chaos.History) { h.Calls[1] = allow("r2", 8*ms, 110*ms) }, "L1", 0},
	"two questions at once, of which the second times out": {func(h *chaos.History) {
		h.Calls[1] = allow("r2", 8*ms, 110*ms)
		c := silence(30 * ms)
		h.Calls = append(h.Calls, c)
	}, "L1", 2},
	"a secret in an error":   {func(h *chaos.History) { h.Calls = append(h.Calls, silence(150*ms)); h.Calls[2].Text = "key org_secret" }, "S8", 0},
	"a secret in a decision": {func(h *chaos.History) { h.Calls[1].Decision.Reason = "key org_secret" }, "S8", 2},
	"a secret in a cause": {func(h *chaos.History) {
		revokedAt(h, 50*ms)
		h.Runs[0].Cause.Text = "key org_secret"
	}, "S8", 0},
	"a secret in what Run returns": {func(h *chaos.History) { h.Runs[0].Result.Text = "key org_secret" }, "S8", 0},
}
