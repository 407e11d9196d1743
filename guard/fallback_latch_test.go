package guard_test

import (
	"context"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
)

// step is a question that is let through in two halves: it has been sent, and it is answered.
type step struct {
	answer chan behaviour
	done   chan struct{}
	d      guard.Decision
	err    error
}

// halves has an authority answer whatever each question's test says, when it says so.
func halves(sent chan<- *step) behaviour {
	return func(ctx context.Context, c *asked) (guard.Decision, error) {
		s := &step{answer: make(chan behaviour)}
		sent <- s
		return (<-s.answer)(ctx, c)
	}
}

// begin sends a question about a device to online and returns when it is there.
func (w *twin) begin(ctx context.Context, device string) *step {
	sent := make(chan *step)
	w.online.set(halves(sent), device)
	done := make(chan struct{})
	var d guard.Decision
	var err error
	out := new(step)
	go func() {
		d, err = w.Validate(ctx, device)
		out.d, out.err = d, err
		close(done)
	}()
	in := <-sent
	out.answer, out.done = in.answer, done
	return out
}

// end answers the question and waits until Fallback has.
func (s *step) end(b behaviour) (guard.Decision, error) {
	s.answer <- b
	<-s.done
	return s.d, s.err
}

// Pulling the cable after a denial revives nobody; an ALLOW of online's does, and only that (S5).
func TestFallback_S5_TheFileStaysUnusedAfterADenial(t *testing.T) {
	for _, code := range []guard.Code{guard.CodeDeviceRevoked, guard.CodeDeviceNotFound, guard.CodeInvalidDeviceID, "ON_FIRE"} {
		t.Run(string(code), func(t *testing.T) {
			w := newTwin()
			w.unplug()
			w.wantFile(t, "dev")
			w.online.deny(code)
			w.wantOnline(t, "dev", code)
			w.unplug()
			asked := w.offline.count()
			for range 3 {
				w.wantNeither(t, "dev", errCable.Error(), "offline: ", string(code))
			}
			if w.offline.count() != asked {
				t.Error("the file was asked")
			}
			w.wantFile(t, "other") // of which nothing was said
			w.online.allow()
			w.wantOnline(t, "other", guard.CodeAllow)
			w.unplug()
			w.wantNeither(t, "dev", string(code)) // another's ALLOW frees nobody
			w.online.allow()
			w.wantOnline(t, "dev", guard.CodeAllow)
			w.unplug()
			w.wantFile(t, "dev")
		})
	}
}

// A denial of the organisation latches every device, also those never heard of, and each is freed
// by an ALLOW of its own.
func TestFallback_S5_AnOrganisationsDenialLatchesEveryDevice(t *testing.T) {
	for _, code := range []guard.Code{
		guard.CodeOrgDisabled, guard.CodePlanFrozen, guard.CodePlanNotActive,
		guard.CodeEntitlementExpired, guard.CodeOrgNotFound, guard.CodeInvalidOrgKey,
	} {
		t.Run(string(code), func(t *testing.T) {
			w := newTwin()
			w.online.deny(code, "one")
			w.wantOnline(t, "one", code)
			w.unplug()
			for _, id := range []string{"one", "two", "three"} {
				w.wantNeither(t, id, "every device", string(code))
			}
			w.online.allow()
			w.wantOnline(t, "two", guard.CodeAllow)
			w.wantOnline(t, "two", guard.CodeAllow)
			w.unplug()
			w.wantFile(t, "two")
			w.wantNeither(t, "one", string(code))
			w.wantNeither(t, "three", string(code))
			w.online.deny(guard.CodeDeviceRevoked, "two") // its own, after it was freed
			w.wantOnline(t, "two", guard.CodeDeviceRevoked)
			w.unplug()
			w.wantNeither(t, "two", "DEVICE_REVOKED")
			w.online.allow()
			w.wantOnline(t, "two", guard.CodeAllow)
			w.online.deny(code, "three") // once more for all
			w.wantOnline(t, "three", code)
			w.unplug()
			w.wantNeither(t, "two", "every device", string(code))
		})
	}
}

// «Could not ask» latches nothing, and neither does what the file says.
func TestFallback_S5_OnlyTheAuthoritysDenialLatches(t *testing.T) {
	for name, c := range couldNotAsk {
		t.Run(name, func(t *testing.T) {
			w := newTwin()
			w.online.set(c.b)
			w.wantFile(t, "dev")
			w.offline.deny(guard.CodeOrgDisabled)
			w.wantNeither(t, "dev", "ORG_DISABLED")
			w.offline.allow()
			w.wantFile(t, "dev")
		})
	}
}

