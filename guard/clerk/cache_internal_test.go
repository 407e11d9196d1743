package clerk

import (
	"testing"
	"time"
)

// S6, S10: what is remembered ends on whichever clock says so first, at the stated time and at the
// token's end. A bubble cannot step its wall clock, so that the clocks are stepped from inside.
func TestRememberedEndsOnBothClocks(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, c := range map[string]struct {
		end        time.Duration // of the token, after it was asked about; 0: none
		mono, wall time.Duration // that have passed since
		there      bool
	}{
		"at once":                              {0, 0, 0, true},
		"until the stated time":                {0, time.Minute - 1, time.Minute - 1, true},
		"not longer":                           {0, time.Minute, time.Minute, false},
		"suspended, the wall clock alone":      {0, time.Second, time.Minute, false},
		"set back, the monotonic clock alone":  {0, time.Minute, -time.Hour, false},
		"until the token's end":                {time.Second, time.Second - 1, time.Second - 1, true},
		"not beyond the token's end":           {time.Second, time.Second, time.Second, false},
		"its end by the wall clock alone":      {time.Second, 1, time.Second, false},
		"its end by the monotonic clock alone": {time.Second, time.Second, -time.Hour, false},
		"a token that ends later":              {time.Hour, time.Minute - 1, time.Minute - 1, true},
		"a token that ends later, not longer":  {time.Hour, time.Minute, time.Minute, false},
	} {
		cache := newTokenCache(time.Minute, 1)
		now := clocks{mono: time.Hour, wall: start}
		cache.now = func() clocks { return now }
		token := Token{ID: "mt_a", Subject: "mch_a"}
		if c.end != 0 {
			token.ExpiresAt = start.Add(c.end)
		}
		q := cache.begin("token")
		cache.put(q, token)
		cache.end(q)
		now = clocks{mono: time.Hour + c.mono, wall: start.Add(c.wall)}
		if id, ok := cache.find("token"); ok != c.there || ok && id != "mch_a" {
			t.Errorf("%s: %q, %t", name, id, ok)
		}
	}
}

// With the clocks as they are: neither is forgotten when they are read.
func TestBothClocks(t *testing.T) {
	before := time.Now()
	clock := bothClocks()
	got := clock()
	after := time.Now()
	if got.mono < 0 || got.mono > after.Sub(before) || got.wall.Before(before.Round(0)) || got.wall.After(after.Round(0)) {
		t.Errorf("%+v between %v and %v", got, before, after)
	}
}
