package licentric

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// bubbleStart is when every synctest bubble begins.
var bubbleStart = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// offset makes v's wall clock differ from the bubble's by *by.
func offset(v *offline, by *time.Duration) {
	v.clock.wall = func(at time.Time) time.Time { return at.Add(*by) }
}

// A clock set back does not revive a file: it stays over, and goes on ageing at the monotonic pace.
func TestClockSetBackRevivesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, by, end := newOffline(t, newFile().signed(t)), time.Duration(0), bubbleStart.Add(twoWeeks)
		offset(v, &by)
		wantAllow(t, v, end)
		time.Sleep(13 * 24 * time.Hour)
		wantAllow(t, v, end)
		by = -12 * 24 * time.Hour // the wall clock says that thirteen days are left
		wantAllow(t, v, end.Add(by))
		time.Sleep(24*time.Hour - 1)
		wantAllow(t, v, end.Add(by))
		time.Sleep(1)
		wantFileError(t, unaskedWith[*FileError](t, v, "expired"), FileExpired)
		for _, by = range []time.Duration{-time.Hour, -1, -10 * 365 * 24 * time.Hour, 0, -twoWeeks} {
			wantFileError(t, unaskedWith[*FileError](t, v, "expired"), FileExpired)
		}
		by = -13 * 24 * time.Hour // whoever looks at the clock must be told why
		wantFileError(t, unaskedWith[*FileError](t, v, "it has ended by the latest time that was seen, 312h0m0s ahead of this clock"), FileExpired)
	})
}

// S10: what an ALLOW is worth when the wall clock is behind. The guard counts until ExpiresAt by what
// the wall clock shows to be left, so just that must be what is left of the file.
func TestS10_AnAllowIsNeverLongerThanTheFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, by := newOffline(t, newFile().signed(t)), time.Duration(0)
		offset(v, &by)
		wantAllow(t, v, bubbleStart.Add(twoWeeks))
		for range 300 { // an hour back each hour, again and again
			time.Sleep(time.Hour)
			by -= time.Hour
			d, err := v.Validate(t.Context(), ownMachine)
			if err != nil || !d.Allowed {
				t.Fatalf("%+v, %v", d, err)
			}
			left := d.ExpiresAt.Sub(time.Now().Add(by))
			if want := time.Until(bubbleStart.Add(twoWeeks)); left != want {
				t.Fatalf("the wall clock shows %v to be left, it is %v", left, want)
			}
		}
		time.Sleep(36 * time.Hour)
		wantUnasked[*FileError](t, v, "expired")
	})
}

// A clock that was ahead once was right for all that is known: time goes on from there.
func TestClockThatWasAheadOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, by, end := newOffline(t, newFile().signed(t)), 24*time.Hour, bubbleStart.Add(twoWeeks)
		offset(v, &by)
		wantAllow(t, v, end)
		by = 0
		wantAllow(t, v, end.Add(-24*time.Hour))
		time.Sleep(twoWeeks - 24*time.Hour)
		wantUnasked[*FileError](t, v, "expired")
	})
}

// The licence's own end is seen by the same clock.
func TestClockSetBackRevivesNoLicence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := newFile().with("data", object{"expiresAt": wireTime(bubbleStart.Add(time.Hour))})
		v, by := newOffline(t, file.signed(t)), time.Duration(0)
		offset(v, &by)
		time.Sleep(time.Hour)
		wantDenial(t, v, ownMachine, guard.CodeEntitlementExpired, "the licence has expired")
		by = -time.Hour
		wantDenial(t, v, ownMachine, guard.CodeEntitlementExpired, "the licence has expired")
	})
}

// A machine that was suspended has a wall clock that leapt and a monotonic one that stood.
func TestClockAfterASuspend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, by := newOffline(t, newFile().signed(t)), time.Duration(0)
		offset(v, &by)
		wantAllow(t, v, bubbleStart.Add(twoWeeks))
		by = twoWeeks - 1
		wantAllow(t, v, bubbleStart.Add(twoWeeks))
		by = twoWeeks
		wantUnasked[*FileError](t, v, "expired")
	})
}

// Questions side by side see one time that only goes on.
func TestClockSideBySide(t *testing.T) {
	c := &clock{}
	start, ahead := time.Now(), time.Hour
	c.learn(start.Add(ahead))
	defer func() {
		if _, now := c.now(); time.Until(now) > ahead {
			t.Errorf("time ran ahead of itself by %v", time.Until(now)-ahead)
		}
	}()
	t.Run("together", func(t *testing.T) {
		for range 4 {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				var last time.Time
				for range 1000 {
					wall, now := c.learn(start.Add(ahead))
					if now.Before(last) || now.Before(wall) {
						t.Fatalf("%v after %v, the wall clock shows %v", now, last, wall)
					}
					last = now
				}
			})
		}
	})
}

// What another process has seen counts from the moment at which it is learnt, and is not added to
// the time since a look before.
func TestClockLearns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &clock{}
		c.now()
		time.Sleep(time.Hour)
		if wall, now := c.learn(bubbleStart.Add(time.Hour)); !now.Equal(wall) {
			t.Errorf("%v at %v", now, wall)
		}
		if wall, now := c.learn(bubbleStart.Add(90 * time.Minute)); now.Sub(wall) != 30*time.Minute || behind(wall, now) != 30*time.Minute {
			t.Errorf("%v at %v", now, wall)
		}
		time.Sleep(time.Minute)
		if wall, now := c.learn(bubbleStart); now.Sub(wall) != 30*time.Minute {
			t.Errorf("%v at %v", now, wall)
		}
	})
}
