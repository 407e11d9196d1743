package licentric

import (
	"context"
	"errors"
	"time"

	"github.com/execguard/execguard/guard"
)

// keepAlive sends a heartbeat for a device that was found valid, where one is due and none is in
// flight. The error says why the last one failed; it never changes the decision.
func (v *validator) keepAlive(ctx context.Context, fingerprint string, answer Validation) *Error {
	c, failure := v.pulse.claimDue(fingerprint, answer.Machine)
	if c == nil {
		return failure
	}
	return v.send(ctx, fingerprint, c, answer)
}

// revive sends a heartbeat for a device that was denied for want of one, and asks once more: that
// answer decides. Where there is none, nothing took the denial back, and it stands.
func (v *validator) revive(
	ctx context.Context, deviceID, fingerprint string, denial guard.Decision, answer Validation, asked uint64,
) guard.Decision {
	if fail := v.resuscitate(ctx, fingerprint, answer, asked); fail != nil {
		denial.Reason += failed(fail)
		return denial
	}
	d, _, fail := v.question(ctx, deviceID, fingerprint)
	if fail != nil {
		denial.Reason += "; asked once more: " + fail.what()
		return denial
	}
	return d
}

// resuscitate sees to it that a heartbeat was sent after the question that had asked for it: its
// own, or that of another question about the device.
func (v *validator) resuscitate(ctx context.Context, fingerprint string, answer Validation, asked uint64) *Error {
	for {
		c, others := v.pulse.claimNow(fingerprint, answer.Machine, asked)
		switch {
		case c != nil:
			return v.send(ctx, fingerprint, c, answer)
		case others == nil:
			return nil
		}
		select {
		case <-others.over:
		case <-ctx.Done():
			return (&reply{op: opHeartbeat}).lost(ctx, v.beat, context.Cause(ctx))
		}
		// Taken or not, it is so for all who wait, but for those to whom the service has shown another
		// machine since: this one was activated anew. And who gave up has not tried for anybody.
		same := answer.Machine.ID == "" || answer.Machine.ID == others.machineID
		if fail := others.failure; same && (fail == nil || !gaveUp(fail)) {
			return fail
		}
	}
}

// gaveUp tells whether a call ended because its context did.
func gaveUp(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// send sends the heartbeat that was claimed, within half of the time that is left, and notes what
// became of it, also when a transport of the user's panics.
func (v *validator) send(ctx context.Context, fingerprint string, c *claim, answer Validation) *Error {
	ctx, cancel := half(ctx, v.client.timeout)
	defer cancel()
	fail := unasked(opHeartbeat, wordInvalid, "the call did not return")
	defer func() { v.pulse.settle(c, fail) }()
	if c.machineID == "" {
		c.machineID, fail = v.machineID(ctx, fingerprint, c, answer)
		if fail != nil {
			return fail
		}
	}
	_, fail = v.client.heartbeat(ctx, v.beat, c.machineID)
	if fail != nil && fail.taken { // it allows nothing, so the status is enough
		fail = nil
	}
	return fail
}

// machineID looks for the machine, where neither this answer nor one before it named it: in the
// list of machines, which only an API key may see.
func (v *validator) machineID(ctx context.Context, fingerprint string, c *claim, answer Validation) (string, *Error) {
	if v.client.bearer == nil || answer.License.ID == "" {
		return "", unasked(opHeartbeat, wordInvalid, "the answer names no machine, and the list of machines needs an API key (New)")
	}
	if !v.pulse.search(c) {
		return "", unasked(opHeartbeat, wordInvalid, noSuchMachine)
	}
	for m, err := range v.client.Machines(ctx, MachinesParams{LicenseID: answer.License.ID}) {
		var fail *Error
		if errors.As(err, &fail) {
			return "", fail
		}
		if m.Fingerprint == fingerprint && m.DeletedAt.IsZero() {
			return m.ID, nil
		}
	}
	return "", unasked(opHeartbeat, wordInvalid, noSuchMachine)
}

const noSuchMachine = "the licence has no machine with this fingerprint"

// half is a context that ends when half of the time that is left is over.
func half(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if end, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(end)/2)
	}
	return context.WithTimeout(ctx, timeout)
}

// failed is what a decision's Reason says of a heartbeat that failed; "" of one that did not.
func failed(fail *Error) string {
	if fail == nil {
		return ""
	}
	return "; the heartbeat failed: " + fail.what()
}
