package licentric

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ValidatorOption changes how the validator of [Client.Validator] decides.
type ValidatorOption interface {
	applyOnline(cfg *validatorConfig) error
}

// OfflineOption changes how the validator of [OfflineWith] decides.
type OfflineOption interface {
	applyOffline(cfg *offlineConfig) error
}

// SharedOption is an option of both kinds of validators. What makes sense for one of them alone is
// an option of that one, so that the compiler refuses it elsewhere.
type SharedOption interface {
	ValidatorOption
	OfflineOption
}

// sharedConfig is what a SharedOption may change.
type sharedConfig struct {
	fingerprint  func(deviceID string) string // nil: the id is the fingerprint
	entitlements []string                     // each must stand in the licence
}

// validatorConfig is what the options of Client.Validator have left behind.
type validatorConfig struct {
	sharedConfig
	onlineConfig
}

// offlineConfig is what the options of OfflineWith have left behind.
type offlineConfig struct {
	sharedConfig

	memory string // the path; "": nothing outlives the process
}

type sharedOption func(cfg *sharedConfig) error

func (o sharedOption) applyOnline(cfg *validatorConfig) error { return o(&cfg.sharedConfig) }

func (o sharedOption) applyOffline(cfg *offlineConfig) error { return o(&cfg.sharedConfig) }

type validatorOption func(cfg *validatorConfig) error

func (o validatorOption) applyOnline(cfg *validatorConfig) error { return o(cfg) }

type offlineOption func(cfg *offlineConfig) error

func (o offlineOption) applyOffline(cfg *offlineConfig) error { return o(cfg) }

// WithFingerprint says which fingerprint belongs to a device id, where the ids that the guard
// asks about are another authority's. toFingerprint is called for every question, from several
// goroutines at once; an id for which it returns "" is denied INVALID_DEVICE_ID. Default: the
// device id is the fingerprint.
func WithFingerprint(toFingerprint func(deviceID string) string) SharedOption {
	return sharedOption(func(cfg *sharedConfig) error {
		if toFingerprint == nil {
			return errors.New("licentric: WithFingerprint: the function is nil")
		}
		cfg.fingerprint = toFingerprint
		return nil
	})
}

// WithEntitlements allows only what a licence allows that has every one of codes; said twice, all
// of both count. Codes are compared as they are. Default: none is asked for.
func WithEntitlements(codes ...string) SharedOption {
	return sharedOption(func(cfg *sharedConfig) error {
		if len(codes) == 0 {
			return errors.New("licentric: WithEntitlements: no entitlement is named")
		}
		for i, code := range codes {
			if strings.TrimSpace(code) == "" {
				return fmt.Errorf("licentric: WithEntitlements: entitlement %d is blank", i+1)
			}
		}
		cfg.entitlements = slices.Concat(cfg.entitlements, codes)
		return nil
	})
}

// WithMemory keeps at path what the validator has learnt, so that it outlives the process: the
// latest time that it has seen, for a clock that is set back, and a refusal by the online
// authority, for a cable that is pulled. Processes on one machine may share the file; beside it
// appears one with ".lock" added to its name. Default: both are forgotten when the process ends.
//
// The directory must exist, which is looked at here, and be writable. A path that is relative or a
// symbolic link is followed once, now. A memory that is missing is a fresh start; one that cannot be
// read, understood or written, or is another licence's, makes the validator deny SYSTEM_UNAVAILABLE
// with a *MemoryError. Who may delete it can make the validator forget, so keep it where the program's
// user does not get at it. The time is kept to a second: sessions shorter than that are free. A clock that
// was once far ahead ends the file for good: put the clock right, then delete the memory.
func WithMemory(path string) OfflineOption {
	return offlineOption(func(cfg *offlineConfig) error {
		if strings.TrimSpace(path) == "" {
			return errors.New("licentric: WithMemory: the path is blank")
		}
		target, err := realPath(path)
		if err != nil {
			return &MemoryError{Op: "write", Path: path, err: err}
		}
		if info, err := os.Stat(filepath.Dir(target)); err != nil {
			return &MemoryError{Op: "write", Path: path, err: err}
		} else if !info.IsDir() {
			return &MemoryError{Op: "write", Path: path, err: errors.New("its directory is none")}
		}
		cfg.memory = target
		return nil
	})
}

// fingerprintOf returns the fingerprint of a device; "" where there is none.
func (cfg *sharedConfig) fingerprintOf(deviceID string) string {
	fingerprint := deviceID
	if cfg.fingerprint != nil && strings.TrimSpace(deviceID) != "" {
		fingerprint = cfg.fingerprint(deviceID)
	}
	if strings.TrimSpace(fingerprint) == "" {
		return ""
	}
	return fingerprint
}

// lacks returns the first entitlement that is asked for and is not among given.
func (cfg *sharedConfig) lacks(given []string) (code string, lacking bool) {
	for _, code := range cfg.entitlements {
		if !slices.Contains(given, code) {
			return code, true
		}
	}
	return "", false
}
