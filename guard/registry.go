package guard

import "sync"

// registry finds a device by its id.
type registry struct {
	mu      sync.RWMutex // a leaf: nothing else is locked under it
	devices map[string]*device
}

// get finds the device, or makes it. What it returns may have been forgotten since.
func (r *registry) get(g *Guard, id string) *device {
	r.mu.RLock()
	d := r.devices[id]
	r.mu.RUnlock()
	if d != nil {
		return d
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if d := r.devices[id]; d != nil {
		return d
	}
	d = &device{guard: g, id: id, hintedAt: -g.interval, wakeAt: never}
	if r.devices == nil {
		r.devices = map[string]*device{}
	}
	r.devices[id] = d
	return d
}

// one returns the device with that id, or nothing.
func (r *registry) one(id string) []*device {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if d := r.devices[id]; d != nil {
		return []*device{d}
	}
	return nil
}

func (r *registry) remove(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.devices, id)
}

// all returns the devices that are there now.
func (r *registry) all() []*device {
	r.mu.RLock()
	defer r.mu.RUnlock()
	ds := make([]*device, 0, len(r.devices))
	for _, d := range r.devices {
		ds = append(ds, d)
	}
	return ds
}
