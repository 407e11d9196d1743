package main

import (
	"net/http"
	"sync"
	"time"
)

// validatePath is what guards ask for.
const validatePath = "/api/v1/devices/validate"

// meter counts requests by the second since it was made.
type meter struct {
	begun time.Time

	mu   sync.Mutex
	bins []int
}

func (m *meter) add() {
	bin := int(time.Since(m.begun) / second)
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.bins) <= bin {
		m.bins = append(m.bins, 0)
	}
	m.bins[bin]++
}

// until returns the counts of that many seconds.
func (m *meter) until(end int) []int {
	m.mu.Lock()
	defer m.mu.Unlock()
	bins := make([]int, end)
	copy(bins, m.bins)
	return bins
}

// metered counts what is sent, whether anybody answers or not.
type metered struct {
	to   http.RoundTripper
	sent *meter
}

func (m metered) RoundTrip(r *http.Request) (*http.Response, error) {
	m.sent.add()
	return m.to.RoundTrip(r)
}

// window is some seconds in a row: from is the first, to the one behind the last.
type window struct{ from, to int }

// trim makes w some whole intervals long: a device is asked about once in each, so that half of one would show
// chance and not load. It keeps the end of w, or its beginning.
func (w window) trim(interval time.Duration, keepEnd bool) window {
	each := int(interval / second)
	length := (w.to - w.from) / each * each
	if keepEnd {
		return window{w.to - length, w.to}
	}
	return window{w.from, w.from + length}
}

// load is what was counted in a window.
type load struct {
	mean float64 // a second
	peak int     // in one second
	late time.Duration
}

// measure takes the load of a window, and the longest that the machine was late in it.
func (w window) measure(bins []int, late []time.Duration) load {
	var l load
	for i := w.from; i < w.to; i++ {
		l.mean += float64(bins[i]) / float64(w.to-w.from)
		l.peak = max(l.peak, bins[i])
		l.late = max(l.late, late[i])
	}
	return l
}
