package guard_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/execguard/execguard/guard"
)

// notebook is a file that is a Witness: it writes down what it is told.
type notebook struct {
	guard.Validator

	keep func(ctx context.Context, deviceID string, d guard.Decision) error // instead of nil

	mu    sync.Mutex
	notes []string
	ctx   context.Context // of the last
}

func (n *notebook) Witness(ctx context.Context, deviceID string, online guard.Decision, _ time.Time) error {
	n.mu.Lock()
	n.notes = append(n.notes, deviceID+" "+string(online.Code))
	n.ctx = ctx
	n.mu.Unlock()
	if n.keep != nil {
		return n.keep(ctx, deviceID, online)
	}
	return nil
}

func (n *notebook) all() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string{}, n.notes...)
}

func (n *notebook) want(t *testing.T, notes ...string) {
	t.Helper()
	if diff := cmp.Diff(append([]string{}, notes...), n.all()); diff != "" {
		t.Errorf("the notes differ:\n%s", diff)
	}
}

func newNotebook() (*twin, *notebook) {
	online, offline := newAuthority(), newAuthority()
	n := &notebook{Validator: offline}
	return &twin{guard.Fallback(online, n), online, offline}, n
}

// A Witness is told of every answer that decided, with its code, and of nothing else, before the
// answer is out.
func TestWitness_IsToldWhatOnlineDecided(t *testing.T) {
	w, n := newNotebook()
	w.wantOnline(t, "one", guard.CodeAllow)
	n.want(t, "one ALLOW")
	w.online.deny(guard.CodeDeviceRevoked)
	w.wantOnline(t, "two", guard.CodeDeviceRevoked)
	w.online.deny(guard.CodeOrgDisabled)
	w.wantOnline(t, "three", guard.CodeOrgDisabled)
	w.online.allow()
	w.wantOnline(t, "two", guard.CodeAllow)
	told := []string{"one ALLOW", "two DEVICE_REVOKED", "three ORG_DISABLED", "two ALLOW"}
	n.want(t, told...)
	for _, c := range couldNotAsk {
		w.online.set(c.b)
		_, _ = w.Validate(t.Context(), "two")
		_, _ = w.Validate(t.Context(), "three")
	}
	n.want(t, told...)
}

// An ALLOW older than the latest denial is not handed on as one, nor is one of a call that was given
// up or one that is over (S5); a denial is, also after the caller has left.
func TestWitness_S5_IsNotToldOfAStaleAllow(t *testing.T) {
	w, n := newNotebook()
	stale := w.begin(t.Context(), "dev")
	_, _ = w.begin(t.Context(), "dev").end(denies(guard.CodeDeviceRevoked))
	_, _ = stale.end(allows)
	ctx, cancel := context.WithCancel(t.Context())
	late := w.begin(ctx, "dev")
	cancel()
	_, _ = late.end(allows)
	_, _ = w.begin(t.Context(), "dev").end(until(time.Unix(1, 0)))
	n.want(t, "dev DEVICE_REVOKED")
	ctx, cancel = context.WithCancel(t.Context())
	late = w.begin(ctx, "dev")
	cancel()
	_, _ = late.end(denies(guard.CodePlanFrozen))
	n.want(t, "dev DEVICE_REVOKED", "dev PLAN_FROZEN")
	if errors.Is(context.Cause(n.ctx), context.DeadlineExceeded) {
		t.Errorf("the Witness's context ended because %v", context.Cause(n.ctx))
	}
}

