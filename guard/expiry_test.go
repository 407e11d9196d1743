package guard_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// until is a well-formed ALLOW that ends at a time.
func until(end time.Time) behaviour {
	return answers(guard.Decision{Allowed: true, Code: guard.CodeAllow, ExpiresAt: end}, nil)
}

// farEnds are ends that no permission reaches.
var farEnds = map[string]time.Time{
	"beyond the stop line":    time.Date(2000, 1, 1, 1, 0, 0, 0, time.UTC), // a bubble begins at midnight
	"year 9999":               time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC),
	"year 9999, another zone": time.Date(9999, 12, 31, 23, 59, 59, 0, time.FixedZone("", -12*3600)),
	"the last nanosecond":     time.Unix(0, math.MaxInt64),
	"one after it":            time.Unix(math.MaxInt64/int64(time.Second)+1, 0),
}

// pastEnds are ends that are over before anything begins.
var pastEnds = map[string]func() time.Time{
	"now":                func() time.Time { return time.Now() },
	"a nanosecond ago":   func() time.Time { return time.Now().Add(-1) },
	"an hour ago":        func() time.Time { return time.Now().Add(-time.Hour) },
	"1970":               func() time.Time { return time.Unix(0, 0) },
	"before the Romans":  func() time.Time { return time.Date(-9999, 1, 1, 0, 0, 0, 0, time.UTC) },
	"the first second":   func() time.Time { return time.Time{}.Add(time.Second) },
	"the first there is": func() time.Time { return time.Unix(math.MinInt64/int64(time.Second), 0) },
}

// The permission ends where the authority says, to the nanosecond, for that device alone.
func TestS10_ThePermissionEndsAtExpiresAt(t *testing.T) {
	for name, c := range map[string]struct {
		latency, left time.Duration
	}{
		"in five seconds":              {0, 5 * time.Second},
		"the answer takes its time":    {2 * time.Second, 5 * time.Second},
		"in a nanosecond":              {0, 1},
		"just after the answer":        {2 * time.Second, 2*time.Second + 1},
		"just before the stop line":    {0, 13*time.Second - 1},
		"as late as the stop line":     {0, 13 * time.Second},
		"in the middle of an interval": {time.Millisecond, 8765432109},
	} {
		bubble(t, name, func(t *testing.T) {
			a := newAuthority()
			end := time.Now().Add(c.left)
			a.set(after(c.latency, until(end)), "dev") // the watch too finds no other end
			g := newGuard(t, a)
			w, other := watch(t, g, "dev"), launch(t.Context(), g, "other")
			denied := wantDenied(t, w.finish(), "dev", guard.CodeSystemUnavailable, true)
			if !w.ended.Equal(end) {
				t.Errorf("the context ended %v after the end", w.ended.Sub(end))
			}
			if reason := denied.Decision.Reason; !strings.Contains(denied.Error(), reason) || c.left < 13*time.Second && !strings.Contains(reason, "expire") {
				t.Errorf("the reason is %q: %v", reason, denied)
			}
			wantStopped(t, w.ctx, "dev", guard.CodeSystemUnavailable)
			time.Sleep(time.Minute)
			wantRunning(t, other, "another device's ALLOW ran out")
		})
	}
}

// Both sides of the end: a nanosecond before it the permission is live, at it no more, and a
// function that comes back then is denied.
func TestS10_TheEndIsSharp(t *testing.T) {
	const end = 5 * time.Second
	for name, c := range map[string]struct {
		at         time.Duration
		look, live bool
	}{
		"before": {end - 1, true, true}, "at": {end, true, false}, "past": {end + 1, true, false},
		"without a look, before": {end - 1, false, true}, "without a look, at": {end, false, false},
	} {
		bubble(t, name, func(t *testing.T) {
			a := newAuthority()
			a.set(until(time.Now().Add(5 * time.Second)))
			g := newGuard(t, a)
			err := g.Run(t.Context(), "dev", func(ctx context.Context) error {
				time.Sleep(c.at)
				if live := c.live; c.look && (guard.Checkpoint(ctx) == nil) != live {
					t.Errorf("Checkpoint says yes: %v, want %v", !live, live)
				}
				return nil
			})
			if c.live && err != nil {
				t.Errorf("got %v", err)
			} else if !c.live {
				wantDenied(t, err, "dev", guard.CodeSystemUnavailable, true)
			}
		})
	}
}

