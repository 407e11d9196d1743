package chaos_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/internal/chaos"
)

var smallCast = chaos.Cast{
	Wires: []string{"w1", "w2"}, Faults: []string{"f1", "f2"}, Seams: []string{"s1"}, States: []string{"x"}, Devices: []string{"a", "b"},
	Length: 20 * time.Second, Trouble: 400 * ms, Quiet: 200 * ms, Denied: 300 * ms, Allowed: 300 * ms,
}

// A seed gives one plan, in order of time, in which everything comes to pass and all is well at the end.
func TestDraw(t *testing.T) {
	steps := chaos.Draw(1, smallCast)
	if !slices.Equal(steps, chaos.Draw(1, smallCast)) {
		t.Error("the same seed gives two plans")
	}
	if slices.Equal(steps, chaos.Draw(2, smallCast)) {
		t.Error("two seeds give the same plan")
	}
	if !slices.IsSortedFunc(steps, func(a, b chaos.Step) int { return int(a.At - b.At) }) {
		t.Error("the steps are out of order")
	}
	seen, last := map[chaos.Step]bool{}, map[chaos.Step]chaos.Step{}
	for _, s := range steps {
		about := chaos.Step{Kind: s.Kind, Device: s.Device}
		if s.Kind == chaos.Revoke || s.Kind == chaos.Restore || s.Kind == chaos.Telling {
			about.Kind = chaos.Revoke
		}
		last[about] = s
		s.At = 0
		seen[s] = true
	}
	for _, kind := range []chaos.Kind{chaos.OnWire, chaos.AtServer, chaos.AtSeam, chaos.SwitchState} {
		if end := last[chaos.Step{Kind: kind}]; end.What != "" || end.At != smallCast.Length {
			t.Errorf("%s ends with %v", kind, end)
		}
	}
	for _, device := range smallCast.Devices {
		if end := last[chaos.Step{Kind: chaos.Revoke, Device: device}]; end.Kind != chaos.Restore || end.At != smallCast.Length {
			t.Errorf("%s ends with %v", device, end)
		}
	}
	for _, s := range []chaos.Step{
		{Kind: chaos.OnWire, What: "w1"}, {Kind: chaos.OnWire, What: "w2"}, {Kind: chaos.AtServer, What: "f2"}, {Kind: chaos.AtSeam, What: "s1"},
		{Kind: chaos.SwitchState, What: "x"}, {Kind: chaos.Revoke, Device: "b"}, {Kind: chaos.Restore, Device: "a"}, {Kind: chaos.Telling, Device: "a"},
	} {
		if !seen[s] {
			t.Errorf("%v never comes", s)
		}
	}
}

// Nothing to draw from is no fault.
func TestDrawFromNothing(t *testing.T) {
	for _, s := range chaos.Draw(1, chaos.Cast{Length: time.Second}) {
		if s.What != "" || s.Device != "" {
			t.Errorf("%v", s)
		}
	}
}

func TestPlay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		steps := []chaos.Step{{At: 10 * ms, What: "a"}, {At: 10 * ms, What: "b"}, {At: time.Second, What: "c"}}
		began, played := time.Now(), []string{}
		err := chaos.Play(t.Context(), steps, func(s chaos.Step) error {
			if late := time.Since(began) - s.At; late != 0 && s.What != "b" {
				t.Errorf("%s: late by %v", s.What, late)
			}
			played = append(played, s.What)
			if s.What == "a" {
				time.Sleep(300 * ms) // b waits for it, and c does not
			}
			return nil
		})
		if err != nil || !slices.Equal(played, []string{"a", "b", "c"}) {
			t.Errorf("%v, %v", played, err)
		}
		if err := chaos.Play(t.Context(), steps, func(s chaos.Step) error { return errBroken }); !errors.Is(err, errBroken) {
			t.Errorf("a step that goes wrong: %v", err)
		}
		ctx, cancel := context.WithTimeoutCause(t.Context(), 500*ms, errBroken)
		defer cancel()
		n := 0
		if err := chaos.Play(ctx, steps, func(chaos.Step) error { n++; return nil }); !errors.Is(err, errBroken) || n != 2 {
			t.Errorf("after the end: %d steps, %v", n, err)
		}
	})
}
