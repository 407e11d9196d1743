package chaos_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/authority"
	"github.com/execguard/execguard/internal/chaos"
)

// recorded is a guard whose authority says what the test wants, under a recorder.
type recorded struct {
	*chaos.Runner

	recorder *chaos.Recorder
	says     atomic.Pointer[guard.Decision]
}

// say has the authority answer that from now on.
func (r *recorded) say(d guard.Decision) { r.says.Store(&d) }

func newRecorded(t *testing.T) *recorded {
	t.Helper()
	machine := chaos.NewPulse()
	t.Cleanup(machine.Stop)
	r := &recorded{recorder: chaos.NewRecorder(machine)}
	r.say(guard.Decision{Allowed: true, Code: guard.CodeAllow, RequestID: "r"})
	terms := chaos.Terms{Interval: time.Second, Timeout: time.Second}
	v := r.recorder.Validator("g", terms, guard.ValidatorFunc(func(ctx context.Context, _ string) (guard.Decision, error) {
		return *r.says.Load(), pause(ctx, 10*ms)
	}))
	g, err := guard.New(v, guard.WithInterval(terms.Interval), guard.WithTimeout(terms.Timeout))
	must(t, err)
	t.Cleanup(func() { g.Close() })
	r.Runner = r.recorder.Runner("lane", "g", g, true)
	return r
}

// bubble runs a test on fake time.
func bubble(test func(t *testing.T)) func(t *testing.T) {
	return func(t *testing.T) { synctest.Test(t, test) }
}

