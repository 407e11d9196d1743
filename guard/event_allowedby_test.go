package guard_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// A run's events name the ALLOW that it started on, whatever was asked since, so that what is told at its end can be
// brought together with that answer.
func TestEvents_NameTheALLOWThatARunStartedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g, d := observed(t, a)
		r := launchFunc(t.Context(), g, "d", func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(time.Minute) // and overruns
			return nil
		})
		time.Sleep(time.Minute) // others have been allowed by then
		_ = g.Run(t.Context(), "d", func(context.Context) error { return nil })
		second := a.last(t).id()
		a.deny(guard.CodeDeviceRevoked)
		_ = r.finish()
		_ = g.Run(t.Context(), "d", func(context.Context) error { return nil })
		synctest.Wait()

		var got []string
		for _, e := range d.read() {
			if e.Kind != guard.EventValidated {
				got = append(got, string(e.Kind)+" "+e.AllowedBy)
			}
		}
		want := []string{"started r1", "started " + second, "finished " + second, "overran r1", "stopped r1", "refused "}
		if !slices.Equal(got, want) || second == "r1" {
			t.Errorf("told %q, want %q", got, want)
		}
		if e := d.one(t, guard.EventStopped); e.Decision.RequestID == "r1" || e.Decision.RequestID == "" {
			t.Errorf("the denial's request id is %q", e.Decision.RequestID)
		}
		for _, e := range d.read(guard.EventValidated) {
			if e.AllowedBy != "" {
				t.Errorf("validated: %q", e.AllowedBy)
			}
		}
	})
}
