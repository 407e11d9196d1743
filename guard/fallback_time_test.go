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

// The online authority gets half of the time left, the file the rest; without a deadline there is
// no bound.
func TestFallback_OnlineGetsHalfOfTheTime(t *testing.T) {
	bubble(t, "a deadline", func(t *testing.T) {
		w := newTwin()
		w.online.hang()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began := time.Now()
		d, err := w.Validate(ctx, "dev")
		if !d.Allowed || err != nil || time.Since(began) != 1500*time.Millisecond {
			t.Errorf("got %+v, %v after %v; want the file's ALLOW after 1.5s", d, err, time.Since(began))
		}
		online, offline := w.online.last(t), w.offline.last(t)
		if !online.deadline.Equal(began.Add(1500*time.Millisecond)) || !offline.deadline.Equal(began.Add(3*time.Second)) {
			t.Errorf("the deadlines are %v and %v after the question", online.deadline.Sub(began), offline.deadline.Sub(began))
		}
		if !errors.Is(online.ended, context.DeadlineExceeded) || !strings.Contains(online.ended.Error(), "half") {
			t.Errorf("the online call ended because %v", online.ended)
		}
	})
	bubble(t, "none", func(t *testing.T) {
		w := newTwin()
		w.online.set(after(time.Hour, fails(errCable)))
		w.wantFile(t, "dev")
		if d := w.online.last(t).deadline; !d.IsZero() {
			t.Errorf("the deadline is %v", d)
		}
	})
}

// When the caller's own context is over, nothing allows, the file is not asked, and the error says so.
func TestFallback_S5_ACallerThatLeftGetsNothing(t *testing.T) {
	bubble(t, "before", func(t *testing.T) {
		w := newTwin()
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errCable)
		d, err := w.Validate(ctx, "dev")
		wantCouldNot(t, d, err)
		if !errors.Is(err, errCable) || w.online.count()+w.offline.count() != 0 {
			t.Errorf("got %v after %d questions", err, w.online.count()+w.offline.count())
		}
	})
	for name, online := range map[string]behaviour{"obedient": hangs, "quiet": func(ctx context.Context, _ *asked) (guard.Decision, error) {
		<-ctx.Done()
		return guard.Decision{}, errCable
	}} {
		bubble(t, "while online is asked, "+name, func(t *testing.T) {
			w := newTwin()
			w.online.set(online)
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			d, err := w.Validate(ctx, "dev")
			wantCouldNot(t, d, err)
			if !errors.Is(err, context.Canceled) || w.offline.count() != 0 {
				t.Errorf("got %v, and the file was asked %d times", err, w.offline.count())
			}
		})
	}
	for name, offline := range map[string]behaviour{"obedient": hangs, "deaf, allows": deaf(2*time.Second, allows), "deaf, denies": deaf(2*time.Second, denies(guard.CodeOrgDisabled))} {
		bubble(t, "while the file is asked, "+name, func(t *testing.T) {
			w := newTwin()
			w.unplug()
			w.offline.set(offline)
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(time.Second, func() { cancel(nil) })
			synctest.Wait()
			d, err := w.Validate(ctx, "dev")
			wantCouldNot(t, d, err)
			if !errors.Is(err, context.Canceled) || !errors.Is(err, errCable) {
				t.Errorf("got %v", err)
			}
		})
	}
}