func TestRecorder(t *testing.T) {
	t.Run("a run that ends by itself", bubble(func(t *testing.T) {
		r, began := newRecorded(t), time.Now()
		_ = r.Run(t.Context(), "d", func(context.Context) error { time.Sleep(20 * ms); return errBroken })
		h := r.recorder.History(tolerance)
		w, c := h.Runs[0], h.Calls[0]
		if w.Called != began || w.Began != began.Add(10*ms) || w.Left != began.Add(30*ms) || w.Back != began.Add(30*ms) || !w.Told.IsZero() {
			t.Errorf("%+v", w)
		}
		if w.RequestID != "r" || w.Lane != "lane" || w.Guard != "g" || w.Device != "d" || !w.Alone || !strings.Contains(w.Result.Text, errBroken.Error()) {
			t.Errorf("%+v", w)
		}
		if c.Sent != began || c.Returned != began.Add(10*ms) || c.Deadline != began.Add(time.Second) || c.Decision != *r.says.Load() || c.Failed || c.GivenUp {
			t.Errorf("%+v", c)
		}
	}))
	t.Run("a run that is stopped", bubble(func(t *testing.T) {
		r := newRecorded(t)
		_ = r.Run(t.Context(), "d", func(ctx context.Context) error {
			if idle := r.recorder.Idle([]string{"lane", "x"}, time.Now()); len(idle) != 1 || idle[0] != "x" {
				t.Errorf("idle are %v", idle)
			}
			r.say(guard.Decision{Code: guard.CodeDeviceRevoked})
			<-ctx.Done()
			time.Sleep(20 * ms)
			return nil
		})
		w := r.recorder.History(tolerance).Runs[0]
		if w.Left.Sub(w.Told) != 20*ms || w.Own || !w.Cause.Denied || !w.Cause.InFlight || !w.Cause.Canceled || w.Result.Canceled || w.Result.Code != guard.CodeDeviceRevoked {
			t.Errorf("%+v", w)
		}
		if idle := r.recorder.Idle([]string{"lane"}, w.Began); len(idle) != 1 {
			t.Errorf("idle are %v", idle)
		}
		if idle := r.recorder.Idle([]string{"lane"}, w.Called); len(idle) != 0 {
			t.Errorf("idle are %v", idle)
		}
	}))
	t.Run("a caller that leaves", bubble(func(t *testing.T) {
		r := newRecorded(t)
		ctx, cancel := context.WithTimeout(t.Context(), 50*ms)
		defer cancel()
		_ = r.Run(ctx, "d", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		w := r.recorder.History(tolerance).Runs[0]
		if !w.Own || w.Cause.Denied || w.Told.Sub(w.Called) != 50*ms || w.Result.Denied {
			t.Errorf("%+v", w)
		}
	}))
	t.Run("a run that is refused", bubble(func(t *testing.T) {
		r := newRecorded(t)
		r.say(guard.Decision{Code: guard.CodeOrgDisabled})
		_ = r.Run(t.Context(), "d", nil)
		_ = r.Run(t.Context(), "d", func(context.Context) error { return nil })
		w := r.recorder.History(tolerance).Runs[1]
		if !w.Began.IsZero() || w.Back.IsZero() || !w.Result.Denied || w.Result.InFlight {
			t.Errorf("%+v", w)
		}
	}))
	t.Run("the stretches of a Keep", bubble(func(t *testing.T) {
		r, n := newRecorded(t), 0
		_ = r.Keep(t.Context(), "d", func(ctx context.Context) error {
			if n++; n == 2 {
				return nil
			}
			r.say(guard.Decision{Code: guard.CodeDeviceRevoked})
			<-ctx.Done()
			r.say(guard.Decision{Allowed: true, Code: guard.CodeAllow, RequestID: "r2"})
			return nil
		})
		h := r.recorder.History(tolerance)
		if len(h.Runs) != 2 || !h.Runs[0].Kept || h.Runs[0].Again || !h.Runs[1].Again || h.Runs[1].Called != h.Runs[0].Told || !h.Runs[0].Cause.Denied || h.Runs[1].RequestID != "r2" {
			t.Errorf("%+v", h.Runs)
		}
	}))
	t.Run("panics", bubble(func(t *testing.T) {
		r := newRecorded(t)
		func() {
			defer func() { _ = recover() }()
			_ = r.Run(t.Context(), "d", func(context.Context) error { panic("work") })
		}()
		w := r.recorder.History(tolerance).Runs[0]
		if w.Left.IsZero() || w.Back.IsZero() {
			t.Errorf("%+v", w)
		}
		v := r.recorder.Validator("p", pace, guard.ValidatorFunc(func(context.Context, string) (guard.Decision, error) { panic("validator") }))
		func() {
			defer func() { _ = recover() }()
			_, _ = v.Validate(t.Context(), "d")
		}()
		r.recorder.Wait()
		h := r.recorder.History(tolerance)
		if c := h.Calls[len(h.Calls)-1]; c.Guard != "p" || !c.Failed || c.Returned.IsZero() || h.Guards["p"] != pace {
			t.Errorf("%+v", c)
		}
	}))
	t.Run("timed out, and unwanted", bubble(func(t *testing.T) {
		r := newRecorded(t)
		v := r.recorder.Validator("s", pace, guard.ValidatorFunc(func(ctx context.Context, _ string) (guard.Decision, error) {
			<-ctx.Done()
			return guard.Decision{}, ctx.Err()
		}))
		g, err := guard.New(v, guard.WithInterval(pace.Interval), guard.WithTimeout(pace.Timeout))
		must(t, err)
		defer g.Close()
		_, _ = g.Validate(t.Context(), "d")
		ctx, cancel := context.WithTimeout(t.Context(), 10*ms)
		defer cancel()
		_, _ = g.Validate(ctx, "e")
		r.recorder.Wait()
		calls := r.recorder.History(tolerance).Calls
		if !calls[0].GivenUp || !calls[0].TimedOut || !calls[1].GivenUp || calls[1].TimedOut {
			t.Errorf("%+v", calls)
		}
	}))
}

// What the authority has answered is recorded before anything else can be made of it, and changes only where
// something was changed.
func TestRecorderAtTheAuthority(t *testing.T) {
	machine := chaos.NewPulse()
	defer machine.Stop()
	r := chaos.NewRecorder(machine)
	a, err := authority.New()
	must(t, err)
	org, err := a.AddOrganisation(t.Context(), "org_of_the_test", authority.PlanFree)
	must(t, err)
	must(t, r.Change("d", true, func() error { return second(org.Register(t.Context(), "d")) }))
	if err := r.Change("d", false, func() error { return errBroken }); !errors.Is(err, errBroken) {
		t.Errorf("%v", err)
	}
	h := r.Handler(a)
	for _, q := range [][2]string{
		{"devices/validate", `{"deviceId":"d"}`}, {"devices/validate", `{"deviceId":"e"}`}, {"devices/validate", `not JSON`}, {"devices/revoke", `{"deviceId":"d"}`},
	} {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1/"+q[0], strings.NewReader(q[1]))
		req.Header.Set("X-Org-Key", "org_of_the_test")
		answer := httptest.NewRecorder()
		h.ServeHTTP(answer, req)
		if text, _ := io.ReadAll(answer.Body); len(text) == 0 {
			t.Errorf("%v is not answered", q)
		}
	}
	seen := r.History(tolerance)
	if len(seen.Changes) != 1 || !seen.Changes[0].Allowed || seen.Changes[0].To.Before(seen.Changes[0].From) {
		t.Errorf("%+v", seen.Changes)
	}
	if v := seen.Verdicts; len(v) != 2 || v[0].Device != "d" || !v[0].Allowed || v[0].RequestID == "" || v[1].Device != "e" || v[1].Allowed {
		t.Errorf("%+v", v)
	}
}
