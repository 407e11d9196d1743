package chaos_test

import (
	"testing"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/internal/chaos"
)

// alsoWrong are histories that break the contract, each of which must be objected to.
var alsoWrong = map[string]func(h *chaos.History){
	"S5: started long after the organisation's denial was learnt, and never stopped": func(h *chaos.History) {
		c := deny(guard.CodeOrgDisabled, 12*ms, 20*ms)
		c.Device = "e"
		h.Calls = append(h.Calls, c)
		h.Runs[0].Began, h.Runs[0].Left, h.Runs[0].Back = at(150*ms), at(260*ms), at(261*ms) // on the ALLOW of 1 to 9 ms
	},
	"S5: reused 35 ms after a denial of the device, and never stopped": func(h *chaos.History) {
		h.Guards["g"] = chaos.Terms{Interval: 100 * ms, Timeout: 80 * ms, MaxAge: 100 * ms}
		h.Calls = []chaos.Call{h.Calls[0], deny(guard.CodeDeviceRevoked, 20*ms, 25*ms), h.Calls[1]}
		h.Runs[0].Called, h.Runs[0].Began = at(60*ms), at(60*ms)
	},
	"S5: an ALLOW overtaken by 40 ms, and the run is never stopped": func(h *chaos.History) {
		c := deny(guard.CodePlanFrozen, 2*ms, 6*ms)
		c.Device = "e"
		h.Calls = append(h.Calls, c)
		h.Calls[0].Returned, h.Runs[0].Began = at(46*ms), at(47*ms)
	},
	"L1: asked beside a question that times out later": func(h *chaos.History) {
		h.Calls = []chaos.Call{h.Calls[0], silence(20 * ms), allow("r2", 50*ms, 60*ms)}
		h.Verdicts[1] = verdict("r2", 55*ms)
	},
	"S3: stopped, and nothing was learnt": func(h *chaos.History) {
		stopped(&h.Runs[0], 50*ms, guard.CodeSystemUnavailable)
	},
	"stopped with a code that nobody has sent": func(h *chaos.History) {
		h.Calls[1] = deny(guard.CodeDeviceRevoked, 100*ms, 110*ms)
		stopped(&h.Runs[0], 111*ms, guard.CodeInvalidOrgKey)
	},
	"Run names another code than the context": func(h *chaos.History) {
		h.Calls[1] = deny(guard.CodeDeviceRevoked, 100*ms, 110*ms)
		stopped(&h.Runs[0], 111*ms, guard.CodeDeviceRevoked)
		h.Runs[0].Result.Code = guard.CodeSystemUnavailable
	},
	"refused with an error that is no denial, nor the caller's": func(h *chaos.History) {
		h.Runs[0] = chaos.Run{Lane: "run", Guard: "g", Device: "d", Called: at(0), Back: at(9 * ms), Result: chaos.End{Text: "boom"}}
	},
	"Run returns a denial in flight though its context never ended": func(h *chaos.History) {
		h.Runs[0].Result = chaos.End{Denied: true, InFlight: true, Code: guard.CodeDeviceRevoked, Text: "denied"}
		h.Runs[0].Changed = true
	},
	"S10: live past the end that the authority named": func(h *chaos.History) {
		h.Calls = h.Calls[:1]
		h.Calls[0].Decision.ExpiresAt = at(50 * ms)
		h.Runs[0].Left, h.Runs[0].Back = at(170*ms), at(171*ms)
	},
	"S4: live 2.8 s past the line while no timer was late by more than 6 ms": func(h *chaos.History) {
		h.Calls = h.Calls[:1]
		for t := 170 * ms; t < 3100*ms; t += 11 * ms {
			h.Machine.Gaps = append(h.Machine.Gaps, chaos.Stretch{From: at(t), To: at(t + 11*ms)})
		}
		h.Calls[0].LineRang = at(183 * ms)
		stopped(&h.Runs[0], 3000*ms, guard.CodeSystemUnavailable)
	},
	"S4: live 500 ms past a denial while threads wait 2 ms each 5 ms": func(h *chaos.History) {
		h.Calls = h.Calls[:1]
		h.Calls = append(h.Calls, deny(guard.CodeDeviceRevoked, 100*ms, 110*ms))
		h.Machine.Waits = map[string][]chaos.Stretch{}
		for t := 100 * ms; t < 700*ms; t += 5 * ms {
			h.Machine.Waits["1"] = append(h.Machine.Waits["1"], chaos.Stretch{From: at(t), To: at(t + 5*ms)})
		}
		stopped(&h.Runs[0], 610*ms, guard.CodeDeviceRevoked)
	},
	"S4: a run that began with a line over is stopped only by its function": func(h *chaos.History) {
		h.Calls[0].GivenUp, h.Calls[0].TimedOut = false, false
		h.Calls = h.Calls[:1]
		h.Runs[0].Own = true
		h.Runs[0].Told = at(300 * ms)
		h.Runs[0].Left = at(301 * ms)
	},
}

func TestAlsoWrongHistories(t *testing.T) {
	for name, change := range alsoWrong {
		h := calm()
		change(&h)
		if found := chaos.Check(h); len(found.Problems) == 0 {
			t.Errorf("nothing is objected to: %s", name)
		}
	}
}
