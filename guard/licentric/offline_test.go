package licentric

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// What the file says is what is decided, each word in a file of its own.
func TestOfflineDecides(t *testing.T) {
	soon, past := wireTime(bubbleStart.Add(time.Hour)), wireTime(bubbleStart)
	for name, c := range map[string]struct {
		data   object
		opts   []OfflineOption
		code   guard.Code // "" is ALLOW
		reason string
		end    time.Duration // of the ALLOW
	}{
		"active":                    {object{}, nil, "", "", twoWeeks},
		"no status":                 {object{"status": nil}, nil, "", "", twoWeeks},
		"active in small letters":   {object{"status": "active"}, nil, "", "", twoWeeks},
		"the licence ends first":    {object{"expiresAt": soon}, nil, "", "", time.Hour},
		"the licence ends later":    {object{"expiresAt": "2999-01-01T00:00:00Z"}, nil, "", "", twoWeeks},
		"the licence is over":       {object{"expiresAt": past}, nil, guard.CodeEntitlementExpired, "the licence has expired", 0},
		"suspended":                 {object{"status": "SUSPENDED"}, nil, guard.CodePlanFrozen, "SUSPENDED", 0},
		"Suspended":                 {object{"status": "Suspended"}, nil, guard.CodePlanFrozen, "Suspended", 0},
		"revoked":                   {object{"status": "REVOKED"}, nil, guard.CodePlanNotActive, "REVOKED", 0},
		"banned":                    {object{"status": "BANNED"}, nil, guard.CodePlanNotActive, "BANNED", 0},
		"expired":                   {object{"status": "EXPIRED"}, nil, guard.CodeEntitlementExpired, "EXPIRED", 0},
		"a word that nobody knows":  {object{"status": "ACTIVE\n" + strings.Repeat("!", 999)}, nil, guard.CodePlanNotActive, "ACTIVE !!", 0},
		"a space":                   {object{"status": " "}, nil, guard.CodePlanNotActive, " ", 0},
		"for another machine":       {object{fieldFingerprint: otherMachine}, nil, guard.CodeDeviceNotFound, "another machine", 0},
		"for no machine":            {object{fieldFingerprint: nil}, nil, guard.CodeDeviceNotFound, "names no machine", 0},
		"for another, and revoked":  {object{fieldFingerprint: otherMachine, "status": "REVOKED"}, nil, guard.CodeDeviceNotFound, "another machine", 0},
		"entitled":                  {object{}, options(WithEntitlements("export")), "", "", twoWeeks},
		"entitled to both":          {object{}, options(WithEntitlements("export", "offline"), WithEntitlements("offline")), "", "", twoWeeks},
		"lacks one of two":          {object{}, options(WithEntitlements("offline", "cloud")), guard.CodeEntitlementExpired, "cloud", 0},
		"lacks one said before":     {object{}, options(WithEntitlements("cloud"), WithEntitlements("offline")), guard.CodeEntitlementExpired, "cloud", 0},
		"entitled in another case":  {object{}, options(WithEntitlements("EXPORT")), guard.CodeEntitlementExpired, "EXPORT", 0},
		"entitled to nothing":       {object{fieldEntitlements: nil}, options(WithEntitlements("export")), guard.CodeEntitlementExpired, "export", 0},
		"mapped":                    {object{fieldFingerprint: "fp-" + ownMachine}, options(WithFingerprint(prefixed)), "", "", twoWeeks},
		"mapped to another machine": {object{}, options(WithFingerprint(prefixed)), guard.CodeDeviceNotFound, "another machine", 0},
		"mapped to nothing":         {object{}, options(WithFingerprint(func(string) string { return "" })), guard.CodeInvalidDeviceID, "no fingerprint", 0},
		"mapped to a blank":         {object{fieldFingerprint: " "}, options(WithFingerprint(func(string) string { return " " })), guard.CodeInvalidDeviceID, "no fingerprint", 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := newOffline(t, newFile().with("data", c.data).signed(t), c.opts...)
				for range 2 {
					if c.code == "" {
						wantAllow(t, v, bubbleStart.Add(c.end))
					} else {
						wantDenial(t, v, ownMachine, c.code, c.reason)
					}
				}
			})
		})
	}
}

func prefixed(deviceID string) string { return "fp-" + deviceID }

// options are some of either kind.
func options(opts ...OfflineOption) []OfflineOption { return opts }

