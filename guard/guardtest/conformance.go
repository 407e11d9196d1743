package guardtest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
)

// Subject is a guard.Validator on trial, with the handles that the trial turns. A handle works
// at once: the next question is answered under the new state. It returns what takes it back.
// Handles are called on the test's goroutine, so they may end the test when they fail.
type Subject struct {
	Validator guard.Validator

	Device   string // a device that is allowed
	Other    string // another one
	Stranger string // a well-formed id that was never registered

	// Revoke has the authority deny one device.
	Revoke func(deviceID string) (restore func())

	// SwitchOff has the authority deny every device. Optional: nil skips what needs it.
	SwitchOff func() (switchOn func())
	// Outage makes the authority one that cannot be asked, quickly: refused connections, say.
	// Optional: nil skips what needs it.
	Outage func() (mend func())
	// Silence makes the authority one that never answers. Optional: nil skips what needs it.
	Silence func() (mend func())

	// Secrets are what no answer, no error and no printed form of the validator may hold: the
	// key of the organisation, say. Optional.
	Secrets []string
}

// TestValidator holds an implementation of guard.Validator to what the guard relies on.
// newSubject is called once for each check, so that each has a subject of its own; whatever it
// starts, it ends with its t. Run under -race it finds data races too.
//
// The checks, by the names of their subtests:
//
//	an allowed device is allowed                   Device and Other: ALLOW and no error, again and again
//	a stranger is denied                           Stranger: a denial with a code of the authority's
//	a blank id is refused                          INVALID_DEVICE_ID or an error
//	revoked is denied, restored is allowed         by the very next answer, three times round
//	one device does not decide for another         one is revoked, the other allowed, asked in turn
//	the organisation switched off is denied        both devices; with Subject.SwitchOff
//	an outage is no answer                         SYSTEM_UNAVAILABLE or an error; with Subject.Outage
//	a context that is over is no answer            the same, and an error matching its Err or its Cause
//	a context that ends is obeyed                  the same within 5 s; with Subject.Silence
//	calls side by side                             each is answered for its own device, while others change
//	request ids differ                             where there are any
//	answers stay as they were                      no error reads otherwise after later calls
//	secrets stay secret                            no answer, error or printed validator has Subject.Secrets
//	nothing is left running                        goroutines do not add up with the calls
//
// Whatever is asked, no answer may contradict itself, such as ALLOW beside an error, be about
// another device, take 5 s, panic or end the goroutine.
//
// It judges what one answer says, and not how the guard uses it. An authoritative denial may
// have any code; that a device is allowed again is expected of the very next answer, so a
// validator that remembers answers does not pass.
func TestValidator(t *testing.T, newSubject func(t *testing.T) Subject) {
	t.Helper()
	for _, c := range checks() {
		t.Run(c.name, func(t *testing.T) { c.run(newTrial(t, newSubject(t))) })
	}
}

// check is one thing that a validator must do. It is a value and not a subtest, so that tests of
// this package can run it on validators that do not, and see it fail.
type check struct {
	name string
	run  func(*trial)
}

// checks lists what every validator must do, the plain cases first: whoever writes a new one
// reads the failures from top to bottom.
func checks() []check {
	return []check{
		{"an allowed device is allowed", allowsTheAllowed},
		{"a stranger is denied", deniesStrangers},
		{"a blank id is refused", refusesBlankIDs},
		{"revoked is denied, restored is allowed", followsRevocation},
		{"one device does not decide for another", keepsDevicesApart},
		{"the organisation switched off is denied", followsTheOrganisation},
		{"an outage is no answer", failsClosed},
		{"a context that is over is no answer", obeysContextsThatAreOver},
		{"a context that ends is obeyed", obeysContextsThatEnd},
		{"calls side by side", answersSideBySide},
		{"request ids differ", numbersRequests},
		{"answers stay as they were", leavesAnswersAlone},
		{"secrets stay secret", keepsSecrets},
		{"nothing is left running", leavesNothingRunning},
	}
}

// allowsTheAllowed asks more than once, because an ALLOW is nothing that is used up.
func allowsTheAllowed(t *trial) {
	for range 3 {
		t.allowed(t.Device, "registered")
		t.allowed(t.Other, "registered")
	}
}

// deniesStrangers wants an answer of the authority's: that nobody knows the device is a no, and
// not a failure to ask, which a guard may have been told to retry.
func deniesStrangers(t *trial) {
	t.denied(t.Stranger, "never registered")
	t.allowed(t.Device, "after a stranger")
	t.denied(t.Stranger, "after an allowed device")
}