// An ALLOW frees only if it was asked for after the denial was learnt, whichever is learnt first,
// and it is the order that counts and not the clock.
func TestFallback_S5_OnlyAYoungerAllowFrees(t *testing.T) {
	for name, code := range map[string]guard.Code{"its own": guard.CodeDeviceRevoked, "the organisation's": guard.CodeOrgDisabled} {
		t.Run(name, func(t *testing.T) {
			w := newTwin()
			early := w.begin(t.Context(), "dev")
			late := w.begin(t.Context(), "dev")
			refused := w.begin(t.Context(), "dev")
			_, _ = early.end(allows) // learnt before the denial
			if d, _ := refused.end(denies(code)); d.Code != code {
				t.Fatalf("got %+v, want %s", d, code)
			}
			if d, err := late.end(allows); !d.Allowed || err != nil || d.Reason != "" {
				t.Errorf("got %+v, %v; what online says stands as it came", d, err)
			}
			w.unplug()
			w.wantNeither(t, "dev", string(code))
			after := w.begin(t.Context(), "dev")
			_, _ = after.end(allows)
			w.unplug()
			w.wantFile(t, "dev")
		})
	}
}

// A second denial holds against the ALLOW that would have taken the first back.
func TestFallback_S5_EachDenialCounts(t *testing.T) {
	for name, codes := range map[string][2]guard.Code{
		"own, own":   {guard.CodeDeviceRevoked, guard.CodeDeviceRevoked},
		"own, all":   {guard.CodeDeviceRevoked, guard.CodeOrgDisabled},
		"all, own":   {guard.CodeOrgDisabled, guard.CodeDeviceRevoked},
		"all, all":   {guard.CodeOrgDisabled, guard.CodePlanFrozen},
		"all, other": {guard.CodeOrgDisabled, "ON_FIRE"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newTwin()
			_, _ = w.begin(t.Context(), "dev").end(denies(codes[0]))
			between := w.begin(t.Context(), "dev")
			_, _ = w.begin(t.Context(), "dev").end(denies(codes[1]))
			_, _ = between.end(allows)
			w.unplug()
			w.wantNeither(t, "dev", string(codes[1]))
		})
	}
}

// A denial that is learnt while the file is being asked counts against the file's answer.
func TestFallback_S5_ADenialLearntMeanwhileCounts(t *testing.T) {
	for name, code := range map[string]guard.Code{"its own": guard.CodeDeviceRevoked, "the organisation's": guard.CodeOrgDisabled} {
		t.Run(name, func(t *testing.T) {
			w := newTwin()
			sent := make(chan *step)
			w.offline.set(halves(sent))
			refused, cut := w.begin(t.Context(), "dev"), w.begin(t.Context(), "dev")
			cut.answer <- fails(errCable)
			file := <-sent
			_, _ = refused.end(denies(code))
			file.answer <- allows
			<-cut.done
			wantCouldNot(t, cut.d, cut.err, string(code))
		})
	}
}

// A call that was given up cannot free the device, and an ALLOW that is over neither; its denial
// latches whenever it is learnt.
func TestFallback_S5_ACallThatWasGivenUp(t *testing.T) {
	w := newTwin()
	_, _ = w.begin(t.Context(), "dev").end(denies(guard.CodeDeviceRevoked))
	ctx, cancel := context.WithCancel(t.Context())
	late := w.begin(ctx, "dev")
	cancel()
	_, _ = late.end(allows)
	w.unplug()
	w.wantNeither(t, "dev", "DEVICE_REVOKED")
	_, _ = w.begin(t.Context(), "dev").end(until(time.Unix(1, 0)))
	w.unplug()
	w.wantNeither(t, "dev", "DEVICE_REVOKED")

	ctx, cancel = context.WithCancel(t.Context())
	late = w.begin(ctx, "other")
	cancel()
	if d, _ := late.end(denies(guard.CodeDeviceNotFound)); d.Code != guard.CodeDeviceNotFound {
		t.Errorf("got %+v", d)
	}
	w.unplug()
	w.wantNeither(t, "other", "DEVICE_NOT_FOUND")
}
