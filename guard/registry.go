package guard

import (
	"hash/maphash"
	"runtime"
	"sync"
)

// registry finds a device by its id. It is cut into stripes, and a stripe's lock is the lock of
// all its devices: so a device is found, and found to be there still, under the lock that its
// run needs anyway, and runs of different devices seldom wait for each other. A lock of each
// device's own would cost a second one on every way, and a state «forgotten meanwhile».
type registry struct {
	seed    maphash.Seed
	stripes []stripe
}

type stripe struct {
	mu      sync.Mutex
	devices map[string]*device
	_       [48]byte // keeps neighbours off one cache line
}

// init makes some stripes for each processor: a guard is small, and there may be many.
func (r *registry) init() {
	n := 4
	for n < 4*runtime.GOMAXPROCS(0) {
		n *= 2
	}
	r.seed, r.stripes = maphash.MakeSeed(), make([]stripe, n)
}

func (r *registry) stripe(id string) *stripe {
	return &r.stripes[maphash.String(r.seed, id)%uint64(len(r.stripes))]
}

// lock finds the device and holds its lock; nil, and it holds none, where there is no such device.
func (r *registry) lock(id string) *device {
	s := r.stripe(id)
	s.mu.Lock()
	d := s.devices[id]
	if d == nil {
		s.mu.Unlock()
	}
	return d
}

// get finds the device, or makes it. The caller holds the stripe's lock.
func (s *stripe) get(g *Guard, id string) *device {
	d := s.devices[id]
	if d == nil {
		d = &device{guard: g, stripe: s, id: id, hintedAt: -g.interval, wakeAt: never}
		d.first.device, d.live = d, &d.first
		if s.devices == nil {
			s.devices = map[string]*device{}
		}
		s.devices[id] = d
	}
	return d
}

// one returns the device with that id, or nothing.
func (r *registry) one(id string) []*device {
	s := r.stripe(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.devices[id]; d != nil {
		return []*device{d}
	}
	return nil
}

// all returns the devices that are there now.
func (r *registry) all() []*device {
	var ds []*device
	for i := range r.stripes {
		s := &r.stripes[i]
		s.mu.Lock()
		for _, d := range s.devices {
			ds = append(ds, d)
		}
		s.mu.Unlock()
	}
	return ds
}
