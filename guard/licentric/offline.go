package licentric

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/internal/httpapi"
)

// RefusedError is why an offline validator does not allow although its file would: the online
// authority has denied the device, or the whole organisation, and has not allowed the device since.
// errors.Is finds guard.ErrUnavailable in it, because offline there is nobody to ask whether that
// still holds.
type RefusedError struct {
	Code guard.Code // what the authority said
	At   time.Time  // when it was learnt
}

// Error names the authority's code, and when it was said.
func (e *RefusedError) Error() string {
	return "licentric: refused by the authority: " + string(e.Code) + ", and not allowed since " + e.At.UTC().Format(time.RFC3339)
}

// Is matches guard.ErrUnavailable.
func (e *RefusedError) Is(target error) bool { return target == guard.ErrUnavailable }

// Offline returns a validator that decides by a signed file, without any network. It is
// [OfflineWith] without options.
func Offline(file []byte, format Format, keys ...ed25519.PublicKey) (guard.Validator, error) {
	return OfflineWith(file, format, keys)
}

// OfflineWith returns a validator that decides by a signed file, without any network. The error is a
// *FileError where the file is malformed or none of keys has signed it (see [VerifyFile] for keys), or
// says which option is wrong. A file that has ended, or is for another machine, is no error here: the
// validator will say so.
//
// The file is for one fingerprint, which the device id must equal (or see [WithFingerprint]):
//
//	not yet valid, ended, or refused online since    SYSTEM_UNAVAILABLE, with an error
//	another fingerprint                              DEVICE_NOT_FOUND
//	status SUSPENDED (in any case, as the others)    PLAN_FROZEN
//	status EXPIRED, the licence's expiresAt passed   ENTITLEMENT_EXPIRED
//	any other status but ACTIVE and none             PLAN_NOT_ACTIVE
//	an entitlement of WithEntitlements lacks         ENTITLEMENT_EXPIRED
//	otherwise                                        ALLOW until file or licence ends
//
// The time is the latest that was ever seen: a clock that is set back revives nothing, and of an
// ALLOW given then ExpiresAt is as much earlier as the clock is behind. [WithMemory] keeps that time
// beyond the process; without it a new process believes the clock that it finds.
//
// The validator is a guard.Witness: as offline of guard.Fallback it is told what the online
// authority says, and after a denial allows nothing until the authority has allowed the device
// again. It is safe for concurrent use and has no goroutine. Validate blocks for the memory alone, on
// the disk and up to a second on another process.
func OfflineWith(file []byte, format Format, keys []ed25519.PublicKey, opts ...OfflineOption) (guard.Validator, error) {
	cfg := offlineConfig{}
	for i, o := range opts {
		if o == nil {
			return nil, fmt.Errorf("licentric: option %d is nil", i+1)
		}
		if err := o.applyOffline(&cfg); err != nil {
			return nil, err
		}
	}
	license, err := readFile(file, format, keys)
	if err != nil {
		return nil, err
	}
	return &offline{
		license: license,
		cfg:     cfg.sharedConfig,
		clock:   &clock{},
		memory:  newMemory(newMemoryFile(cfg.memory, license.Fingerprint, license.ID)),
	}, nil
}

var _ guard.Witness = (*offline)(nil)

// offline decides by a file that was verified when it was made, but for its times.
type offline struct {
	license License
	cfg     sharedConfig
	clock   *clock
	memory  *memory
}

// String names what it is. Without it, printing would read what calls change at the same time.
func (o *offline) String() string { return "licentric.Offline" }

// GoString is String.
func (o *offline) GoString() string { return o.String() }

// Validate is guard.Validator's.
func (o *offline) Validate(ctx context.Context, deviceID string) (guard.Decision, error) {
	if err := ctx.Err(); err != nil {
		return noWord(fmt.Errorf("licentric: offline: %w", ended(ctx, err)))
	}
	fingerprint := o.cfg.fingerprintOf(deviceID)
	if fingerprint == "" {
		return guard.Decision{Code: guard.CodeInvalidDeviceID, Reason: "the device has no fingerprint"}, nil
	}
	wall, now, err := o.look(ctx)
	if err != nil {
		return noWord(err)
	}
	if err := o.license.aliveAt(now); err != nil {
		return noWord(inHindsight(err, o.license.aliveAt(wall), behind(wall, now)))
	}
	if code, reason := o.denial(fingerprint, now); code != "" {
		return guard.Decision{Code: code, Reason: reason}, nil
	}
	return guard.Decision{Allowed: true, Code: guard.CodeAllow, ExpiresAt: o.end().Add(-behind(wall, now))}, nil
}

