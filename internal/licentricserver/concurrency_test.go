package licentricserver_test

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/execguard/execguard/internal/licentricserver"
)

// A thousand activations that come at once fill every seat and not one more.
func TestActivationsSideBySide(t *testing.T) {
	const seats = 7
	s := newService(t)
	ok(t, s.SetMaxMachines(licenseID, seats))
	var made, refusals atomic.Int32
	var workers sync.WaitGroup
	for w := range 10 {
		workers.Go(func() {
			for i := range 100 {
				switch activate(fmt.Sprintf(`{"fingerprint":"fp-machine-%d-%d"}`, w, i)).ask(s).status {
				case http.StatusCreated:
					made.Add(1)
				case http.StatusUnprocessableEntity:
					refusals.Add(1)
				}
			}
		})
	}
	workers.Wait()
	if made.Load() != seats || refusals.Load() != 1000-seats || len(s.Machines(licenseID)) != seats {
		t.Errorf("%d made, %d refused, %d active", made.Load(), refusals.Load(), len(s.Machines(licenseID)))
	}
}

// Whatever is changed while calls come, each answer is one that some state had, and a change is in
// effect when its method returns.
func TestControlBesideCalls(t *testing.T) {
	s := newService(t, licentricserver.WithRateLimits())
	m := addMachine(t, s, fingerprint)
	done := make(chan struct{})
	var workers sync.WaitGroup
	for _, c := range []call{
		validateMachine(fingerprint), heartbeat(m.ID), list(s, ""), get(s, m.ID), checkout(s, `{"fingerprint":"`+fingerprint+`"}`),
	} {
		workers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					if a := c.ask(s); a.status >= 500 {
						t.Errorf("%s: %d %s", c.path, a.status, a.body)
						return
					}
				}
			}
		})
	}
	for i := range 200 {
		ok(t, s.Suspend(licenseID))
		ok(t, s.Reinstate(licenseID))
		ok(t, s.SetHeartbeat(licenseID, fingerprint, time.Now()))
		ok(t, s.SetEntitlements(licenseID, "SYNC", fmt.Sprint(i)))
		s.AddAPIKey(licentricserver.ScopeMachines)
		s.RotateKey()
		s.Fail(licentricserver.CallMachine, http.StatusTooManyRequests, time.Second)
		s.Mend(licentricserver.CallMachine)
		_ = s.Calls(licentricserver.CallValidate)
		_ = s.PublicKeys()
	}
	close(done)
	workers.Wait()
}
