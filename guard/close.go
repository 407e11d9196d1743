package guard

import (
	"context"
	"sync/atomic"
)

// Close cancels every run in flight, with a cause that matches ErrClosed, and does not wait for
// the functions: that is Shutdown's, which may follow. Callers that wait get ErrClosed. Close
// may be called more than once, always returns nil and does not block.
func (g *Guard) Close() error {
	g.stopStarting()
	g.shut.Store(true)
	for _, d := range g.registry.all() {
		d.close()
	}
	return nil
}

// Shutdown lets the runs in flight come to their end, those of Keeps too, revalidating them as
// before; nothing starts any more, and callers that wait get ErrClosed. It returns nil when the
// last function has returned. When ctx ends first it closes the guard and returns the cause of
// ctx at once.
func (g *Guard) Shutdown(ctx context.Context) error {
	g.stopStarting()
	drained := g.drained()
	defer g.Close()
	select {
	case <-drained:
		return nil
	default: // and only then ctx: an idle guard is shut down, however late it is
	}
	select {
	case <-drained:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// stopStarting makes sure that nothing starts from here on: whoever makes a run known to its
// device looks at closing under the device's lock, and both Close and Shutdown go through all
// devices after this.
func (g *Guard) stopStarting() {
	g.closeOnce.Do(func() { close(g.closing) })
}

func (g *Guard) closed() bool {
	select {
	case <-g.closing:
		return true
	default:
		return false
	}
}

// close stops what is in flight and forgets what was held for reuse.
func (d *device) close() {
	now := d.lock()
	d.stop(&closedError{}, now)
	d.unlock(now)
}

// drained returns a channel that is closed when no run is in flight. Nothing starts any more,
// so each device has to say it once.
func (g *Guard) drained() <-chan struct{} {
	done := make(chan struct{})
	var left atomic.Int64
	left.Store(1)
	empty := func() {
		if left.Add(-1) == 0 {
			close(done)
		}
	}
	for _, d := range g.registry.all() {
		now := d.lock()
		if d.live.n+d.stopped.n > 0 {
			left.Add(1)
			d.drained = append(d.drained, empty)
		}
		d.unlock(now)
	}
	empty()
	return done
}
