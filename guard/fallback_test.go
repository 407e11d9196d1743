package guard_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/execguard/execguard/guard"
)

// twin is a Fallback of two scripted authorities, that allow everything until told otherwise.
type twin struct {
	guard.Validator

	online, offline *authority
}

func newTwin() *twin {
	online, offline := newAuthority(), newAuthority()
	return &twin{guard.Fallback(online, offline), online, offline}
}

var errCable = errors.New("the cable is pulled")

// unplug makes the online authority one that cannot be asked.
func (w *twin) unplug() { w.online.fail(errCable) }

// wantOnline asks and wants the online authority's word; with code "", that it could not be asked
// and nobody else was.
func (w *twin) wantOnline(t *testing.T, device string, code guard.Code) {
	t.Helper()
	before := w.offline.count()
	d, err := w.Validate(t.Context(), device)
	if d.Code != code || d.Allowed != (code == guard.CodeAllow) || err != nil || strings.HasPrefix(d.Reason, "offline") {
		t.Errorf("device %s: %+v, %v; want the authority's %s", device, d, err, code)
	}
	if w.offline.count() != before {
		t.Errorf("device %s: the file was asked beside %s", device, code)
	}
}

// wantFile asks and wants the file's ALLOW.
func (w *twin) wantFile(t *testing.T, device string) {
	t.Helper()
	d, err := w.Validate(t.Context(), device)
	if !d.Allowed || d.Code != guard.CodeAllow || err != nil || !strings.HasPrefix(d.Reason, "offline") {
		t.Errorf("device %s: %+v, %v; want the file's ALLOW", device, d, err)
	}
}

// wantNeither asks and wants «could not ask», with words in the reason.
func (w *twin) wantNeither(t *testing.T, device string, words ...string) {
	t.Helper()
	d, err := w.Validate(t.Context(), device)
	wantCouldNot(t, d, err, words...)
}

func wantCouldNot(t *testing.T, d guard.Decision, err error, words ...string) {
	t.Helper()
	if d.Allowed || d.Code != guard.CodeSystemUnavailable || d.Reason == "" || !d.ExpiresAt.IsZero() {
		t.Errorf("got %+v, %v; want that the authority could not be asked", d, err)
	}
	for _, word := range words {
		if !strings.Contains(d.Reason, word) {
			t.Errorf("the reason is %q, want %q in it", d.Reason, word)
		}
	}
}

// What the online authority decides stands as it came, to the error beside it, and the file is not
// asked (S2).
func TestFallback_S2_WhatOnlineDecidesStandsAsItCame(t *testing.T) {
	beside := errors.New("beside")
	for name, c := range map[string]struct {
		d   guard.Decision
		err error
	}{
		"allowed":               {guard.Decision{Allowed: true, Code: guard.CodeAllow, RequestID: "r", DeviceID: "dev", Reason: "fine", ExpiresAt: time.Unix(4e9, 0)}, nil},
		"revoked":               {guard.Decision{Code: guard.CodeDeviceRevoked, RequestID: "r", Reason: "stolen", RetryAfter: time.Minute}, nil},
		"revoked, with error":   {guard.Decision{Code: guard.CodeDeviceRevoked}, beside},
		"an unknown code":       {guard.Decision{Code: "ON_FIRE", DeviceID: "dev"}, nil},
		"of the organisation":   {guard.Decision{Code: guard.CodeOrgDisabled}, nil},
		"an id it cannot read":  {guard.Decision{Code: guard.CodeInvalidDeviceID}, nil},
		"a stranger":            {guard.Decision{Code: guard.CodeDeviceNotFound}, nil},
		"allowed, no more left": {guard.Decision{Allowed: true, Code: guard.CodeAllow, ExpiresAt: time.Unix(1, 0)}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newTwin()
			w.online.answer(c.d, c.err)
			d, err := w.Validate(t.Context(), "dev")
			if diff := cmp.Diff(c.d, d); diff != "" || err != c.err {
				t.Errorf("error %v, want %v; decision:\n%s", err, c.err, diff)
			}
			if w.offline.count() != 0 {
				t.Error("the file was asked")
			}
		})
	}
}