// refusesBlankIDs leaves it open whether a blank id is a denial or an error: a guard never asks
// about one (S2), but a validator may be used without a guard.
func refusesBlankIDs(t *trial) {
	for _, id := range []string{"", " ", "\t\r\n "} {
		r := t.ask(t.Context(), id)
		if r.ok && !r.Allowed && r.err == nil && r.Code != guard.CodeInvalidDeviceID {
			t.Errorf("device %q: %s, want %s or an error", id, r, guard.CodeInvalidDeviceID)
		}
		if r.Allowed {
			t.Errorf("device %q: %s", id, r)
		}
	}
}

// followsRevocation goes round three times: what a validator remembers shows in the second, and
// a stop bound (B1) counts from the revocation only if the very next answer knows of it.
func followsRevocation(t *trial) {
	for range 3 {
		t.allowed(t.Device, "not revoked")
		restore := t.Revoke(t.Device)
		t.denied(t.Device, "revoked")
		t.denied(t.Device, "still revoked")
		restore()
	}
	t.allowed(t.Device, "restored")
}

// keepsDevicesApart asks in turn about a device that is revoked and one that is not, and then
// swaps them, so that an answer which is carried over from one call to the next is a wrong one.
func keepsDevicesApart(t *trial) {
	restore := t.Revoke(t.Device)
	for range 3 {
		t.denied(t.Device, "revoked, beside one that is not")
		t.allowed(t.Other, "beside a revoked one")
	}
	restore()
	defer t.Revoke(t.Other)()
	for range 3 {
		t.denied(t.Other, "revoked, beside one that is not")
		t.allowed(t.Device, "beside a revoked one")
	}
}

// followsTheOrganisation does not ask for a certain code: services have different words for it,
// and a client maps them.
func followsTheOrganisation(t *trial) {
	if t.SwitchOff == nil {
		t.Skip("Subject.SwitchOff is nil")
	}
	switchOn := t.SwitchOff()
	t.denied(t.Device, "the organisation is off")
	t.denied(t.Other, "the organisation is off")
	switchOn()
	t.allowed(t.Device, "the organisation is on again")
}

// failsClosed asks about a stranger too: in an outage nobody can know that it is one.
func failsClosed(t *trial) {
	if t.Outage == nil {
		t.Skip("Subject.Outage is nil")
	}
	mend := t.Outage()
	for _, id := range []string{t.Device, t.Stranger} {
		t.undecided(t.Context(), id, "in an outage")
	}
	mend()
	t.allowed(t.Device, "after an outage")
}

// obeysContextsThatAreOver is about callers that left before the call. An ALLOW for one of them
// would be harmless if nobody ever looked at the decision before the error.
func obeysContextsThatAreOver(t *trial) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	t.gaveUp(cancelled, "cancelled before the call")

	withCause, cancelWith := context.WithCancelCause(t.Context())
	cancelWith(errors.New("a reason of the caller's own"))
	t.gaveUp(withCause, "cancelled with a cause before the call")

	expired, stop := context.WithDeadline(t.Context(), time.Now().Add(-time.Hour))
	defer stop()
	t.gaveUp(expired, "its deadline an hour ago")

	t.allowed(t.Device, "after callers that had left")
}

// aMoment is how long a call is left in flight before its context ends. Nothing is measured
// by it: a shorter one would only make it likelier that the call has not been sent.
const aMoment = 30 * time.Millisecond

// obeysContextsThatEnd is about callers that leave while the authority keeps silent. A guard
// survives a validator that stays (S4), but each stuck call costs it a slot (L4).
func obeysContextsThatEnd(t *trial) {
	if t.Silence == nil {
		t.Skip("Subject.Silence is nil")
	}
	mend := t.Silence()
	expiring, stop := context.WithTimeout(t.Context(), aMoment)
	defer stop()
	t.gaveUp(expiring, "its deadline while in flight")

	cancelled, cancel := context.WithCancel(t.Context())
	defer time.AfterFunc(aMoment, cancel).Stop()
	t.gaveUp(cancelled, "cancelled while in flight")
	mend()
	t.allowed(t.Device, "after a silence")
}

// numbersRequests asks one after the other: a validator may share an answer between calls
// that are in flight together.
func numbersRequests(t *trial) {
	var ids []string
	for range 5 {
		for _, id := range []string{t.Device, t.Other, t.Stranger} {
			r := t.ask(t.Context(), id)
			if r.RequestID != "" && slices.Contains(ids, r.RequestID) {
				t.Errorf("request id %q came twice", r.RequestID)
			}
			ids = append(ids, r.RequestID)
		}
	}
}
