package chaos_test

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/internal/chaos"
)

// The long forms:
//
//	go test ./internal/chaos -run Mixture -v -chaos.time 5m -timeout 20m
//	go test ./internal/chaos -run Mixture -v -chaos.seed 1234
//	go test ./internal/chaos -run Soak -v -chaos.soak 30m -timeout 40m
var (
	mixtureTime = flag.Duration("chaos.time", 3*time.Second, "how long TestMixture goes on with new rounds of faults, and TestStoppedProcess for at most two minutes")
	firstSeed   = flag.Uint64("chaos.seed", 0, "the seed of the first round, and of the soak; 0: another one each time")
)

// roundLength is how long the faults of one round of TestMixture last.
const roundLength = 4 * time.Second

// seed returns the one that was asked for, or a new one.
func seed() uint64 {
	if *firstSeed != 0 {
		return *firstSeed
	}
	return 1 + rand.Uint64N(1_000_000)
}

// Random mixtures of all faults, at random times, through every adapter at once. What a seed fixes is which faults come
// when; what the machine makes of it is different each time.
func TestMixture(t *testing.T) {
	t.Parallel()
	var all chaos.Findings
	began, first, tasks := time.Now(), seed(), 0
	for n := uint64(0); n == 0 || time.Since(began) < *mixtureTime; n++ {
		t.Logf("round %d: -chaos.seed %d", n+1, first+n)
		found, done := round(t, first+n, min(roundLength, *mixtureTime))
		all.Add(found)
		tasks += done
		if t.Failed() || len(found.Problems) > 0 {
			break
		}
	}
	report(t, fmt.Sprintf("%v from seed %d, %d tasks", time.Since(began).Round(time.Second), first, tasks), all)
	if all.Started == 0 || all.Stopped == 0 || all.Unasked == 0 {
		t.Error("too little was seen")
	}
}

// round is one plan, in a world of its own.
func round(t *testing.T, seed uint64, length time.Duration) (found chaos.Findings, tasks int) {
	machine := chaos.NewPulse()
	w := newWorld(t, machine, seed%2 == 0)
	w.allLanes()
	steps := chaos.Draw(seed, w.cast(length))
	if err := chaos.Play(t.Context(), steps, w.do); err != nil {
		t.Error(err)
	}
	w.heal()
	tasks = w.drain()
	w.recovers(time.Now())
	found = chaos.Check(w.finish())
	machine.Stop()
	if len(found.Problems) > 0 {
		for _, s := range steps {
			t.Log(s)
		}
	}
	return found, tasks
}

// cast is all that there is to draw from.
func (w *world) cast(length time.Duration) chaos.Cast {
	c := chaos.Cast{
		Seams: seamFaults(), States: []string{"disabled", "frozen", "inactive", "expired", "unavailable"}, Devices: w.devices,
		Length: length, Trouble: 400 * ms, Quiet: 600 * ms, Denied: 500 * ms, Allowed: time.Second,
	}
	for _, t := range chaos.Troubles() {
		c.Wires = append(c.Wires, t.Name)
	}
	for _, f := range w.server.Faults() {
		if w.tls || !f.NeedsTLS {
			c.Faults = append(c.Faults, f.Name)
		}
	}
	return c
}

// recovers waits until every lane has started something since then.
func (w *world) recovers(since time.Time) {
	lanes := slices.DeleteFunc(slices.Clone(w.lanes), func(lane string) bool { return lane == "asynqmw" }) // its tasks are accounted for
	w.comes("all is well again, and nothing runs", func() []string { return w.recorder.Idle(lanes, since) })
}

// revocations has every device revoked, while all is well, until every lane has felt it. A Keep that happens to be
// waiting just then does not say why, so that a few tries may be needed.
func (w *world) revocations() {
	missing := w.lanes
	for try := 0; try < 5 && len(missing) > 0; try++ {
		since := time.Now()
		for _, device := range w.devices {
			must(w.t, w.do(chaos.Step{Kind: chaos.Revoke, Device: device}))
		}
		_ = pause(context.Background(), 2*pace.Bound())
		missing = w.recorder.Unseen(missing, guard.CodeDeviceRevoked, since)
		w.heal()
		w.recovers(time.Now())
	}
	if len(missing) > 0 {
		w.t.Errorf("all was revoked, and nobody knows of it in %v", missing)
	}
}

// comes waits until no lane is missing any more. Nobody promises that on a machine on which questions cannot be
// answered in time.
func (w *world) comes(what string, missing func() []string) {
	began := time.Now()
	if eventually(func() bool { return len(missing()) == 0 }) {
		return
	}
	stood := w.machine.Machine().Late(began, time.Now())
	if stood > time.Since(began)/5 {
		w.t.Logf("%v long: %s in %v; but the machine stood for %v of it", patience, what, missing(), stood)
		return
	}
	w.t.Errorf("%v long: %s in %v (the machine stood for %v of it)", patience, what, missing(), stood)
}

