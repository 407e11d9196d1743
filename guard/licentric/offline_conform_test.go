package licentric

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

// rack is several machines in one process, each with a file of its own, which are exchanged.
type rack struct {
	t       *testing.T
	memory  string
	mu      sync.Mutex
	devices map[string]guard.Validator
}

func (r *rack) Validate(ctx context.Context, deviceID string) (guard.Decision, error) {
	r.mu.Lock()
	v, ok := r.devices[deviceID]
	if !ok {
		v = r.devices[ownMachine]
	}
	r.mu.Unlock()
	return v.Validate(ctx, deviceID)
}

// insert gives devices a file with some of it changed. It returns what gives them a good one.
func (r *rack) insert(part string, change object, devices ...string) func() {
	r.t.Helper()
	fill := func(change object) {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, device := range devices {
			file := fileFrom(time.Now(), twoWeeks).with("data", object{fieldFingerprint: device}).with(part, change)
			r.devices[device] = newOffline(r.t, file.signed(r.t), WithMemory(r.memory+device))
		}
	}
	fill(change)
	return func() { fill(nil) }
}

// S2, S8 and the rest of what the guard relies on, for what a file decides.
func TestOfflineIsAValidator(t *testing.T) {
	guardtest.TestValidator(t, func(t *testing.T) guardtest.Subject {
		r := &rack{t: t, memory: memoryPath(t), devices: map[string]guard.Validator{}}
		r.insert("data", object{"key": "KEY-OF-THE-LICENCE"}, ownMachine, otherMachine)
		past := object{"issued": "2020-01-01T00:00:00Z", "expiry": "2020-01-02T00:00:00Z"}
		return guardtest.Subject{
			Validator: r,
			Device:    ownMachine,
			Other:     otherMachine,
			Stranger:  "machine-of-a-stranger",
			Revoke:    func(id string) func() { return r.insert("data", object{"status": "REVOKED"}, id) },
			SwitchOff: func() func() { return r.insert("data", object{"status": "SUSPENDED"}, ownMachine, otherMachine) },
			Outage:    func() func() { return r.insert("meta", past, ownMachine, otherMachine) },
			Secrets:   []string{"KEY-OF-THE-LICENCE"},
		}
	})
}

// The guard's own word on which codes are organisation-wide (S3): those that stop another device's
// run. If the guard learns a new one, this fails.
func TestS3_OrganisationWideIsAsInTheGuard(t *testing.T) {
	for _, code := range append(allCodes(), "NEVER_HEARD_OF") {
		if code == guard.CodeAllow {
			continue
		}
		synctest.Test(t, func(t *testing.T) {
			online := guardtest.NewValidator(ownMachine)
			online.Deny(otherMachine, code)
			g, err := guard.New(online, guard.WithInterval(interval))
			if err != nil {
				t.Fatal(err)
			}
			ended := background(t, g)
			_, _ = g.Validate(t.Context(), otherMachine)
			synctest.Wait()
			stopped := len(ended) == 1
			if stopped != code.OrganisationWide() {
				t.Errorf("%s: stops another device: %t", code, stopped)
			}
			_ = g.Close()
			<-ended
		})
	}
}
