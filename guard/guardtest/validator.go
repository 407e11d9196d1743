package guardtest

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/internal/faulty"
)

// Call is one question that a Validator was asked.
type Call struct {
	DeviceID string
	Sent     time.Time // when Validate was called
	Returned time.Time // when it returned or was unwound by a panic or Goexit; zero while it goes on
	Decision guard.Decision
	Err      error
}

// Validator is a guard.Validator that answers from a script and records every call. It is made
// by NewValidator; the zero value is of no use. It knows two kinds of answer: what a device gets
// every time (Allow, Deny, Always), and what the next calls get instead (Next). A device that it
// was told nothing about is denied with CodeDeviceNotFound, a blank id with CodeInvalidDeviceID.
// The script may be changed while calls are in flight; each call is answered by what stood there
// when it came.
//
// It is safe for concurrent use, starts no goroutine, holds no lock while an answer is made,
// and makes no channel before somebody waits for it, so that it works in a synctest bubble
// wherever it was made.
type Validator struct {
	calls faulty.Ledger[Call]

	mu     sync.Mutex
	always map[string]guard.ValidatorFunc   // by device; "" is every device
	next   map[string][]guard.ValidatorFunc // by device; "" is whichever device asks
	ids    int                              // request ids given so far
}

// NewValidator returns a Validator that allows the named devices.
func NewValidator(allowed ...string) *Validator {
	v := &Validator{
		always: make(map[string]guard.ValidatorFunc),
		next:   make(map[string][]guard.ValidatorFunc),
	}
	for _, id := range allowed {
		v.Allow(id)
	}
	return v
}

// Allow lets the device run from the next call on. Each call gets a request id of its own.
func (v *Validator) Allow(deviceID string) {
	v.Always(deviceID, v.state(guard.Decision{Allowed: true, Code: guard.CodeAllow}))
}

// Deny refuses the device with code from the next call on, until it is allowed again. Each
// call gets a request id of its own.
func (v *Validator) Deny(deviceID string, code guard.Code) {
	v.Always(deviceID, v.state(guard.Decision{Code: code}))
}

// Always answers every later call for the device with answer; nil takes that back. The device
// "" stands for every device and goes before what each has of its own, so that Deny("",
// CodeOrgDisabled) switches the organisation off, Always("", Hang()) is an outage, and
// Always("", nil) ends either.
func (v *Validator) Always(deviceID string, answer guard.ValidatorFunc) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if answer == nil {
		delete(v.always, deviceID)
		return
	}
	v.always[deviceID] = answer
}

// Next answers the device's next calls with answers, one each and in order, before what it
// gets every time comes again. The device "" stands for whichever device asks, and goes first.
// Answers that wait already are kept, and come before the new ones.
func (v *Validator) Next(deviceID string, answers ...guard.ValidatorFunc) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.next[deviceID] = append(v.next[deviceID], answers...)
}

// Validate answers from the script. It blocks, panics or exits where the script says so.
func (v *Validator) Validate(ctx context.Context, deviceID string) (d guard.Decision, err error) {
	n, answer := v.begin(deviceID)
	// Deferred, so that a call which panics or ends its goroutine is seen to have ended.
	defer func() {
		v.calls.Amend(n, func(c *Call) { c.Returned, c.Decision, c.Err = time.Now(), d, err })
	}()
	return answer(ctx, deviceID)
}

// Calls returns every call so far, in the order in which they came.
func (v *Validator) Calls() []Call { return v.calls.All() }

// Wait blocks until n calls have come, counted from the first ever, or until ctx ends, whose
// cause it then returns. The n-th need not have returned yet. It returns the calls so far.
func (v *Validator) Wait(ctx context.Context, n int) ([]Call, error) { return v.calls.Wait(ctx, n) }

// begin records a call and finds its answer, in one step: answers are taken in the order in
// which the calls stand in the record.
func (v *Validator) begin(deviceID string) (n int, answer guard.ValidatorFunc) {
	v.mu.Lock()
	defer v.mu.Unlock()
	n = v.calls.Add(Call{DeviceID: deviceID, Sent: time.Now()})
	for _, id := range []string{"", deviceID} {
		if queue := v.next[id]; len(queue) > 0 {
			v.next[id] = queue[1:]
			return n, queue[0]
		}
	}
	if strings.TrimSpace(deviceID) == "" {
		return n, v.state(guard.Decision{Code: guard.CodeInvalidDeviceID})
	}
	for _, id := range []string{"", deviceID} {
		if answer, ok := v.always[id]; ok {
			return n, answer
		}
	}
	return n, v.state(guard.Decision{Code: guard.CodeDeviceNotFound})
}

// state answers as a working authority does: with d, for the device that was asked about, or
// with the cause where ctx is over.
func (v *Validator) state(d guard.Decision) guard.ValidatorFunc {
	return func(ctx context.Context, deviceID string) (guard.Decision, error) {
		if ctx.Err() != nil {
			return gone(ctx)
		}
		answer := d // calls may be in flight side by side
		answer.DeviceID, answer.RequestID = deviceID, v.requestID()
		return answer, nil
	}
}

// requestID numbers answers and not calls: a call that is answered by Reply has the request id
// that the test gave it, or none.
func (v *Validator) requestID() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.ids++
	return "script-" + strconv.Itoa(v.ids)
}