// inHindsight is the error of a file that has ended. Where it would not have by the clock that the
// caller looks at, it says so.
func inHindsight(err, byTheClock error, ahead time.Duration) error {
	if byTheClock != nil {
		return err
	}
	ahead = ahead.Round(time.Second)
	return fileError(FileExpired, fmt.Sprintf("it has ended by the latest time that was seen, %v ahead of this clock", ahead))
}

// ended is the error of a context that is over.
func ended(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); !errors.Is(cause, err) {
		return fmt.Errorf("%w: %w", err, cause)
	}
	return err
}

// noWord is the answer where there was nothing to decide by.
func noWord(err error) (guard.Decision, error) {
	reason := strings.TrimPrefix(httpapi.Tidy(err.Error()), "licentric: ")
	return guard.Decision{Code: guard.CodeSystemUnavailable, Reason: reason}, err
}

// look brings clock and memory together. It returns what the wall clock shows, and what time it is.
func (o *offline) look(ctx context.Context) (wall, now time.Time, err error) {
	wall, now = o.clock.now()
	k, err := o.memory.look(ctx, now)
	if err != nil {
		return wall, now, err
	}
	if k.refused.code != "" {
		return wall, now, &RefusedError{Code: k.refused.code, At: k.refused.at}
	}
	wall, now = o.clock.learn(k.latest) // a look anew, for the memory may have taken its time
	return wall, now, nil
}

// end is when an ALLOW ends by a clock that is right: with the file or with the licence itself.
func (o *offline) end() time.Time {
	if at := o.license.ExpiresAt; !at.IsZero() && at.Before(o.license.Ends) {
		return at
	}
	return o.license.Ends
}

// denial says why the file, which is alive, does not allow; "" where it does. Whose file it is comes
// first, for of others it says nothing.
func (o *offline) denial(fingerprint string, now time.Time) (code guard.Code, reason string) {
	if fingerprint != o.license.Fingerprint {
		return guard.CodeDeviceNotFound, foreign(o.license)
	}
	if code := statusDenial(o.license.Status); code != "" {
		return code, httpapi.Tidy(o.license.Status)
	}
	if at := o.license.ExpiresAt; !at.IsZero() && !now.Before(at) {
		return guard.CodeEntitlementExpired, "the licence has expired"
	}
	if code, lacking := o.cfg.lacks(o.license.Entitlements); lacking {
		return guard.CodeEntitlementExpired, "the licence lacks the entitlement " + httpapi.Tidy(code)
	}
	return "", ""
}

// foreign says what a file is that is not for the device.
func foreign(l License) string {
	if l.Fingerprint == "" {
		return "the offline file names no machine"
	}
	return "the offline file is for another machine"
}

// statusDenial is the code for the status of a licence, "" where it allows. What is not known denies.
func statusDenial(status string) guard.Code {
	switch strings.ToUpper(status) {
	case "", "ACTIVE":
		return ""
	case string(CodeSuspended):
		return guard.CodePlanFrozen
	case string(CodeExpired):
		return guard.CodeEntitlementExpired
	}
	return guard.CodePlanNotActive
}

// Witness is guard.Witness's. A denial counts that is about the file's own machine or about the
// whole organisation, an ALLOW about the file's own machine alone; whatever else there is says what
// time it is.
func (o *offline) Witness(ctx context.Context, deviceID string, online guard.Decision, asked time.Time) error {
	_, now := o.clock.now()
	own := o.cfg.fingerprintOf(deviceID) == o.license.Fingerprint
	switch {
	case own && online.Allowed && online.Code == guard.CodeAllow:
		k, err := o.memory.allow(ctx, now, time.Since(asked))
		o.clock.learn(k.latest) // else it could stay behind what others have seen
		return err
	case denies(online) && (own || online.Code.OrganisationWide()):
		return o.memory.refuse(ctx, now, shown(online.Code))
	}
	_, err := o.memory.look(ctx, now)
	return err
}

// shown is a code as the memory can keep it. A denial stands whatever its code is made of.
func shown(code guard.Code) guard.Code {
	if text := httpapi.Tidy(string(code)); strings.TrimSpace(text) != "" {
		return guard.Code(text)
	}
	return "UNPRINTABLE"
}

// denies tells whether a decision is a denial by the authority. A contradiction is none, and neither
// is «could not ask».
func denies(d guard.Decision) bool {
	return !d.Allowed && strings.TrimSpace(string(d.Code)) != "" && d.Code != guard.CodeAllow && d.Code != guard.CodeSystemUnavailable
}
