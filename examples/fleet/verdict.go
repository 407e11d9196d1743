package main

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// result is what one fleet has shown.
type result struct {
	settings
	size int
	zero int // the second in which normal running begins

	sent    []int // requests by the second, from the first start on
	arrived []int // those that the authority has seen
	samples []sample
	late    []time.Duration

	started time.Duration // how long it took until every run had started
	held    int64         // bytes in use for each device

	normal, restored window // before the outage, and after it
	steady, after    load

	lost   []time.Duration // from the beginning of the outage to each run's stop
	worked int             // runs in flight at its end

	flight    int             // runs in flight when every device was revoked
	revoked   []time.Duration // from that to each run's stop
	left      int             // runs that did not stop
	restarted int             // starts that should not have been
}

// What the guard promises, and what is granted besides.
const (
	tolerance = 0.10 // of the load
	excess    = 1.3  // of the peak over the mean
	few       = 0.01 // the share of runs that a busy machine's timeouts may have cost just then

	// grace is what the way from the authority's answer to the run that sees it may take on a busy machine, which is
	// no part of the bounds.
	grace = 250 * time.Millisecond
	// latest is how late a machine may have been without the figures meaning nothing.
	latest = second / 2
)

// peakLimit is how many requests there may be in one second where there are mean of them on average. A small fleet is
// granted chance: of few devices at random times more may fall into one second, by four standard deviations. A machine
// that stood still is granted what fell due meanwhile.
func peakLimit(mean float64, late time.Duration) float64 {
	return max(excess*mean, mean+4*math.Sqrt(mean)) + mean*min(late, latest).Seconds()
}

// expected is how many requests a second there should be.
func (r *result) expected() float64 { return float64(r.size) / r.interval.Seconds() }

// still is the longest that the machine was late.
func (r *result) still() time.Duration { return slices.Max(r.late[r.zero:]) }

// lateness is as much of that as is granted.
func (r *result) lateness() time.Duration { return min(r.still(), latest) }

// within is how far the load may be off: what fell due while the machine stood still may be missing at the end.
func (r *result) within() float64 {
	return tolerance + min(r.steady.late, latest).Seconds()/float64(r.normal.to-r.normal.from)
}

// finding is one thing that was to be seen.
type finding struct {
	seen bool
	text string
}

func found(seen bool, format string, args ...any) finding {
	return finding{seen, fmt.Sprintf(format, args...)}
}

// findings says what was to be seen, and whether it was.
func (r *result) findings() []finding {
	all := []finding{
		found(math.Abs(r.steady.mean/r.expected()-1) <= r.within(),
			"load: %.1f requests a second, devices / interval is %.1f (here within %.0f %%)",
			r.steady.mean, r.expected(), 100*r.within()),
		r.peak("in normal running", r.steady),
	}
	if r.outage() > 0 {
		all = append(all, r.outageFindings()...)
	}
	most, limit := percentile(r.revoked, 1), r.bound()+grace+r.lateness()
	return append(all,
		found(float64(r.flight) >= (1-few)*float64(r.size*r.runs), "before the revocation: %s of %s runs in flight",
			grouped(r.flight), grouped(r.size*r.runs)),
		found(r.left == 0 && most <= limit && len(r.revoked) >= r.flight,
			"revoke all: %s runs stopped, the last after %v (bound %v, here at most %v), %d left",
			grouped(len(r.revoked)), round(most), r.bound(), round(limit), r.left),
		found(r.restarted == 0, "after the revocation: %d runs started", r.restarted),
	)
}

// outageFindings are those of the outage, and of the time behind it.
func (r *result) outageFindings() []finding {
	most, limit := percentile(r.lost, 1), r.stopBound()+grace+r.lateness()
	few := few * float64(r.size*r.runs)
	gone := r.outage() < r.stopBound() || float64(r.worked) <= few
	if r.retries { // the budget is longer than the outage
		gone = float64(len(r.lost)) <= few && float64(r.worked) >= float64(r.size*r.runs)-few
	}
	all := []finding{
		found(gone && most <= limit, "outage: %s runs stopped, the last after %v (stop bound %v, here at most %v), %s worked on",
			grouped(len(r.lost)), round(most), r.stopBound(), round(limit), grouped(r.worked)),
	}
	if r.retries { // what comes then is the back-off's doing: it is stated, and not judged
		return append(all, found(true, "peak after the outage, with retries: %d requests a second, %.2f times the mean",
			r.after.peak, float64(r.after.peak)/r.steady.mean))
	}
	behind := r.after
	behind.mean = r.steady.mean // normal running is the measure
	return append(all, r.peak("after the outage", behind))
}

func (r *result) peak(when string, l load) finding {
	limit := peakLimit(l.mean, l.late)
	return found(float64(l.peak) <= limit, "peak %s: %d requests a second, %.2f times the mean (here at most %.2f)",
		when, l.peak, float64(l.peak)/l.mean, limit/l.mean)
}

// verdict is nil if everything was seen.
func verdict(all []finding) error {
	var unseen []error
	for _, f := range all {
		if !f.seen {
			unseen = append(unseen, errors.New("not seen: "+f.text))
		}
	}
	return errors.Join(unseen...)
}