// The last one told is the last word: an ALLOW that waits for its turn while a denial is learnt is
// no longer told, and a denial that comes while an ALLOW is being kept is told after it.
func TestWitness_S5_TheLastToldIsTheLastWord(t *testing.T) {
	bubble(t, "a denial behind an ALLOW", func(t *testing.T) {
		w, n := newNotebook()
		n.keep = func(context.Context, string, guard.Decision) error { time.Sleep(100 * time.Millisecond); return nil }
		allowed, denied := w.begin(t.Context(), "dev"), w.begin(t.Context(), "dev")
		allowed.answer <- allows
		synctest.Wait()
		denied.answer <- denies(guard.CodeDeviceRevoked)
		synctest.Wait()
		n.want(t, "dev ALLOW")
		<-allowed.done
		<-denied.done
		n.want(t, "dev ALLOW", "dev DEVICE_REVOKED")
	})
	bubble(t, "an ALLOW behind a denial", func(t *testing.T) {
		w, n := newNotebook()
		n.keep = func(context.Context, string, guard.Decision) error { time.Sleep(100 * time.Millisecond); return nil }
		allowed, denied, other := w.begin(t.Context(), "dev"), w.begin(t.Context(), "dev"), w.begin(t.Context(), "x")
		other.answer <- allows // holds the pen
		synctest.Wait()
		allowed.answer <- allows
		synctest.Wait()
		denied.answer <- denies(guard.CodeDeviceRevoked)
		<-allowed.done
		<-denied.done
		<-other.done
		n.want(t, "x ALLOW", "dev DEVICE_REVOKED")
		w.unplug()
		w.wantNeither(t, "dev", "DEVICE_REVOKED")
	})
}

// keepers are the ways in which a Witness does not keep what it is told.
var keepers = map[string]struct {
	keep func(context.Context, string, guard.Decision) error
	word string
}{
	"an error":    {func(context.Context, string, guard.Decision) error { return errDisk }, "disk"},
	"a panic":     {func(context.Context, string, guard.Decision) error { panic(secret) }, "panicked: string"},
	"a nil error": {func(context.Context, string, guard.Decision) error { return (*guard.DeniedError)(nil) }, "nil *guard.DeniedError"},
}

var errDisk = errors.New("the disk is full")

// What could not be kept changes no decision: an ALLOW says so in its reason, a denial in its error.
func TestWitness_WhatIsNotKeptChangesNoDecision(t *testing.T) {
	for name, c := range keepers {
		t.Run(name, func(t *testing.T) {
			w, n := newNotebook()
			n.keep = c.keep
			for reason, want := range map[string]string{"": "the offline memory was not written: ", "fine": "fine; the offline memory was not written: "} {
				w.online.answer(guard.Decision{Allowed: true, Code: guard.CodeAllow, Reason: reason, RequestID: "r"}, nil)
				d, err := w.Validate(t.Context(), "dev")
				if !d.Allowed || d.Code != guard.CodeAllow || err != nil || d.RequestID != "r" ||
					!strings.HasPrefix(d.Reason, want) || !strings.Contains(d.Reason, c.word) || strings.Contains(d.Reason, secret) {
					t.Errorf("got %+v, %v; want an ALLOW that says that it was not kept", d, err)
				}
			}
			for _, beside := range []error{nil, errCable} {
				denied := guard.Decision{Code: guard.CodeDeviceRevoked, Reason: "stolen", RequestID: "r"}
				w.online.answer(denied, beside)
				d, err := w.Validate(t.Context(), "dev")
				if diff := cmp.Diff(denied, d); diff != "" {
					t.Errorf("the denial has changed:\n%s", diff)
				}
				if err == nil || !strings.Contains(err.Error(), c.word) || strings.Contains(err.Error(), secret) || beside != nil && !errors.Is(err, beside) {
					t.Errorf("the error beside is %v, want %q in it, and %v", err, c.word, beside)
				}
			}
			w.unplug()
			w.wantNeither(t, "dev", "DEVICE_REVOKED") // in this process it holds all the same
			w.online.allow()
			_, _ = w.Validate(t.Context(), "dev")
			w.unplug()
			w.wantFile(t, "dev")
		})
	}
}

// In a Guard a denial that was not kept is still the authority's denial, with the error in it.
func TestWitness_S2_ADenialNotKeptStands(t *testing.T) {
	w, n := newNotebook()
	n.keep = keepers["an error"].keep
	w.online.deny(guard.CodeOrgDisabled)
	err := newGuard(t, w).Run(t.Context(), "dev", mustNotRun(t))
	wantDenied(t, err, "dev", guard.CodeOrgDisabled, false)
	if !errors.Is(err, errDisk) {
		t.Errorf("got %v, want %v in it", err, errDisk)
	}
}
