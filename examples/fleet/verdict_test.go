package main

import (
	"bytes"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

// shown is what a fleet of a thousand shows where all is well.
func shown() *result {
	s := usual()
	s.devices = nil
	r := &result{settings: s, size: 1000, zero: 2, started: second, held: 30 << 10, flight: 2000}
	for i := range 70 {
		n := 100
		if down := i - r.zero; down >= 20 && down < 35 {
			n = 0
		}
		r.arrived, r.sent, r.late = append(r.arrived, n), append(r.sent, 100), append(r.late, time.Millisecond)
		r.samples = append(r.samples, sample{time.Duration(i) * second / 10, 50 << 20, 2100})
	}
	r.normal, r.restored = window{2, 22}, window{37, 57}
	r.steady, r.after = r.normal.measure(r.arrived, r.late), r.restored.measure(r.arrived, r.late)
	for i := range 2000 {
		r.lost, r.revoked = append(r.lost, time.Duration(i)*5*time.Millisecond), append(r.revoked, time.Duration(i)*5*time.Millisecond)
	}
	return r
}

// Each figure is judged at its limit: a little below it all is seen, a little above it this one thing is not.
func TestEachFigureIsJudgedAtItsLimit(t *testing.T) {
	for name, tc := range map[string]struct {
		below, above func(r *result)
		says         string
	}{
		"load, low": {
			func(r *result) { r.steady.mean = 90.1 }, func(r *result) { r.steady.mean = 89.9 },
			"load: 89.9",
		},
		"load, high": {
			func(r *result) { r.steady.mean = 109.9 }, func(r *result) { r.steady.mean = 110.1 },
			"load: 110.1",
		},
		"load, on a machine that stood still": { // for half a second of twenty: two and a half per cent more
			func(r *result) { r.steady.late, r.steady.mean = 2*second, 87.6 }, func(r *result) { r.steady.late, r.steady.mean = 2*second, 87.4 },
			"load: 87.4",
		},
		"peak": { // a thousand devices are granted 1.4: chance
			func(r *result) { r.steady.peak = 140 }, func(r *result) { r.steady.peak = 141 },
			"peak in normal running: 141",
		},
		"peak, on a machine that stood still": {
			func(r *result) { r.steady.late, r.steady.peak = second/5, 160 }, func(r *result) { r.steady.late, r.steady.peak = second/5, 161 },
			"peak in normal running: 161",
		},
		"peak, on a machine that stood still for too long": {
			func(r *result) { r.steady.late, r.steady.peak = 2*second, 190 }, func(r *result) { r.steady.late, r.steady.peak = 2*second, 191 },
			"peak in normal running: 191",
		},
		"peak after the outage": {
			func(r *result) { r.after.peak = 140 }, func(r *result) { r.after.peak, r.after.mean = 141, 141 },
			"peak after the outage: 141",
		},
		"the last stop of the outage": {
			func(r *result) { r.lost[1999] = 13*second + grace }, func(r *result) { r.lost[1999] = 13*second + grace + 2*time.Millisecond },
			"outage: 2,000 runs stopped, the last after 13.252s",
		},
		"those who worked on": {
			func(r *result) { r.worked = 20 }, func(r *result) { r.worked = 21 },
			"outage: 2,000 runs stopped",
		},
		"runs in flight": {
			func(r *result) { r.flight = 1980 }, func(r *result) { r.flight = 1979 },
			"before the revocation: 1,979 of 2,000 runs in flight",
		},
		"the last stop": {
			func(r *result) { r.revoked[1999] = 13*second + grace }, func(r *result) { r.revoked[1999] = 13*second + grace + 2*time.Millisecond },
			"revoke all: 2,000 runs stopped, the last after 13.252s",
		},
		"one that did not stop": {
			func(*result) {}, func(r *result) { r.left = 1 },
			"1 left",
		},
		"one that nobody has seen stop": {
			func(*result) {}, func(r *result) { r.revoked = r.revoked[1:] },
			"revoke all: 1,999 runs stopped",
		},
		"one that started": {
			func(*result) {}, func(r *result) { r.restarted = 1 },
			"after the revocation: 1 runs started",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := shown()
			tc.below(r)
			if err := report(io.Discard, r); err != nil {
				t.Errorf("below the limit: %v", err)
			}
			r = shown()
			tc.above(r)
			var out bytes.Buffer
			err := report(&out, r)
			if err == nil || !strings.Contains(err.Error(), tc.says) || strings.Count(err.Error(), "not seen") != 1 {
				t.Errorf("above it: %v, want only %q", err, tc.says)
			}
			if strings.Count(out.String(), "NOT SEEN") != 1 {
				t.Errorf("not marked in:\n%s", &out)
			}
		})
	}
}