func TestOfflineDeniesOthers(t *testing.T) {
	asked := 0
	mapped := WithFingerprint(func(deviceID string) string {
		asked++
		return deviceID
	})
	v := newOffline(t, newFile().signed(t), mapped)
	wantDenial(t, v, otherMachine, guard.CodeDeviceNotFound, "another machine")
	wantDenial(t, v, ownMachine+" ", guard.CodeDeviceNotFound, "another machine") // the guard changes no id (S2)
	before := asked
	for _, blank := range []string{"", " ", "\t\n"} {
		wantDenial(t, v, blank, guard.CodeInvalidDeviceID, "no fingerprint")
	}
	if asked != before {
		t.Error("a blank id was mapped (S2: unasked)")
	}
}

// S10: an ALLOW ends with the file, which then decides nothing, not even about others.
func TestS10_OfflineEndsWithTheFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := time.Now().Add(twoWeeks)
		v := newOffline(t, newFile().signed(t))
		time.Sleep(twoWeeks - 1)
		wantAllow(t, v, end)
		time.Sleep(1)
		bad := unaskedWith[*FileError](t, v, "offline file: expired")
		wantFileError(t, bad, FileExpired)
		if d, err := v.Validate(t.Context(), otherMachine); d.Code != guard.CodeSystemUnavailable || err == nil {
			t.Errorf("%+v, %v", d, err)
		}
	})
}

// A file that has ended, or not begun, or is another's, makes a validator, which says so.
func TestOfflineOfAFileThatIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		over := newOffline(t, fileFrom(time.Now().Add(-twoWeeks), twoWeeks).signed(t))
		wantFileError(t, unaskedWith[*FileError](t, over, "expired"), FileExpired)
		early := newOffline(t, fileFrom(time.Now().Add(5*time.Minute+time.Second), twoWeeks).signed(t))
		wantFileError(t, unaskedWith[*FileError](t, early, "not yet valid"), FileNotYet)
		time.Sleep(time.Second)
		wantAllow(t, early, time.Now().Add(5*time.Minute+twoWeeks))
	})
}

func TestOfflineRefusesAtConstruction(t *testing.T) {
	good := newFile().signed(t)
	for name, c := range map[string]struct {
		opt  OfflineOption
		want string
	}{
		"nil option":         {nil, "option 1 is nil"},
		"no mapping":         {WithFingerprint(nil), "WithFingerprint"},
		"no entitlement":     {WithEntitlements(), "WithEntitlements: no entitlement"},
		"a blank one":        {WithEntitlements("a", " "), "entitlement 2 is blank"},
		"memory at no place": {WithMemory(" "), "WithMemory"},
	} {
		v, err := OfflineWith(good, FormatCertificate, keysOf(public), c.opt)
		if v != nil || err == nil || !strings.HasPrefix(err.Error(), "licentric: ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v", name, v, err)
		}
	}
	for name, c := range map[string]struct {
		file []byte
		keys []ed25519.PublicKey
		want FileReason
	}{
		"no file":         {nil, keysOf(public), FileMalformed},
		"another's":       {sign(newFile().payload(t), private2), keysOf(public), FileSignature},
		"no key":          {good, nil, FileBadKey},
		"a year long":     {fileFrom(time.Now(), 365*24*time.Hour).signed(t), keysOf(public), FileTooLong},
		"much too large":  {make([]byte, 1<<20), keysOf(public), FileTooLarge},
		"half of a file":  {good[:len(good)/2], keysOf(public), FileMalformed},
		"the other order": {sign(newFile().payload(t), private2), keysOf(public2[:5]), FileBadKey},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := Offline(c.file, FormatCertificate, c.keys...)
			if v != nil {
				t.Errorf("a validator: %v", v)
			}
			wantFileError(t, err, c.want)
		})
	}
}

// The file may be changed or reused after the validator was made.
func TestOfflineKeepsNothingOfTheCallers(t *testing.T) {
	file, keys := newFile().signed(t), keysOf(append(ed25519.PublicKey(nil), public...))
	v, err := Offline(file, FormatCertificate, keys...)
	if err != nil {
		t.Fatal(err)
	}
	clear(file)
	clear(keys[0])
	if d, err := v.Validate(t.Context(), ownMachine); err != nil || !d.Allowed {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestOfflineContextThatIsOver(t *testing.T) {
	v := newOffline(t, newFile().signed(t), WithMemory(memoryPath(t)))
	cause := errors.New("the shift is over")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	d, err := v.Validate(ctx, ownMachine)
	if d.Code != guard.CodeSystemUnavailable || d.Allowed || d.Reason == "" || !errors.Is(err, context.Canceled) || !errors.Is(err, cause) {
		t.Errorf("%+v, %v", d, err)
	}
}

// S8, and printing must not read what other calls write.
func TestOfflinePrints(t *testing.T) {
	v := newOffline(t, newFile().with("data", object{"key": "KEY-OF-THE-LICENCE"}).signed(t))
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(verb, v); text != "licentric.Offline" {
			t.Errorf("%s: %s", verb, text)
		}
	}
}