// couldNotAsk is every way of not having been asked (S2), with a word that the reason must hold.
var couldNotAsk = map[string]struct {
	b    behaviour
	word string
}{
	"SYSTEM_UNAVAILABLE":  {denies(guard.CodeSystemUnavailable), "could not decide"},
	"with a reason":       {answers(guard.Decision{Code: guard.CodeSystemUnavailable, Reason: "maintenance"}, nil), "maintenance"},
	"an error":            {fails(errCable), "cable"},
	"no code":             {answers(guard.Decision{}, nil), "no code"},
	"allowed with error":  {answers(guard.Decision{Allowed: true, Code: guard.CodeAllow}, errCable), "came with an error"},
	"allowed, no code":    {answers(guard.Decision{Allowed: true}, nil), "without a code"},
	"allowed and revoked": {answers(guard.Decision{Allowed: true, Code: guard.CodeDeviceRevoked}, nil), "DEVICE_REVOKED"},
	"ALLOW, not allowed":  {answers(guard.Decision{Code: guard.CodeAllow}, nil), "refused decision"},
	"another device":      {answers(guard.Decision{Allowed: true, Code: guard.CodeAllow, DeviceID: "x"}, nil), "another device"},
	"a nil error inside":  {answers(guard.Decision{}, (*guard.DeniedError)(nil)), "nil *guard.DeniedError"},
	"a panic":             {func(context.Context, *asked) (guard.Decision, error) { panic(secret) }, "validator panicked: string"},
	"an ended goroutine":  {func(context.Context, *asked) (guard.Decision, error) { runtime.Goexit(); return guard.Decision{}, nil }, "ended its goroutine"},
}

// Only where the authority could not be asked does the file's word count, and the decision says so.
func TestFallback_S2_CouldNotAskTurnsToTheFile(t *testing.T) {
	for name, c := range couldNotAsk {
		t.Run(name, func(t *testing.T) {
			w := newTwin()
			w.online.set(c.b)
			end := time.Now().Add(time.Hour)
			for fileReason, prefix := range map[string]string{"": "offline: the authority could not be asked: ", "seen it": "offline: seen it; the authority could not be asked: "} {
				file := guard.Decision{Allowed: true, Code: guard.CodeAllow, RequestID: "file", DeviceID: "dev", ExpiresAt: end, Reason: fileReason}
				w.offline.answer(file, nil)
				d, err := w.Validate(t.Context(), "dev")
				if !strings.HasPrefix(d.Reason, prefix) || !strings.Contains(d.Reason[len(prefix):], c.word) || strings.Contains(d.Reason, secret) {
					t.Errorf("the reason is %q, want it to begin with %q and to hold %q", d.Reason, prefix, c.word)
				}
				file.Reason = d.Reason
				if diff := cmp.Diff(file, d); diff != "" || err != nil {
					t.Errorf("error %v; decision:\n%s", err, diff)
				}
			}
		})
	}
}

// Where the file does not allow either, the answer is online's «could not ask», and the file's
// denial, which may sound as if it were about the whole organisation, is but a reason.
func TestFallback_S3_TheFilesDenialIsNotTheAuthoritys(t *testing.T) {
	deny := func(code guard.Code, reason string) behaviour {
		return answers(guard.Decision{Code: code, Reason: reason, RequestID: "file", DeviceID: "dev", RetryAfter: time.Hour}, nil)
	}
	files := map[string]struct {
		b    behaviour
		word string
	}{
		"revoked":              {deny(guard.CodeDeviceRevoked, ""), "offline: DEVICE_REVOKED"},
		"of the organisation":  {deny(guard.CodePlanFrozen, "SUSPENDED"), "offline: PLAN_FROZEN: SUSPENDED"},
		"an unknown code":      {deny("ON_FIRE", "smoke"), "offline: ON_FIRE: smoke"},
		"has run out":          {answers(guard.Decision{Allowed: true, Code: guard.CodeAllow, ExpiresAt: time.Now()}, nil), "offline: the ALLOW had run out"},
		"had run out long ago": {until(time.Unix(1, 0)), "offline: the ALLOW had run out"},
	}
	for name, c := range couldNotAsk {
		files["itself: "+name] = struct {
			b    behaviour
			word string
		}{c.b, c.word}
	}
	for name, c := range files {
		t.Run(name, func(t *testing.T) {
			w := newTwin()
			w.online.answer(guard.Decision{Code: guard.CodeSystemUnavailable, Reason: "busy", RequestID: "r7", RetryAfter: time.Minute}, errCable)
			w.offline.set(c.b)
			d, err := w.Validate(t.Context(), "dev")
			wantCouldNot(t, d, err, "busy; offline: ", c.word)
			if d.RetryAfter != time.Minute || d.RequestID != "r7" || !errors.Is(err, errCable) {
				t.Errorf("got %+v, %v; want the authority's request id, RetryAfter and error", d, err)
			}
		})
	}
}

// A caller finds the file's own error, in one line with online's.
func TestFallback_BothErrorsAreFound(t *testing.T) {
	file := &guard.DeniedError{DeviceID: "a file"}
	w := newTwin()
	w.unplug()
	w.offline.fail(file)
	_, err := w.Validate(t.Context(), "dev")
	var found *guard.DeniedError
	if !errors.As(err, &found) || found != file || !errors.Is(err, errCable) || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v, want %v and %v in it", err, errCable, file)
	}
	w.online.deny(guard.CodeSystemUnavailable)
	if _, err := w.Validate(t.Context(), "dev"); !errors.As(err, &found) || found != file {
		t.Errorf("got %v, want %v in it", err, file)
	}
}
