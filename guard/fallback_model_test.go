package guard_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/execguard/execguard/guard"
)

// latchModel says by the words of S5 alone, from the whole history, for whom the file may be used.
type latchModel struct{ history []latchEvent }

// latchEvent is a call that began, a denial that was learnt, or an ALLOW.
type latchEvent struct {
	what   string // "begin", "deny", "allow"
	device string // "" for a denial that concerns every device
	begun  int    // of an ALLOW: where in the history its call began
}

func (m *latchModel) add(e latchEvent) int {
	m.history = append(m.history, e)
	return len(m.history) - 1
}

// refused: after the latest denial no ALLOW came of a call that began after it.
func (m *latchModel) refused(device string) bool {
	for at, e := range slices.Backward(m.history) {
		if e.what == "deny" && (e.device == "" || e.device == device) {
			return !slices.ContainsFunc(m.history, func(e latchEvent) bool {
				return e.what == "allow" && e.device == device && e.begun > at
			})
		}
	}
	return false
}

// remembered says the same from what a Witness was told: its last word about the device.
func remembered(notes []string, device string) bool {
	refused := false
	for _, n := range notes {
		who, code, _ := strings.Cut(n, " ")
		switch {
		case guard.Code(code) == guard.CodeAllow:
			refused = refused && who != device
		case who == device, guard.Code(code) == guard.CodeOrgDisabled:
			refused = true
		}
	}
	return refused
}

// openCall is a call that has begun.
type openCall struct {
	*step

	device string
	begun  int
	cancel context.CancelFunc
}

// TestFallbackModel_S5 has random calls about three devices overlap in random order, be answered
// and given up, and the cable pulled at random: the file is used for exactly those for whom the
// contract lets it, and what a Witness was told says the same.
func TestFallbackModel_S5(t *testing.T) {
	modelFlags(t, "300")
	rapid.Check(t, func(rt *rapid.T) {
		w, n := newNotebook()
		var m latchModel
		var flying []openCall
		defer func() {
			for _, f := range flying {
				_, _ = f.end(denies("OVER"))
			}
		}()
		devices := []string{"a", "b", "c"}
		begin := func(rt *rapid.T) {
			f := openCall{device: rapid.SampledFrom(devices).Draw(rt, "device")}
			f.begun = m.add(latchEvent{what: "begin", device: f.device})
			ctx, cancel := context.WithCancel(t.Context())
			f.step, f.cancel = w.begin(ctx, f.device), cancel
			flying = append(flying, f)
		}
		land := func(rt *rapid.T) {
			if len(flying) == 0 {
				rt.Skip("nothing flies")
			}
			i := rapid.IntRange(0, len(flying)-1).Draw(rt, "call")
			f := flying[i]
			flying = slices.Delete(flying, i, i+1)
			given := rapid.Bool().Draw(rt, "given up") && rapid.Bool().Draw(rt, "indeed")
			if given {
				f.cancel()
			}
			switch code := rapid.SampledFrom([]guard.Code{guard.CodeAllow, guard.CodeAllow, guard.CodeDeviceRevoked, guard.CodeOrgDisabled, guard.CodeSystemUnavailable}).Draw(rt, "answer"); code {
			case guard.CodeAllow:
				if _, _ = f.end(allows); !given {
					m.add(latchEvent{what: "allow", device: f.device, begun: f.begun})
				}
			case guard.CodeSystemUnavailable:
				_, _ = f.end(denies(code))
			default:
				_, _ = f.end(denies(code))
				e := latchEvent{what: "deny", device: f.device}
				if code == guard.CodeOrgDisabled {
					e.device = ""
				}
				m.add(e)
			}
			f.cancel()
		}
		probe := func(rt *rapid.T) {
			for _, id := range devices {
				w.online.fail(errCable, id)
				d, _ := w.Validate(t.Context(), id)
				if want := m.refused(id); d.Allowed == want {
					rt.Fatalf("%s: %s: refused by the contract: %v; %s", id, fmt.Sprint(d.Allowed), want, d.Reason)
				}
				if want := m.refused(id); remembered(n.all(), id) != want {
					rt.Fatalf("%s: the Witness was told %v; refused by the contract: %v", id, n.all(), want)
				}
			}
		}
		rt.Repeat(map[string]func(*rapid.T){"begin": begin, "land": land, "probe": probe})
		probe(rt)
	})
}
