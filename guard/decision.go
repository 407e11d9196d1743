package guard

import (
	"context"
	"time"
)

// Validator asks an authority whether a device may execute. It is the one seam between the
// guard and the services: machineid.Client, the embedded authority and a Guard are validators.
//
// Validate is called from several goroutines at once. It should return when ctx ends; a call
// that does not is given up at the guard's timeout, and its answer can no longer allow
// anything. A decision and an error may come together: an error beside an allowed decision is
// a denial, a deny code beside an error still stands. Errors must hold no secret, for the
// guard hands them on.
type Validator interface {
	Validate(ctx context.Context, deviceID string) (Decision, error)
}

// ValidatorFunc makes a Validator of a function.
type ValidatorFunc func(ctx context.Context, deviceID string) (Decision, error)

// Validate calls f.
func (f ValidatorFunc) Validate(ctx context.Context, deviceID string) (Decision, error) {
	return f(ctx, deviceID)
}

// Decision is one answer of an authority. Only Allowed together with CodeAllow lets work run.
type Decision struct {
	Allowed    bool
	Code       Code
	RequestID  string        // the authority's own, never made up; "" when it gave none
	DeviceID   string        // the device it decided about; "" when the authority does not say
	Reason     string        // the authority's own word, where it differs from Code
	RetryAfter time.Duration // how long the authority wants to be left alone; 0 when it did not say
	ExpiresAt  time.Time     // the permission ends then at the latest; zero: the authority names no end
}
