package chaos

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// Kind is what a step is about.
type Kind string

// The kinds of steps. Each of the first three stays until the next of its kind; What is the name
// of the fault, "" for none.
const (
	OnWire      Kind = "wire"      // the network
	AtServer    Kind = "server"    // what the server answers
	AtSeam      Kind = "seam"      // the validator itself
	Revoke      Kind = "revoke"    // Device
	Restore     Kind = "restore"   // Device
	SwitchState Kind = "state"     // What is the organisation's state, "" for active
	Telling     Kind = "forgeries" // a hint about Device, which nothing has happened to
)

// Step is one thing that happens.
type Step struct {
	At     time.Duration // since the beginning
	Kind   Kind
	What   string
	Device string
}

// String prints it in a line.
func (s Step) String() string {
	return fmt.Sprintf("%7.1f ms  %-9s %s%s", float64(s.At)/1e6, s.Kind, s.What, s.Device)
}

// Cast is what a plan is drawn from, and how dense it is.
type Cast struct {
	Wires, Faults, Seams []string // the names of the faults
	States               []string // of the organisation
	Devices              []string
	Length               time.Duration // all is well again at its end
	Trouble, Quiet       time.Duration // the longest time for which a fault lasts, and between two of a kind
	Denied, Allowed      time.Duration // the same for revocations
}

// Draw draws a plan. The same seed and cast give the same plan.
func Draw(seed uint64, c Cast) []Step {
	random := rand.New(rand.NewPCG(seed, 7))
	var steps []Step
	for _, layer := range []struct {
		kind  Kind
		names []string
		quiet time.Duration
	}{
		{OnWire, c.Wires, c.Quiet},
		{AtServer, c.Faults, c.Quiet},
		{AtSeam, c.Seams, 4 * c.Quiet},
		{SwitchState, c.States, 8 * c.Quiet},
	} {
		if len(layer.names) == 0 {
			continue
		}
		steps = append(steps, alternate(random, c.Length, layer.quiet, c.Trouble, func(on bool) Step {
			if !on {
				return Step{Kind: layer.kind}
			}
			return Step{Kind: layer.kind, What: layer.names[random.IntN(len(layer.names))]}
		})...)
	}
	for _, device := range c.Devices {
		steps = append(steps, alternate(random, c.Length, c.Allowed, c.Denied, func(on bool) Step {
			switch {
			case on && random.IntN(8) == 0:
				return Step{Kind: Telling, Device: device}
			case on:
				return Step{Kind: Revoke, Device: device}
			}
			return Step{Kind: Restore, Device: device}
		})...)
	}
	slices.SortStableFunc(steps, func(a, b Step) int { return cmp.Compare(a.At, b.At) })
	return steps
}

// alternate has something begin and end by turns, and end at last.
func alternate(random *rand.Rand, length, off, on time.Duration, step func(on bool) Step) (steps []Step) {
	at := time.Duration(0)
	for begin := true; ; begin = !begin {
		longest := on
		if begin {
			longest = off
		}
		at += time.Millisecond + time.Duration(random.Int64N(int64(max(1, longest))))
		if at >= length {
			break
		}
		s := step(begin)
		s.At = at
		steps = append(steps, s)
	}
	last := step(false)
	last.At = length
	return append(steps, last)
}

// Play does the steps at their times, each as soon after it as the one before is done, until ctx ends.
// It returns the first error of do, with the step, or the cause of ctx.
func Play(ctx context.Context, steps []Step, do func(Step) error) error {
	began := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for _, s := range steps {
		timer.Reset(s.At - time.Since(began))
		select {
		case <-timer.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := do(s); err != nil {
			return fmt.Errorf("chaos: %v: %w", s, err)
		}
	}
	return nil
}