// A large fleet is granted no chance, and with retries the peak behind an outage is not judged.
func TestPeakLimit(t *testing.T) {
	for _, tc := range []struct {
		mean float64
		late time.Duration
		want float64
	}{{1000, 0, 1300}, {100, 0, 140}, {10, 0, 10 + 4*math.Sqrt(10)}, {1000, second / 10, 1400}, {1000, 5 * second, 1800}} {
		if got := peakLimit(tc.mean, tc.late); math.Abs(got-tc.want) > 1e-9 {
			t.Errorf("%v a second, late by %v: %v, want %v", tc.mean, tc.late, got, tc.want)
		}
	}
	r := shown()
	r.retries, r.after.peak, r.lost, r.worked = true, 700, nil, 2000
	var out bytes.Buffer
	if err := report(&out, r); err != nil || !strings.Contains(out.String(), "with retries: 700 requests a second, 7.00 times") {
		t.Errorf("got %v:\n%s", err, &out)
	}
}

// Where the machine stood still and something was not seen, the fleet is played again, twice at most; not where all was
// seen, and not because the guards are bad.
func TestFleetIsPlayedAgainWhereTheMachineStoodStill(t *testing.T) {
	good, bad, still, endured := shown(), shown(), shown(), shown()
	bad.left, still.left = 1, 1
	still.late[40], endured.late[40] = 2*second, 2*second
	for name, tc := range map[string]struct {
		plays  []*result
		played int
		unseen bool
	}{
		"all is well":                {[]*result{good}, 1, false},
		"the guards are bad":         {[]*result{bad, good}, 1, true},
		"it stood still":             {[]*result{still, good}, 2, false},
		"it stood still, then bad":   {[]*result{still, bad, good}, 2, true},
		"it stood still and is well": {[]*result{endured, bad}, 1, false},
		"it never does anything":     {[]*result{still, still, still, good}, 3, true},
	} {
		played := 0
		var out bytes.Buffer
		r, unseen, err := judged(&out, func() (*result, error) {
			played++
			return tc.plays[played-1], nil
		})
		if err != nil || played != tc.played || r != tc.plays[played-1] || (unseen != nil) != tc.unseen {
			t.Errorf("%s: played %d times, unseen %v, %v", name, played, unseen, err)
		}
		if n := strings.Count(out.String(), "this machine stood still for 2s: once more"); n != played-1 {
			t.Errorf("%s: said %d times that it is played again", name, n)
		}
	}
}

func TestWindows(t *testing.T) {
	for _, tc := range []struct {
		in       window
		interval time.Duration
		keepEnd  bool
		want     window
	}{
		{window{2, 22}, 10 * second, true, window{2, 22}},
		{window{2, 27}, 10 * second, true, window{7, 27}},
		{window{2, 27}, 10 * second, false, window{2, 22}},
		{window{0, 5}, 2 * second, true, window{1, 5}},
		{window{4, 4}, second, true, window{4, 4}},
	} {
		if got := tc.in.trim(tc.interval, tc.keepEnd); got != tc.want {
			t.Errorf("%v by %v: %v, want %v", tc.in, tc.interval, got, tc.want)
		}
	}
	late := []time.Duration{9, 1, 3, 2, 9}
	if got := (window{1, 4}).measure([]int{99, 10, 30, 20, 99}, late); got != (load{20, 30, 3}) {
		t.Errorf("got %+v", got)
	}
}

func TestPercentile(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	for share, want := range map[float64]time.Duration{0.001: 1, 0.5: 50, 0.505: 51, 0.99: 99, 1: 100} {
		if got := percentile(hundred, share); got != want {
			t.Errorf("%v of a hundred: %d, want %d", share, got, want)
		}
	}
	if one, none := percentile(hundred[:1], 0.5), percentile(nil, 1); one != 1 || none != 0 {
		t.Errorf("of one %d, of none %d", one, none)
	}
}

// Whoever is late is so in each of the seconds that he missed, and goes on with the tick that comes.
func TestGaugeNotesHowLateItIs(t *testing.T) {
	g := gauge{begun: time.Now()}
	at := func(d time.Duration) time.Time { return g.begun.Add(d) }
	g.note(at(0), at(time.Millisecond))
	g.note(at(990*time.Millisecond), at(2100*time.Millisecond))
	g.note(at(2100*time.Millisecond), at(2105*time.Millisecond))
	samples, late := g.taken()
	missed := 1110 * time.Millisecond
	if len(samples) != 3 || !slices.Equal(late, []time.Duration{missed, missed, missed}) {
		t.Errorf("%d samples, late by %v", len(samples), late)
	}
	if next := g.after(time.Now().Add(-105 * time.Millisecond)); time.Until(next) > tick {
		t.Errorf("goes on %v from now", time.Until(next))
	}
}