// An end further off than the stop line lengthens nothing: the stop line stands.
func TestS10_AFarEndMovesNoLine(t *testing.T) {
	for name, end := range farEnds {
		bubble(t, name, func(t *testing.T) {
			a := newAuthority()
			a.set(until(end))
			g := newGuard(t, a, guard.WithMaxRequests(1))
			w := watch(t, g, "dev")
			time.Sleep(20 * time.Minute)
			synctest.Wait()
			wantRunning(t, w.running, "far from the end")
			sent := a.last(t, "dev").sent
			a.stick(t, allows)
			go func() { _, _ = g.Validate(t.Context(), "stuck") }() // takes the only slot
			wantDenied(t, w.finish(), "dev", guard.CodeSystemUnavailable, true)
			if after := w.ended.Sub(sent); after != 13*time.Second {
				t.Errorf("stopped %v after the last ALLOW's request, want 13s", after)
			}
		})
	}
}

// An end as far off as the longest settings allow does not overflow either.
func TestS10_AFarEndUnderTheLongestSettings(t *testing.T) {
	const day = 24 * time.Hour
	for _, name := range []string{"year 9999", "the last nanosecond"} {
		bubble(t, name, func(t *testing.T) {
			a := newAuthority()
			a.set(inTurn(until(farEnds[name]), hangs))
			g := newGuard(t, a, guard.WithInterval(day), guard.WithTimeout(day), retries(day, day))
			w := watch(t, g, "dev")
			wantDenied(t, w.finish(), "dev", guard.CodeSystemUnavailable, true)
			if lived := w.ended.Sub(a.asked()[0].sent); lived < day || lived > 3*day {
				t.Errorf("lived %v, want between one and three days", lived)
			}
		})
	}
}

// An ALLOW that is over when it comes allows nothing, whoever asked.
func TestS10_AnEndInThePastIsNoPermission(t *testing.T) {
	for name, end := range pastEnds {
		bubble(t, name, func(t *testing.T) {
			a := newAuthority()
			a.set(until(end()), "dev")
			g := newGuard(t, a, guard.WithReuse(10*time.Second))
			wantDenied(t, g.Run(t.Context(), "dev", mustNotRun(t)), "dev", guard.CodeSystemUnavailable, false)
			d, err := g.Validate(t.Context(), "dev")
			wantDenied(t, err, "dev", guard.CodeSystemUnavailable, false)
			if d.Allowed || d.Code != guard.CodeSystemUnavailable {
				t.Errorf("Validate says %+v", d)
			}
			// It is «could not ask»: a start's stops nobody else, the watch's does.
			a.allow("dev")
			r, other := launch(t.Context(), g, "dev"), launch(t.Context(), g, "other")
			synctest.Wait()
			a.set(until(end()), "dev")
			if _, err := g.Validate(t.Context(), "dev"); !errors.Is(err, guard.ErrUnavailable) {
				t.Errorf("Validate: %v", err)
			}
			synctest.Wait()
			wantRunning(t, r, "Validate got an ALLOW that was over")
			wantDenied(t, r.finish(), "dev", guard.CodeSystemUnavailable, true)
			time.Sleep(time.Minute)
			wantRunning(t, other, "another device's ALLOW was over")
		})
	}
}

// A newer ALLOW moves the end, in either direction, for every run in flight.
func TestS10_ANewerAllowMovesTheEnd(t *testing.T) {
	const s, bound = time.Second, 24*time.Hour + 3*time.Second
	for name, c := range map[string]struct {
		first, second time.Duration // 0: no end is named
		want          time.Duration
	}{
		"later":              {5 * s, 9 * s, 9 * s},
		"earlier":            {9 * s, 5 * s, 5 * s},
		"named where not":    {0, 5 * s, 5 * s},
		"no longer named":    {5 * s, 0, 2*s + bound},
		"beyond the line":    {5 * s, 48 * time.Hour, 2*s + bound},
		"over when it comes": {9 * s, s, 9 * s}, // it is no permission, and takes none away
	} {
		bubble(t, name, func(t *testing.T) {
			began, a := time.Now(), newAuthority()
			end := func(d time.Duration) behaviour {
				if d == 0 {
					return allows
				}
				return until(began.Add(d))
			}
			a.set(end(c.first))
			g := newGuard(t, a, guard.WithInterval(24*time.Hour), guard.WithMaxRequests(1))
			runs := []*watched{watch(t, g, "dev"), watch(t, g, "dev")}
			time.Sleep(2 * s)
			a.set(end(c.second))
			_, _ = g.Validate(t.Context(), "dev")
			a.stick(t, allows)
			go func() { _, _ = g.Validate(t.Context(), "stuck") }() // no more requests
			for _, r := range runs {
				wantDenied(t, r.finish(), "dev", guard.CodeSystemUnavailable, true)
				if ended := r.ended.Sub(began); ended != c.want {
					t.Errorf("stopped after %v, want %v", ended, c.want)
				}
			}
		})
	}
}
