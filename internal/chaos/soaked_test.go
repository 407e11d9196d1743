package chaos_test

import (
	"sync"
	"time"
)

// soaked is one device.
type soaked struct {
	id string

	mu     sync.Mutex
	denied time.Time // since then for certain; zero: it is allowed
	rang   time.Time // when a bare timer for the bound after that went off
}

// deniedSince tells whether the device has been denied all the time since an instant.
func (d *soaked) deniedSince(from time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.denied.IsZero() && d.denied.Before(from)
}

// set notes that the device is denied since then, or with the zero time that it is allowed.
func (d *soaked) set(denied time.Time, bound time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.denied, d.rang = denied, time.Time{}
	if denied.IsZero() {
		return
	}
	time.AfterFunc(time.Until(denied.Add(bound)), func() {
		now := time.Now()
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.denied.Equal(denied) {
			d.rang = now
		}
	})
}

// late is how long the bound from the device's denial has passed, and how late a bare timer for it was.
func (d *soaked) late(now time.Time, bound time.Duration) (late, timer time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.denied.IsZero() {
		return 0, 0
	}
	line := d.denied.Add(bound)
	if d.rang.IsZero() {
		return now.Sub(line), max(0, now.Sub(line)) // it has not gone off yet
	}
	return now.Sub(line), d.rang.Sub(line)
}
