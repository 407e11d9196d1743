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
	devices := g.registry.all()
	for _, d := range devices {
		d.close()
	}
	for _, d := range devices {
		d.awaitTold() // somebody else may have begun
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
// device looks at closed under the device's lock, and both Close and Shutdown go through all
// devices after this.
func (g *Guard) stopStarting() {
	g.closeOnce.Do(func() {
		g.closed.Store(true)
		close(g.closing)
	})
}

// close stops what is in flight and forgets what was held for reuse.
func (d *device) close() {
	now := d.lock()
	d.stop(&closedError{}, now)
	d.unlock(now)
}

// drain counts the devices that Shutdown waits for. Nothing starts any more when it is made, so
// each has to say once that its last run has returned.
type drain struct {
	left atomic.Int64
	done chan struct{} // closed when none is left
}

func (d *drain) empty() {
	if d.left.Add(-1) == 0 {
		close(d.done)
	}
}

// drained returns a channel that is closed when no run is in flight.
func (g *Guard) drained() <-chan struct{} {
	g.drainOnce.Do(func() {
		g.drain.done = make(chan struct{})
		g.drain.left.Store(1)
		for _, d := range g.registry.all() {
			now := d.lock()
			if d.running() || d.leaving.Load() > 0 {
				g.drain.left.Add(1)
				d.draining = true
			}
			d.unlock(now)
		}
		g.drain.empty()
	})
	return g.drain.done
}
