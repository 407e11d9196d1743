package chaos_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/execguard/execguard/guard"
)

// seam is a validator between a guard and a client that can go wrong as code does. The zero
// value passes everything on to next. It is safe for concurrent use.
type seam struct {
	next guard.Validator

	fault atomic.Pointer[string]
}

// seamFaults lists the faults that Set knows.
func seamFaults() []string {
	return []string{"panics", "ignores its context", "allows beside an error", "allows without a code", "speaks of another device", "is late", "takes its time", "names an end", "hangs"}
}

// Set has the validator go wrong in that way from now on; "" is right.
func (s *seam) Set(fault string) { s.fault.Store(&fault) }

// Validate is guard.Validator's.
func (s *seam) Validate(ctx context.Context, device string) (guard.Decision, error) {
	fault := s.fault.Load()
	if fault == nil || *fault == "" {
		return s.next.Validate(ctx, device)
	}
	if *fault == "ignores its context" {
		return s.next.Validate(context.WithoutCancel(ctx), device)
	}
	d, err := s.next.Validate(ctx, device)
	return spoil(ctx, *fault, d, err)
}

// spoil makes of an answer one that must not be believed.
func spoil(ctx context.Context, fault string, d guard.Decision, err error) (guard.Decision, error) {
	switch fault {
	case "panics":
		panic("chaos: the validator panics")
	case "allows beside an error":
		err = errors.Join(err, errors.New("chaos: and an error"))
	case "allows without a code":
		if d.Allowed {
			d.Code = ""
		}
	case "speaks of another device":
		d.DeviceID = "somebody-else"
	case "names an end": // in the middle of the interval, mostly
		if d.Allowed {
			d.ExpiresAt = time.Now().Add(20*ms + rand.N(100*ms))
		}
	case "takes its time": // so that answers overtake each other
		_ = pause(ctx, rand.N(140*ms))
	case "hangs": // and does not care that it was given up
		_ = pause(context.WithoutCancel(ctx), 200*ms+rand.N(200*ms))
	case "is late":
		timer := time.NewTimer(time.Second)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done(): // and then it says what it knows, all the same
		}
	}
	return d, err
}