// trial is one fault.
type trial struct {
	kind  chaos.Kind
	name  string
	tls   bool          // it is shown to clients that look at certificates, and at names
	mild  bool          // it need not keep a question from being answered in time
	rests time.Duration // for so long some lanes leave the authority alone afterwards
	from  time.Time
	until time.Time
}

// trials are all faults of the contract.
func trials(w *world) (all []*trial) {
	for _, t := range chaos.Troubles() {
		all = append(all, &trial{kind: chaos.OnWire, name: t.Name, mild: t.Name == "wire: slow answers", tls: t.Name == "wire: half a handshake"})
	}
	for _, f := range w.server.Faults() {
		all = append(all, &trial{kind: chaos.AtServer, name: f.Name, tls: f.NeedsTLS || strings.HasPrefix(f.Name, "DNS"), mild: f.Name == "answers out of order", rests: f.RetryAfter})
	}
	for _, name := range seamFaults() {
		all = append(all, &trial{kind: chaos.AtSeam, name: name, mild: name == "ignores its context" || name == "takes its time" || name == "names an end"})
	}
	for _, state := range []string{"disabled", "frozen", "inactive", "expired", "unavailable"} {
		all = append(all, &trial{kind: chaos.SwitchState, name: state})
	}
	return all
}

// Each fault by itself, through every adapter at once. Half of the devices are denied while it lasts.
func TestEachFault(t *testing.T) {
	t.Parallel()
	machine := chaos.NewPulse()
	worlds := []*world{newWorld(t, machine, true), newWorld(t, machine, false), newWorld(t, machine, false), newWorld(t, machine, false)}
	var playing sync.WaitGroup
	var mu sync.Mutex
	var all chaos.Findings
	faults := trials(worlds[0])
	shares := distribute(faults, worlds)
	for n, w := range worlds {
		playing.Go(func() {
			found := w.each(shares[n])
			mu.Lock()
			defer mu.Unlock()
			all.Add(found)
		})
	}
	playing.Wait()
	machine.Stop()
	report(t, fmt.Sprintf("%d faults", len(faults)), all)
}

// each tries one fault after the other.
func (w *world) each(trials []*trial) chaos.Findings {
	w.allLanes()
	random := rand.New(rand.NewPCG(1, 1))
	for _, f := range trials {
		w.recovers(time.Now())
		f.from = time.Now()
		must(w.t, w.do(chaos.Step{Kind: f.kind, What: f.name}))
		_ = pause(context.Background(), time.Duration(random.Int64N(int64(pace.Bound()/2))))
		for _, device := range w.devices {
			if random.IntN(2) == 0 {
				must(w.t, w.do(chaos.Step{Kind: chaos.Revoke, Device: device}))
			}
		}
		_ = pause(context.Background(), pace.Bound())
		f.until = time.Now()
		w.heal()
	}
	w.recovers(time.Now())
	w.revocations()
	w.drain()
	h := w.finish()
	for _, f := range trials {
		if !f.mild && !f.bites(h) {
			w.t.Errorf("%s has kept nobody from anything: nothing was tried", f.name)
		}
	}
	return chaos.Check(h)
}

// bites tells whether a question that was asked under the fault, before anything was revoked or not, was not allowed.
func (f *trial) bites(h chaos.History) bool {
	return slices.ContainsFunc(h.Calls, func(c chaos.Call) bool {
		allowed := !c.Failed && !c.GivenUp && c.Decision.Allowed && c.Decision.Code == guard.CodeAllow &&
			(c.Decision.DeviceID == "" || c.Decision.DeviceID == c.Device)
		if c.GivenUp && !c.TimedOut {
			return false // its callers have left
		}
		return c.Sent.After(f.from) && c.Sent.Before(f.until) && !allowed && c.Decision.Code != guard.CodeDeviceRevoked
	})
}

// distribute gives each world as much to do as the others.
func distribute(faults []*trial, worlds []*world) [][]*trial {
	shares, load := make([][]*trial, len(worlds)), make([]time.Duration, len(worlds))
	slices.SortStableFunc(faults, func(a, b *trial) int { return cmp.Compare(b.rests, a.rests) }) // those that take long first
	for _, f := range faults {
		least := 0
		for n, w := range worlds {
			if (w.tls || !f.tls) && load[n] < load[least] {
				least = n
			}
		}
		shares[least], load[least] = append(shares[least], f), load[least]+350*ms+f.rests
	}
	return shares
}
