package main

import (
	"context"
	"sync"
	"time"

	"github.com/hibiken/asynq"
)

const pageTask = "page"

// pageTime is how long a page takes.
const pageTime = 200 * time.Millisecond

// desk does the work: one page a task. It counts what it is told to do and to stop.
type desk struct {
	mu    sync.Mutex
	begun map[string]int // pages, by device
	live  int            // pages at which it is
	cut   []cutPage      // that the story has not told of yet
	cuts  int
}

type cutPage struct {
	device, page string
	why          error
}

// handle is an asynq.HandlerFunc like any other: it obeys its context.
func (d *desk) handle(ctx context.Context, t *asynq.Task) error {
	device := t.Headers()["device"]
	d.note(func() { d.begun[device]++; d.live++ })
	defer d.note(func() { d.live-- })
	done := time.NewTimer(pageTime)
	defer done.Stop()
	select {
	case <-done.C:
		return nil
	case <-ctx.Done():
		d.note(func() {
			d.cuts++
			d.cut = append(d.cut, cutPage{device, string(t.Payload()), context.Cause(ctx)})
		})
		return ctx.Err()
	}
}

func (d *desk) note(what func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	what()
}

// begunOf is how many pages of a device were begun.
func (d *desk) begunOf(device string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.begun[device]
}

// idle tells whether nothing is being done.
func (d *desk) idle() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.live == 0
}

// until waits until so many pages of a device were begun.
func (d *desk) until(ctx context.Context, device string, pages int) error {
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for d.begunOf(device) < pages {
		select {
		case <-again.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// takeCut returns the pages that were cut since it was last asked.
func (d *desk) takeCut() []cutPage {
	d.mu.Lock()
	defer d.mu.Unlock()
	cut := d.cut
	d.cut = nil
	return cut
}

// cutsSoFar is how many pages were cut.
func (d *desk) cutsSoFar() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cuts
}
