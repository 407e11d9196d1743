package guard_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// A Witness that is slow gets half of the time left and at most a second, and never less than a
// tenth; whoever waits for his turn that long says that the answer was not kept.
func TestWitness_HasLittleTime(t *testing.T) {
	for name, c := range map[string]struct{ left, patience time.Duration }{
		"no deadline": {0, time.Second},
		"plenty":      {time.Hour, time.Second},
		"some":        {time.Second, 500 * time.Millisecond},
		"hardly any":  {20 * time.Millisecond, 100 * time.Millisecond},
	} {
		bubble(t, name, func(t *testing.T) {
			w, n := newNotebook()
			n.keep = func(ctx context.Context, _ string, _ guard.Decision) error { <-ctx.Done(); return ctx.Err() }
			ctx := t.Context()
			if c.left > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, c.left)
				defer cancel()
			}
			w.online.deny(guard.CodeDeviceRevoked)
			began := time.Now()
			if d, err := w.Validate(ctx, "dev"); d.Code != guard.CodeDeviceRevoked || err == nil || time.Since(began) != c.patience {
				t.Errorf("got %+v, %v after %v; want the denial after %v", d, err, time.Since(began), c.patience)
			}
		})
	}
	bubble(t, "the turn never comes", func(t *testing.T) {
		w, n := newNotebook()
		free := make(chan struct{})
		n.keep = func(context.Context, string, guard.Decision) error { <-free; return nil }
		stuck := w.begin(t.Context(), "stuck")
		stuck.answer <- allows
		synctest.Wait()
		w.online.deny(guard.CodeDeviceRevoked)
		if d, err := w.Validate(t.Context(), "dev"); d.Code != guard.CodeDeviceRevoked || err == nil || !strings.Contains(err.Error(), "not written") {
			t.Errorf("got %+v, %v; want the denial, and that it was not kept", d, err)
		}
		w.online.allow()
		if d, err := w.Validate(t.Context(), "dev"); !d.Allowed || err != nil || !strings.Contains(d.Reason, "not written") {
			t.Errorf("got %+v, %v; want the ALLOW, and that it was not kept", d, err)
		}
		close(free)
		<-stuck.done
		n.want(t, "stuck ALLOW")
		w.unplug()
		w.wantFile(t, "dev") // the ALLOW has freed it all the same
	})
}

// A denial that is owed is never told after a younger ALLOW of the same device: it would refuse whom the
// authority has allowed since.
func TestWitness_AnAllowSettlesWhatIsOwed(t *testing.T) {
	bubble(t, "one device", func(t *testing.T) {
		w, n := newNotebook()
		free := make(chan struct{})
		n.keep = func(context.Context, string, guard.Decision) error { <-free; return nil }
		stuck := w.begin(t.Context(), "stuck")
		stuck.answer <- allows
		synctest.Wait()
		w.online.deny(guard.CodeDeviceRevoked)
		if _, err := w.Validate(t.Context(), "dev"); err == nil {
			t.Error("the turn has come")
		}
		failing := true
		n.keep = func(_ context.Context, _ string, d guard.Decision) error {
			if failing && !d.Allowed {
				return errors.New("the disk is full")
			}
			failing = false // from the ALLOW on it works
			return nil
		}
		close(free)
		<-stuck.done // whose turn was used for what is owed, in vain
		w.online.allow()
		if d, err := w.Validate(t.Context(), "dev"); !d.Allowed || err != nil {
			t.Errorf("got %+v, %v; want the ALLOW", d, err)
		}
		n.want(t, "stuck ALLOW", "dev DEVICE_REVOKED", "dev ALLOW")
	})
}

// The values of the question's context reach the Witness: who asks on behalf of a Guard is known.
func TestWitness_SeesTheQuestionsValues(t *testing.T) {
	w, n := newNotebook()
	err := newGuard(t, w).Run(t.Context(), "dev", func(context.Context) error { return nil })
	if err != nil || !guard.Validating(n.ctx) {
		t.Errorf("got %v, and validating %v", err, guard.Validating(n.ctx))
	}
}

// All and Fallback hand on what they are told, to each that wants to know it.
func TestWitness_IsReachedThroughAllAndFallback(t *testing.T) {
	one, two := &notebook{Validator: newAuthority()}, &notebook{Validator: newAuthority()}
	one.keep = keepers["a panic"].keep
	two.keep = keepers["an error"].keep
	online := newAuthority()
	inner := guard.Fallback(newAuthority(), two)
	v := guard.Fallback(online, guard.All(newAuthority(), one, inner, guard.All(newAuthority())))
	online.deny(guard.CodeDeviceRevoked)
	if d, err := v.Validate(t.Context(), "dev"); d.Code != guard.CodeDeviceRevoked || !errors.Is(err, errDisk) || !strings.Contains(err.Error(), "panicked") {
		t.Errorf("got %+v, %v; want both failures beside the denial", d, err)
	}
	one.want(t, "dev DEVICE_REVOKED")
	two.want(t, "dev DEVICE_REVOKED")
}
